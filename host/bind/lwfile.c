/* wfile: a Lua file handle that writes to the connection.
 * A write takes every byte or raises. */
#include "bind/lwfile.h"
#include "base/clock.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/lerror.h"
#include "script/task.h"

#include <errno.h>
#include <string.h>

static int
raise(lua_State *L, struct stream *s, int err)
{
	if (err == ETIMEDOUT) {
		s->error =
		    ETIMEDOUT; /* how much of it went is not known to the peer's reader */
		return lerror_raise_timeout(L, "write");
	}
	return lerror_raise_errno(L, "write", err);
}

/* Sends at once what the buffering mode does not let wait. */
static void
settle(lua_State *L, struct stream *s, int last)
{
	size_t n;
	const char *p;
	bool now = s->mode == STREAM_NO;

	for (int i = 2; !now && s->mode == STREAM_LINE && i <= last; i++) {
		p = lua_tolstring(L, i, &n);
		now = memchr(p, '\n', n) != NULL;
	}
	if (now && !s->datagram)
		stream_flush(s);
}

/* Writes arguments 2..top, of which `done` bytes are already written. */
static int
write_from(lua_State *L, struct stream *s, size_t done)
{
	int last = lua_gettop(L);
	size_t before = 0;

	for (int i = 2; i <= last; i++) {
		size_t len, off;
		const char *p = lua_tolstring(L, i, &len);

		if (done <= before && stream_collect(s, p, len)) { /* nearly always */
			before += len;
			continue;
		}
		off = done > before ? done - before : 0;
		while (off < len) {
			ssize_t n = stream_write(s, p + off, len - off);
			if (n == -EAGAIN)
				return stream_yield_out(L, s, (lua_KContext)(before + off),
							wfile_write_k);
			if (n == -EINPROGRESS)
				return stream_park_out(L, s, (lua_KContext)(before + off),
						       wfile_write_k);
			if (n < 0)
				return raise(L, s, (int)-n);
			off += (size_t)n;
		}
		before += len;
	}
	if (s->mode != STREAM_FULL)
		settle(L, s, last);
	lua_settop(L, 1);
	return 1;
}

int
wfile_write_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a write");
	if (rc < 0)
		return raise(L, s, -rc);
	return write_from(L, s, (size_t)ctx);
}

int
wfile_write_args(lua_State *L, struct stream *s)
{
	int last = lua_gettop(L);

	for (int i = 2; i <= last; i++)
		if (!lua_isstring(L, i))
			luaL_checkstring(L, i);
	if (s->write_closed)
		return luaL_error(L, "attempt to write to a closed wfile");
	if (s->pushing)
		stream_let_pushed(s);
	return write_from(L, s, 0);
}

static int
wfile_write(lua_State *L)
{
	struct stream *s = handle_of(L, wfile_class);
	size_t n;
	const char *p = lua_gettop(L) == 2 ? lua_tolstring(L, 2, &n) : NULL;

	if (p && !s->write_closed && stream_collect(s, p, n)) { /* nearly always */
		lua_pushvalue(L, 1);
		return 1;
	}
	return wfile_write_args(L, s);
}

static int flush_k(lua_State *L, int status, lua_KContext closing);

static int
flush(lua_State *L, struct stream *s, lua_KContext closing)
{
	stream_flush(s);
	if (s->error)
		return raise(L, s, s->error);
	if (!s->datagram && stream_unsent(s) > 0)
		return stream_park_out(L, s, closing, flush_k);
	lua_settop(L, 1);
	if (closing)
		lua_pushboolean(L, 1);
	return 1;
}

static int
flush_k(lua_State *L, int status, lua_KContext closing)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a flush");
	if (rc < 0)
		return raise(L, s, -rc);
	return flush(L, s, closing);
}

/* wfile:flush() -> wfile: waits until the kernel has all that was written. */
static int
wfile_flush(lua_State *L)
{
	return flush(L, handle_self(L), 0);
}

/* wfile:close() -> true: flushes; later writes raise.  The connection stays open. */
static int
wfile_close(lua_State *L)
{
	struct stream *s = handle_self(L);

	if (s->write_closed)
		return luaL_error(L, "attempt to close a closed wfile");
	s->write_closed = true;
	return flush(L, s, 1);
}

/* wfile:setvbuf("full" | "line" | "no" [, size]) -> true */
static int
wfile_setvbuf(lua_State *L)
{
	static const char *const names[] = {"full", "line", "no", NULL};
	struct stream *s = handle_self(L);
	int mode = luaL_checkoption(L, 2, NULL, names);
	lua_Integer size = luaL_optinteger(L, 3, STREAM_GATHER);
	struct stream_limits *own;

	luaL_argcheck(L, size >= 0, 3, "size must not be negative");
	own = stream_own_limits(s);
	if (!own)
		return luaL_error(L, "not enough memory");
	s->mode = (uint8_t)mode;
	own->collect_max = size < STREAM_GATHER ? (uint32_t)size : STREAM_GATHER;
	settle(L, s, 1);
	lua_pushboolean(L, 1);
	return 1;
}

static int
wfile_tostring(lua_State *L)
{
	struct stream *s = handle_look(L, wfile_class);

	if (s && !s->closed && !s->write_closed)
		lua_pushfstring(L, "wfile (%p)", lua_topointer(L, 1));
	else
		lua_pushliteral(L, "wfile (closed)");
	return 1;
}

void
open_wfile(lua_State *L)
{
	static const luaL_Reg methods[] = {
	    {"close", wfile_close}, {"flush", wfile_flush}, {"setvbuf", wfile_setvbuf},
	    {"write", wfile_write}, {NULL, NULL},
	};

	handle_class(L, wfile_class, methods);
	lua_pushcfunction(L, wfile_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pop(L, 1);
}
