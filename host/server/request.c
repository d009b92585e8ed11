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
#include <string.h>

/* A reply of this size or more is sent by itself, so that a failure is the request's. */
enum { REPLY_ALONE = 8 * 1024 };

int
request_send_reply(lua_State *L, struct request *r, lua_KContext ctx, lua_KFunction k)
{
	struct site *s = r->site;
	struct stream *st = r->stream;
	const char *p;
	size_t n;
	int64_t deadline = 0;
	int rc;

	n = stream_reply(st, &p);
	if (n == 0)
		return 0;
	if (r->client.len == 0 ||
	    (addr_is_unix(&r->client) && r->client.len <= sizeof(sa_family_t))) {
		count_add(&s->counters->unanswered, 1);
		report_outcome(r, LOG_DEBUG, "unanswered", "the sender has no address");
		return 0;
	}
	if (s->reply && n < REPLY_ALONE && s->reply(s, p, n, &r->client, &r->local)) {
		stream_replied(st);
		return 0;
	}
	rc = datagram_try(&s->port, p, n, &r->client, &r->local, r->tries++, &deadline);
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

static void
end(struct request *r)
{
	struct site *s = r->site;

	if (s->attrs.idle_timeout != ATTR_NONE)
		loop_timer_done(s->engine->loop, &r->idle);
	stream_free(r->stream);
	list_remove(&r->link);
	s->nrequests--;
	if (r->generation.drive_ref && r->open && !r->passed_on)
		count_add(&s->counters->requests, 1); /* its course has shown whose it is */
	if (!r->generation.drive_ref || (r->open && !r->passed_on))
		count_add(&s->counters->ended, 1);
	pool_give(&s->pool, r);
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
	struct request *r = LIST_ENTRY(timer, struct request, idle);
	int64_t now = loop_now(r->site->engine->loop), late = now - timer->when;
	int64_t due = clock_after(r->stream->active, r->site->attrs.idle_timeout);

	/* While the loop could not look, in a handler that blocks in C, nobody was idle. */
	if (due < CLOCK_NEVER - late)
		due += late;
	if (due > now)
		loop_timer_set(r->site->engine->loop, timer, due);
	else
		task_cancel(r->task, "idle_timeout");
}

static uint32_t
limit_of(int64_t value, size_t otherwise)
{
	return value < 0 ? (uint32_t)otherwise : value == 0 ? 1 : (uint32_t)value;
}

static void
apply_attrs(struct stream *st, const struct attrs *a)
{
	st->receive_max = limit_of(a->rbufsize, loop_buffer_size());
	if (a->wbufsize == 0)
		st->mode = STREAM_NO;
	else
		st->collect_max = limit_of(a->wbufsize, STREAM_GATHER);
	st->max_line = (uint32_t)a->max_line;
	if (a->timeout != ATTR_NONE)
		st->timeout = clock_after(0, a->timeout);
}

/* A request with its stream and task, ready to run.  NULL: out of memory; st is freed. */
static struct request *
prepare(struct site *s, struct stream *st, const struct addr *client)
{
	struct loop *loop = s->engine->loop;
	struct request *r = pool_take(&s->pool);

	if (!r)
		goto fail_stream;
	r->site = s; /* one by one: to clear all of it, addresses too, takes longer */
	r->stream = st;
	r->script = s->script;
	addr_copy(&r->client, client);
	r->local.family = 0;
	r->full_len = 0;
	r->tries = 0;
	r->failed = r->passed_on = r->open = false;
	r->stage = 0;
	r->failure_ref = LUA_NOREF;
	r->generation = s->generation;
	r->allowance = s->allowance;
	if (s->attrs.idle_timeout != ATTR_NONE &&
	    loop_timer_init(loop, &r->idle, on_idle) < 0)
		goto fail_request;
	r->task = task_new(&s->engine->sched, s->script);
	if (!r->task)
		goto fail_timer;
	r->task->owner = r;
	r->task->ended = task_ended;
	r->task->overran = course_overran;
	r->task->allowance = &r->allowance;
	r->task->grace = clock_after(0, s->attrs.cancel_grace);
	st->task = r->task;
	r->task->stream = st;
	apply_attrs(st, &s->attrs);
	if (s->attrs.request_timeout != ATTR_NONE)
		task_limit(r->task, clock_after(clock_now(), s->attrs.request_timeout));
	if (s->attrs.idle_timeout != ATTR_NONE)
		loop_timer_set(loop, &r->idle,
			       clock_after(loop_now(loop), s->attrs.idle_timeout));
	list_append(&s->requests, &r->link);
	s->nrequests++;
	if (!s->generation.drive_ref)
		count_add(&s->counters->requests, 1);
	return r;

fail_timer:
	if (s->attrs.idle_timeout != ATTR_NONE)
		loop_timer_done(loop, &r->idle);
fail_request:
	pool_give(&s->pool, r);
fail_stream:
	stream_free(st);
	return NULL;
}

static void
run(struct request *r)
{
	lua_State *co = r->task->co;

	lua_rawgeti(co, LUA_REGISTRYINDEX, r->generation.course_ref);
	task_start(r->task, 0);
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

static void
take_datagram(struct request *r, const struct dgram *d)
{
	r->local = d->local;
	r->stream->from = &r->client;
	r->stream->local = &r->local;
	r->full_len = d->full_len > d->len ? d->full_len : 0;
}

int
request_start(struct site *s, const struct arrival *a)
{
	struct stream *st;
	struct request *r;
	int rc = open_stream(s, a, &st);

	if (rc < 0)
		return rc;
	r = prepare(s, st, a->client);
	if (!r)
		return -ENOMEM;
	r->open = true;
	if (a->dgram)
		take_datagram(r, a->dgram);
	run(r);
	return 0;
}

int
request_pull(struct site *s)
{
	static const struct addr nobody;
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
	struct stream *st = r->stream;

	r->open = true;
	addr_copy(&r->client, a->client);
	if (!a->dgram)
		return stream_open(st, a->fd);
	count_add(&r->site->engine->io.bytes_in, a->dgram->len);
	if (a->dgram->len > 0)
		stream_lend(st, a->dgram->data, a->dgram->len);
	take_datagram(r, a->dgram);
	return 0;
}
