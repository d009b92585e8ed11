#include "script/lstring.h"

#include "script/lgsub.h"
#include "script/lmatch.h"
#include "script/slice.h"

#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <string.h>

/* Bytes that are looked through at a time for a plain string. */
enum { WINDOW = 256 * 1024 };

/* In fewer bytes no search can take long. */
enum { NEAR = 256 };

static int find_plain(lua_State *L, size_t at);

static int
plain_k(lua_State *L, int status, lua_KContext at)
{
	return status == LUA_OK ? LMATCH_GO_ON : find_plain(L, (size_t)at);
}

/* memmem() for little things: it has to prepare itself. */
static const char *
find_near(const char *s, size_t n, const char *p, size_t lp)
{
	const char *end = s + n, *at = s;

	while ((size_t)(end - at) >= lp) {
		at = memchr(at, *p, (size_t)(end - at) - lp + 1);
		if (!at)
			return NULL;
		if (memcmp(at + 1, p + 1, lp - 1) == 0)
			return at;
		at++;
	}
	return NULL;
}

/* Looks for argument 2 in argument 1, from there on. */
static int
find_plain(lua_State *L, size_t at)
{
	size_t ls, lp;
	const char *s = lua_tolstring(L, 1, &ls), *p = lua_tolstring(L, 2, &lp), *found;

	for (;;) {
		size_t left = ls - at;
		size_t n = left < WINDOW + 4 * lp ? left : WINDOW + 4 * lp;
		found = n < NEAR && lp > 0 ? find_near(s + at, n, p, lp)
					   : memmem(s + at, n, p, lp);
		if (found) {
			lua_pushinteger(L, found - s + 1);
			lua_pushinteger(L, found - s + (lua_Integer)lp);
			return 2;
		}
		if (n == left)
			break;
		at += n - lp + 1;
		if (slice_over(L)) {
			int rc = slice_pause(L, (lua_KContext)at, plain_k);
			if (rc != LMATCH_GO_ON)
				return rc;
		}
	}
	luaL_pushfail(L);
	return 1;
}

static int search(lua_State *L, struct match *m, lua_KContext find);

static int
search_k(lua_State *L, int status, lua_KContext find)
{
	return status == LUA_OK ? LMATCH_GO_ON : search(L, lua_touserdata(L, -1), find);
}

static int
push_found(lua_State *L, const struct match *m, bool find)
{
	if (!find)
		return lmatch_push_captures(L, m);
	lua_pushinteger(L, m->start - m->subject + 1);
	lua_pushinteger(L, m->end - m->subject);
	return 2 + (m->ncaptures > 0 ? lmatch_push_captures(L, m) : 0);
}

static int
search(lua_State *L, struct match *m, lua_KContext find)
{
	bool found;

	while (!lmatch_run(L, m, &found)) {
		m = lmatch_keep(L, m);
		int rc = slice_pause(L, find, search_k);
		if (rc != LMATCH_GO_ON)
			return rc;
	}
	if (found)
		return push_found(L, m, find);
	luaL_pushfail(L);
	return 1;
}

static int
find_or_match(lua_State *L, bool find)
{
	size_t ls, lp;
	const char *s = luaL_checklstring(L, 1, &ls), *p = luaL_checklstring(L, 2, &lp);
	size_t at = lmatch_init(luaL_optinteger(L, 3, 1), ls);
	struct match m;

	if (at > ls) {
		luaL_pushfail(L);
		return 1;
	}
	if (find && (lua_toboolean(L, 4) || pattern_is_plain(p, lp)))
		return find_plain(L, at);
	pattern_init(&m, s, ls, p, lp, lmatch_push_room(L, p, lp), true);
	pattern_seek(&m, s + at);
	return search(L, &m, find);
}

/* string.find(s, pattern [, init [, plain]]) -> start, end, captures... | nil */
static int
str_find(lua_State *L)
{
	return find_or_match(L, true);
}

/* string.match(s, pattern [, init]) -> captures... | nil */
static int
str_match(lua_State *L)
{
	return find_or_match(L, false);
}

/* An iterator's place, its third upvalue; subject and pattern are the first two, room the
 * fourth.  It is in no pause: that has the match in its own frame, and another call then
 * finds the same match. */
struct iterator {
	const char *from, *last; /* where to go on, and the end of the last match */
};

static int next_match(lua_State *L, struct match *m);

static int
next_match_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	return status == LUA_OK ? LMATCH_GO_ON : next_match(L, lua_touserdata(L, -1));
}

static int
next_match(lua_State *L, struct match *m)
{
	struct iterator *it = lua_touserdata(L, lua_upvalueindex(3));
	bool found;

	while (!lmatch_run(L, m, &found)) {
		m = lmatch_keep(L, m);
		int rc = slice_pause(L, 0, next_match_k);
		if (rc != LMATCH_GO_ON)
			return rc;
	}
	if (!found)
		return 0;
	it->from = it->last = m->end;
	return lmatch_push_captures(L, m);
}

static int
iterate(lua_State *L)
{
	size_t ls, lp;
	const char *s = lua_tolstring(L, lua_upvalueindex(1), &ls);
	const char *p = lua_tolstring(L, lua_upvalueindex(2), &lp);
	const struct iterator *it = lua_touserdata(L, lua_upvalueindex(3));
	struct match m;

	slice_check(L);
	if (!it->from)
		return 0;
	pattern_init(&m, s, ls, p, lp, lua_touserdata(L, lua_upvalueindex(4)), false);
	m.refused = it->last;
	pattern_seek(&m, it->from);
	return next_match(L, &m);
}

/* string.gmatch(s, pattern [, init]) -> iterator of captures */
static int
str_gmatch(lua_State *L)
{
	size_t ls, lp;
	const char *s = luaL_checklstring(L, 1, &ls), *p = luaL_checklstring(L, 2, &lp);
	size_t at = lmatch_init(luaL_optinteger(L, 3, 1), ls);
	struct iterator *it;

	lua_settop(L, 2);
	it = lua_newuserdatauv(L, sizeof(*it), 0);
	it->from = at <= ls ? s + at : NULL;
	it->last = NULL;
	lmatch_push_room(L, p, lp);
	lua_pushcclosure(L, iterate, 4);
	return 1;
}

/* Longer results are an error in Lua, too. */
static const size_t LONGEST = INT_MAX;

/* Fills p with the string and its separator, again and again. */
static void
repeat(char *p, size_t total, const char *s, size_t ls, const char *sep, size_t lsep)
{
	size_t have = ls + lsep < total ? ls + lsep : total, step;

	memcpy(p, s, ls);
	memcpy(p + ls, sep, have - ls);
	for (; have < total; have += step) {
		step = have < WINDOW ? have : WINDOW / (ls + lsep) * (ls + lsep);
		if (step == 0)
			step = ls + lsep; /* a long string */
		if (step > total - have)
			step = total - have;
		memcpy(p + have, p, step);
	}
}

/* string.rep(s, n [, separator]) */
static int
str_rep(lua_State *L)
{
	size_t ls, lsep, total;
	const char *s = luaL_checklstring(L, 1, &ls), *sep;
	lua_Integer n = luaL_checkinteger(L, 2);
	luaL_Buffer b;

	sep = luaL_optlstring(L, 3, "", &lsep);
	if (n <= 0 || ls + lsep == 0) {
		lua_pushliteral(L, "");
		return 1;
	}
	if (ls + lsep > LONGEST / (size_t)n)
		return luaL_error(L, "resulting string too large");
	total = (size_t)n * ls + (size_t)(n - 1) * lsep;
	repeat(luaL_buffinitsize(L, &b, total), total, s, ls, sep, lsep);
	luaL_pushresultsize(&b, total);
	return 1;
}

void
lstring_install(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"find", str_find},   {"gmatch", str_gmatch}, {"gsub", lgsub},
	    {"match", str_match}, {"rep", str_rep},       {NULL, NULL},
	};

	lua_getglobal(L, LUA_STRLIBNAME);
	luaL_setfuncs(L, functions, 0);
	lua_pop(L, 1);
}
