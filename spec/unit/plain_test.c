#include "base/buf.h"
#include "script/plain.h"
#include "unit.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* write(value) -> bytes */
static int
l_write(lua_State *L)
{
	struct buf *b = lua_touserdata(L, lua_upvalueindex(1));

	buf_free(b); /* what an error has left behind */
	lua_settop(L, 1);
	plain_write(L, 1, b);
	CHECK(lua_gettop(L) == 1);
	lua_pushlstring(L, buf_data(b), buf_len(b));
	return 1;
}

/* read(bytes) -> value.  The bytes are a block of their own: what reads past it is seen. */
static int
l_read(lua_State *L)
{
	void **block = lua_touserdata(L, lua_upvalueindex(1));
	size_t n;
	const char *p = luaL_checklstring(L, 1, &n);

	free(*block);
	*block = malloc(n ? n : 1);
	memcpy(*block, p, n);
	plain_read(L, (const char *)*block + (n ? 0 : 1), n);
	CHECK(lua_gettop(L) == 2);
	return 1;
}

/* through(value): to the other state, and back. */
static int
l_through(lua_State *L)
{
	lua_State *other = lua_touserdata(L, lua_upvalueindex(1));
	struct buf *b = lua_touserdata(L, lua_upvalueindex(2));

	buf_free(b);
	lua_settop(L, 1);
	plain_write(L, 1, b);
	plain_read(other, buf_data(b), buf_len(b));
	buf_free(b);
	plain_write(other, -1, b);
	lua_settop(other, 0);
	plain_read(L, buf_data(b), buf_len(b));
	return 1;
}

static void
between_two_states(void)
{
	lua_State *L = luaL_newstate(), *other = luaL_newstate();
	struct buf b = {0}, between = {0};
	void *block = NULL;
	bool ok;

	luaL_openlibs(L);
	ok = luaL_loadfile(L, "spec/unit/plain.lua") == LUA_OK;
	lua_pushlightuserdata(L, &b);
	lua_pushcclosure(L, l_write, 1);
	lua_pushlightuserdata(L, &block);
	lua_pushcclosure(L, l_read, 1);
	lua_pushlightuserdata(L, other);
	lua_pushlightuserdata(L, &between);
	lua_pushcclosure(L, l_through, 2);
	ok = ok && lua_pcall(L, 3, 0, 0) == LUA_OK;
	if (!ok)
		printf("  %s\n", lua_tostring(L, -1));
	CHECK(ok);
	CHECK(lua_gettop(other) == 0);
	lua_close(L);
	lua_close(other);
	buf_free(&b);
	buf_free(&between);
	free(block);
}

/* An allocator that gives so many blocks, and then none. */
static void *
count_down(void *ud, void *p, size_t old, size_t n)
{
	long *left = ud;

	if (n == 0) {
		free(p);
		return NULL;
	}
	if (n > (p ? old : 0) && *left >= 0 && (*left)-- == 0) {
		*left = 0;
		return NULL;
	}
	return realloc(p, n);
}

static int
write_top(lua_State *L)
{
	plain_write(L, 1, lua_touserdata(L, 2));
	return 0;
}

static int
read_all(lua_State *L)
{
	const struct buf *b = lua_touserdata(L, 1);

	plain_read(L, buf_data(b), buf_len(b));
	return 1;
}

/* The memory ends at every place where some is asked for. */
static void
without_memory(void)
{
	static const char value[] =
	    "return {1, 2.5, {}, {a = {b = ('long'):rep(30)}, [{}] = 'x'}, ('y'):rep(99)}";
	struct buf b = {0};
	long left = -1;
	lua_State *L = lua_newstate(count_down, &left);
	int failed[2] = {0, 0};

	luaL_openlibs(L);
	CHECK(luaL_dostring(L, value) == LUA_OK);
	for (int reading = 0; reading < 2; reading++) {
		for (long n = 0, status = LUA_ERRMEM; status != LUA_OK; n++) {
			lua_pushcfunction(L, reading ? read_all : write_top);
			if (reading)
				lua_pushlightuserdata(L, &b);
			else {
				buf_free(&b);
				lua_pushvalue(L, 1);
				lua_pushlightuserdata(L, &b);
			}
			left = n;
			status = lua_pcall(L, reading ? 1 : 2, 0, 0);
			left = -1;
			failed[reading] += status == LUA_ERRMEM;
			lua_settop(L, 1);
			if (status != LUA_OK && status != LUA_ERRMEM) {
				CHECK(!"an error that is not of memory");
				break;
			}
		}
	}
	CHECK(failed[0] >= 3 && failed[1] >= 8);
	lua_close(L);
	buf_free(&b);
}

void
test_plain(void)
{
	between_two_states();
	without_memory();
}
