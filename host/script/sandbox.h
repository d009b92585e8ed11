/* sandbox.h - a state whose script reaches no file outside its folder.
 *
 * What stays of the standard libraries is listed in sandbox.c: no program can be run, no C
 * library loaded, nothing of the process changed, and of `debug` there is only traceback.
 * Files are opened below the folder that the script is in; what a path means is not
 * changed. require finds, besides the folder's modules, the host's own.  Sockets are
 * another matter.
 *
 * The rules are the state's, and die with it. */
#ifndef HOST_SCRIPT_SANDBOX_H
#define HOST_SCRIPT_SANDBOX_H

#include <lua.h>
#include <stddef.h>

/* What to say of a file that sandbox_open() has refused; %s: its name. */
#define SANDBOX_OUTSIDE "%s: it is outside the script's folder (--sandbox)"

struct sandbox_options {
	const char *script;   /* its folder is where files may be */
	const char *lua_path; /* of the host's own modules, or NULL */
};

enum sandbox_use {
	SANDBOX_FILES,
	SANDBOX_MODULES, /* read only; the host's own may be opened as well */
};

/* Gives a state with the standard libraries its rules, and the functions that follow them.
 * Raises for want of memory.  The strings may go away. */
void sandbox_enter(lua_State *L, const char *script, const char *lua_path);

/* Once the libraries are complete: takes out what a sandbox has not. */
void sandbox_strip(lua_State *L);

/* open(2), close-on-exec, by the rules of the state, if it has any.  -errno; -EXDEV: they
 * forbid it.  Does not raise. */
int sandbox_open(lua_State *L, const char *path, int flags, enum sandbox_use use);

/* In a sandbox: opens the folder that path is in, to change an entry of it; *name, a part
 * of what buf then holds, is the entry's.  As sandbox_open() otherwise. */
int sandbox_open_folder(lua_State *L, const char *path, char *buf, size_t size,
			const char **name);

#endif
