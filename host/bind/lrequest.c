/* request: the connected socket under a handler, with the methods of Python's socket;
 * and the same object for a connection that the handler itself has made. */
#include "bind/lrequest.h"

#include "base/clock.h"
#include "bind/lhandle.h"
#include "bind/lrfile.h"
#include "bind/stream.h"
#include "net/addr.h"
#include "net/sockopt.h"
#include "script/lerror.h"
#include "script/task.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

static int recv_k(lua_State *L, int status, lua_KContext ctx);

/* Pushes what is at hand, at most max bytes; waits when nothing is. */
static int
receive(lua_State *L, struct stream *s, size_t max, int with_address)
{
	const char *p;
	size_t n;
	ssize_t rc;

	stream_check_reader(L, s);
	stream_view(s, &p, &n);
	if (n == 0 && max > 0) {
		rc = stream_fill(s);
		if (rc == -EINPROGRESS)
			return stream_park_in(
			    L, s, (lua_KContext)(max * 2 + (size_t)with_address), recv_k);
		if (rc == -EAGAIN)
			return stream_yield_in(
			    L, s, (lua_KContext)(max * 2 + (size_t)with_address), recv_k);
		if (rc <= 0)
			return read_failed(L, rc);
		stream_view(s, &p, &n);
	}
	if (n > max)
		n = max;
	lua_pushlstring(L, p, n);
	stream_consume(s, n);
	if (!with_address)
		return 1;
	return 1 + request_push_name(L, s, 1);
}

static int
recv_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int n = recv_woken(L, s);

	(void)status;
	return n > 0 ? n : receive(L, s, (size_t)ctx / 2, (int)(ctx & 1));
}

static size_t
opt_size(lua_State *L)
{
	lua_Integer n = luaL_optinteger(L, 2, (lua_Integer)loop_buffer_size());

	luaL_argcheck(L, n >= 0, 2, "a size must not be negative");
	return n < 1 << 30 ? (size_t)n : (size_t)1 << 30;
}

static int
request_recv(lua_State *L)
{
	size_t max = opt_size(L);

	return receive(L, handle_self(L), max, 0);
}

static int
request_recvfrom(lua_State *L)
{
	size_t max = opt_size(L);

	return receive(L, handle_self(L), max, 1);
}

static int send_k(lua_State *L, int status, lua_KContext ctx);

/* Sends argument 2 from `done` on.  ctx: done * 2 + whether all must go. */
static int
send_from(lua_State *L, struct stream *s, size_t done, int all)
{
	size_t len;
	const char *p = lua_tolstring(L, 2, &len);
	ssize_t n;

	if (!s->error && stream_may_write(s) == -EAGAIN)
		return stream_yield_out(L, s, (lua_KContext)(done * 2 + (size_t)all),
					send_k);
	if (stream_writer(s))
		return stream_park_out(L, s, (lua_KContext)(done * 2 + (size_t)all),
				       send_k);
	stream_flush(s);
	if (s->error)
		return lerror_raise_errno(L, "send", s->error);
	while (done < len) {
		if (buf_len(&s->out) > 0)
			return stream_park_out(L, s, (lua_KContext)(done * 2 + (size_t)all),
					       send_k);
		s->sends++;
		n = loop_send(&s->fd, LOOP_OWN, p + done, len - done);
		if (n == -EINPROGRESS)
			return stream_park_out(L, s, (lua_KContext)(done * 2 + (size_t)all),
					       send_k);
		if (n < 0) {
			s->error = (int)-n;
			return lerror_raise_errno(L, "send", s->error);
		}
		s->active = loop_now(s->fd.loop);
		count_add(&s->io->bytes_out, (uint64_t)n);
		done += (size_t)n;
		if (!all)
			break;
	}
	if (all)
		lua_pushboolean(L, 1);
	else
		lua_pushinteger(L, (lua_Integer)done);
	return 1;
}

static int
send_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a send");
	if (rc < 0) {
		if (ctx / 2 > 0)
			s->error =
			    ETIMEDOUT; /* a part has gone: nothing sensible can follow */
		return lerror_raise_timeout(L, "send");
	}
	return send_from(L, s, (size_t)ctx / 2, (int)(ctx & 1));
}

/* request:send(s) -> count, at least one byte: it may be partial */
static int
request_send(lua_State *L)
{
	struct stream *s = handle_self(L);

	luaL_checkstring(L, 2);
	if (s->pushing)
		stream_let_pushed(s);
	return send_from(L, s, 0, 0);
}

/* request:sendall(s) -> true, once the kernel has every byte */
static int
request_sendall(lua_State *L)
{
	struct stream *s = handle_self(L);

	luaL_checkstring(L, 2);
	if (s->pushing)
		stream_let_pushed(s);
	return send_from(L, s, 0, 1);
}

static int
request_sendto(lua_State *L)
{
	handle_self(L);
	return luaL_error(
	    L, "sendto is for datagrams: this is a connected stream, use sendall");
}

static int
request_settimeout(lua_State *L)
{
	struct stream *s = handle_self(L);
	int64_t timeout = arg_seconds(L, 2);
	struct stream_limits *own;

	if (s->limits->timeout == timeout)
		return 0;
	own = stream_own_limits(s);
	if (!own)
		return luaL_error(L, "not enough memory");
	own->timeout = timeout;
	return 0;
}

static int
request_gettimeout(lua_State *L)
{
	struct stream *s = handle_self(L);

	if (s->limits->timeout == CLOCK_NEVER)
		lua_pushnil(L);
	else
		lua_pushnumber(L, (lua_Number)s->limits->timeout / 1e9);
	return 1;
}

int
request_push_name(lua_State *L, struct stream *s, int peer)
{
	struct addr a = {.len = sizeof(a.ss)};
	int rc = peer ? getpeername(s->fd.fd, addr_sa_out(&a), &a.len)
		      : getsockname(s->fd.fd, addr_sa_out(&a), &a.len);

	if (rc < 0)
		return lerror_result(L, errno);
	push_address(L, &a);
	return 1;
}

static int
request_getpeername(lua_State *L)
{
	return request_push_name(L, handle_self(L), 1);
}

static int
request_getsockname(lua_State *L)
{
	return request_push_name(L, handle_self(L), 0);
}

static int
request_fileno(lua_State *L)
{
	lua_pushinteger(L, handle_self(L)->fd.fd);
	return 1;
}

static int shutdown_k(lua_State *L, int status, lua_KContext how);

static int
shut_down(lua_State *L, struct stream *s, int how)
{
	if (how != SHUT_RD) {
		stream_flush(s);
		if (!s->error && buf_len(&s->out) > 0)
			return stream_park_out(L, s, how, shutdown_k);
	}
	if (shutdown(s->fd.fd, how) < 0)
		return lerror_result(L, errno);
	lua_pushboolean(L, 1);
	return 1;
}

static int
shutdown_k(lua_State *L, int status, lua_KContext how)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a shutdown");
	return rc < 0 ? lerror_raise_timeout(L, "shutdown") : shut_down(L, s, (int)how);
}

/* request:interrupt(): a recv that another task waits in returns nil, "interrupted" */
static int
request_interrupt(lua_State *L)
{
	stream_interrupt(handle_self(L));
	return 0;
}

static int
wait_end_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status, (void)ctx;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed during a waitend");
	if (rc == -ETIMEDOUT) {
		lua_pushnil(L);
		lua_pushliteral(L, "timeout");
		return 2;
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* request:waitend([seconds]) -> true | nil, "timeout" */
static int
request_waitend(lua_State *L)
{
	struct stream *s = handle_self(L);
	int64_t ns = arg_seconds(L, 2), now = ns < CLOCK_NEVER ? clock_now() : 0;

	if (s->eof || s->fd.ended) {
		lua_pushboolean(L, 1);
		return 1;
	}
	return stream_park_end(L, s, ns < CLOCK_NEVER - now ? now + ns : CLOCK_NEVER, 0,
			       wait_end_k);
}

/* request:needpeer(boolean) -> whether the peer may still send */
static int
request_needpeer(lua_State *L)
{
	struct stream *s = handle_self(L);

	luaL_checktype(L, 2, LUA_TBOOLEAN);
	stream_check_reader(L, s);
	lua_pushboolean(L, stream_need_peer(s, lua_toboolean(L, 2)));
	return 1;
}

/* request:shutdown("read" | "write" | "both") -> true | nil, message, errno */
static int
request_shutdown(lua_State *L)
{
	static const char *const names[] = {"read", "write", "both", NULL};
	struct stream *s = handle_self(L);

	return shut_down(
	    L, s,
	    luaL_checkoption(L, 2, "both", names)); /* SHUT_RD, _WR, _RDWR are 0, 1, 2 */
}

/* A socket that Lua owns needs its stream no longer; a request's is the server's. */
static void
shut(lua_State *L, struct stream *s)
{
	const struct handle *h = lua_touserdata(L, 1);

	if (h->mark == handle_mark(socket_class))
		stream_free(s);
	else
		stream_shut(s);
}

static int close_k(lua_State *L, int status, lua_KContext ctx);

static int
close_when_sent(lua_State *L, struct stream *s)
{
	if (s->pushing)
		stream_let_pushed(s);
	stream_flush(s);
	if (!s->error && !s->abortive && buf_len(&s->out) > 0)
		return stream_park_out(L, s, 0, close_k);
	shut(L, s);
	lua_pushboolean(L, 1);
	return 1;
}

static int
close_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status, (void)ctx;
	if (!s || s->closed)
		return luaL_error(L, "the connection was closed twice");
	if (rc < 0) {
		shut(L, s);
		return lerror_raise_timeout(L, "close");
	}
	return close_when_sent(L, s);
}

/* request:close() -> true, once the kernel has what was written; a second close raises */
static int
request_close(lua_State *L)
{
	return close_when_sent(L, handle_self(L));
}

/* request:isclosed() -> whether it was closed here, or is over */
static int
request_isclosed(lua_State *L)
{
	const struct stream *s;

	if (!luaL_testudata(L, 1, socket_class))
		luaL_checkudata(L, 1, request_class);
	s = handle_peek(L);
	lua_pushboolean(L, !s || s->closed);
	return 1;
}

static const struct sockopt *
check_option(lua_State *L)
{
	const char *name = luaL_checkstring(L, 2);
	const struct sockopt *o = sockopt_find(name);

	if (!o)
		luaL_argerror(L, 2,
			      lua_pushfstring(L,
					      "no socket option '%s'; did you mean '%s'?",
					      name, sockopt_nearest(name)));
	return o;
}

int
sockopt_l_set(lua_State *L, int fd, int *abortive)
{
	const struct sockopt *o = check_option(L);
	double v;
	size_t n;
	const char *str;
	int rc;

	if (o->kind == SOCKOPT_STRING) {
		str = luaL_checklstring(L, 3, &n);
		rc = sockopt_set_string(fd, o, str, n);
	} else {
		if (lua_isboolean(L, 3))
			v = lua_toboolean(L, 3) ? 1 : o->kind == SOCKOPT_LINGER ? -1 : 0;
		else
			v = luaL_checknumber(L, 3);
		luaL_argcheck(L, v >= INT_MIN && v <= INT_MAX, 3, "out of range");
		rc = sockopt_set(fd, o, v);
		if (rc == 0 && o->kind == SOCKOPT_LINGER && abortive)
			*abortive = v == 0;
	}
	if (rc < 0)
		return lerror_result(L, -rc);
	lua_pushboolean(L, 1);
	return 1;
}

static int
push_cred(lua_State *L, int fd, const struct sockopt *o)
{
	static const char *const names[] = {"pid", "uid", "gid"};
	long cred[3];
	int rc = sockopt_get_cred(fd, o, cred);

	if (rc < 0)
		return lerror_result(L, -rc);
	lua_createtable(L, 0, 3);
	for (int i = 0; i < 3; i++) {
		lua_pushinteger(L, cred[i]);
		lua_setfield(L, -2, names[i]);
	}
	return 1;
}

int
sockopt_l_get(lua_State *L, int fd)
{
	const struct sockopt *o = check_option(L);
	char text[64];
	double v = 0;
	int rc;

	if (o->kind == SOCKOPT_CRED)
		return push_cred(L, fd, o);
	rc = o->kind == SOCKOPT_STRING ? sockopt_get_string(fd, o, text, sizeof(text))
				       : sockopt_get(fd, o, &v);
	if (rc < 0)
		return lerror_result(L, -rc);
	if (o->kind == SOCKOPT_STRING)
		lua_pushstring(L, text);
	else if (o->kind == SOCKOPT_BOOL)
		lua_pushboolean(L, v != 0);
	else if (o->kind == SOCKOPT_LINGER && v < 0)
		lua_pushboolean(L, 0);
	else
		lua_pushinteger(L, (lua_Integer)v);
	return 1;
}

static int
request_setsockopt(lua_State *L)
{
	struct stream *s = handle_self(L);
	int abortive = s->abortive, n = sockopt_l_set(L, s->fd.fd, &abortive);

	s->abortive = abortive;
	return n;
}

static int
request_getsockopt(lua_State *L)
{
	return sockopt_l_get(L, handle_self(L)->fd.fd);
}

/* request:makefile("r" | "w") -> an rfile or wfile of the same connection */
static int
request_makefile(lua_State *L)
{
	static const char *const modes[] = {"r", "w", "rb", "wb", NULL};
	struct stream *s = handle_self(L);

	int write = luaL_checkoption(L, 2, "r", modes) % 2;

	handle_push(L, write ? wfile_class : rfile_class, s, 1);
	lua_pushvalue(L, 1); /* a socket that Lua owns lives as long as its files */
	lua_setiuservalue(L, -2, 1);
	return 1;
}

static int
request_tostring(lua_State *L)
{
	struct stream *s = handle_look(L, request_class);

	if (!s)
		s = handle_look(L, socket_class);

	if (s && !s->closed)
		lua_pushfstring(L, "request (fd %d)", s->fd.fd);
	else
		lua_pushliteral(L, "request (closed)");
	return 1;
}

/* A connection that Lua owns goes with its object. */
static int
socket_gc(lua_State *L)
{
	struct handle *h = luaL_checkudata(L, 1, socket_class);

	if (h->stream && h->stream->serial == h->serial) {
		stream_flush(h->stream);
		stream_free(h->stream);
	}
	h->stream = NULL;
	return 0;
}

static int socket_close_k(lua_State *L, int status, lua_KContext ctx);

/* At the end of a <close> variable's block what was written is still sent.  After an
 * error, or where nothing can wait, it is not waited for. */
static int
socket_close(lua_State *L)
{
	struct handle *h = luaL_checkudata(L, 1, socket_class);
	struct stream *s = handle_peek(L);
	struct sched *sched = sched_of(L);

	if (s && !s->closed && lua_isnoneornil(L, 2) && lua_isyieldable(L) && sched &&
	    !sched->barrier) {
		stream_flush(s);
		if (!s->error && !s->abortive && buf_len(&s->out) > 0)
			return stream_park_out(L, s, 0, socket_close_k);
	}
	if (s)
		stream_free(s);
	h->stream = NULL;
	return 0;
}

static int
socket_close_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s = handle_peek(L);
	int rc = task_woke(L);

	(void)status, (void)ctx;
	if (rc < 0 && s) {
		stream_free(s);
		return lerror_raise_timeout(L, "close");
	}
	return socket_close(L);
}

void
open_request(lua_State *L)
{
	static const luaL_Reg methods[] = {
	    {"close", request_close},
	    {"fileno", request_fileno},
	    {"getpeername", request_getpeername},
	    {"getsockname", request_getsockname},
	    {"getsockopt", request_getsockopt},
	    {"gettimeout", request_gettimeout},
	    {"interrupt", request_interrupt},
	    {"isclosed", request_isclosed},
	    {"makefile", request_makefile},
	    {"needpeer", request_needpeer},
	    {"recv", request_recv},
	    {"recvfrom", request_recvfrom},
	    {"send", request_send},
	    {"sendall", request_sendall},
	    {"sendto", request_sendto},
	    {"setsockopt", request_setsockopt},
	    {"settimeout", request_settimeout},
	    {"shutdown", request_shutdown},
	    {"waitend", request_waitend},
	    {NULL, NULL},
	};

	handle_class(L, request_class, methods);
	lua_pushcfunction(L, request_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pop(L, 1);
	handle_class(L, socket_class, methods);
	lua_pushcfunction(L, request_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushcfunction(L, socket_gc);
	lua_setfield(L, -2, "__gc");
	lua_pushcfunction(L, socket_close);
	lua_setfield(L, -2, "__close");
	lua_pop(L, 1);
}
