#include "script/boxfiles.h"

#include "script/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FORMATS = 250 }; /* that lines() can keep */

/* nil, message, errno */
static int
fail(lua_State *L, const char *name, int rc)
{
	luaL_pushfail(L);
	if (rc == -EXDEV) {
		lua_pushfstring(L, SANDBOX_OUTSIDE, name);
		rc = -EACCES;
	} else
		lua_pushfstring(L, "%s: %s", name, strerror(-rc));
	lua_pushinteger(L, -rc);
	return 3;
}

/* ---- opening ---- */

static int
close_file(lua_State *L)
{
	luaL_Stream *p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
	int rc = fclose(p->f);

	return luaL_fileresult(L, rc == 0, NULL);
}

static bool
is_mode(const char *mode)
{
	if (!*mode || !strchr("rwa", *mode++))
		return false;
	if (*mode == '+')
		mode++;
	return strspn(mode, "b") == strlen(mode);
}

static int
flags_of(const char *mode)
{
	int flags = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;

	if (*mode == 'r')
		return flags;
	return flags | O_CREAT | (*mode == 'w' ? O_TRUNC : O_APPEND);
}

/* Pushes an open file, or nothing: -errno. */
static int
push_file(lua_State *L, const char *name, const char *mode)
{
	luaL_Stream *p = lua_newuserdatauv(L, sizeof(*p), 0);
	int fd, rc;

	p->closef = NULL; /* closed, until it is open */
	luaL_setmetatable(L, LUA_FILEHANDLE);
	fd = sandbox_open(L, name, flags_of(mode), SANDBOX_FILES);
	p->f = fd < 0 ? NULL : fdopen(fd, mode);
	rc = fd < 0 ? fd : -errno;
	if (p->f) {
		p->closef = close_file;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	lua_pop(L, 1);
	return rc;
}

/* io.open(name [, mode]) -> file | nil, message, errno */
static int
box_open(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
	int rc;

	luaL_argcheck(L, is_mode(mode), 2, "invalid mode");
	rc = push_file(L, name, mode);
	return rc < 0 ? fail(L, name, rc) : 1;
}

/* The same, but raises. */
static void
must_open(lua_State *L, const char *name, const char *mode)
{
	int rc = push_file(L, name, mode);

	if (rc == -EXDEV)
		luaL_error(L, SANDBOX_OUTSIDE, name);
	if (rc < 0)
		luaL_error(L, "cannot open file '%s' (%s)", name, strerror(-rc));
}

/* io.input([file or name]) and io.output().  Upvalues: Lua's own, the mode. */
static int
box_redirect(lua_State *L)
{
	if (lua_isstring(L, 1)) {
		must_open(L, lua_tostring(L, 1), lua_tostring(L, lua_upvalueindex(2)));
		lua_replace(L, 1);
	}
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* ---- lines ---- */

/* Upvalues: the file, its method read, how many formats, the formats. */
static int
next_line(lua_State *L)
{
	const luaL_Stream *p = lua_touserdata(L, lua_upvalueindex(1));
	int n = (int)lua_tointeger(L, lua_upvalueindex(3));

	if (!p->closef)
		return luaL_error(L, "file is already closed");
	lua_settop(L, 0);
	luaL_checkstack(L, n + 4, "too many arguments");
	lua_pushvalue(L, lua_upvalueindex(2));
	lua_pushvalue(L, lua_upvalueindex(1));
	for (int i = 1; i <= n; i++)
		lua_pushvalue(L, lua_upvalueindex(3 + i));
	lua_call(L, n + 1, LUA_MULTRET);
	if (lua_toboolean(L, 1))
		return lua_gettop(L);
	if (lua_gettop(L) > 1)
		return luaL_error(L, "%s", lua_tostring(L, 2));
	lua_getfield(L, lua_upvalueindex(1), "close");
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_call(L, 1, 0);
	return 0;
}

/* io.lines([name, ...]).  Upvalue: Lua's own, for the default input. */
static int
box_lines(lua_State *L)
{
	int n = lua_gettop(L) - 1;

	if (lua_isnoneornil(L, 1)) {
		lua_pushvalue(L, lua_upvalueindex(1));
		lua_insert(L, 1);
		lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
		return lua_gettop(L);
	}
	luaL_argcheck(L, n <= FORMATS, FORMATS + 2, "too many arguments");
	must_open(L, luaL_checkstring(L, 1), "r");
	lua_replace(L, 1);
	lua_pushvalue(L, 1); /* stays below, as the value to be closed */
	lua_insert(L, 1);
	lua_getfield(L, 1, "read");
	lua_insert(L, 3);
	lua_pushinteger(L, n);
	lua_insert(L, 4);
	lua_pushcclosure(L, next_line, n + 3);
	lua_insert(L, 1); /* below the file */
	lua_pushnil(L);
	lua_pushnil(L);
	lua_rotate(L, 2, 2);
	return 4;
}

/* ---- entries of folders ---- */

static int
remove_entry(int folder, const char *name)
{
	if (unlinkat(folder, name, 0) == 0 ||
	    (errno == EISDIR && unlinkat(folder, name, AT_REMOVEDIR) == 0))
		return 0;
	return -errno;
}

/* os.remove(name) -> true | nil, message, errno */
static int
box_remove(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1), *name;
	char buf[PATH_MAX];
	int folder = sandbox_open_folder(L, path, buf, sizeof(buf), &name), rc = folder;

	if (folder >= 0) {
		rc = remove_entry(folder, name);
		close(folder);
	}
	if (rc < 0)
		return fail(L, path, rc);
	lua_pushboolean(L, 1);
	return 1;
}

/* In the open folder; `from` is its whole name. */
static int
rename_entry(lua_State *L, int folder, const char *name, const char *from, const char *to)
{
	char buf[PATH_MAX];
	const char *new_name;
	int other = sandbox_open_folder(L, to, buf, sizeof(buf), &new_name), rc, why;

	if (other < 0)
		return fail(L, to, other);
	rc = renameat(folder, name, other, new_name);
	why = errno;
	close(other);
	errno = why;
	return luaL_fileresult(L, rc == 0, from);
}

/* os.rename(from, to) -> true | nil, message, errno */
static int
box_rename(lua_State *L)
{
	const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2), *name;
	char buf[PATH_MAX];
	int folder = sandbox_open_folder(L, from, buf, sizeof(buf), &name), rc;

	if (folder < 0)
		return fail(L, from, folder);
	rc = rename_entry(L, folder, name, from, to);
	close(folder);
	return rc;
}

void
boxfiles_install(lua_State *L)
{
	lua_getglobal(L, "io");
	lua_pushcfunction(L, box_open);
	lua_setfield(L, -2, "open");
	lua_getfield(L, -1, "lines");
	lua_pushcclosure(L, box_lines, 1);
	lua_setfield(L, -2, "lines");
	lua_getfield(L, -1, "input");
	lua_pushliteral(L, "r");
	lua_pushcclosure(L, box_redirect, 2);
	lua_setfield(L, -2, "input");
	lua_getfield(L, -1, "output");
	lua_pushliteral(L, "w");
	lua_pushcclosure(L, box_redirect, 2);
	lua_setfield(L, -2, "output");
	lua_getglobal(L, "os");
	lua_pushcfunction(L, box_remove);
	lua_setfield(L, -2, "remove");
	lua_pushcfunction(L, box_rename);
	lua_setfield(L, -2, "rename");
	lua_pop(L, 2);
}
