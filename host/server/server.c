#include "server/server.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"
#include "server/ask.h"
#include "server/board.h"
#include "server/engine.h"
#include "server/host.h"
#include "server/replies.h"
#include "server/request.h"
#include "server/unit.h"

#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
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
	uint64_t active = s->policy->active(s);

	if (s->newest && *s->newest != s->site.script->number)
		return false; /* a child with old code */

	if (s->policy->threads || s->policy->forks)
		active += s->site.nrequests; /* on their way there */
	return !s->closed && !s->down && !s->paused.slot && !s->pulling && s->budget > 0 &&
	       active < s->policy->ceiling(&s->site.attrs);
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

void
server_pause(struct server *s, int err)
{
	struct log_field f[] = {
	    log_str("server", s->site.view.name), log_str("why", strerror(err)), {0}};

	log_gated(s->site.engine->log, &s->accept_gate, LOG_WARN, "accepting paused", f);
	if (!s->draining)
		loop_timer_set(s->site.engine->loop, &s->paused,
			       loop_now(s->site.engine->loop) + PAUSE);
}

/* What a request needs of the system is got before it is accepted: at a shortage it waits
 * in the kernel's queue. */
static bool
is_ready(struct server *s)
{
	int rc = s->policy->ready && s->fd.readable ? s->policy->ready(s) : 0;

	if (rc < 0)
		server_pause(s, -rc);
	return rc == 0;
}

static void
begin(struct server *s, const struct arrival *a)
{
	int rc = s->drives ? request_start(&s->site, a) : s->policy->begin(s, a);

	if (s->board)
		board_touch(s->board);
	if (s->budget != UINT64_MAX)
		s->budget--;
	if (rc < 0) {
		count_add(&s->site.counters->accept_errors, 1);
		server_pause(s, -rc);
	}
}

static void
begin_connection(struct server *s, int fd, const struct addr *peer)
{
	struct arrival a = {.fd = fd, .client = peer};

	begin(s, &a);
}

/* After some: the rest comes when other descriptors have had their turn. */
static void
go_on(struct server *s)
{
	if (may_accept(s))
		server_resume(s);
	else
		loop_stand_back(&s->fd);
}

static void
accept_some(struct server *s)
{
	struct addr peer;
	int fd = 0, failed = 0;

	/* A handler that runs at once may stop the server. */
	for (int i = 0; i < ACCEPT_BATCH && s->fd.fd >= 0 && may_accept(s); i++) {
		if (!is_ready(s))
			return;
		fd = loop_accept(&s->fd, &s->accept_op, &peer);
		if (fd == -EINPROGRESS)
			return;
		if (fd >= 0) {
			begin_connection(s, fd, &peer);
			continue;
		}
		count_add(&s->site.counters->accept_errors, 1);
		failed++;
		if (is_transient(-fd) && failed < ACCEPT_BATCH)
			continue;
		if ((fd == -EMFILE || fd == -ENFILE) && s->site.engine->io.lingers.n > 0) {
			lingers_drop(&s->site.engine->io.lingers);
			continue;
		}
		if (fd == -EMFILE || fd == -ENFILE)
			host_collect(s->host);
		server_pause(s, -fd);
	}
	go_on(s);
}

/* ---- datagrams ---- */

static void
begin_datagram(struct server *s, unsigned i)
{
	struct dgram d;
	struct arrival a = {.fd = -1, .client = &d.from, .dgram = &d};

	dgram_in_get(s->dgrams.in, i, &d);
	if (d.full_len > d.len) {
		struct log_field f[] = {
		    log_str("server", s->site.view.name),
		    log_int("length", (int64_t)d.full_len),
		    log_int("max_packet_size", s->site.attrs.max_packet_size),
		    {0}};
		count_add(&s->site.counters->truncated, 1);
		log_gated(s->site.engine->log, &s->trunc_gate, LOG_WARN,
			  "datagram truncated", f);
	}
	begin(s, &a);
}

/* What is received here no other process can take, and no poll(2) of the program's shows.
 */
static unsigned
batch_size(const struct server *s)
{
	return s->shared || s->budget != UINT64_MAX ? 1 : DGRAM_BATCH;
}

static void
receive_some(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	int n;

	for (int i = 0; i < ACCEPT_BATCH && s->fd.fd >= 0 && may_accept(s); i++) {
		if (!is_ready(s))
			return;
		if (d->at < d->n) {
			begin_datagram(s, d->at++);
			continue;
		}
		if (d->out_op.fd || d->retry.slot || s->draining)
			return; /* replies wait for room: so must the next requests */
		n = loop_recvmmsg(&s->fd, &s->accept_op, dgram_in_headers(d->in),
				  batch_size(s));
		if (n == -EINPROGRESS)
			return;
		if (n < 0) { /* an earlier reply could not be delivered: it has been taken
				off */
			if (n != -ECONNREFUSED && !is_transient(-n)) {
				server_pause(s, -n);
				return;
			}
			continue;
		}
		d->at = 0;
		d->n = (unsigned)n;
		i = -1;
	}
	go_on(s);
}

/* ---- accepting in general ---- */

int
server_pull(struct server *s, struct arrival *a, struct addr *client, struct dgram *d)
{
	struct datagrams *in = &s->dgrams;
	int rc;

	s->pulling = false;
	server_resume(s);
	*a = (struct arrival){.fd = -1, .client = client};
	if (s->fd.fd < 0)
		return -EAGAIN;
	loop_cancel(&s->accept_op);
	if (transport_is_stream(s->site.view.transport)) {
		rc = a->fd = loop_accept(&s->fd, &s->accept_op, client);
		return rc == -EINPROGRESS ? -EAGAIN : rc < 0 ? rc : 0;
	}
	if (in->at == in->n) {
		rc = loop_recvmmsg(&s->fd, &s->accept_op, dgram_in_headers(in->in),
				   batch_size(s));
		if (rc < 0)
			return rc == -EINPROGRESS ? -EAGAIN : rc;
		in->at = 0;
		in->n = (unsigned)rc;
	}
	dgram_in_get(in->in, in->at++, d);
	*client = d->from;
	a->dgram = d;
	return 0;
}

/* Has a request accept for itself, when there is something to accept. */
static void
pull_some(struct server *s)
{
	struct pollfd p = {.fd = s->fd.fd, .events = POLLIN};
	bool any = s->dgrams.at < s->dgrams.n || poll(&p, 1, 0) > 0;
	int rc;

	if (!any) {
		s->fd.readable = false;
		loop_poll(&s->fd, &s->accept_op, false);
		return;
	}
	if (!may_accept(s) || !is_ready(s))
		return;
	s->fd.readable = true;
	s->pulling = true;
	rc = request_pull(&s->site);
	if (s->budget != UINT64_MAX)
		s->budget--;
	if (rc < 0) {
		s->pulling = false;
		server_pause(s, -rc);
	}
}

static void
take_some(struct server *s)
{
	if (s->accept_op.fd || s->fd.fd < 0)
		return;
	if (s->pulls)
		pull_some(s);
	else if (transport_is_stream(s->site.view.transport))
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
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	replies_leave_loop(s);
	if (s->board)
		board_touch(s->board);
	if (s->draining || s->closed || s->elsewhere || s->accept_due || s->accept_op.fd)
		return;
	s->accept_due = true;
	loop_defer(s->site.engine->loop, &s->accept_task);
}

/* ---- life ---- */

static void
view_shutdown(struct server_view *v)
{
	struct server *s = LIST_ENTRY(v, struct server, site.view);

	s->shutdown(s);
}

static bool
view_attribute(struct server_view *v, lua_State *L, const char *name)
{
	return attrs_push(&LIST_ENTRY(v, struct site, view)->attrs, L, name);
}

static void
put_count(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

void
server_count_here(const struct server *s, struct counters *sum)
{
	*sum = (struct counters){0};
	counters_add(sum, &s->counters);
	for (unsigned i = 0; i < s->ntally; i++)
		counters_add(sum, &s->tally[i]);
	count_add(&sum->bytes_in, count_get(&s->site.engine->io.bytes_in));
	count_add(&sum->bytes_out, count_get(&s->site.engine->io.bytes_out));
	if (s->policy->count)
		s->policy->count(s, sum);
}

void
server_count(const struct server *s, struct counters *sum)
{
	server_count_here(s, sum);
	if (s->board)
		board_add_others(s->board, sum);
}

void
server_stats(const struct server *s, struct server_stats *out)
{
	*out =
	    (struct server_stats){.reloads = count_get(&s->host->reloads),
				  .failed_reloads = count_get(&s->host->failed_reloads),
				  .drops = listener_drops(s->site.port.fd),
				  .generations = s->unit ? count_get(&s->unit->alive) : 1};
	server_count(s, &out->counters);
	out->active = count_get(&out->counters.requests) - count_get(&out->counters.ended);
	if (s->board) {
		out->workers = s->board->set->memory->accepting;
		out->workers_died = count_get(&s->board->set->memory->died);
		count_add(&out->counters.stuck, count_get(&s->board->set->memory->stuck));
	}
}

void
server_push_stats(lua_State *L, const struct server_stats *stats)
{
	const struct counters *c = &stats->counters;

	lua_newtable(L);
	put_count(L, "requests", count_get(&c->requests));
	put_count(L, "active", stats->active);
	put_count(L, "errors", count_get(&c->errors));
	put_count(L, "peers_gone", count_get(&c->peers_gone));
	put_count(L, "timeouts", count_get(&c->timeouts));
	put_count(L, "cancelled", count_get(&c->cancelled));
	put_count(L, "cpu_limit", count_get(&c->cpu_limit));
	put_count(L, "out_of_memory", count_get(&c->out_of_memory));
	put_count(L, "preempted", count_get(&c->preempted));
	put_count(L, "refused", count_get(&c->refused));
	put_count(L, "accept_errors", count_get(&c->accept_errors));
	put_count(L, "truncated", count_get(&c->truncated));
	put_count(L, "unanswered", count_get(&c->unanswered));
	put_count(L, "send_errors", count_get(&c->send_errors));
	put_count(L, "died", count_get(&c->died));
	put_count(L, "stuck", count_get(&c->stuck));
	put_count(L, "bytes_in", count_get(&c->bytes_in));
	put_count(L, "bytes_out", count_get(&c->bytes_out));
	put_count(L, "reloads", stats->reloads);
	put_count(L, "failed_reloads", stats->failed_reloads);
	put_count(L, "generations", stats->generations);
	put_count(L, "drops", stats->drops);
	put_count(L, "workers", stats->workers);
	put_count(L, "workers_died", stats->workers_died);
}

static void
view_stats(struct server_view *v, lua_State *L)
{
	struct server *s = LIST_ENTRY(v, struct server, site.view);

	struct server_stats stats;

	server_stats(s, &stats);
	server_push_stats(L, &stats);
	engine_push_stats(s->site.engine, L);
	put_count(L, "generation", s->site.script->number);
}

static int
view_reload(struct server_view *v, lua_State *L)
{
	return ask_here(L, LIST_ENTRY(v, struct server, site.view));
}

static struct listen_options
listen_options(const struct server *s, bool listens)
{
	const struct attrs *a = &s->site.attrs;

	return (struct listen_options){
	    .backlog = listens ? (int)a->request_queue_size : -1,
	    .reuse_address = a->allow_reuse_address,
	    .reuse_port = a->allow_reuse_port,
	    .v6only = a->ipv6_v6only,
	    .nodelay = a->disable_nagle_algorithm,
	    .mode = (mode_t)a->socket_mode,
	    .switchable = s->switchable,
	};
}

static void
show_fd(struct server *s, int fd)
{
	s->site.view.fd = s->site.port.fd = fd;
}

int
server_bind(struct server *s, const struct url *url, bool listens, char *why, size_t size)
{
	struct listen_options o = listen_options(s, listens);
	int rc = listener_open(url, &o, &s->listener, why, size);

	if (rc < 0)
		return rc;
	s->site.view.addr = s->listener.addr;
	s->site.view.transport = s->listener.transport;
	show_fd(s, s->listener.fd);
	s->site.port.transport = s->listener.transport;
	if (s->listener.transport == TRANSPORT_UDP)
		s->site.reply = replies_put;
	write_class_name(s);
	s->site.view.class_name = s->class_name;
	return 0;
}

static void
site_ended(struct site *site)
{
	struct server *s = LIST_ENTRY(site, struct server, site);

	s->pulling = false; /* it may have ended without */
	server_resume(s);
	if (s->leaving && list_empty(&s->reaper.link))
		loop_defer(site->engine->loop, &s->reaper);
}

static void
on_reap(struct loop_task *t)
{
	struct server *s = LIST_ENTRY(t, struct server, reaper);

	if (s->site.nrequests == 0)
		server_close(s);
}

int
server_new(struct host *host, const struct policy *policy, const struct attrs *attrs,
	   struct script *script, struct server **out, char *why, size_t size)
{
	struct loop *loop = host->engine.loop;
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	snprintf(why, size, "out of memory");
	if (!s)
		goto fail_script;
	s->host = host;
	s->policy = policy;
	s->budget = UINT64_MAX;
	s->shutdown = server_drain;
	s->listener.fd = s->fd.fd = -1;
	s->accept_op.done = on_acceptable;
	s->accept_task.run = on_accept_task;
	list_init(&s->accept_task.link);
	s->reaper.run = on_reap;
	list_init(&s->reaper.link);
	s->site = (struct site){.engine = &host->engine,
				.counters = &s->counters,
				.given = *attrs,
				.attrs = *attrs,
				.ended = site_ended,
				.view = {.fd = -1,
					 .shutdown = view_shutdown,
					 .push_stats = view_stats,
					 .push_attribute = view_attribute,
					 .reload = view_reload}};
	site_init(&s->site);
	if (loop_timer_init(loop, &s->paused, on_pause_over) < 0)
		goto fail_server;
	if (replies_init(s) < 0)
		goto fail_timer;
	list_append(&host->servers, &s->link);
	rc = script ? site_adopt(&s->site, script, why, size) : 0;
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;

fail_timer:
	loop_timer_done(loop, &s->paused);
fail_server:
	free(s);
fail_script:
	if (script)
		script_release(script);
	return -ENOMEM;
}

int
server_begin(struct server *s, char *why, size_t size)
{
	int rc;

	snprintf(why, size, "out of memory");
	if (!transport_is_stream(s->site.view.transport)) {
		s->dgrams.in = dgram_in_new((size_t)s->site.attrs.max_packet_size,
					    addr_is_any(&s->site.view.addr));
		s->dgrams.out = dgram_out_new();
		if (!s->dgrams.in || !s->dgrams.out)
			return -ENOMEM;
	}
	rc = s->policy->open ? s->policy->open(s, why, size) : 0;
	if (rc < 0 || s->elsewhere || s->down)
		return rc;
	return server_watch(s, why, size);
}

int
server_watch(struct server *s, char *why, size_t size)
{
	/* What getting ready takes is not taken before there is a client. */
	unsigned flags = s->policy->ready ? 0 : LOOP_LIKELY;
	int rc = loop_add(s->site.engine->loop, &s->fd, s->listener.fd,
			  s->shared ? flags | LOOP_SHARED : flags);

	if (rc < 0)
		snprintf(why, size, "%s", strerror(-rc));
	else
		server_resume(s);
	return rc;
}

static void
stop_listening(struct server *s)
{
	if (!transport_is_stream(s->site.view.transport)) {
		loop_cancel(&s->accept_op);
		replies_leave_loop(s);
		return;
	}
	loop_release_fd(&s->fd);
	listener_close(&s->listener);
	s->site.view.fd = -1;
}

void
server_rest(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out)
		replies_flush(s);
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	loop_release_fd(&s->fd);
}

void
server_stop_listening(struct server *s)
{
	server_rest(s);
	s->draining = true;
	if (transport_is_stream(s->site.view.transport))
		listener_close(&s->listener);
}

void
server_end_drain(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out)
		replies_flush(s);
	loop_timer_set(s->site.engine->loop, &s->dgrams.retry, CLOCK_NEVER);
	loop_release_fd(&s->fd);
	if (s->policy->close)
		s->policy->close(s);
}

void
server_drain(struct server *s)
{
	if (s->draining)
		return;
	/* Clients that the kernel has already let in get their turn, as far as the ceiling
	 * allows. */
	if (s->fd.fd >= 0 && transport_is_stream(s->site.view.transport)) {
		loop_cancel(&s->accept_op);
		s->fd.readable = true;
		for (int i = 0; i < 64 && may_accept(s) && !s->accept_op.fd; i++)
			accept_some(s);
	}
	s->draining = true;
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	stop_listening(s);
	if (s->policy->drained)
		s->policy->drained(s);
}

/* ---- coming and going ---- */

/* Sends what replies can be sent at once, and lets go of the socket. */
static void
leave_loop(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out) {
		replies_flush(s);
		dgram_out_drop(s->dgrams.out, dgram_out_count(s->dgrams.out));
	}
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	loop_timer_set(s->site.engine->loop, &s->dgrams.retry, CLOCK_NEVER);
	loop_release_fd(&s->fd);
	s->dgrams.at = s->dgrams.n;
}

void
server_leave(struct server *s)
{
	if (s->leaving)
		return;
	s->leaving = s->draining = s->closed = true;
	s->site.reply = NULL; /* what is still answered has no socket */
	leave_loop(s);
	listener_close(&s->listener);
	show_fd(s, -1);
	if (s->unit)
		reload_leave(s);
	server_cancel(s, "its server was closed");
	if (s->site.nrequests == 0)
		loop_defer(s->site.engine->loop, &s->reaper);
}

static int
go_down(struct server *s, char *why, size_t size)
{
	bool unix_socket = transport_is_unix(s->site.view.transport);
	char rest[200];
	int rc;

	if (s->listener.transport != TRANSPORT_UDP)
		leave_loop(s);
	else
		loop_cancel(&s->accept_op);
	rc = listener_refuse(&s->listener);
	if (rc < 0) {
		snprintf(why, size, "%s cannot refuse connections: %s", s->name,
			 strerror(-rc));
		if (s->fd.fd < 0)
			(void)server_watch(s, rest, sizeof(rest));
		return rc;
	}
	s->down = true;
	s->dgrams.at = s->dgrams.n; /* received, and not begun */
	if (unix_socket)
		show_fd(s, -1);
	return 0;
}

static int
come_up(struct server *s, char *why, size_t size)
{
	struct listen_options o = listen_options(s, true);
	int rc = listener_admit(&s->listener, &o, why, size);

	if (rc < 0)
		return rc;
	if (s->fd.fd < 0 && s->host->begun)
		rc = server_watch(s, why, size);
	if (rc < 0) {
		(void)listener_refuse(&s->listener);
		return rc;
	}
	s->down = false;
	show_fd(s, s->listener.fd);
	server_resume(s);
	return 0;
}

int
server_enable(struct server *s, bool up, char *why, size_t size)
{
	if (s->policy->threads || s->policy->forks) {
		snprintf(why, size, "%s runs its requests elsewhere (%s): it cannot refuse",
			 s->name, s->policy->name);
		return -ENOTSUP;
	}
	if (s->draining) {
		snprintf(why, size, "%s stops", s->name);
		return -EPIPE;
	}
	if (up != s->down)
		return 0;
	return up ? come_up(s, why, size) : go_down(s, why, size);
}

bool
server_is_done(const struct server *s, bool hurry)
{
	if (!s->draining || s->policy->active(s) > 0)
		return false;
	return hurry ||
	       (s->fd.fd < 0 && !(s->policy->lingering && s->policy->lingering(s) > 0));
}

void
server_cancel(struct server *s, const char *why)
{
	s->policy->cancel(s, why);
}

void
server_kill(struct server *s)
{
	s->draining = s->closed = true;
	s->policy->kill(s);
}

void
server_forget(struct server *s)
{
	const struct task *t = s->site.engine->sched.current;
	struct request *r = t && !t->chore ? t->owner : NULL;

	s->draining = s->closed = true;
	s->accept_due = s->dgrams.flush_due = false;
	list_remove(&s->accept_task.link);
	list_remove(&s->dgrams.flush.link);
	if (s->dgrams.out)
		dgram_out_drop(s->dgrams.out, dgram_out_count(s->dgrams.out));
	loop_cancel(&s->accept_op);
	loop_cancel(&s->dgrams.out_op);
	s->fd.fd = s->listener.fd = -1;
	s->listener.ino = 0;
	list_init(&s->site.requests);
	s->site.nrequests = 0;
	if (r && r->site == &s->site) {
		list_append(&s->site.requests, &r->link);
		s->site.nrequests = 1;
	}
	s->site.reply = NULL; /* that one collects for the loop of the server */
	s->mixin = NULL;
	if (s->board)
		s->board->mute = true;
}

void
server_share(struct server *s)
{
	s->shared = true;
	s->listener.ino = 0; /* its path is the master's */
	s->accept_due = false;
	list_remove(&s->accept_task.link);
}

void
server_close(struct server *s)
{
	server_kill(s);
	if (s->policy->close)
		s->policy->close(s);
	loop_release_fd(&s->fd);
	listener_close(&s->listener);
	loop_timer_done(s->site.engine->loop, &s->paused);
	loop_timer_done(s->site.engine->loop, &s->dgrams.retry);
	if (s->board)
		board_forget(s->board);
	list_remove(&s->accept_task.link);
	list_remove(&s->dgrams.flush.link);
	list_remove(&s->reaper.link);
	list_remove(&s->link);
	if (s->unit) {
		reload_leave(s);
		unit_lose(s->unit, s);
		if (s->site.script && s->site.nrequests == 0)
			site_leave(&s->site);
	}
	site_free(&s->site);
	dgram_in_free(s->dgrams.in);
	dgram_out_free(s->dgrams.out);
	free(s->name);
	free(s->declared);
	free(s->next_name);
	free(s->next_declared);
	free(s);
}
