#include "bind/lhttp.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

enum {
	MOST = 32,      /* headers; with more it is not usual */
	MOST_NAME = 64, /* bytes of a header's name, likewise */
};

struct piece {
	const char *p;
	size_t n;
};

struct head {
	const char *at, *end;
	double line, left; /* bytes that a line, and all that is left, may have */
	struct piece method, target;
	int minor;
	bool plain; /* the target is just a path */
	size_t n;
	struct {
		struct piece name, value;
	} headers[MOST];
};

static bool
is_letter(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_token(unsigned char c)
{
	return is_letter(c) || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+.^_`|~-", c));
}

static bool
is_value(unsigned char c)
{
	return (c >= ' ' && c != 0x7f) || c == '\t';
}

/* A line has been read from `from` on; false: it is too long. */
static bool
ends_line(struct head *h, const char *from, const char *p)
{
	double size = (double)(p + 2 - from);

	if (h->end - p < 2 || p[0] != '\r' || p[1] != '\n' || size > h->line ||
	    size > h->left)
		return false;
	h->left -= size;
	h->at = p + 2;
	return true;
}

static bool
request_line(struct head *h)
{
	static const char version[] = " HTTP/1.";
	const char *from = h->at, *p = from, *end = h->end;

	while (p < end && (is_letter((unsigned char)*p) || *p == '_' || *p == '-'))
		p++;
	h->method = (struct piece){from, (size_t)(p - from)};
	if (p == from || p == end || *p != ' ')
		return false;
	h->target.p = ++p;
	h->plain = p < end && *p == '/';
	for (; p<end && * p> ' ' && *p < 0x7f; p++)
		h->plain &= *p != '?' && *p != '#';
	h->target.n = (size_t)(p - h->target.p);
	if (h->target.n == 0 || (size_t)(end - p) < sizeof(version) + 2 ||
	    memcmp(p, version, sizeof(version) - 1) != 0)
		return false;
	p += sizeof(version) - 1;
	if (*p != '0' && *p != '1')
		return false;
	h->minor = *p - '0';
	return ends_line(h, from, p + 1);
}

static bool
header(struct head *h)
{
	const char *from = h->at, *p = from, *end = h->end;
	struct piece *name = &h->headers[h->n].name, *value = &h->headers[h->n].value;

	while (p < end && is_token((unsigned char)*p))
		p++;
	*name = (struct piece){from, (size_t)(p - from)};
	if (name->n == 0 || name->n > MOST_NAME || p == end || *p != ':')
		return false;
	for (p++; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	value->p = p;
	while (p < end && is_value((unsigned char)*p))
		p++;
	value->n = (size_t)(p - value->p);
	h->n++;
	return ends_line(h, from, p) && p[-1] != ' ' && p[-1] != '\t';
}

static bool
scan(struct head *h, double headers)
{
	if (!request_line(h))
		return false;
	while (h->end - h->at >= 2 && (h->at[0] != '\r' || h->at[1] != '\n'))
		if (h->n == MOST || (double)h->n >= headers || !header(h))
			return false;
	if (h->end - h->at < 2)
		return false;
	h->at += 2;
	return true;
}

/* False: one comes twice. */
static bool
push_headers(lua_State *L, const struct head *h)
{
	char name[MOST_NAME];

	lua_createtable(L, 0, (int)h->n);
	for (size_t i = 0; i < h->n; i++) {
		const struct piece *from = &h->headers[i].name;
		for (size_t k = 0; k < from->n; k++)
			name[k] =
			    (char)(is_letter((unsigned char)from->p[k]) ? from->p[k] | 0x20
									: from->p[k]);
		lua_pushlstring(L, name, from->n);
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) != LUA_TNIL)
			return false;
		lua_pop(L, 1);
		lua_pushlstring(L, h->headers[i].value.p, h->headers[i].value.n);
		lua_rawset(L, -3);
	}
	return true;
}

static int
head(lua_State *L)
{
	size_t len;
	const char *buf = luaL_checklstring(L, 1, &len);
	lua_Integer at = luaL_checkinteger(L, 2);
	struct head h;

	luaL_argcheck(L, at >= 1 && (size_t)at - 1 <= len, 2, "it is outside");
	h.at = buf + at - 1;
	h.end = buf + len;
	h.line = lua_tonumber(L, 3);
	h.left = lua_tonumber(L, 4);
	h.n = 0;
	if (!scan(&h, lua_tonumber(L, 5)))
		return 0;
	lua_pushlstring(L, h.method.p, h.method.n);
	lua_pushlstring(L, h.target.p, h.target.n);
	lua_pushinteger(L, h.minor);
	if (!push_headers(L, &h))
		return 0;
	lua_pushinteger(L, h.at - buf + 1);
	lua_pushboolean(L, h.plain);
	return 6;
}

int
open_http_scan(lua_State *L)
{
	static const luaL_Reg functions[] = {{"head", head}, {NULL, NULL}};

	luaL_newlib(L, functions);
	return 1;
}
