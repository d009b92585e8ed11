/* script.h - a generation: one loaded script, its Lua state and its handler.
 *
 * Counted: the server holds one reference and each of its tasks another; the
 * state is freed with the last.  One engine, its thread. */
#ifndef HOST_SCRIPT_SCRIPT_H
#define HOST_SCRIPT_SCRIPT_H

#include "script/chore.h"
#include "script/state.h"
#include "script/warn.h"

#include <stdbool.h>

struct allowance;
struct sched;
struct sources;

enum { SCRIPT_ERROR = 2048, SCRIPT_SPARE = 1024 };

struct spare {
	lua_State *co;
	int ref;
};

struct script {
	struct state state;
	struct sched *sched;
	struct sources *sources; /* that it was loaded from; holds a reference */
	char *path;
	char *name; /* the base name without ".lua" */
	unsigned number;
	unsigned refs;
	unsigned rested;            /* see rest.h */
	int handler_ref;            /* the handler table */
	int meta_ref;               /* its instances' metatable */
	bool has_setup, has_finish; /* as the script was loaded */
	bool borrowed;              /* the state is somebody else's: see script_borrow() */
	struct warnings warnings;
	int nspare, room; /* coroutines kept for the next tasks */
	struct spare *spare;
};

struct script_options {
	size_t memory_limit;
	const char *lua_path; /* of the host's own modules; borrowed */
	lua_CFunction open;   /* adds the bindings */
	unsigned number;
	struct sources *sources; /* load from these, not from the files; or NULL */
	/* The script's own text, in place of what its file holds; NULL: the file's. */
	const char *text;
	size_t text_len;
	const struct allowance *allowance; /* to load under; NULL: the scheduler's */
	bool sandbox;                      /* see sandbox.h */
	bool strict; /* see text.h; with `sources` it is theirs that counts */
};

/* A script on its way.  The caller owns the struct and keeps it in place. */
struct loading {
	struct chore chore;
	struct script *script; /* the caller's, once done() is called with 0 */
	/* What a script that failed has read, or NULL; the caller's to release, too. */
	struct sources *tried;
	/* rc: 0, or as script_load(); why says more. */
	void (*done)(struct loading *l, int rc);
	char why[SCRIPT_ERROR];
};

/* Begins to load and run the script, text only, and to find its handler; others have
 * their turns meanwhile.  Errors, as script_load()'s, with l->why: done() will not be
 * called. */
int script_begin(struct sched *s, const char *path, const struct script_options *o,
		 struct loading *l);

/* Ends it without a word; harmless when it is not under way. */
void script_give_up(struct loading *l);

/* Does it all at once.  On failure returns -EINVAL (its fault), -ENOENT, -EACCES or -ENOMEM
 * with one sentence in why. */
int script_load(struct sched *s, const char *path, const struct script_options *o,
		struct script **out, char *why, size_t size);

/* A generation in a state that has other uses and another owner; the handler is the table
 * on top of L's stack, which is popped.  Raises for want of memory. */
struct script *script_borrow(lua_State *L, struct sched *s, const char *path);

/* Takes the error on top of L's stack off, and leaves it in why as one line that names
 * the script. */
void script_keep_error(lua_State *L, const char *path, char *why, size_t size);

/* A Lua function that does nothing: `setup` and `finish` of base classes. */
int script_base_step(lua_State *L);

/* moonport.default_handler(table): the handler, should the script that is being loaded
 * neither return one nor define a global `handle`. */
int script_default_handler(lua_State *L);

void script_hold(struct script *sc);

/* Gives a reference back; the last one frees the state. */
void script_release(struct script *sc);

/* A coroutine with an empty stack, and its anchor; NULL: out of memory. */
lua_State *script_take_co(struct script *sc, int *ref);

/* Takes a coroutine back; `clean` if it ended by returning. */
void script_give_co(struct script *sc, lua_State *co, int ref, bool clean);

#endif
