#include "server/request.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/script.h"
#include "script/task.h"
#include "server/counters.h"
#include "server/course.h"
#include "server/engine.h"
#include "server/policy.h"
#include "server/report.h"
#include "server/site.h"

#include <errno.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

/* A reply of this size or more is sent by itself, so that a failure is the request's. */
enum { REPLY_ALONE = 8 * 1024 };

/* Of an IPv6 address what is not the same in all. */
struct packed {
	in_port_t port;
	struct in6_addr ip;
	uint32_t scope;
} __attribute__((packed));

_Static_assert(sizeof(struct packed) <= REQUEST_ADDR, "it fits");

static void
pack(const struct sockaddr_in6 *in6, unsigned char *to)
{
	const struct packed p = {in6->sin6_port, in6->sin6_addr, in6->sin6_scope_id};

	memcpy(to, &p, sizeof(p));
}

static void
unpack(const unsigned char *from, struct sockaddr_in6 *in6)
{
	struct packed p;

	memcpy(&p, from, sizeof(p));
	*in6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
				     .sin6_port = p.port,
				     .sin6_addr = p.ip,
				     .sin6_scope_id = p.scope};
}

const struct addr *
request_client(const struct request *r, struct addr *room)
{
	if (r->client_len == 0 && r->extra)
		return &r->extra->from.addr;
	if (r->client_len == sizeof(struct sockaddr_in6))
		unpack(r->client, (void *)&room->ss);
	else
		memcpy(&room->ss, r->client, sizeof(r->client));
	room->len = r->client_len;
	return room;
}

int
request_send_reply(lua_State *L, struct request *r, lua_KContext ctx, lua_KFunction k)
{
	struct site *s = request_site(r);
	struct stream *st = request_stream(r);
	struct extra *x = r->extra;
	const char *p;
	size_t n;
	int64_t deadline = 0;
	int rc;

	n = stream_reply(st, &p);
	if (n == 0)
		return 0;
	if (x->from.addr.len == 0 ||
	    (addr_is_unix(&x->from.addr) && x->from.addr.len <= sizeof(sa_family_t))) {
		count_add(&s->counters->unanswered, 1);
		report_outcome(r, LOG_DEBUG, "unanswered", "the sender has no address");
		return 0;
	}
	if (s->reply && n < REPLY_ALONE &&
	    s->reply(s, p, n, &x->from.addr, &x->from.local)) {
		stream_replied(st);
		return 0;
	}
	rc = datagram_try(&s->port, p, n, &x->from.addr, &x->from.local, x->tries++,
			  &deadline);
	if (rc == -EINPROGRESS)
		return task_park(L, deadline, NULL, NULL, ctx, k);
	if (rc < 0) {
		count_add(&s->counters->send_errors, 1);
		report_unsent(s, strerror(-rc));
	} else
		count_add(&s->engine->io.bytes_out, n);
	stream_replied(st);
	return 0;
}

/* What few requests need, if this one does not have it yet.  Errors: -ENOMEM. */
static int
need_extra(struct request *r)
{
	if (r->extra)
		return 0;
	r->extra = pool_take_clear(&request_site(r)->extras);
	if (!r->extra)
		return -ENOMEM;
	r->extra->request = r;
	return 0;
}

/* Errors: -ENOMEM. */
static int
set_client(struct request *r, const struct addr *client)
{
	const struct sockaddr_in6 *in6 = (const void *)&client->ss;
	bool packs = client->len == sizeof(*in6) && client->ss.ss_family == AF_INET6 &&
		     in6->sin6_flowinfo == 0;

	if (packs || client->len <= REQUEST_ADDR) {
		if (packs)
			pack(in6, r->client);
		else
			memcpy(r->client, &client->ss, REQUEST_ADDR);
		r->client_len = (uint8_t)client->len;
		return 0;
	}
	if (need_extra(r) < 0)
		return -ENOMEM;
	r->extra->from.addr.len = client->len;
	memcpy(&r->extra->from.addr.ss, &client->ss, client->len);
	return 0;
}

/* Who has sent what has arrived.  Errors: -ENOMEM. */
static int
set_sender(struct request *r, struct stream *st, const struct arrival *a)
{
	const struct dgram *d = a->dgram;
	struct extra *x;

	if (!d)
		return set_client(r, a->client);
	if (need_extra(r) < 0)
		return -ENOMEM;
	x = r->extra;
	addr_copy(&x->from.addr, a->client);
	x->from.local = d->local;
	x->full_len = d->full_len > d->len ? d->full_len : 0;
	st->from = &x->from;
	return 0;
}

/* Gives the struct back, and what it holds but for its stream and task. */
static void
release(struct request *r)
{
	struct site *s = request_site(r);

	if (r->extra) {
		if (r->extra->idle.kind)
			loop_timer_done(s->engine->loop, &r->extra->idle);
		pool_give(&s->extras, r->extra);
	}
	terms_release(s, r->terms);
	pool_give(&s->pool, r);
}

static void
end(struct request *r)
{
	struct site *s = request_site(r);

	stream_free(request_stream(r));
	list_remove(&r->link);
	s->nrequests--;
	if (r->terms->generation.drive_ref && r->open && !r->passed_on)
		count_add(&s->counters->requests, 1); /* its course has shown whose it is */
	if (!r->terms->generation.drive_ref || (r->open && !r->passed_on))
		count_add(&s->counters->ended, 1);
	release(r);
	s->ended(s);
}

static void
task_ended(struct task *t, int status)
{
	struct request *r = t->owner;

	if (status != LUA_OK)
		course_died(r, t->co);
	end(r);
}

static void
on_idle(struct loop_timer *timer)
{
	const struct request *r = LIST_ENTRY(timer, struct extra, idle)->request;
	int64_t now = loop_now(request_site(r)->engine->loop),
		late = now - loop_timer_when(request_site(r)->engine->loop, timer);
	int64_t due =
	    clock_after(request_stream(r)->active, request_site(r)->attrs.idle_timeout);

	/* While the loop could not look, in a handler that blocks in C, nobody was idle. */
	if (due < CLOCK_NEVER - late)
		due += late;
	if (due > now)
		loop_timer_set(request_site(r)->engine->loop, timer, due);
	else
		task_cancel(r->task, "idle_timeout");
}

static uint32_t
limit_of(int64_t value, size_t otherwise)
{
	return value < 0 ? (uint32_t)otherwise : value == 0 ? 1 : (uint32_t)value;
}

static struct stream_limits
limits_of(const struct attrs *a)
{
	return (struct stream_limits){
	    .receive_max = limit_of(a->rbufsize, loop_buffer_size()),
	    .collect_max =
		a->wbufsize ? limit_of(a->wbufsize, STREAM_GATHER) : STREAM_GATHER,
	    .max_line = (uint32_t)a->max_line,
	    .timeout = a->timeout != ATTR_NONE ? clock_after(0, a->timeout) : CLOCK_NEVER};
}

void
terms_init(struct terms *t, const struct attrs *a)
{
	t->kind = (struct task_kind){.ended = task_ended,
				     .overran = course_overran,
				     .allowance = &t->allowance,
				     .grace = clock_after(0, a->cancel_grace)};
	t->limits = limits_of(a);
}

/* Has it cancelled when no bytes move for too long.  False: out of memory. */
static bool
watch_idle(struct request *r)
{
	struct loop *loop = request_site(r)->engine->loop;

	if (need_extra(r) < 0 || loop_timer_init(loop, &r->extra->idle, on_idle) < 0)
		return false;
	loop_timer_set(loop, &r->extra->idle,
		       clock_after(loop_now(loop), request_site(r)->attrs.idle_timeout));
	return true;
}

/* A request with its stream and task, ready to run.  NULL: out of memory; st is freed. */
static struct request *
prepare(struct site *s, struct stream *st, const struct arrival *a)
{
	struct request *r = pool_take_clear(&s->pool);

	if (!r)
		goto fail_stream;
	r->terms = terms_hold(s->terms);
	if (set_sender(r, st, a) < 0 ||
	    (s->attrs.idle_timeout != ATTR_NONE && !watch_idle(r)))
		goto fail_request;
	r->task = task_new(&s->engine->sched, s->script, &r->terms->kind);
	if (!r->task)
		goto fail_request;
	r->task->owner = r;
	st->task = r->task;
	r->task->stream = st;
	st->limits = &r->terms->limits;
	st->mode = s->attrs.wbufsize == 0 ? STREAM_NO : STREAM_FULL;
	if (s->attrs.request_timeout != ATTR_NONE)
		task_limit(r->task, clock_after(clock_now(), s->attrs.request_timeout));
	list_append(&s->requests, &r->link);
	s->nrequests++;
	if (!s->generation.drive_ref)
		count_add(&s->counters->requests, 1);
	return r;

fail_request:
	release(r);
fail_stream:
	stream_free(st);
	return NULL;
}

static void
run(struct request *r)
{
	lua_State *co = r->task->co;

	lua_rawgeti(co, LUA_REGISTRYINDEX, r->terms->generation.course_ref);
	task_start(r->task);
}

/* A connection's bytes, or a datagram's. */
static int
open_stream(struct site *s, const struct arrival *a, struct stream **out)
{
	int rc = stream_new(&s->engine->io, a->fd, a->fd >= 0, out);

	if (rc < 0 || !a->dgram)
		return rc;
	count_add(&s->engine->io.bytes_in, a->dgram->len);
	if (a->dgram->len > 0)
		stream_lend(*out, a->dgram->data, a->dgram->len);
	return 0;
}

int
request_start(struct site *s, const struct arrival *a)
{
	struct stream *st;
	struct request *r;
	int rc = open_stream(s, a, &st);

	if (rc < 0)
		return rc;
	r = prepare(s, st, a);
	if (!r)
		return -ENOMEM;
	r->open = true;
	run(r);
	return 0;
}

int
request_pull(struct site *s)
{
	static const struct addr unknown;
	static const struct arrival nobody = {.fd = -1, .client = &unknown};
	struct stream *st;
	struct request *r;
	int rc = stream_new(&s->engine->io, -1, false, &st);

	if (rc < 0)
		return rc;
	r = prepare(s, st, &nobody);
	if (!r)
		return -ENOMEM;
	run(r);
	return 0;
}

int
request_open(struct request *r, const struct arrival *a)
{
	struct stream *st = request_stream(r);

	r->open = true;
	if (set_sender(r, st, a) < 0) {
		if (a->fd >= 0)
			close(a->fd);
		return -ENOMEM;
	}
	if (!a->dgram)
		return stream_open(st, a->fd);
	count_add(&request_site(r)->engine->io.bytes_in, a->dgram->len);
	if (a->dgram->len > 0)
		stream_lend(st, a->dgram->data, a->dgram->len);
	return 0;
}
