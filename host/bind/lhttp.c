#include "bind/lhttp.h"

#include "base/rare.h"
#include "bind/httphead.h"
#include "bind/lhandle.h"
#include "bind/lrfile.h"
#include "bind/stream.h"
#include "script/task.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { KEPT = 2048 }; /* bytes, of a head that is remembered */

/* ---- a head in a string ---- */

/* False: one comes twice. */
static bool
push_headers(lua_State *L, const struct httphead *h)
{
	char name[HTTPHEAD_NAME];

	lua_createtable(L, 0, (int)h->n);
	for (size_t i = 0; i < h->n; i++) {
		httphead_lower(name, &h->fields[i].name);
		lua_pushlstring(L, name, h->fields[i].name.n);
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) != LUA_TNIL)
			return false;
		lua_pop(L, 1);
		lua_pushlstring(L, h->fields[i].value.p, h->fields[i].value.n);
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
	struct httphead h;

	luaL_argcheck(L, at >= 1 && (size_t)at - 1 <= len, 2, "it is outside");
	h.at = buf + at - 1;
	h.end = buf + len;
	h.left = (struct httphead_limits){lua_tonumber(L, 3), lua_tonumber(L, 4),
					  lua_tonumber(L, 5)};
	if (!httphead_scan(&h))
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

/* ---- a head on a connection ---- */

/* Of a reader: its connection, as in struct handle. */
struct direct {
	const char *mark; /* it is one: no other userdata of the size has it */
	struct stream *stream;
	uint32_t serial;
	struct httphead_limits limits;
};

static const char mark[] = "moonport.http.direct";

/* What was understood of the last usual head; the upvalues have its texts. */
struct last {
	struct httphead_limits used;
	int64_t length; /* of the body; -1: there is none */
	bool keep_alive, host, query;
	int minor, fields;
	size_t n; /* bytes; 0: none */
	char bytes[KEPT];
};

/* Upvalues of take(). */
enum { LAST = 1, FIELDS, METHOD, TARGET, PATH, HOST, QUERY };

static int
direct(lua_State *L)
{
	struct stream *s = handle_look(L, request_class);
	struct direct *d;

	if (!s)
		s = handle_look(L, socket_class);
	if (!s || s->closed || s->datagram)
		return 0;
	d = lua_newuserdatauv(L, sizeof(*d), 0);
	*d = (struct direct){
	    .mark = mark,
	    .stream = s,
	    .serial = s->serial,
	    .limits = {lua_tonumber(L, 2), lua_tonumber(L, 3), lua_tonumber(L, 4)}};
	return 1;
}

static struct stream *
stream_of(const struct direct *d)
{
	return d->stream->serial == d->serial && !d->stream->closed ? d->stream : NULL;
}

static bool
again(const struct last *last, const struct direct *d, const char *p, size_t n)
{
	return last->n > 0 && n >= last->n && memcmp(p, last->bytes, last->n) == 0 &&
	       last->used.line <= d->limits.line && last->used.head <= d->limits.head &&
	       last->used.headers <= d->limits.headers;
}

static void
push_texts(lua_State *L, const char *from, const char *to, const struct httphead *h,
	   const struct httphead_sense *sense)
{
	const struct httphead_piece *texts[] = {&h->method, &h->target, &sense->path,
						&sense->host, &sense->query};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		lua_pushlstring(L, texts[i]->n > 0 ? to + (texts[i]->p - from) : "",
				texts[i]->n);
}

/* Names and values, in turn. */
static void
push_fields(lua_State *L, const char *from, const char *to, const struct httphead *h)
{
	char name[HTTPHEAD_NAME];

	lua_createtable(L, (int)(2 * h->n), 0);
	for (size_t i = 0; i < h->n; i++) {
		struct httphead_piece n = h->fields[i].name, v = h->fields[i].value;
		n.p = to + (n.p - from);
		httphead_lower(name, &n);
		lua_pushlstring(L, name, n.n);
		lua_rawseti(L, -2, (lua_Integer)(2 * i + 1));
		lua_pushlstring(L, to + (v.p - from), v.n);
		lua_rawseti(L, -2, (lua_Integer)(2 * i + 2));
	}
}

/* Takes the head at `p` apart and remembers it.  False: it is unusual, or not there as a
 * whole.  Once there is a string of it `p` may be gone: finalizers may use connections. */
static bool
learn(lua_State *L, struct last *last, const struct httphead_limits *limits, const char *p,
      size_t n)
{
	struct httphead h = {.at = p, .end = p + n, .left = *limits};
	struct httphead_sense sense;
	const char *copy;

	if (!httphead_scan(&h) || !httphead_judge(&h, &sense))
		return false;
	n = (size_t)(h.at - p);
	if (n > KEPT)
		return false;
	copy = lua_pushlstring(L, p, n);
	push_texts(L, p, copy, &h, &sense);
	push_fields(L, p, copy, &h);
	lua_replace(L, lua_upvalueindex(FIELDS));
	for (int text = QUERY; text >= METHOD; text--)
		lua_replace(L, lua_upvalueindex(text));
	last->used = h.used;
	last->length = sense.length;
	last->keep_alive = sense.keep_alive;
	last->host = sense.host.p != NULL;
	last->query = sense.query.p != NULL;
	last->minor = h.minor;
	last->fields = (int)h.n;
	last->n = n;
	memcpy(last->bytes, copy, n);
	lua_pop(L, 1);
	return true;
}

static void
push_text(lua_State *L, int text, bool there_is)
{
	if (there_is)
		lua_pushvalue(L, lua_upvalueindex(text));
	else
		lua_pushnil(L);
}

/* Fills the table of headers on top by what is remembered, and adds the rest.  Collects no
 * garbage, so that no finalizer comes in between. */
static int
push_request(lua_State *L, const struct last *last)
{
	for (int i = 1; i <= 2 * last->fields; i += 2) {
		lua_rawgeti(L, lua_upvalueindex(FIELDS), i);
		lua_rawgeti(L, lua_upvalueindex(FIELDS), i + 1);
		lua_rawset(L, 2);
	}
	for (int text = METHOD; text <= PATH; text++)
		lua_pushvalue(L, lua_upvalueindex(text));
	push_text(L, HOST, last->host);
	lua_pushinteger(L, last->minor);
	lua_pushboolean(L, last->keep_alive);
	if (!last->query && last->length < 0)
		return 7;
	push_text(L, QUERY, last->query);
	if (last->length < 0)
		return 8;
	lua_pushinteger(L, last->length);
	return 9;
}

/* What is there is unusual, or has to go on. */
static RARE int
refuse(lua_State *L, const char *p, size_t n)
{
	if (!memmem(p, n, "\r\n\r\n", 4))
		return 0;
	lua_pushboolean(L, 0);
	return 1;
}

/* The request whose head is there.  What makes garbage comes before a look at the bytes: a
 * finalizer may use any connection. */
static int
take_head(lua_State *L, struct direct *d)
{
	struct last *last = lua_touserdata(L, lua_upvalueindex(LAST));
	const char *p;
	size_t n;

	lua_settop(L, 1);
	lua_createtable(L, 0, last->fields);
	if (!stream_of(d))
		return 0;
	stream_view(d->stream, &p, &n);
	if (!again(last, d, p, n)) {
		if (!learn(L, last, &d->limits, p, n))
			return refuse(L, p, n);
		if (!stream_of(d))
			return 0;
		stream_view(d->stream, &p, &n);
		if (!again(last, d, p, n))
			return 0;
	}
	stream_consume(d->stream, last->n);
	return push_request(L, last);
}

/* What recv() says, but for the number of an error. */
static RARE int
two(lua_State *L, int n)
{
	lua_pop(L, n - 2);
	return 2;
}

static int take_k(lua_State *L, int status, lua_KContext ctx);

static int
receive(lua_State *L, struct direct *d)
{
	struct stream *s = d->stream;
	const char *p;
	size_t n;
	ssize_t rc;

	stream_check_reader(L, s);
	stream_view(s, &p, &n);
	if (n == 0) {
		rc = stream_fill(s);
		if (rc == -EINPROGRESS)
			return stream_park_in(L, s, 0, take_k);
		if (rc == -EAGAIN)
			return stream_yield_in(L, s, 0, take_k);
		if (rc <= 0)
			return two(L, read_failed(L, rc));
	}
	return take_head(L, d);
}

static int
take_k(lua_State *L, int status, lua_KContext ctx)
{
	struct direct *d = lua_touserdata(L, 1);
	int n = recv_woken(L, stream_of(d));

	(void)status, (void)ctx;
	return n > 0 ? two(L, n) : receive(L, d);
}

static int
take(lua_State *L)
{
	struct direct *d = lua_touserdata(L, 1);

	if (!d || lua_rawlen(L, 1) != sizeof(*d) || d->mark != mark)
		return luaL_typeerror(L, 1, mark);
	return stream_of(d) ? receive(L, d) : 0;
}

static void
push_take(lua_State *L)
{
	struct last *last = lua_newuserdatauv(L, sizeof(*last), 0);

	*last = (struct last){.length = -1};
	lua_newtable(L);
	for (int text = METHOD; text <= QUERY; text++)
		lua_pushliteral(L, "");
	lua_pushcclosure(L, take, QUERY);
}

/* ---- a reply ---- */

/* Upvalues of reply(). */
enum { OTHERWISE = 1, STARTS, SECOND, ASKED_METHOD, ASKED_MINOR, ASKED_MORE };

static int
reply_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)L, (void)status, (void)ctx;
	return 0;
}

static RARE int
reply_otherwise(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(OTHERWISE));
	lua_insert(L, 1);
	lua_callk(L, lua_gettop(L) - 1, 0, 0, reply_k);
	return 0;
}

/* The request, which is argument 2, wants the usual reply. */
static bool
wants_usual(lua_State *L)
{
	const char *method;
	bool usual;

	if (!lua_istable(L, 2))
		return false;
	lua_pushvalue(L, lua_upvalueindex(ASKED_MORE));
	lua_rawget(L, 2);
	lua_pushvalue(L, lua_upvalueindex(ASKED_MINOR));
	lua_rawget(L, 2);
	lua_pushvalue(L, lua_upvalueindex(ASKED_METHOD));
	usual = lua_rawget(L, 2) == LUA_TSTRING && lua_isinteger(L, -2) &&
		lua_tointeger(L, -2) == 1 && lua_toboolean(L, -3);
	method = usual ? lua_tostring(L, -1) : NULL;
	usual = method && strcmp(method, "HEAD") != 0;
	lua_pop(L, 3);
	return usual;
}

/* Appends a number and what ends a head. */
static char *
end_head(char *to, size_t length)
{
	char digits[8], *at = digits + sizeof(digits); /* it is below STREAM_DIRECT */

	do
		*--at = (char)('0' + length % 10);
	while ((length /= 10) > 0);
	memcpy(to, at, (size_t)(digits + sizeof(digits) - at));
	to += digits + sizeof(digits) - at;
	memcpy(to, "\r\n\r\n", 4);
	return to + 4;
}

/* What goes before the length of a reply's body, if it is a usual one of now; else NULL. */
static const char *
start_of(lua_State *L, size_t *n)
{
	const char *start = NULL;

	if (!lua_isinteger(L, 3) || lua_toboolean(L, 5) || lua_toboolean(L, 6) ||
	    !wants_usual(L))
		return NULL;
	lua_rawgeti(L, lua_upvalueindex(SECOND), 1);
	if (lua_tointeger(L, -1) == (lua_Integer)time(NULL) &&
	    lua_rawgeti(L, lua_upvalueindex(STARTS), lua_tointeger(L, 3)) == LUA_TSTRING)
		start = lua_tolstring(L, -1, n);
	return start; /* STARTS has it */
}

static int
reply(lua_State *L)
{
	struct stream *s = handle_look(L, wfile_class);
	size_t n, length;
	const char *start, *body;
	char *to, *end;
	int top = lua_gettop(L);

	if (!s || s->closed || s->write_closed || top < 4 || lua_type(L, 4) != LUA_TSTRING)
		return reply_otherwise(L);
	start = start_of(L, &n);
	lua_settop(L, top);
	body = lua_tolstring(L, 4, &length);
	if (!start || length >= STREAM_DIRECT)
		return reply_otherwise(L);
	to = stream_place(s, n + 16 + length);
	if (!to)
		return reply_otherwise(L);
	memcpy(to, start, n);
	end = end_head(to + n, length);
	memcpy(end, body, length);
	stream_placed(s, (size_t)(end - to) + length);
	return 0;
}

static int
make_replier(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	luaL_checktype(L, 2, LUA_TTABLE);
	luaL_checktype(L, 3, LUA_TTABLE);
	lua_settop(L, 3);
	lua_pushliteral(L, "method");
	lua_pushliteral(L, "minor");
	lua_pushliteral(L, "keep_alive");
	lua_pushcclosure(L, reply, ASKED_MORE);
	return 1;
}

int
open_http_scan(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"direct", direct}, {"head", head}, {"replier", make_replier}, {NULL, NULL}};

	luaL_newlib(L, functions);
	push_take(L);
	lua_setfield(L, -2, "take");
	return 1;
}
