#include "script/plain.h"

#include "base/buf.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A tag, and then what it says.  A table's pairs are followed by END. */
enum tag {
	END,
	NIL,
	FALSE,
	TRUE,
	INTEGER,
	FLOAT,
	SHORT, /* a byte of length, the bytes */
	LONG,  /* a size_t of length, the bytes */
	TABLE,
	AGAIN, /* a lua_Integer: which one of the long strings and the tables so far */
};

/* A short string is not worth remembering.  Slots: the stack that a level needs. */
enum { SHORT_MAX = 40, SLOTS = 8, PATH = 160, KEY = 40 };

struct writer {
	lua_State *L;
	struct buf *out;
	int seen; /* stack index of a table: value -> its number, or false while it is open
		   */
	lua_Integer count;
	int depth;
	int keys[PLAIN_DEPTH]; /* stack indices: the way to where the writer is */
};

struct reader {
	lua_State *L;
	const char *p, *end;
	int made; /* stack index of a table: number -> value */
	lua_Integer count;
	int depth;
};

/* ---- what cannot be written ---- */

static bool
is_name(const char *s, size_t n)
{
	if (n == 0 || n > KEY || isdigit((unsigned char)*s))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '_')
			return false;
	return true;
}

/* Writes the key at idx as it would stand in Lua code, more or less. */
static void
describe_key(lua_State *L, int idx, bool first, char *out, size_t size)
{
	size_t n, at = 2;
	const char *s;

	switch (lua_type(L, idx)) {
	case LUA_TSTRING:
		s = lua_tolstring(L, idx, &n);
		if (is_name(s, n)) {
			snprintf(out, size, "%s%s", first ? "" : ".", s);
			return;
		}
		memcpy(out, "[\"", 2);
		for (size_t i = 0; i < n && i < KEY; i++)
			out[at++] = isprint((unsigned char)s[i]) ? s[i] : '?';
		snprintf(out + at, size - at, n > KEY ? "...\"]" : "\"]");
		return;
	case LUA_TNUMBER:
		if (lua_isinteger(L, idx))
			snprintf(out, size, "[" LUA_INTEGER_FMT "]", lua_tointeger(L, idx));
		else
			snprintf(out, size, "[" LUA_NUMBER_FMT "]", lua_tonumber(L, idx));
		return;
	case LUA_TBOOLEAN:
		snprintf(out, size, lua_toboolean(L, idx) ? "[true]" : "[false]");
		return;
	default:
		snprintf(out, size, "[%s]", luaL_typename(L, idx));
	}
}

/* `what` is not plain; key: it is a key of the table where the writer is, not a value. */
static void
refuse(const struct writer *w, const char *what, bool key)
{
	int depth = w->depth - key;
	char path[PATH + 2 * KEY] = "", part[2 * KEY];
	const char *where = key         ? depth > 0 ? " as a key of " : " as a key"
			    : depth > 0 ? " at "
					: "";
	size_t n = 0;

	for (int i = 0; i < depth; i++) {
		describe_key(w->L, w->keys[i], i == 0, part, sizeof(part));
		if (n + strlen(part) > PATH) {
			memcpy(path + n, "...", 4);
			break;
		}
		memcpy(path + n, part, strlen(part) + 1);
		n += strlen(part);
	}
	luaL_error(w->L,
		   "%s%s%s cannot be saved; plain data is nil, booleans, numbers, strings "
		   "and tables of these",
		   what, where, path);
}

/* ---- writing ---- */

static void
put(const struct writer *w, const void *p, size_t n)
{
	if (!buf_put(w->out, p, n))
		luaL_error(w->L, "not enough memory");
}

static void
put_tag(const struct writer *w, enum tag tag)
{
	char c = (char)tag;

	put(w, &c, 1);
}

static void
put_number(const struct writer *w)
{
	lua_Integer i;
	lua_Number f;

	if (lua_isinteger(w->L, -1)) {
		i = lua_tointeger(w->L, -1);
		put_tag(w, INTEGER);
		put(w, &i, sizeof(i));
	} else {
		f = lua_tonumber(w->L, -1);
		put_tag(w, FLOAT);
		put(w, &f, sizeof(f));
	}
}

/* True: the value on top has been written before, and only its number was now.  False for
 * one that is still open, too: *open. */
static bool
put_again(const struct writer *w, bool *open)
{
	lua_State *L = w->L;
	lua_Integer n;
	int type;

	lua_pushvalue(L, -1);
	type = lua_rawget(L, w->seen);
	n = lua_tointeger(L, -1);
	lua_pop(L, 1);
	*open = type == LUA_TBOOLEAN;
	if (type != LUA_TNUMBER)
		return false;
	put_tag(w, AGAIN);
	put(w, &n, sizeof(n));
	return true;
}

/* Gives the value on top a number. */
static void
number(struct writer *w)
{
	lua_pushvalue(w->L, -1);
	lua_pushinteger(w->L, ++w->count);
	lua_rawset(w->L, w->seen);
}

static void
put_string(struct writer *w)
{
	size_t n;
	const char *s = lua_tolstring(w->L, -1, &n);
	unsigned char len = (unsigned char)n;
	bool open;

	if (n <= SHORT_MAX) {
		put_tag(w, SHORT);
		put(w, &len, 1);
		put(w, s, n);
	} else if (!put_again(w, &open)) {
		put_tag(w, LONG);
		put(w, &n, sizeof(n));
		put(w, s, n);
		number(w);
	}
}

static void put_value(struct writer *w, bool key);

/* The pairs of the table on top. */
static void
put_pairs(struct writer *w)
{
	lua_State *L = w->L;

	w->depth++;
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
		w->keys[w->depth - 1] = lua_gettop(L) - 1;
		lua_pushvalue(L, -2);
		put_value(w, true);
		lua_pop(L, 1);
		put_value(w, false);
	}
	w->depth--;
}

static void
put_table(struct writer *w, bool key)
{
	lua_State *L = w->L;
	char what[64];
	bool open;

	luaL_checkstack(L, SLOTS, "too many tables inside each other");
	if (lua_getmetatable(L, -1))
		refuse(w, "a table with a metatable", key);
	if (put_again(w, &open))
		return;
	if (open)
		refuse(w, "a table that is inside itself", key);
	if (w->depth == PLAIN_DEPTH) {
		snprintf(what, sizeof(what), "a table inside %d others", PLAIN_DEPTH);
		refuse(w, what, key);
	}
	lua_pushvalue(L, -1);
	lua_pushboolean(L, 0);
	lua_rawset(L, w->seen);
	put_tag(w, TABLE);
	put_pairs(w);
	put_tag(w, END);
	number(w); /* only now: nothing in the bytes can make a table contain itself */
}

/* The value on top of the stack, which stays there. */
static void
put_value(struct writer *w, bool key)
{
	lua_State *L = w->L;
	char what[64];

	switch (lua_type(L, -1)) {
	case LUA_TNIL:
		put_tag(w, NIL);
		break;
	case LUA_TBOOLEAN:
		put_tag(w, lua_toboolean(L, -1) ? TRUE : FALSE);
		break;
	case LUA_TNUMBER:
		put_number(w);
		break;
	case LUA_TSTRING:
		put_string(w);
		break;
	case LUA_TTABLE:
		put_table(w, key);
		break;
	default:
		snprintf(what, sizeof(what), "a %s", luaL_typename(L, -1));
		refuse(w, what, key);
	}
}

void
plain_write(lua_State *L, int idx, struct buf *out)
{
	struct writer w = {.L = L, .out = out};

	idx = lua_absindex(L, idx);
	luaL_checkstack(L, SLOTS, NULL);
	lua_newtable(L);
	w.seen = lua_gettop(L);
	lua_pushvalue(L, idx);
	put_value(&w, false);
	lua_pop(L, 2);
}

/* ---- reading ---- */

static void
malformed(const struct reader *r)
{
	luaL_error(r->L, "malformed plain data, %d bytes before its end",
		   (int)(r->end - r->p));
}

static const char *
take(struct reader *r, size_t n)
{
	const char *p = r->p;

	if ((size_t)(r->end - p) < n)
		malformed(r);
	r->p += n;
	return p;
}

static void
take_into(struct reader *r, void *to, size_t n)
{
	memcpy(to, take(r, n), n);
}

/* Remembers the value on top. */
static void
keep(struct reader *r)
{
	lua_pushvalue(r->L, -1);
	lua_rawseti(r->L, r->made, ++r->count);
}

static void
read_string(struct reader *r, enum tag tag)
{
	size_t n;

	if (tag == SHORT)
		n = (unsigned char)*take(r, 1);
	else
		take_into(r, &n, sizeof(n));
	lua_pushlstring(r->L, take(r, n), n);
	if (tag == LONG)
		keep(r);
}

static void read_value(struct reader *r, enum tag tag);

static enum tag
read_tag(struct reader *r)
{
	return (enum tag)(unsigned char)*take(r, 1);
}

static bool
is_key(lua_State *L)
{
	lua_Number f = lua_tonumber(L, -1);

	return !lua_isnil(L, -1) && (lua_type(L, -1) != LUA_TNUMBER || f == f);
}

static void
read_table(struct reader *r)
{
	lua_State *L = r->L;
	enum tag tag;

	luaL_checkstack(L, SLOTS, "too many tables inside each other");
	if (r->depth++ == PLAIN_DEPTH)
		malformed(r);
	lua_newtable(L);
	while ((tag = read_tag(r)) != END) {
		read_value(r, tag);
		if (!is_key(L))
			malformed(r);
		read_value(r, read_tag(r));
		if (lua_isnil(L, -1))
			malformed(r);
		lua_rawset(L, -3);
	}
	r->depth--;
	keep(r);
}

static void
read_number(struct reader *r, enum tag tag)
{
	lua_Integer i;
	lua_Number f;

	if (tag == FLOAT) {
		take_into(r, &f, sizeof(f));
		lua_pushnumber(r->L, f);
		return;
	}
	take_into(r, &i, sizeof(i));
	if (tag == INTEGER)
		lua_pushinteger(r->L, i);
	else if (i >= 1 && i <= r->count)
		lua_rawgeti(r->L, r->made, i);
	else
		malformed(r);
}

static void
read_value(struct reader *r, enum tag tag)
{
	switch (tag) {
	case NIL:
		lua_pushnil(r->L);
		break;
	case FALSE:
	case TRUE:
		lua_pushboolean(r->L, tag == TRUE);
		break;
	case INTEGER:
	case FLOAT:
	case AGAIN:
		read_number(r, tag);
		break;
	case SHORT:
	case LONG:
		read_string(r, tag);
		break;
	case TABLE:
		read_table(r);
		break;
	default:
		malformed(r);
	}
}

void
plain_read(lua_State *L, const char *p, size_t n)
{
	struct reader r = {.L = L, .p = p, .end = p + n};

	luaL_checkstack(L, SLOTS, NULL);
	lua_newtable(L);
	r.made = lua_gettop(L);
	read_value(&r, read_tag(&r));
	if (r.p != r.end)
		malformed(&r);
	lua_remove(L, r.made);
}
