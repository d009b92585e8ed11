#include "bind/lresp.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

enum {
	MOST_WORDS = 1024 * 1024, /* in a command, as in Redis */
	MOST_LINE = 64 * 1024,
	MOST_BYTES = 512 * 1024 * 1024, /* in a word */
	FEW = 8,                        /* words, that are remembered */
	SHORT = 64,                     /* bytes, of a command that is */
};

struct piece {
	const char *p;
	size_t n;
};

/* What is read of a command; the bytes are Lua's. */
struct scan {
	const char *at, *end;
	size_t need;     /* bytes that are missing behind `end`; 0: not known */
	const char *why; /* NULL: more has to come */
};

static bool
wrong(struct scan *s, const char *why)
{
	s->why = why;
	return false;
}

/* "*2\r\n": a mark and a number.  False: not there. */
static bool
header(struct scan *s, char mark, size_t most, size_t *n, const char *why)
{
	const char *p = s->at;

	if (p == s->end)
		return false;
	if (*p++ != mark || (p < s->end && (*p < '0' || *p > '9')))
		return wrong(s, why);
	for (*n = 0; p < s->end && *p >= '0' && *p <= '9'; p++) {
		*n = *n * 10 + (size_t)(*p - '0');
		if (*n > most)
			return wrong(s, why);
	}
	if ((p < s->end && p[0] != '\r') || (s->end - p > 1 && p[1] != '\n'))
		return wrong(s, why);
	s->at = p + 2;
	return s->end - p > 1;
}

static bool
word(struct scan *s, const char **p, size_t *n)
{
	static const char why[] =
	    "Protocol error: a bulk string begins with '$' and its length";
	size_t left;

	if (!header(s, '$', MOST_BYTES, n, why))
		return false;
	left = (size_t)(s->end - s->at);
	if (left < *n + 2) {
		s->need = *n + 2 - left;
		return false;
	}
	*p = s->at;
	s->at += *n;
	if (s->at[0] != '\r' || s->at[1] != '\n')
		return wrong(s, "Protocol error: bulk string longer than its length");
	s->at += 2;
	return true;
}

/* nil, and what follows from it. */
static int
push_none(lua_State *L, const struct scan *s, const char *from)
{
	lua_pushnil(L);
	if (s->why) {
		lua_pushnil(L);
		lua_pushstring(L, s->why);
		return 3;
	}
	if (!s->need)
		return 1;
	lua_pushinteger(L, (lua_Integer)((size_t)(s->end - from) + s->need));
	return 2;
}

static void
capitals(char *p, size_t n)
{
	for (size_t i = 0; i < n && p[i] != ' ' && p[i] != '\t'; i++)
		if (p[i] >= 'a' && p[i] <= 'z')
			p[i] -= 'a' - 'A';
}

/* Pushes the words, of which there are `bytes` bytes, as one string.  Of many the first are
 * in `few`, and the others are looked for again, from s on. */
static void
push_words(lua_State *L, struct scan *s, const struct piece *few, size_t words,
	   size_t bytes)
{
	luaL_Buffer b;
	char *to = luaL_buffinitsize(L, &b, bytes + words), *first = to;
	struct piece w;

	for (size_t i = 0; i < words; i++) {
		if (i < FEW)
			w = few[i];
		else if (!word(s, &w.p, &w.n))
			break;
		if (i > 0)
			*to++ = ' ';
		memcpy(to, w.p, w.n);
		to += w.n;
		if (i == 0)
			capitals(first, w.n);
	}
	luaL_pushresultsize(&b, (size_t)(to - first));
}

/* A long one is gone through twice: it is often not all there. */
static int
array(lua_State *L, struct scan *s, lua_Integer pos)
{
	const char *from = s->at;
	size_t words, bytes = 0;
	struct piece few[FEW], w;
	struct scan rest = *s;

	if (!header(s, '*', MOST_WORDS, &words, "Protocol error: invalid multibulk length"))
		return push_none(L, s, from);
	for (size_t i = 0; i < words; i++) {
		if (!word(s, &w.p, &w.n))
			return push_none(L, s, from);
		bytes += w.n;
		if (i < FEW)
			few[i] = w;
		if (i == FEW - 1)
			rest = *s;
	}
	push_words(L, &rest, few, words, bytes);
	lua_pushinteger(L, pos + (s->at - from));
	return 2;
}

/* A line, as people write it. */
static int
inline_command(lua_State *L, struct scan *s, lua_Integer pos)
{
	const char *from = s->at, *nl = memchr(from, '\n', (size_t)(s->end - from));
	size_t n = (size_t)((nl ? nl : s->end) - from);
	luaL_Buffer b;
	char *to;

	if (n > MOST_LINE)
		wrong(s, "Protocol error: too big inline request");
	if (s->why || !nl)
		return push_none(L, s, from);
	if (n > 0 && from[n - 1] == '\r')
		n--;
	to = luaL_buffinitsize(L, &b, n);
	memcpy(to, from, n);
	capitals(to, n);
	luaL_pushresultsize(&b, n);
	lua_pushinteger(L, pos + (nl + 1 - from));
	return 2;
}

static int
command(lua_State *L)
{
	size_t len;
	const char *buf = luaL_checklstring(L, 1, &len);
	lua_Integer pos = luaL_checkinteger(L, 2);
	struct scan s = {.end = buf + len};

	luaL_argcheck(L, pos >= 1 && (size_t)pos - 1 <= len, 2, "it is outside");
	s.at = buf + pos - 1; /* at the end is a NUL */
	return *s.at == '*' ? array(L, &s, pos) : inline_command(L, &s, pos);
}

/* The last command, if it was short: pipelines repeat themselves, and where a command ends
 * only its own bytes say. */
struct last {
	size_t n; /* bytes; 0: none */
	char bytes[SHORT];
};

enum { MAX = 1, JUDGE, LAST, TEXT }; /* upvalues of bare() */

static bool
again(const struct last *last, const char *at, size_t len)
{
	return last->n > 0 && len >= last->n && memcmp(at, last->bytes, last->n) == 0;
}

/* The text is on top, but for the position behind it. */
static void
remember(lua_State *L, struct last *last, const char *at, size_t n)
{
	if (n > sizeof(last->bytes))
		return;
	memcpy(last->bytes, at, n);
	last->n = n;
	lua_copy(L, -2, lua_upvalueindex(TEXT));
}

static int
bare(lua_State *L)
{
	struct last *last = lua_touserdata(L, lua_upvalueindex(LAST));
	lua_Integer pos = luaL_checkinteger(L, 2), n;
	size_t len;
	const char *buf = luaL_checklstring(L, 1, &len);

	lua_settop(L, 2);
	if (pos >= 1 && (size_t)pos <= len &&
	    again(last, buf + pos - 1, len - (size_t)pos + 1)) {
		lua_pushvalue(L, lua_upvalueindex(TEXT));
		lua_pushinteger(L, pos + (lua_Integer)last->n);
		return 2;
	}
	if (command(L) == 2 && lua_isstring(L, -2)) {
		n = lua_tointeger(L, -1) - pos;
		if (n <= lua_tointeger(L, lua_upvalueindex(MAX))) {
			remember(L, last, buf + pos - 1, (size_t)n);
			return 2;
		}
	}
	lua_settop(L, 2);
	lua_pushvalue(L, lua_upvalueindex(JUDGE));
	lua_insert(L, 1);
	lua_call(L, 2, LUA_MULTRET);
	return lua_gettop(L);
}

static int
make_bare(lua_State *L)
{
	struct last *last;

	luaL_checkinteger(L, 1);
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_settop(L, 2);
	last = lua_newuserdatauv(L, sizeof(*last), 0);
	last->n = 0;
	lua_pushnil(L);
	lua_pushcclosure(L, bare, TEXT);
	return 1;
}

static int
repeats(lua_State *L)
{
	size_t len, n;
	const char *buf = luaL_checklstring(L, 1, &len), *at, *end = buf + len;
	lua_Integer pos = luaL_checkinteger(L, 2), times = 0;
	const char *text = luaL_checklstring(L, 3, &n);

	luaL_argcheck(L, pos >= 1 && (size_t)pos - 1 <= len, 2, "it is outside");
	luaL_argcheck(L, n > 0, 3, "it is empty");
	for (at = buf + pos - 1; (size_t)(end - at) >= n && memcmp(at, text, n) == 0;
	     at += n)
		times++;
	lua_pushinteger(L, times);
	return 1;
}

int
open_resp_scan(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"bare", make_bare}, {"command", command}, {"repeats", repeats}, {NULL, NULL}};

	luaL_newlib(L, functions);
	return 1;
}
