#include "server/server.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"
#include "server/host.h"
#include "server/replies.h"
#include "server/request.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Accepts, or datagrams, in a row before other descriptors get a turn. */
enum { ACCEPT_BATCH = 64 };

/* When something that accepting needs is used up, it is tried again so often. */
static const int64_t PAUSE = 100 * CLOCK_MS;

static void
write_class_name(struct server *s)
{
	static const char *const kinds[] = {"TCPServer", "UDPServer", "UnixStreamServer",
					    "UnixDatagramServer"};

	snprintf(s->class_name, sizeof(s->class_name), "%s%s", s->policy->prefix,
		 kinds[s->listener.transport]);
}

static bool
may_accept(const struct server *s)
{
	return !s->closed && !s->paused.slot &&
	       s->nrequests < s->policy->ceiling(&s->attrs);
}

/* ---- streams ---- */

/* Errors of accept(2) that concern one connection only: the next may be fine. */
static bool
is_transient(int err)
{
	switch (err) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM:
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

static void
pause_accepting(struct server *s, int err)
{
	struct log_field f[] = {
	    log_str("server", s->name), log_str("why", strerror(err)), {0}};

	log_gated(s->host->log, &s->accept_gate, LOG_WARN, "accepting paused", f);
	loop_timer_set(s->host->loop, &s->paused, loop_now(s->host->loop) + PAUSE);
}

static void
begin_connection(struct server *s, int fd, const struct addr *peer)
{
	int rc = request_start_stream(s, fd, peer);

	if (rc < 0) {
		s->counters.accept_errors++;
		pause_accepting(s, -rc);
	}
}

static void
accept_some(struct server *s)
{
	struct addr peer;
	int fd = 0, failed = 0;

	for (int i = 0; i < ACCEPT_BATCH && may_accept(s); i++) {
		fd = loop_accept(&s->fd, &s->accept_op, &peer);
		if (fd == -EINPROGRESS)
			return;
		if (fd >= 0) {
			begin_connection(s, fd, &peer);
			continue;
		}
		s->counters.accept_errors++;
		failed++;
		if (is_transient(-fd) && failed < ACCEPT_BATCH)
			continue;
		if ((fd == -EMFILE || fd == -ENFILE) && s->host->io.lingers.n > 0) {
			lingers_drop(&s->host->io.lingers);
			continue;
		}
		if (fd == -EMFILE || fd == -ENFILE)
			host_collect(s->host);
		pause_accepting(s, -fd);
	}
	if (may_accept(s))
		server_resume(s);
}

/* ---- datagrams ---- */

static void
begin_datagram(struct server *s, unsigned i)
{
	struct dgram d;
	int rc;

	dgram_in_get(s->dgrams.in, i, &d);
	if (d.full_len > d.len) {
		struct log_field f[] = {
		    log_str("server", s->name),
		    log_int("length", (int64_t)d.full_len),
		    log_int("max_packet_size", s->attrs.max_packet_size),
		    {0}};
		s->counters.truncated++;
		log_gated(s->host->log, &s->trunc_gate, LOG_WARN, "datagram truncated", f);
	}
	rc = request_start_datagram(s, &d);
	if (rc < 0) {
		s->counters.accept_errors++;
		pause_accepting(s, -rc);
	}
}

static void
receive_some(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	int n;

	for (int i = 0; i < ACCEPT_BATCH && may_accept(s); i++) {
		if (d->at < d->n) {
			begin_datagram(s, d->at++);
			continue;
		}
		if (d->out_op.fd || d->retry.slot || s->draining)
			return; /* replies wait for room: so must the next requests */
		n = loop_recvmmsg(&s->fd, &s->accept_op, dgram_in_headers(d->in),
				  DGRAM_BATCH);
		if (n == -EINPROGRESS)
			return;
		if (n < 0) { /* an earlier reply could not be delivered: it has been taken
				off */
			if (n != -ECONNREFUSED && !is_transient(-n)) {
				pause_accepting(s, -n);
				return;
			}
			continue;
		}
		d->at = 0;
		d->n = (unsigned)n;
		i = -1;
	}
	if (may_accept(s))
		server_resume(s);
}

/* ---- accepting in general ---- */

static void
take_some(struct server *s)
{
	if (s->accept_op.fd || s->fd.fd < 0)
		return;
	if (transport_is_stream(s->view.transport))
		accept_some(s);
	else
		receive_some(s);
}

static void
on_acceptable(struct loop_op *op)
{
	take_some(LIST_ENTRY(op, struct server, accept_op));
}

static void
on_accept_task(struct loop_task *t)
{
	struct server *s = LIST_ENTRY(t, struct server, accept_task);

	s->accept_due = false;
	if (!s->draining)
		take_some(s);
}

static void
on_pause_over(struct loop_timer *t)
{
	server_resume(LIST_ENTRY(t, struct server, paused));
}

void
server_resume(struct server *s)
{
	/* A descriptor may just have become free: no need to wait out the pause. */
	loop_timer_set(s->host->loop, &s->paused, CLOCK_NEVER);
	replies_leave_loop(s);
	if (s->draining || s->closed || s->accept_due || s->accept_op.fd)
		return;
	s->accept_due = true;
	loop_defer(s->host->loop, &s->accept_task);
}

/* ---- life ---- */

static void
view_shutdown(struct server_view *v)
{
	server_drain(LIST_ENTRY(v, struct server, view));
}

static bool
view_attribute(struct server_view *v, lua_State *L, const char *name)
{
	return attrs_push(&LIST_ENTRY(v, struct server, view)->attrs, L, name);
}

static void
put_count(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

static void
view_stats(struct server_view *v, lua_State *L)
{
	struct server *s = LIST_ENTRY(v, struct server, view);
	const struct counters *c = &s->counters;

	lua_newtable(L);
	put_count(L, "requests", c->requests);
	put_count(L, "active", s->nrequests);
	put_count(L, "errors", c->errors);
	put_count(L, "peers_gone", c->peers_gone);
	put_count(L, "timeouts", c->timeouts);
	put_count(L, "cancelled", c->cancelled);
	put_count(L, "refused", c->refused);
	put_count(L, "accept_errors", c->accept_errors);
	put_count(L, "truncated", c->truncated);
	put_count(L, "unanswered", c->unanswered);
	put_count(L, "send_errors", c->send_errors);
	put_count(L, "drops", listener_drops(v->fd));
	put_count(L, "generation", s->script->number);
	host_push_stats(s->host, L);
}

/* Runs protected.  Arguments: the attributes, the script. */
static int
read_attrs(lua_State *L)
{
	struct script *sc = lua_touserdata(L, 2);

	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->handler_ref);
	attrs_read(lua_touserdata(L, 1), L, -1);
	return 0;
}

int
server_read_attrs(struct script *script, struct attrs *attrs, char *why, size_t size)
{
	lua_State *L = script->state.L;

	lua_pushcfunction(L, read_attrs);
	lua_pushlightuserdata(L, attrs);
	lua_pushlightuserdata(L, script);
	if (state_call(L, 2, 0) == LUA_OK)
		return 0;
	script_keep_error(L, script->path, why, size);
	return -EINVAL;
}

/* Runs protected: what the state must know of the server.  Arguments: the server, the
 * script, the generation to fill in. */
static int
attach(lua_State *L)
{
	struct server *s = lua_touserdata(L, 1);
	struct script *sc = lua_touserdata(L, 2);
	struct generation *g = lua_touserdata(L, 3);

	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->handler_ref);
	*g = (struct generation){0};
	if (lua_getfield(L, -1, "server") == LUA_TTABLE) {
		g->verifies = lua_getfield(L, -1, "verify_request") == LUA_TFUNCTION;
		g->handles_errors = lua_getfield(L, -2, "handle_error") == LUA_TFUNCTION;
	}
	request_prepare(L, &g->stream_ref, &g->datagram_ref);
	server_push(L, &s->view);
	g->self_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	datagram_push(L, &s->dgrams.port);
	g->port_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

int
server_adopt(struct server *s, struct script *script, char *why, size_t size)
{
	lua_State *L = script->state.L;
	struct attrs next = s->given;
	struct generation generation;

	if (server_read_attrs(script, &next, why, size) < 0) {
		script_release(script);
		return -EINVAL;
	}
	lua_pushcfunction(L, attach);
	lua_pushlightuserdata(L, s);
	lua_pushlightuserdata(L, script);
	lua_pushlightuserdata(L, &generation);
	if (state_call(L, 3, 0) != LUA_OK) {
		script_keep_error(L, script->path, why, size);
		script_release(script);
		return -EINVAL;
	}
	if (s->script) {
		/* What the socket, its buffers and running timers were made with stays. */
		next.request_queue_size = s->attrs.request_queue_size;
		next.max_packet_size = s->attrs.max_packet_size;
		next.socket_mode = s->attrs.socket_mode;
		next.idle_timeout = s->attrs.idle_timeout;
		script_release(s->script);
	}
	script->state.alloc.limit = (size_t)next.memory_limit;
	s->attrs = next;
	s->generation = generation;
	s->script = script;
	return 0;
}

static int
open_socket(struct server *s, const struct url *url, char *why, size_t size)
{
	struct listen_options o = {
	    .backlog = (int)s->attrs.request_queue_size,
	    .reuse_address = s->attrs.allow_reuse_address,
	    .reuse_port = s->attrs.allow_reuse_port,
	    .v6only = s->attrs.ipv6_v6only,
	    .nodelay = s->attrs.disable_nagle_algorithm,
	    .mode = (mode_t)s->attrs.socket_mode,
	};
	int rc = listener_open(url, &o, &s->listener, why, size);

	if (rc < 0)
		return rc;
	s->view.addr = s->listener.addr;
	s->view.transport = s->listener.transport;
	s->view.fd = s->listener.fd;
	s->dgrams.port.fd = s->listener.fd;
	s->dgrams.port.transport = s->listener.transport;
	write_class_name(s);
	s->view.class_name = s->class_name;
	return 0;
}

int
server_open(struct host *host, const struct url *url, const struct policy *policy,
	    const struct attrs *attrs, struct script *script, struct server **out,
	    char *why, size_t size)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc = -ENOMEM;

	snprintf(why, size, "out of memory");
	if (!s) {
		script_release(script);
		return rc;
	}
	s->host = host;
	s->given = s->attrs = *attrs;
	s->policy = policy;
	s->listener.fd = s->fd.fd = -1;
	s->view = (struct server_view){.shutdown = view_shutdown,
				       .push_stats = view_stats,
				       .push_attribute = view_attribute};
	s->accept_op.done = on_acceptable;
	s->accept_task.run = on_accept_task;
	list_init(&s->requests);
	list_init(&s->accept_task.link);
	pool_init(&s->pool, sizeof(struct request));
	if (loop_timer_init(host->loop, &s->paused, on_pause_over) < 0)
		goto fail;
	if (replies_init(s) < 0) {
		loop_timer_done(host->loop, &s->paused);
		goto fail;
	}
	list_append(&host->servers, &s->link);
	rc = server_adopt(s, script, why, size);
	if (rc == 0)
		rc = open_socket(s, url, why, size);
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;

fail:
	free(s);
	script_release(script);
	return rc;
}

int
server_begin(struct server *s)
{
	int rc;

	if (!transport_is_stream(s->view.transport)) {
		s->dgrams.in = dgram_in_new((size_t)s->attrs.max_packet_size,
					    addr_is_any(&s->view.addr));
		s->dgrams.out = dgram_out_new();
		if (!s->dgrams.in || !s->dgrams.out)
			return -ENOMEM;
	}
	rc = loop_add(s->host->loop, &s->fd, s->listener.fd, LOOP_LIKELY);
	if (rc == 0)
		server_resume(s);
	return rc;
}

static void
stop_listening(struct server *s)
{
	if (!transport_is_stream(s->view.transport)) {
		loop_cancel(&s->accept_op);
		replies_leave_loop(s);
		return;
	}
	loop_release_fd(&s->fd);
	listener_close(&s->listener);
	s->view.fd = -1;
}

void
server_end_drain(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out)
		replies_flush(s);
	loop_timer_set(s->host->loop, &s->dgrams.retry, CLOCK_NEVER);
	loop_release_fd(&s->fd);
}

void
server_drain(struct server *s)
{
	if (s->draining)
		return;
	/* Clients that the kernel has already let in get their turn, as far as the ceiling
	 * allows. */
	if (s->fd.fd >= 0 && transport_is_stream(s->view.transport)) {
		loop_cancel(&s->accept_op);
		s->fd.readable = true;
		for (int i = 0; i < 64 && may_accept(s) && !s->accept_op.fd; i++)
			accept_some(s);
	}
	s->draining = true;
	loop_timer_set(s->host->loop, &s->paused, CLOCK_NEVER);
	stop_listening(s);
}

bool
server_is_done(const struct server *s, bool hurry)
{
	return s->draining && s->nrequests == 0 && (hurry || s->fd.fd < 0);
}

void
server_cancel(struct server *s, const char *why)
{
	for (struct list *l = s->requests.next; l != &s->requests; l = l->next)
		task_cancel(LIST_ENTRY(l, struct request, link)->task, why);
}

void
server_close(struct server *s)
{
	s->draining = s->closed = true;
	while (!list_empty(&s->requests))
		task_kill(LIST_ENTRY(s->requests.next, struct request, link)->task);
	loop_release_fd(&s->fd);
	listener_close(&s->listener);
	loop_timer_done(s->host->loop, &s->paused);
	loop_timer_done(s->host->loop, &s->dgrams.retry);
	list_remove(&s->accept_task.link);
	list_remove(&s->dgrams.flush.link);
	list_remove(&s->link);
	if (s->script)
		script_release(s->script);
	dgram_in_free(s->dgrams.in);
	dgram_out_free(s->dgrams.out);
	pool_free(&s->pool);
	free(s->name);
	free(s);
}
