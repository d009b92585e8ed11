#include "server/request.h"

#include "base/clock.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/finalizer.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"
#include "server/counters.h"
#include "server/engine.h"
#include "server/policy.h"
#include "server/report.h"
#include "server/site.h"

#include <errno.h>
#include <lauxlib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

/* A reply of this size or more is sent by itself, so that a failure is the request's. */
enum { REPLY_ALONE = 8 * 1024 };

enum { SELF = 1, MESSAGE_HANDLER = 2 };

/* An error of the handler stays here until `finish` has run. */
enum { FAILURE = 3 };

/* Steps of the coroutine; each value is what comes after a wait. */
enum step { RAN = 1, FINISHED, TOLD, SENT };

static struct request *
running_request(lua_State *L)
{
	return sched_of(L)->current->owner;
}

/* Makes self, with the fields that every handler finds there.  In Lua, because the virtual
 * machine fills a table faster than calls from C do. */
static const char CONSTRUCTORS[] =
    "local function stream(server, client_address, rfile, wfile, request)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, request = request,\n"
    "    connection = request, client_address = client_address }\n"
    "end\n"
    "local function datagram(server, client_address, rfile, wfile, packet, socket)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, packet = packet,\n"
    "    socket = socket, request = { packet, socket }, client_address = client_address }\n"
    "end\n"
    "return stream, datagram\n";

void
request_prepare(lua_State *L, int *stream_ref, int *datagram_ref)
{
	if (luaL_loadbufferx(L, CONSTRUCTORS, sizeof(CONSTRUCTORS) - 1, "=moonport", "t") !=
	    LUA_OK)
		lua_error(L);
	lua_call(L, 0, 2);
	*datagram_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	*stream_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Leaves self on the empty stack. */
static void
build_instance(lua_State *L, struct request *r)
{
	bool datagram = r->stream->datagram;
	const char *p;
	size_t n;

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX,
		    datagram ? r->generation.datagram_ref : r->generation.stream_ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->generation.self_ref);
	push_address(L, &r->client);
	handle_push(L, rfile_class, r->stream, 0);
	handle_push(L, wfile_class, r->stream, 0);
	if (datagram) {
		stream_view(r->stream, &p, &n);
		lua_pushlstring(L, p, n);
		lua_rawgeti(L, LUA_REGISTRYINDEX, r->generation.port_ref);
	} else
		handle_push(L, request_class, r->stream, 0);
	lua_call(L, 5 + datagram, 1);
	if (r->full_len) {
		lua_pushinteger(L, (lua_Integer)r->full_len);
		lua_setfield(L, SELF, "truncated");
	}
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->script->meta_ref);
	finalizer_set_metatable(L);
}

void
request_push(lua_State *L, struct request *r)
{
	const char *p;
	size_t n;

	if (!r->stream->datagram) {
		handle_push(L, request_class, r->stream, 0);
		return;
	}
	stream_view(r->stream, &p, &n);
	lua_createtable(L, 2, 1);
	lua_pushlstring(L, p, n);
	lua_rawseti(L, -2, 1);
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->generation.port_ref);
	lua_rawseti(L, -2, 2);
	if (r->full_len) {
		lua_pushinteger(L, (lua_Integer)r->full_len);
		lua_setfield(L, -2, "truncated");
	}
}

/* Pushes a hook and its arguments; their number. */
static int
push_hook(lua_State *L, struct request *r, int ref)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
	if (!r->generation.bound)
		lua_getfield(L, SELF, "server");
	lua_getfield(L, SELF, "request");
	lua_getfield(L, SELF, "client_address");
	return r->generation.bound ? 2 : 3;
}

/* verify_request, setup, handle: a C function of self, for handlers that have the
 * first two; each step follows the one before, also after a wait. */
static int
body_k(lua_State *L, int status, lua_KContext step)
{
	struct request *r = running_request(L);

	(void)status;
	if (step == 0 && r->generation.verify_ref) {
		lua_callk(L, push_hook(L, r, r->generation.verify_ref), 1, 1, body_k);
		step = 1;
	}
	if (step == 1) {
		if (!lua_toboolean(L, -1)) {
			count_add(&r->site->counters->refused, 1);
			report_outcome(r, LOG_INFO, "refused", "verify_request said no");
			lua_pushboolean(L, 0);
			return 1;
		}
		lua_settop(L, SELF);
	}
	if (step <= 1 && r->script->has_setup) {
		lua_getfield(L, SELF, "setup");
		lua_pushvalue(L, SELF);
		lua_callk(L, 1, 0, 2, body_k);
	}
	if (step <= 2) {
		lua_getfield(L, SELF, "handle");
		lua_pushvalue(L, SELF);
		lua_callk(L, 1, 0, 3, body_k);
	}
	lua_pushboolean(L, 1);
	return 1;
}

static int
body(lua_State *L)
{
	return body_k(L, LUA_OK, 0);
}

static int steps(lua_State *L, int status, lua_KContext step);

static void
forget_failure(lua_State *L, struct request *r)
{
	luaL_unref(L, LUA_REGISTRYINDEX, r->failure_ref);
	r->failure_ref = LUA_NOREF;
}

/* These ask about the error on top of the stack. */
static bool
is_past_limit(lua_State *L)
{
	const char *code = lerror_code(L, -1);

	return code && strcmp(code, "cpu_limit") == 0;
}

static bool
is_own_fault(lua_State *L)
{
	return !lerror_code(L, -1) || is_past_limit(L);
}

/* What has happened when all else was over: it goes to the log. */
static void
report_late(lua_State *L, struct request *r, int status)
{
	if (status == LUA_OK || status == LUA_YIELD)
		return;
	if (is_past_limit(L))
		task_clean_up(r->task);
	forget_failure(L, r);
	report_error(r, L);
}

/* An error of the handler: its server's handle_error, else the log. */
static int
tell(lua_State *L, struct request *r)
{
	struct site *s = r->site;
	int n;

	forget_failure(L, r);
	lua_pushvalue(L, FAILURE);
	if (is_own_fault(L) && s->tell) {
		state_push_text(L, -1);
		if (s->tell(s, &r->client, lua_tostring(L, -1))) {
			lua_pop(L, 1);
			report_count(r, L);
			return LUA_OK;
		}
		lua_pop(L, 1);
	}
	if (!is_own_fault(L) || !r->generation.error_ref) {
		report_error(r, L);
		return LUA_OK;
	}
	report_count(r, L);
	n = push_hook(L, r, r->generation.error_ref);
	lua_pushvalue(L, FAILURE);
	r->stage = TOLD;
	return lua_pcallk(L, n + 1, 0, MESSAGE_HANDLER, TOLD, steps);
}

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

/* The last step: what was written goes out. */
static int
send_rest(lua_State *L, struct request *r)
{
	struct stream *st = r->stream;

	if (!list_empty(&r->task->companions))
		task_dismiss(r->task); /* what they have to say goes out, too */
	if (st->closed)
		return 0;
	if (st->datagram)
		return request_send_reply(L, r, SENT, steps);
	if (st->pushing)
		stream_let_pushed(st);
	stream_flush(st);
	if (!st->error && !st->abortive && buf_len(&st->out) > 0)
		return stream_park_out(L, st, SENT, steps);
	if (st->error && !r->failed) {
		r->failed = true;
		count_add(&r->site->counters->peers_gone, 1);
		report_outcome(r, LOG_INFO, "peer gone", strerror(st->error));
	}
	return 0;
}

static int
begin(lua_State *L, struct request *r)
{
	int n = 1;

	if (r->generation.drive_ref) {
		lua_rawgeti(L, LUA_REGISTRYINDEX, r->generation.drive_ref);
		if (r->open) {
			lua_getfield(L, SELF, "request");
			lua_getfield(L, SELF, "client_address");
		}
		n = r->open ? 2 : 0;
	} else {
		if (r->script->has_setup || r->generation.verify_ref)
			lua_pushcfunction(L, body);
		else
			lua_getfield(L, SELF, "handle");
		lua_pushvalue(L, SELF);
	}
	return lua_pcallk(L, n, 1, MESSAGE_HANDLER, RAN, steps);
}

/* Leaves the handler's error, or nil, at FAILURE.  False: verify_request said no. */
static bool
keep_failure(lua_State *L, struct request *r, int status)
{
	bool ok = status == LUA_OK || status == LUA_YIELD;
	bool refused =
	    ok && r->generation.verify_ref && lua_isboolean(L, -1) && !lua_toboolean(L, -1);

	if (ok) {
		lua_settop(L, MESSAGE_HANDLER);
		lua_pushnil(L);
	} else if (is_past_limit(L))
		task_clean_up(r->task);
	return !refused;
}

/* The whole of a request after its instance is there.  status: how the call before went. */
static int
steps(lua_State *L, int status, lua_KContext step)
{
	struct request *r = running_request(L);

	if (step == 0) {
		status = begin(L, r);
		step = RAN;
	}
	if (step == RAN && (status == LUA_OK || status == LUA_YIELD) &&
	    !r->script->has_finish && !r->generation.verify_ref) {
		lua_settop(L, MESSAGE_HANDLER);
		return send_rest(L, r); /* nearly always */
	}
	if (step == RAN) {
		bool finishes = keep_failure(L, r, status) && r->script->has_finish &&
				!r->generation.drive_ref;
		status = LUA_OK;
		if (finishes) {
			lua_getfield(L, SELF, "finish");
			lua_pushvalue(L, SELF);
			r->stage = FINISHED;
			status = lua_pcallk(L, 1, 0, MESSAGE_HANDLER, FINISHED, steps);
		}
		step = FINISHED;
	}
	if (step == FINISHED) {
		report_late(L, r, status);
		lua_settop(L, FAILURE);
		status = lua_isnil(L, FAILURE) ? LUA_OK : tell(L, r);
		step = TOLD;
	}
	if (step == TOLD) {
		report_late(L, r, status);
		lua_settop(L, MESSAGE_HANDLER);
	}
	if (step == SENT && task_woke(L) == -ETIMEDOUT && !r->stream->datagram)
		return lerror_raise_timeout(L, "write");
	return send_rest(L, r);
}

static int
main_function(lua_State *L)
{
	struct request *r = lua_touserdata(L, 1);

	if (r->open)
		build_instance(L, r);
	else {
		lua_settop(L, 0);
		lua_newtable(L);
	}
	lua_pushcfunction(L, state_traceback);
	return steps(L, LUA_OK, 0);
}

/* ---- past the limit of CPU time ---- */

/* The outermost function of the suspended co; false: there is none. */
static bool
find_outermost(lua_State *co, lua_Debug *ar)
{
	int some = 0, none = 1; /* levels: each look counts them, and there may be many */

	while (lua_getstack(co, none, ar)) {
		some = none;
		none *= 2;
	}
	while (none - some > 1) {
		int level = some + (none - some) / 2;
		if (lua_getstack(co, level, ar))
			some = level;
		else
			none = level;
	}
	return lua_getstack(co, some, ar);
}

/* Pushes onto L what that function of co has at this index. */
static void
push_kept(lua_State *L, lua_State *co, const lua_Debug *outermost, int idx)
{
	if (lua_getlocal(co, outermost, idx))
		lua_xmove(co, L, 1);
	else
		lua_pushnil(L);
}

/* Runs in place of the request's course that has gone on for too long, and does what is
 * still to be done.  Arguments: the instance, the handler's failure, the error. */
static int
last_steps(lua_State *L)
{
	struct request *r = running_request(L);
	enum step stage = r->stage ? r->stage : RAN;

	if (stage == RAN) /* it was the handler: this is its failure */
		lua_remove(L, FAILURE - 1);
	lua_pushcfunction(L, state_traceback);
	lua_insert(L, MESSAGE_HANDLER);
	return steps(L, LUA_ERRRUN, stage);
}

static int
overran(struct task *t, lua_State *L)
{
	lua_Debug outermost;

	lua_pushcfunction(L, last_steps);
	if (!find_outermost(t->co, &outermost))
		return -1;
	push_kept(L, t->co, &outermost, SELF);
	if (!lua_istable(L, -1))
		return -1;
	push_kept(L, t->co, &outermost, FAILURE);
	slice_push_error(L, t->co, t->cpu);
	lua_pushvalue(L, -1);
	((struct request *)t->owner)->failure_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	return 3;
}

/* ---- begin and end ---- */

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

/* Runs protected.  Arguments: the request, its error value. */
static int
report_protected(lua_State *L)
{
	struct request *r = lua_touserdata(L, 1);

	if (lua_rawgeti(L, LUA_REGISTRYINDEX, r->failure_ref) == LUA_TNIL)
		lua_pop(L, 1); /* it was told, or there was none */
	forget_failure(L, r);
	report_error(r, L);
	return 0;
}

static void
task_ended(struct task *t, int status)
{
	struct request *r = t->owner;
	lua_State *L = t->script->state.L;

	if (status != LUA_OK) {
		/* It died outside the protected calls, or was closed: no traceback is left.
		 */
		lua_pushcfunction(L, report_protected);
		lua_pushlightuserdata(L, r);
		lua_xmove(t->co, L, 1);
		if (state_call(L, 2, 0) != LUA_OK) {
			count_add(&r->site->counters->errors, 1);
			report_outcome(r, LOG_ERROR, "handler error", "not enough memory");
			lua_pop(L, 1);
		}
	}
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
	*r = (struct request){.site = s,
			      .stream = st,
			      .script = s->script,
			      .generation = s->generation,
			      .allowance = s->allowance,
			      .failure_ref = LUA_NOREF};
	r->client.len = client->len;
	memcpy(&r->client.ss, &client->ss, client->len);
	if (s->attrs.idle_timeout != ATTR_NONE &&
	    loop_timer_init(loop, &r->idle, on_idle) < 0)
		goto fail_request;
	r->task = task_new(&s->engine->sched, s->script);
	if (!r->task)
		goto fail_timer;
	r->task->owner = r;
	r->task->ended = task_ended;
	r->task->overran = overran;
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

	lua_pushcfunction(co, main_function);
	lua_pushlightuserdata(co, r);
	task_start(r->task, 1);
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
	r->client = *a->client;
	if (!a->dgram)
		return stream_open(st, a->fd);
	count_add(&r->site->engine->io.bytes_in, a->dgram->len);
	if (a->dgram->len > 0)
		stream_lend(st, a->dgram->data, a->dgram->len);
	take_datagram(r, a->dgram);
	return 0;
}
