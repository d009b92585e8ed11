/* rfile: a Lua file handle that reads from the connection.
 *
 * A read returns data, or nil and why.  What a read has not taken stays in the
 * stream's buffer: a read that timed out can be tried again.
 */
#include "bind/lrfile.h"

#include "base/rare.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "bind/take.h"
#include "script/lerror.h"
#include "script/task.h"

#include <errno.h>
#include <string.h>

RARE int
read_failed(lua_State *L, ssize_t rc)
{
	if (rc == 0) {
		lua_pushnil(L);
		lua_pushliteral(L, "closed");
		return 2;
	}
	if (rc == -ETIMEDOUT) {
		lua_pushnil(L);
		lua_pushliteral(L, "timeout");
		return 2;
	}
	if (rc == -ENOMEM)
		return luaL_error(L, "not enough memory");
	return lerror_result(L, (int)-rc);
}

int
recv_woken(lua_State *L, struct stream *s)
{
	int rc = task_woke(L);

	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a recv");
	if (s->interrupted) {
		s->interrupted = false;
		lua_pushnil(L);
		lua_pushliteral(L, "interrupted");
		return 2;
	}
	return rc < 0 ? read_failed(L, rc) : 0;
}

/* Reads until one wanted thing is taken or refused.  Returns how many values were
 * pushed; *parked: return this to Lua at once, k goes on. */
static int
read_one(lua_State *L, struct stream *s, const struct want *w, lua_KContext ctx,
	 lua_KFunction k, bool *parked)
{
	bool collected = false;
	ssize_t n;

	for (;;) {
		enum outcome o = take_wanted(L, s, w);
		if (o != MORE)
			return (int)o;
		n = stream_fill(s);
		if (n == -EINPROGRESS || n == -EAGAIN) {
			*parked = true;
			return n == -EAGAIN ? stream_yield_in(L, s, ctx, k)
					    : stream_park_in(L, s, ctx, k);
		}
		if (n == -ENOMEM && !collected) { /* garbage may be what is in the way */
			collected = true;
			lua_gc(L, LUA_GCCOLLECT);
			continue;
		}
		if (n < 0)
			return read_failed(L, n);
	}
}

/* The stream after a wait, or an error; *rc says how the wait ended. */
static struct stream *
woken(lua_State *L, int *rc)
{
	struct stream *s = handle_peek(L);

	*rc = task_woke(L);
	if (!s || s->closed)
		luaL_error(L, "the connection was closed during a read");
	stream_check_reader(L, s);
	return s;
}

static struct want
format_at(lua_State *L, int idx)
{
	const char *f;

	if (lua_type(L, idx) == LUA_TNUMBER) {
		lua_Integer n = luaL_checkinteger(L, idx);
		luaL_argcheck(L, n >= 0, idx, "a count must not be negative");
		return (struct want){.kind = COUNT, .n = (size_t)n};
	}
	f = luaL_checkstring(L, idx);
	if (*f == '*')
		f++;
	switch (*f) {
	case 'l':
		return (struct want){.kind = LINE};
	case 'L':
		return (struct want){.kind = LINE_NL};
	case 'a':
		return (struct want){.kind = ALL};
	case 'n':
		return (struct want){.kind = NUMBER};
	default:
		luaL_argerror(L, idx,
			      "invalid format: \"l\", \"L\", \"a\", \"n\" or a count");
		return (struct want){0};
	}
}

static int read_k(lua_State *L, int status, lua_KContext ctx);

/* Stack: rfile, formats 2..last, results.  ctx: last * 256 + the format that is due. */
static int
read_formats(lua_State *L, struct stream *s, int last, int at)
{
	bool parked = false;
	int n;

	for (; at <= last; at++) {
		struct want w = format_at(L, at);
		n = read_one(L, s, &w, (lua_KContext)last * 256 + at, read_k, &parked);
		if (parked)
			return n;
		if (n > 1)
			break; /* nil and why: the rest is not read */
	}
	return lua_gettop(L) - last;
}

static int
read_k(lua_State *L, int status, lua_KContext ctx)
{
	int rc, last = (int)(ctx / 256), failed;
	struct stream *s = woken(L, &rc);

	(void)status;
	if (rc < 0) {
		failed = read_failed(L, rc);
		(void)failed;
		return lua_gettop(L) - last;
	}
	return read_formats(L, s, last, (int)(ctx % 256));
}

static struct stream *
self_for_reading(lua_State *L)
{
	struct stream *s = handle_of(L, rfile_class);

	if (s->read_closed)
		luaL_error(L, "attempt to read from a closed rfile");
	stream_check_reader(L, s);
	s->scanned = 0; /* an earlier read may have looked for something else */
	return s;
}

/* rfile:read([format, ...]) */
static int
rfile_read(lua_State *L)
{
	struct stream *s = self_for_reading(L);
	int last = lua_gettop(L);

	luaL_argcheck(L, last < 200, 2, "too many formats");
	if (last == 1) {
		lua_pushliteral(L, "l");
		last = 2;
	}
	luaL_checkstack(L, last + 4, "too many formats");
	return read_formats(L, s, last, 2);
}

/* The methods that read one thing: `arg` is how to make it from argument 2. */
static int single_k(lua_State *L, int status, lua_KContext ctx);

static struct want
single_want(lua_State *L, int kind)
{
	struct want w = {.kind = (unsigned)kind};

	if (kind == EXACTLY) {
		lua_Integer n = luaL_checkinteger(L, 2);
		luaL_argcheck(L, n >= 0, 2, "a count must not be negative");
		w.n = (size_t)n;
	} else if (kind == UNTIL) {
		w.s = luaL_checklstring(L, 2, &w.n);
		luaL_argcheck(L, w.n > 0, 2, "the delimiter must not be empty");
	} else if (kind == UNPACK)
		w.s = luaL_checkstring(L, 2);
	return w;
}

/* Turns the bytes on top into the values of the format in argument 2. */
static int
unpack_top(lua_State *L)
{
	lua_getfield(L, lua_upvalueindex(2), "unpack");
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -3);
	lua_call(L, 2, LUA_MULTRET);
	lua_pop(L, 1); /* where it ended */
	return lua_gettop(L) - 3;
}

static int
read_single(lua_State *L, struct stream *s, int kind)
{
	struct want w = single_want(L, kind);
	bool parked = false;
	int n;

	lua_settop(L, 2);
	n = read_one(L, s, &w, kind, single_k, &parked);
	return parked || n != 1 || kind != UNPACK ? n : unpack_top(L);
}

static int
single_k(lua_State *L, int status, lua_KContext ctx)
{
	int rc;
	struct stream *s = woken(L, &rc);

	(void)status;
	return rc < 0 ? read_failed(L, rc) : read_single(L, s, (int)ctx);
}

static int
rfile_readline(lua_State *L)
{
	return read_single(L, self_for_reading(L), LINE_NL);
}

static int
rfile_readexactly(lua_State *L)
{
	return read_single(L, self_for_reading(L), EXACTLY);
}

static int
rfile_readuntil(lua_State *L)
{
	return read_single(L, self_for_reading(L), UNTIL);
}

static int
rfile_unpack(lua_State *L)
{
	return read_single(L, self_for_reading(L), UNPACK);
}

/* An iteration step: nil at the end of the stream, an error for any other failure.
 * Stack: ..., nil, message [, errno]: n values. */
static RARE int
step_result(lua_State *L, int n)
{
	const char *why;

	if (n < 2 || !lua_isnil(L, -n))
		return n;
	why = lua_tostring(L, 1 - n);
	if (strcmp(why, "closed") == 0) {
		lua_pushnil(L);
		return 1;
	}
	if (n == 3)
		return lerror_raise_errno(L, "read", (int)lua_tointeger(L, -1));
	if (strcmp(why, "timeout") == 0)
		return lerror_raise_timeout(L, "read");
	lerror_push(L, why, lua_pushfstring(L, "read: %s", why), 0);
	return lua_error(L);
}

static int next_k(lua_State *L, int status, lua_KContext ctx);

static int
next_line(lua_State *L, struct stream *s, int kind)
{
	struct want w = {.kind = (unsigned)kind};
	bool parked = false;
	enum outcome o = MORE;
	ssize_t got;
	int n;

	for (;;) {
		if (stream_has(s)) {
			o = take_line(L, s, kind == LINE_NL);
			if (o != MORE)
				break;
		} else if (s->eof) {
			lua_pushnil(L);
			return 1;
		}
		got = stream_fill(s);
		if (got == -EINPROGRESS)
			return stream_park_in(L, s, kind, next_k);
		if (got == -EAGAIN)
			return stream_yield_in(L, s, kind, next_k);
		if (got == -ENOMEM) /* asked again, it is the same */
			break;
		if (got < 0)
			return step_result(L, read_failed(L, got));
	}
	if (o != MORE)
		return o == TAKEN ? 1 : step_result(L, 2);
	n = read_one(L, s, &w, kind, next_k, &parked);
	return parked || n == 1 ? n : step_result(L, n);
}

static int
next_k(lua_State *L, int status, lua_KContext ctx)
{
	int rc;
	struct stream *s = woken(L, &rc);

	(void)status;
	return rc < 0 ? step_result(L, read_failed(L, rc)) : next_line(L, s, (int)ctx);
}

/* The iterators of lines() and lines("L"): the state of the loop is the rfile itself. */
static int
rfile_next(lua_State *L)
{
	return next_line(L, self_for_reading(L), LINE);
}

static int
rfile_next_nl(lua_State *L)
{
	return next_line(L, self_for_reading(L), LINE_NL);
}

/* What they get is the rfile and the line before. */
static bool
forgets(lua_CFunction iterator)
{
	return iterator == rfile_next || iterator == rfile_next_nl;
}

static int
next_formats_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return step_result(L, lua_gettop(L));
}

/* The iterator of lines() with other formats.  Upvalues: read, rfile, count, formats... */
static int
next_formats(lua_State *L)
{
	int n = (int)lua_tointeger(L, lua_upvalueindex(3));

	lua_settop(L, 0);
	luaL_checkstack(L, n + 4, "too many formats");
	for (int i = 1; i <= n + 3; i++)
		if (i != 3)
			lua_pushvalue(L, lua_upvalueindex(i));
	lua_callk(L, n + 1, LUA_MULTRET, 0, next_formats_k);
	return next_formats_k(L, LUA_OK, 0);
}

/* Its upvalues, out of the handler's sight. */
enum { NEXT = 1, NEXT_NL, READ };

/* rfile:lines([format, ...]): an iterator; the stream's end ends the loop, another failure
 * raises. */
static int
rfile_lines(lua_State *L)
{
	int n = lua_gettop(L) - 1;
	const char *f = n == 1 && lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;

	self_for_reading(L);
	if (n == 0 || (f && (strcmp(f, "l") == 0 || strcmp(f, "L") == 0))) {
		lua_pushvalue(L, lua_upvalueindex(f && *f == 'L' ? NEXT_NL : NEXT));
		lua_pushvalue(L, 1);
		return 2;
	}
	luaL_argcheck(L, n < 200, 2, "too many formats");
	for (int i = 2; i <= n + 1; i++)
		format_at(L, i);
	lua_pushvalue(L, lua_upvalueindex(READ));
	lua_insert(L, 1);
	lua_pushinteger(L, n);
	lua_insert(L, 3);
	lua_pushcclosure(L, next_formats, n + 3);
	return 1;
}

/* rfile:close() -> true: later reads raise.  The connection stays open. */
static int
rfile_close(lua_State *L)
{
	struct stream *s = handle_self(L);

	if (s->read_closed)
		return luaL_error(L, "attempt to close a closed rfile");
	s->read_closed = true;
	lua_pushboolean(L, 1);
	return 1;
}

static int
rfile_tostring(lua_State *L)
{
	struct stream *s = handle_look(L, rfile_class);

	if (s && !s->closed && !s->read_closed)
		lua_pushfstring(L, "rfile (%p)", lua_topointer(L, 1));
	else
		lua_pushliteral(L, "rfile (closed)");
	return 1;
}

void
open_rfile(lua_State *L)
{
	static const luaL_Reg methods[] = {
	    {"close", rfile_close},
	    {"read", rfile_read},
	    {"readexactly", rfile_readexactly},
	    {"readline", rfile_readline},
	    {"readuntil", rfile_readuntil},
	    {"unpack", rfile_unpack},
	    {NULL, NULL},
	};
	static const lua_CFunction of_lines[] = {rfile_next, rfile_next_nl, rfile_read};
	int upvalues = sizeof(of_lines) / sizeof(*of_lines);

	struct sched *s = sched_of(L);

	handle_class(L, rfile_class, methods);
	if (s)
		s->forgets = forgets;
	lua_getfield(L, -1, "__index");
	for (int i = 0; i < upvalues; i++) {
		lua_pushlightuserdata(L, (void *)rfile_class);
		lua_pushvalue(L, -3 - i);
		lua_pushcclosure(L, of_lines[i], 2);
	}
	lua_pushcclosure(L, rfile_lines, upvalues);
	lua_setfield(L, -2, "lines");
	lua_pop(L, 1);
	lua_pushcfunction(L, rfile_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_getglobal(L, "string");
	lua_getfield(L, -1, "unpack");
	lua_setfield(L, -3, "unpack");
	lua_pop(L, 2);
}
