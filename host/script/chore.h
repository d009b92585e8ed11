/* chore.h - a function of a script's state that runs as a task of its own, and is no
 * request: loading a script, save, init.
 *
 * Others have their turns while it computes; it may not wait; an allowance limits it.  The
 * caller owns the struct and keeps it in place until done() is called, once, or
 * chore_cancel().  The scheduler's thread. */
#ifndef HOST_SCRIPT_CHORE_H
#define HOST_SCRIPT_CHORE_H

#include "script/task.h"

#include <lua.h>

struct script;

struct chore {
	struct task *task; /* NULL: it does not run */
	struct task_kind kind;
	/* The results, or (status not LUA_OK) the error value, are on co's stack. */
	void (*done)(struct chore *c, lua_State *co, int status);
};

/* Begins soon; on top of the stack of the script's state are the function and its nargs
 * arguments, which are popped.  -ENOMEM: done() will not be called. */
int chore_start(struct chore *c, struct script *sc, const struct allowance *a, int nargs);

/* Runs it to its end, and nothing else. */
void chore_insist(struct chore *c);

/* Ends it without a word; harmless when it does not run. */
void chore_cancel(struct chore *c);

/* For a chore between two of its steps, at which the others should go first: `return
 * chore_rest(L, ctx, k)`.  In anything else k is called at once. */
int chore_rest(lua_State *L, lua_KContext ctx, lua_KFunction k);

#endif
