#include "script/lgsub.h"

#include "script/lmatch.h"
#include "script/pieces.h"
#include "script/slice.h"

#include <ctype.h>
#include <lauxlib.h>
#include <string.h>

/* The stack, from below: subject, pattern, replacement, most, and these. */
enum { REPLACEMENT = 3, ROOM = 5, STATE, PIECES };

struct gsub {
	struct match m;
	const char *from; /* what comes before it is in the result */
	lua_Integer n, most;
	bool changed;
};

/* Adds what a %x of the replacement stands for. */
static void
add_escaped(lua_State *L, const struct match *m, luaL_Buffer *b, char x)
{
	if (x == '%')
		luaL_addchar(b, x);
	else if (x == '0')
		luaL_addlstring(b, m->start, (size_t)(m->end - m->start));
	else if (isdigit((unsigned char)x)) {
		lmatch_push_capture(L, m, (unsigned)(x - '1'));
		luaL_addvalue(b);
	} else
		luaL_error(L, "invalid use of '%%' in replacement string");
}

static void
add_string(lua_State *L, struct match *m, luaL_Buffer *b)
{
	size_t len;
	const char *s = lua_tolstring(L, REPLACEMENT, &len), *end = s + len, *p;

	m->steps -= (long)(len / 16);
	while ((p = memchr(s, '%', (size_t)(end - s)))) {
		luaL_addlstring(b, s, (size_t)(p - s));
		add_escaped(L, m, b, p[1]);
		m->steps--;
		s = p + 2;
	}
	luaL_addlstring(b, s, (size_t)(end - s));
}

/* Adds what the match is replaced by; false: it stays. */
static bool
add(lua_State *L, struct match *m, luaL_Buffer *b)
{
	switch (lua_type(L, REPLACEMENT)) {
	case LUA_TFUNCTION:
		lua_pushvalue(L, REPLACEMENT);
		lua_call(L, lmatch_push_captures(L, m), 1);
		break;
	case LUA_TTABLE:
		lmatch_push_capture(L, m, 0);
		lua_gettable(L, REPLACEMENT);
		break;
	default:
		add_string(L, m, b);
		return true;
	}
	if (lua_isstring(L, -1)) {
		luaL_addvalue(b);
		return true;
	}
	if (lua_toboolean(L, -1))
		luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
	lua_pop(L, 1);
	luaL_addlstring(b, m->start, (size_t)(m->end - m->start));
	return false;
}

/* Replaces match after match; false: it is time to pause. */
static bool
replace(lua_State *L, struct gsub *g, luaL_Buffer *b)
{
	struct match *m = &g->m;
	bool found;

	while (g->n < g->most) {
		if (!lmatch_run(L, m, &found))
			return false;
		if (!found)
			break;
		g->n++;
		luaL_addlstring(b, g->from, (size_t)(m->start - g->from));
		g->changed |= add(L, m, b);
		g->from = m->refused = m->end;
		if (m->anchored)
			break;
		pattern_seek(m, m->end);
	}
	return true;
}

/* The state where it outlives a pause. */
static struct gsub *
keep(lua_State *L, struct gsub *g)
{
	struct gsub *kept = lua_touserdata(L, STATE);

	if (kept)
		return kept;
	kept = lua_newuserdatauv(L, sizeof(*kept), 0);
	*kept = *g;
	pattern_move(&kept->m, &g->m);
	lua_replace(L, STATE);
	return kept;
}

static int run(lua_State *L, struct gsub *g);

static int
run_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	return status == LUA_OK ? LMATCH_GO_ON : run(L, lua_touserdata(L, STATE));
}

static int
run(lua_State *L, struct gsub *g)
{
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	while (!replace(L, g, &b)) {
		pieces_keep(L, PIECES, &b);
		g = keep(L, g);
		int rc = slice_pause(L, 0, run_k);
		if (rc != LMATCH_GO_ON)
			return rc;
		luaL_buffinit(L, &b);
	}
	if (g->changed) {
		luaL_addlstring(&b, g->from, (size_t)(g->m.subject_end - g->from));
		pieces_push(L, PIECES, &b);
	} else
		lua_pushvalue(L, 1);
	lua_pushinteger(L, g->n);
	return 2;
}

int
lgsub(lua_State *L)
{
	size_t ls, lp;
	const char *s = luaL_checklstring(L, 1, &ls), *p = luaL_checklstring(L, 2, &lp);
	int type = lua_type(L, REPLACEMENT);
	struct gsub g;

	g.from = s;
	g.n = 0;
	g.most = luaL_optinteger(L, 4, (lua_Integer)ls + 1);
	g.changed = false;
	luaL_argexpected(L,
			 type == LUA_TNUMBER || type == LUA_TSTRING ||
			     type == LUA_TFUNCTION || type == LUA_TTABLE,
			 3, "string/function/table");
	lua_settop(L, 4);
	pattern_init(&g.m, s, ls, p, lp, lmatch_push_room(L, p, lp), true);
	lua_settop(L, PIECES);
	return run(L, &g);
}
