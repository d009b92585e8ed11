#include "bind/lmoonport.h"

#include "base/clock.h"
#include "base/log.h"
#include "bind/levent.h"
#include "bind/lhandle.h"
#include "bind/lhttp.h"
#include "bind/ljournal.h"
#include "bind/lresp.h"
#include "bind/lspawn.h"
#include "bind/ltls.h"
#include "bind/stream.h"
#include "net/addr.h"
#include "script/coro.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char socket_anchor[] = "moonport.anchor";

static int
sleep_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	task_woke(L);
	return 0;
}

/* moonport.sleep(seconds) */
static int
moonport_sleep(lua_State *L)
{
	int64_t ns = arg_seconds(L, 1), now = clock_now();

	luaL_checknumber(L, 1);
	return task_park(L, ns < CLOCK_NEVER - now ? now + ns : CLOCK_NEVER, NULL, NULL, 0,
			 sleep_k);
}

/* moonport.atomically(f, ...) -> f's results: no other task of this state runs meanwhile,
 * for nothing yields across this call. */
static int
moonport_atomically(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* moonport.monotonic() -> seconds from some fixed point */
static int
moonport_monotonic(lua_State *L)
{
	lua_pushnumber(L, (lua_Number)clock_now() / 1e9);
	return 1;
}

/* moonport.time() -> seconds since 1970, with a fraction */
static int
moonport_time(lua_State *L)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
	return 1;
}

/* moonport.log(level, message): one event in the host's log */
static int
moonport_log(lua_State *L)
{
	static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
	int level = luaL_checkoption(L, 1, NULL, levels);
	struct sched *s = sched_of(L);
	struct io *io = s ? s->io : NULL;
	size_t n;
	const char *text = luaL_tolstring(L, 2, &n);

	if (io && io->log) {
		struct log_field f[] = {log_bytes("message", text, n), {0}};
		log_event(io->log, (enum log_level)level, "script", f);
	}
	return 0;
}

/* The stream of a connection being made, closed should anything go wrong. */
static struct stream *
pending(lua_State *L)
{
	return handle_check(L, socket_class);
}

static int
connected(lua_State *L, int rc)
{
	struct handle *h;

	if (rc == 0) {
		lua_pushvalue(L, 1);
		return 1;
	}
	pending(L)->error = -rc; /* nothing to wait for: close at once */
	h = lua_touserdata(L, 1);
	stream_free(h->stream);
	h->stream = NULL;
	if (rc != -ETIMEDOUT)
		return lerror_result(L, -rc);
	lua_pushnil(L);
	lua_pushliteral(L, "timeout");
	return 2;
}

enum { CONNECT_RETRY_MS = 10 };

static int queue_full_k(lua_State *L, int status, lua_KContext until);

/* A Unix server's queue is full: unlike TCP's, the kernel does not wait for room.
 * Stack: socket, url.  until: the deadline in ms, for it must fit a context anywhere. */
static int
wait_for_queue(lua_State *L, lua_KContext until)
{
	int64_t next = clock_now() + CONNECT_RETRY_MS * CLOCK_MS;

	if (next / CLOCK_MS >= until)
		return connected(L, -ETIMEDOUT);
	return task_park(L, next, NULL, NULL, until, queue_full_k);
}

static int
queue_full_k(lua_State *L, int status, lua_KContext until)
{
	struct stream *s;
	struct addr to;
	struct url url;
	char why[160];
	size_t n;
	const char *text = lua_tolstring(L, 2, &n);
	int rc;

	(void)status;
	task_woke(L);
	s = pending(L);
	(void)url_parse(text, n, &url, why, sizeof(why)); /* it was good before */
	(void)url_resolve(&url, false, &to, why, sizeof(why));
	rc = loop_connect(&s->fd, LOOP_OWN, &to);
	return rc == -EAGAIN ? wait_for_queue(L, until) : connected(L, rc);
}

static int
connect_k(lua_State *L, int status, lua_KContext ctx)
{
	struct stream *s;
	int rc = task_woke(L);

	(void)status, (void)ctx;
	s = pending(L);
	(void)stream_set_writer(s, NULL);
	return connected(L, rc < 0 ? rc : loop_connect(&s->fd, LOOP_OWN, NULL));
}

static void
detach_connect(void *arg)
{
	struct stream *s = arg;

	(void)stream_set_writer(s, NULL);
	loop_cancel_out(&s->fd);
}

/* moonport.connect(url [, seconds]) -> socket | nil, why [, errno] */
static int
moonport_connect(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n);
	int64_t timeout = arg_seconds(L, 2), now = clock_now(), deadline;
	struct task *task = task_current(L);
	struct stream *s;
	struct handle *h;
	struct addr to;
	struct url url;
	char why[320];
	int fd, rc, one = 1;

	if (url_parse(text, n, &url, why, sizeof(why)) < 0 ||
	    url_resolve(&url, false, &to, why, sizeof(why)) < 0)
		return luaL_argerror(L, 1, lua_pushstring(L, why));
	luaL_argcheck(L, transport_is_stream(url.transport), 1,
		      "connect is for tcp:// and unix://");
	lua_settop(L, 1);
	h = handle_push(L, socket_class, NULL, 1); /* before the socket: nothing can leak */
	lua_rawgetp(L, LUA_REGISTRYINDEX, socket_anchor);
	lua_setiuservalue(L, -2, 1);
	lua_insert(L, 1); /* where pending() looks */
	fd = socket(to.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return lerror_result(L, errno);
	rc = stream_new(task->script->sched->io, fd, false, &s);
	if (rc < 0)
		return lerror_result(L, -rc);
	h->stream = s;
	h->serial = s->serial;
	if (url.transport == TRANSPORT_TCP)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	rc = loop_connect(&s->fd, LOOP_OWN, &to);
	deadline = timeout < CLOCK_NEVER - now ? now + timeout : CLOCK_NEVER;
	if (rc == -EAGAIN)
		return wait_for_queue(L, (lua_KContext)(deadline / CLOCK_MS));
	if (rc != -EINPROGRESS)
		return connected(L, rc);
	if (stream_set_writer(s, task) < 0)
		return connected(L, -ENOMEM);
	return task_park(L, deadline, detach_connect, s, 0, connect_k);
}

int
open_moonport(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"atomically", moonport_atomically},
	    {"base_finish", script_base_step},
	    {"base_setup", script_base_step},
	    {"connect", moonport_connect},
	    {"default_handler", script_default_handler},
	    {"event", moonport_event},
	    {"log", moonport_log},
	    {"monotonic", moonport_monotonic},
	    {"sleep", moonport_sleep},
	    {"spawn", moonport_spawn},
	    {"time", moonport_time},
	    {NULL, NULL},
	};

	open_request(L);
	open_rfile(L);
	open_wfile(L);
	open_address(L);
	open_datagram(L);
	open_server(L);
	open_event(L);
	luaL_newlib(L, functions);
	lua_pushliteral(L, MOONPORT_VERSION);
	lua_setfield(L, -2, "version");
	luaopen_moonport_coroutine(L);
	lua_setfield(L, -2, "coroutine");
	return 1;
}

int
preload_moonport(lua_State *L)
{
	luaL_requiref(L, "moonport", open_moonport, 0);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_pushcfunction(L, open_journal);
	lua_setfield(L, -2, "moonport.journal");
	lua_pushcfunction(L, open_resp_scan);
	lua_setfield(L, -2, "moonport.resp.scan");
	lua_pushcfunction(L, open_http_scan);
	lua_setfield(L, -2, "moonport.http.scan");
	lua_pushcfunction(L, open_tls);
	lua_setfield(L, -2, "moonport.tls");
	return 0;
}
