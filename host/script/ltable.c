#include "script/ltable.h"

#include "script/pieces.h"
#include "script/slice.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>

/* Elements between two looks at the clock. */
enum { ELEMENTS = 1000 };

/* A continuation that slice_pause() has called at once returns this: it was no pause. */
enum { GO_ON = -1 };

enum { READS = 1, WRITES = 2, MEASURES = 4 };

static bool
has_metamethod(lua_State *L, int metatable, const char *name)
{
	bool has;

	lua_pushstring(L, name);
	has = lua_rawget(L, metatable) != LUA_TNIL;
	lua_pop(L, 1);
	return has;
}

/* Raises unless the argument is a table, or has the metamethods to pass for one. */
static void
check_table(lua_State *L, int arg, int does)
{
	int top;
	bool passes;

	if (lua_istable(L, arg))
		return;
	top = lua_gettop(L);
	passes = lua_getmetatable(L, arg) &&
		 (!(does & READS) || has_metamethod(L, top + 1, "__index")) &&
		 (!(does & WRITES) || has_metamethod(L, top + 1, "__newindex")) &&
		 (!(does & MEASURES) || has_metamethod(L, top + 1, "__len"));
	if (!passes)
		luaL_checktype(L, arg, LUA_TTABLE);
	lua_settop(L, top);
}

static lua_Integer
length(lua_State *L, int arg, int does)
{
	check_table(L, arg, does | MEASURES);
	return luaL_len(L, arg);
}

/* To the element `to` of the table at idx, from the element of the first argument. */
static void
copy(lua_State *L, int idx, lua_Integer from, lua_Integer to)
{
	lua_geti(L, 1, from);
	lua_seti(L, idx, to);
}

static int insert_k(lua_State *L, int status, lua_KContext i);

/* Moves elements up, from i down to the place (argument 2), and puts argument 3 there. */
static int
insert(lua_State *L, lua_Integer i)
{
	lua_Integer place = lua_tointeger(L, 2);

	for (int n = ELEMENTS; i > place; i--) {
		copy(L, 1, i - 1, i);
		if (--n > 0)
			continue;
		n = ELEMENTS;
		if (slice_over(L)) {
			int rc = slice_pause(L, (lua_KContext)(i - 1), insert_k);
			if (rc != GO_ON)
				return rc;
		}
	}
	lua_seti(L, 1, place);
	return 0;
}

static int
insert_k(lua_State *L, int status, lua_KContext i)
{
	return status == LUA_OK ? GO_ON : insert(L, i);
}

/* table.insert(t, [place,] value) */
static int
tab_insert(lua_State *L)
{
	lua_Unsigned end = (lua_Unsigned)length(L, 1, READS | WRITES) + 1;
	lua_Integer place;

	switch (lua_gettop(L)) {
	case 2:
		lua_seti(L, 1, (lua_Integer)end);
		return 0;
	case 3:
		place = luaL_checkinteger(L, 2);
		luaL_argcheck(L, (lua_Unsigned)place - 1U < end, 2,
			      "position out of bounds");
		return insert(L, (lua_Integer)end);
	default:
		return luaL_error(L, "wrong number of arguments to 'insert'");
	}
}

static int removed_k(lua_State *L, int status, lua_KContext i);

/* Moves elements down, from i up to the size (argument 2); the removed one is on top. */
static int
removed(lua_State *L, lua_Integer i)
{
	lua_Integer size = lua_tointeger(L, 2);

	for (int n = ELEMENTS; i < size; i++) {
		copy(L, 1, i + 1, i);
		if (--n > 0)
			continue;
		n = ELEMENTS;
		if (slice_over(L)) {
			int rc = slice_pause(L, (lua_KContext)(i + 1), removed_k);
			if (rc != GO_ON)
				return rc;
		}
	}
	lua_pushnil(L);
	lua_seti(L, 1, i);
	return 1;
}

static int
removed_k(lua_State *L, int status, lua_KContext i)
{
	return status == LUA_OK ? GO_ON : removed(L, i);
}

/* table.remove(t [, place]) -> value */
static int
tab_remove(lua_State *L)
{
	lua_Integer size = length(L, 1, READS | WRITES);
	lua_Integer place = luaL_optinteger(L, 2, size);

	if (place != size) /* the one behind the last may be removed, too */
		luaL_argcheck(L, (lua_Unsigned)place - 1U <= (lua_Unsigned)size, 1,
			      "position out of bounds");
	lua_settop(L, 1);
	lua_pushinteger(L, size);
	lua_geti(L, 1, place);
	return removed(L, place);
}

static int move(lua_State *L, lua_Integer done, bool back);

static int
move_k(lua_State *L, int status, lua_KContext done)
{
	return status == LUA_OK ? GO_ON : move(L, done, false);
}

static int
move_back_k(lua_State *L, int status, lua_KContext done)
{
	return status == LUA_OK ? GO_ON : move(L, done, true);
}

/* Copies elements as the arguments say, to the table at 5; back: the last one first. */
static int
move(lua_State *L, lua_Integer done, bool back)
{
	lua_Integer from = lua_tointeger(L, 2), to = lua_tointeger(L, 4);
	lua_Integer n = lua_tointeger(L, 3) - from + 1;

	while (done < n) {
		lua_Integer i = back ? n - 1 - done : done;
		copy(L, 5, from + i, to + i);
		if (++done % ELEMENTS == 0 && slice_over(L)) {
			int rc =
			    slice_pause(L, (lua_KContext)done, back ? move_back_k : move_k);
			if (rc != GO_ON)
				return rc;
		}
	}
	return 1;
}

/* table.move(t, from, last, to [, into]) -> into */
static int
tab_move(lua_State *L)
{
	lua_Integer from = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
	lua_Integer to = luaL_checkinteger(L, 4);
	int into = lua_isnoneornil(L, 5) ? 1 : 5;
	bool apart;

	check_table(L, 1, READS);
	check_table(L, into, WRITES);
	lua_settop(L, 5);
	if (into == 1) {
		lua_pushvalue(L, 1);
		lua_replace(L, 5);
	}
	if (last < from)
		return 1;
	luaL_argcheck(L, from > 0 || last < LUA_MAXINTEGER + from, 3,
		      "too many elements to move");
	luaL_argcheck(L, to <= LUA_MAXINTEGER - (last - from + 1) + 1, 4,
		      "destination wrap around");
	apart = to > last || to <= from || (into == 5 && !lua_compare(L, 1, 5, LUA_OPEQ));
	return move(L, 0, !apart);
}

static int concat(lua_State *L, lua_Integer i);

static int
concat_k(lua_State *L, int status, lua_KContext i)
{
	return status == LUA_OK ? GO_ON : concat(L, i);
}

static void
add_element(lua_State *L, luaL_Buffer *b, lua_Integer i)
{
	lua_geti(L, 1, i);
	if (!lua_isstring(L, -1))
		luaL_error(L, "invalid value (%s) at index %I in table for 'concat'",
			   luaL_typename(L, -1), (LUAI_UACINT)i);
	luaL_addvalue(b);
}

/* From element i to the last (argument 4).  The fifth is for what is there at a pause. */
static int
concat(lua_State *L, lua_Integer i)
{
	lua_Integer last = lua_tointeger(L, 4);
	size_t lsep;
	const char *sep = luaL_optlstring(L, 2, "", &lsep);
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	for (int n = ELEMENTS; i < last; i++) {
		add_element(L, &b, i);
		luaL_addlstring(&b, sep, lsep);
		if (--n > 0)
			continue;
		n = ELEMENTS;
		if (!slice_over(L))
			continue;
		pieces_keep(L, 5, &b);
		int rc = slice_pause(L, (lua_KContext)(i + 1), concat_k);
		if (rc != GO_ON)
			return rc;
		luaL_buffinit(L, &b);
	}
	if (i == last)
		add_element(L, &b, i);
	pieces_push(L, 5, &b);
	return 1;
}

/* table.concat(t [, separator [, first [, last]]]) */
static int
tab_concat(lua_State *L)
{
	lua_Integer last = length(L, 1, READS), first;

	luaL_optstring(L, 2, "");
	first = luaL_optinteger(L, 3, 1);
	last = luaL_optinteger(L, 4, last);
	lua_settop(L, 3);
	lua_pushinteger(L, last);
	lua_pushnil(L);
	return concat(L, first);
}

void
ltable_install(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"concat", tab_concat}, {"insert", tab_insert}, {"move", tab_move},
	    {"remove", tab_remove}, {NULL, NULL},
	};

	lua_getglobal(L, LUA_TABLIBNAME);
	luaL_setfuncs(L, functions, 0);
	lua_pop(L, 1);
}
