#include "script/pieces.h"

void
pieces_keep(lua_State *L, int idx, luaL_Buffer *b)
{
	luaL_pushresult(b);
	if (lua_isnil(L, idx)) {
		lua_newtable(L);
		lua_replace(L, idx);
	}
	if (lua_rawlen(L, -1) == 0)
		lua_pop(L, 1);
	else
		lua_rawseti(L, idx, (lua_Integer)lua_rawlen(L, idx) + 1);
}

/* So many are put together at once, without a buffer beside what there is. */
enum { AT_ONCE = 100 };

static void
push_many(lua_State *L, int idx, lua_Integer n)
{
	luaL_Buffer all;

	luaL_buffinit(L, &all);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, idx, i);
		luaL_addvalue(&all);
	}
	luaL_pushresult(&all);
}

void
pieces_push(lua_State *L, int idx, luaL_Buffer *b)
{
	lua_Integer n;

	if (lua_isnil(L, idx)) {
		luaL_pushresult(b);
		return;
	}
	pieces_keep(L, idx, b);
	n = (lua_Integer)lua_rawlen(L, idx);
	if (n > AT_ONCE || !lua_checkstack(L, (int)n + 1)) {
		push_many(L, idx, n);
		return;
	}
	for (lua_Integer i = 1; i <= n; i++)
		lua_rawgeti(L, idx, i);
	lua_concat(L, (int)n);
}
