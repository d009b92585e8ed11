#include "script/lmatch.h"

#include "script/slice.h"

#include <lauxlib.h>

bool
lmatch_run(lua_State *L, struct match *m, bool *found)
{
	enum pattern_result r;

	while ((r = pattern_run(m)) == PATTERN_MORE) {
		m->steps = PATTERN_STEPS;
		if (slice_over(L))
			return false;
	}
	if (r == PATTERN_BROKEN)
		luaL_error(L, "%s", m->error);
	*found = r == PATTERN_MATCHED;
	return true;
}

void *
lmatch_push_room(lua_State *L, const char *pattern, size_t len)
{
	size_t n = pattern_room(pattern, len);

	if (n > 0)
		return lua_newuserdatauv(L, n, 0);
	lua_pushnil(L);
	return NULL;
}

struct match *
lmatch_keep(lua_State *L, struct match *m)
{
	struct match *kept = lua_touserdata(L, -1);

	if (kept == m)
		return m;
	kept = lua_newuserdatauv(L, sizeof(*kept), 0);
	pattern_move(kept, m);
	return kept;
}

void
lmatch_push_capture(lua_State *L, const struct match *m, unsigned i)
{
	const struct capture *c = &m->captures[i];

	if (i >= m->ncaptures) {
		if (i > 0)
			luaL_error(L, "invalid capture index %%%d", (int)i + 1);
		lua_pushlstring(L, m->start, (size_t)(m->end - m->start));
	} else if (pattern_is_open(m, i))
		luaL_error(L, "unfinished capture");
	else if (c->len == PATTERN_POSITION)
		lua_pushinteger(L, c->at - m->subject + 1);
	else
		lua_pushlstring(L, c->at, (size_t)c->len);
}

int
lmatch_push_captures(lua_State *L, const struct match *m)
{
	unsigned n = m->ncaptures > 0 ? m->ncaptures : 1;

	luaL_checkstack(L, (int)n, "too many captures");
	for (unsigned i = 0; i < n; i++)
		lmatch_push_capture(L, m, i);
	return (int)n;
}

size_t
lmatch_init(lua_Integer init, size_t len)
{
	if (init > 0)
		return (size_t)init - 1;
	if (init == 0 || init < -(lua_Integer)len)
		return 0;
	return len - (size_t)-init;
}
