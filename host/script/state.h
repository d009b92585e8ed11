/* state.h - Lua states with a memory limit, and the one way to call into them.
 *
 * C enters Lua in two places: state_call() here and the scheduler's resume.
 * A state belongs to one engine and its thread.  Sizes are bytes. */
#ifndef HOST_SCRIPT_STATE_H
#define HOST_SCRIPT_STATE_H

#include "script/alloc.h"

#include <lua.h>
#include <stddef.h>

struct sandbox_options;
struct sched;

struct state {
	lua_State *L;
	struct alloc alloc;
	int pause; /* of the collector, as state_tune() has set it; -1: not to be touched */
};

/* A state with the standard libraries, text-only load functions, the host's
 * coroutine library and whatever `open` adds.  path goes before package.path; box: the
 * state's sandbox, or NULL.  Errors: -ENOMEM.  The caller keeps the struct in place until
 * state_close(). */
int state_open(struct state *st, struct sched *s, size_t limit, const char *path,
	       lua_CFunction open, const struct sandbox_options *box);

/* math.random() begins anew, unlike that of any other state: Lua's own seed is the time in
 * seconds and an address, which are the same in forked processes. */
void state_reseed(struct state *st);

/* Runs the finalizers and frees the state. */
void state_close(struct state *st);

/* Calls the function below its nargs arguments in protected mode.  On an error
 * the error value, with its traceback if it is a plain error, replaces them:
 * state_call returns its status, and the stack holds one value more than before
 * the function was pushed. */
int state_call(lua_State *L, int nargs, int nresults);

/* The same in a state whose own caller is to get the error, as it is. */
int state_try(lua_State *L, int nargs, int nresults);

/* Fits the collector's pace to the live heap; to be called every few thousand runs. */
void state_tune(struct state *st);

/* After a run in which the limit refused memory: one request's garbage is collected before
 * it is the next one's lack. */
void state_relieve(struct state *st);

/* The message handler that state_call() uses: a string error gets a traceback,
 * an error value of the host stays as it is, anything else becomes a string. */
int state_traceback(lua_State *L);

/* The same where scripts are to get what was raised: a table or a userdata stays what it
 * is, and its traceback is kept beside it (trace.h) until somebody reports it. */
int state_observe(lua_State *L);

/* Pushes what `tostring` would say of the value at idx, whatever it may be. */
void state_push_text(lua_State *L, int idx);

/* The same, followed by a newline and the traceback, where one is kept beside the value. */
void state_push_report(lua_State *L, int idx);

#endif
