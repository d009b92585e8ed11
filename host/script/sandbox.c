#include "script/sandbox.h"

#include "base/beneath.h"
#include "script/boxfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where files may be: the script's folder by its name and by its real one, and the folders
 * of the host's modules. */
enum { OWN = 2, ROOTS = 6, FILE_MODE = 0666 };

struct sandbox {
	const char *root[ROOTS]; /* absolute; strings that the user value holds, or NULL */
};

static const char KEY = 0;

/* ---- the rules ---- */

static struct sandbox *
of_state(lua_State *L)
{
	struct sandbox *box;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
	box = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return box;
}

/* The state's sandbox is on top of the stack. */
static void
set_root(lua_State *L, int i, const char *path)
{
	struct sandbox *box = lua_touserdata(L, -1);

	lua_getiuservalue(L, -1, 1);
	box->root[i] = lua_pushstring(L, path);
	lua_rawseti(L, -2, i + 1);
	lua_pop(L, 1);
}

/* The folder of a path, without the slash behind it unless it is the root folder. */
static void
folder_of(const char *path, char *out, size_t size)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(out, size, ".");
	else
		snprintf(out, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* The host's own modules are below moonport/ in the places where Lua looks for them: what
 * else is there belongs to others. */
static void
add_modules(lua_State *L, const char *lua_path)
{
	char folder[PATH_MAX], root[PATH_MAX];
	const char *p = lua_path, *mark;
	int n = OWN;

	for (size_t len; p && *p && n < ROOTS; p += len + (p[len] == ';')) {
		len = strcspn(p, ";");
		mark = memchr(p, '?', len);
		if (!mark || (size_t)(mark - p) >= sizeof(folder) - sizeof("moonport"))
			continue;
		snprintf(folder, sizeof(folder), "%.*smoonport", (int)(mark - p), p);
		if (beneath_absolute(folder, root, sizeof(root)) == 0)
			set_root(L, n++, root);
	}
}

static void
attach(lua_State *L, const char *script, const char *lua_path)
{
	struct sandbox *box = lua_newuserdatauv(L, sizeof(*box), 1);
	char folder[PATH_MAX], path[PATH_MAX];

	*box = (struct sandbox){0};
	lua_createtable(L, ROOTS, 0);
	lua_setiuservalue(L, -2, 1);
	folder_of(script, folder, sizeof(folder));
	if (beneath_absolute(folder, path, sizeof(path)) == 0)
		set_root(L, 0, path);
	if (realpath(folder, path))
		set_root(L, 1, path);
	add_modules(L, lua_path);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
}

static int
open_absolute(const struct sandbox *box, const char *path, int flags, enum sandbox_use use)
{
	const char *rest;
	int fd;

	for (int i = 0; i < (use == SANDBOX_MODULES ? ROOTS : OWN); i++) {
		rest = box->root[i] ? beneath_rest(box->root[i], path) : NULL;
		if (rest && i < OWN)
			return beneath_open(box->root[i], rest, flags, FILE_MODE);
		if (rest) { /* the host's own may well be links */
			fd = open(path, O_RDONLY | O_CLOEXEC);
			return fd < 0 ? -errno : fd;
		}
	}
	return -EXDEV;
}

int
sandbox_open(lua_State *L, const char *path, int flags, enum sandbox_use use)
{
	const struct sandbox *box = of_state(L);
	char absolute[PATH_MAX];
	int rc;

	if (!box) {
		rc = open(path, flags | O_CLOEXEC, FILE_MODE);
		return rc < 0 ? -errno : rc;
	}
	rc = beneath_absolute(path, absolute, sizeof(absolute));
	return rc < 0 ? rc : open_absolute(box, absolute, flags, use);
}

int
sandbox_open_folder(lua_State *L, const char *path, char *buf, size_t size,
		    const char **name)
{
	const struct sandbox *box = of_state(L);
	int rc = beneath_absolute(path, buf, size);
	char *slash;

	if (rc < 0)
		return rc;
	slash = strrchr(buf, '/');
	*slash = 0;
	*name = slash + 1;
	return box ? open_absolute(box, slash == buf ? "/" : buf, O_PATH | O_DIRECTORY,
				   SANDBOX_FILES)
		   : -EXDEV;
}

/* ---- modules ---- */

/* package.searchpath(name, path [, sep [, rep]]) -> filename | nil, message; it tells only
 * of files that require may load. */
static int
box_searchpath(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2);
	const char *sep = luaL_optstring(L, 3, "."), *rep = luaL_optstring(L, 4, "/");
	int fd;

	if (*sep)
		name = luaL_gsub(L, name, sep, rep);
	path = luaL_gsub(L, path, "?", name);
	for (size_t n; *path; path += n + (path[n] == ';')) {
		n = strcspn(path, ";");
		if (n == 0)
			continue;
		fd =
		    sandbox_open(L, lua_pushlstring(L, path, n), O_RDONLY, SANDBOX_MODULES);
		if (fd >= 0) {
			close(fd);
			return 1;
		}
		lua_pop(L, 1);
	}
	luaL_pushfail(L);
	lua_pushliteral(L, "no file '");
	luaL_gsub(L, lua_tostring(L, -3), ";", "'\n\tno file '");
	lua_pushliteral(L, "'");
	lua_concat(L, 3);
	return 2;
}

/* The last searcher: says why a module is not loaded that would be without the sandbox.
 * Upvalues: Lua's package.searchpath, cpath and path. */
static int
explain(lua_State *L)
{
	static const char *const why[] = {
	    "module '%s' is a C library (%s): --sandbox loads none",
	    "module '%s' (%s) is outside the script's folder (--sandbox)"};
	const char *name = luaL_checkstring(L, 1);

	lua_settop(L, 1);
	for (int i = 0; i < 2; i++) {
		lua_pushvalue(L, lua_upvalueindex(1));
		lua_pushvalue(L, 1);
		lua_pushvalue(L, lua_upvalueindex(2 + i));
		lua_call(L, 2, 1);
		if (lua_isstring(L, -1))
			return luaL_error(L, why[i], name, lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	return 0;
}

static void
close_modules(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	lua_getfield(L, -2, "searchpath");
	lua_getfield(L, -3, "cpath");
	lua_getfield(L, -4, "path");
	lua_pushcclosure(L, explain, 3);
	lua_rawseti(L, -2, 3); /* in place of the one for C libraries */
	lua_pushnil(L);
	lua_rawseti(L, -2, 4);
	lua_pop(L, 1);
	lua_pushcfunction(L, box_searchpath);
	lua_setfield(L, -2, "searchpath");
	lua_pushliteral(L, "");
	lua_setfield(L, -2, "cpath");
	lua_pushliteral(L, ""); /* the system's modules are outside */
	lua_setfield(L, -2, "path");
	lua_pop(L, 1);
}

/* ---- libraries ---- */

static bool
is_listed(const char *name, const char *const *list)
{
	while (*list && strcmp(*list, name) != 0)
		list++;
	return *list;
}

/* Empties a library but for what is listed.  The table itself stays: it is what
 * package.loaded and the strings' metatable have. */
static void
keep_only(lua_State *L, const char *library, const char *const *list)
{
	lua_getglobal(L, library);
	for (lua_pushnil(L); lua_next(L, -2);) {
		lua_pop(L, 1);
		if (is_listed(lua_tostring(L, -1), list))
			continue;
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_rawset(L, -4);
	}
	lua_pop(L, 1);
}

void
sandbox_enter(lua_State *L, const char *script, const char *lua_path)
{
	attach(L, script, lua_path);
	close_modules(L);
	boxfiles_install(L);
}

void
sandbox_strip(lua_State *L)
{
	static const char *const io[] = {"close",  "flush", "input",  "lines", "open",
					 "output", "read",  "stderr", "stdin", "stdout",
					 "type",   "write", NULL};
	static const char *const os[] = {"clock",  "date",   "difftime", "getenv",
					 "remove", "rename", "time",     NULL};
	static const char *const package[] = {"config",  "cpath",     "loaded",     "path",
					      "preload", "searchers", "searchpath", NULL};
	static const char *const debug[] = {"traceback", NULL};

	keep_only(L, "io", io);
	keep_only(L, "os", os);
	keep_only(L, "package", package);
	keep_only(L, "debug", debug);
	lua_getglobal(L, "string");
	lua_pushnil(L);
	lua_setfield(L, -2, "dump");
	lua_pop(L, 1);
}
