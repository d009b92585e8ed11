#include "server/course.h"

#include "bind/stream.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"
#include "script/trace.h"
#include "server/counters.h"
#include "server/instance.h"
#include "server/report.h"
#include "server/request.h"
#include "server/site.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

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

/* Pushes a hook and its arguments; their number. */
static int
push_hook(lua_State *L, struct request *r, int ref)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
	if (!r->terms->generation.bound)
		lua_getfield(L, SELF, "server");
	lua_getfield(L, SELF, "request");
	lua_getfield(L, SELF, "client_address");
	return r->terms->generation.bound ? 2 : 3;
}

/* verify_request, setup, handle: a C function of self, for handlers that have the
 * first two; each step follows the one before, also after a wait. */
static int
body_k(lua_State *L, int status, lua_KContext step)
{
	struct request *r = running_request(L);

	(void)status;
	if (step == 0 && r->terms->generation.verify_ref) {
		lua_callk(L, push_hook(L, r, r->terms->generation.verify_ref), 1, 1,
			  body_k);
		step = 1;
	}
	if (step == 1) {
		if (!lua_toboolean(L, -1)) {
			count_add(&request_site(r)->counters->refused, 1);
			report_outcome(r, LOG_INFO, "refused", "verify_request said no");
			lua_pushboolean(L, 0);
			return 1;
		}
		lua_settop(L, SELF);
	}
	if (step <= 1 && r->task->script->has_setup) {
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
	if (!r->dying)
		return;
	r->dying = false;
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, r);
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
	struct site *s = request_site(r);
	struct addr room;
	int n;

	forget_failure(L, r);
	lua_pushvalue(L, FAILURE);
	if (is_own_fault(L) && s->tell) {
		state_push_report(L, -1);
		if (s->tell(s, request_client(r, &room), lua_tostring(L, -1))) {
			lua_pop(L, 1);
			report_count(r, L);
			trace_forget(L, -1);
			return LUA_OK;
		}
		lua_pop(L, 1);
	}
	if (!is_own_fault(L) || !r->terms->generation.error_ref) {
		report_error(r, L);
		return LUA_OK;
	}
	report_count(r, L);
	n = push_hook(L, r, r->terms->generation.error_ref);
	lua_pushvalue(L, FAILURE);
	r->stage = TOLD;
	return lua_pcallk(L, n + 1, 0, MESSAGE_HANDLER, TOLD, steps);
}

/* Either the peer went away, or a task beside the request was still writing at its end. */
static void
tell_unsent(struct request *r, int error)
{
	struct counters *c = request_site(r)->counters;

	r->failed = true;
	if (error == ECANCELED) {
		count_add(&c->cancelled, 1);
		report_outcome(
		    r, LOG_INFO, "cancelled",
		    "the request was over before a spawned task had written all");
		return;
	}
	count_add(&c->peers_gone, 1);
	report_outcome(r, LOG_INFO, "peer gone", strerror(error));
}

/* What was written goes out. */
static int
send_written(lua_State *L, struct request *r)
{
	struct stream *st = request_stream(r);

	if (task_has_companions(r->task))
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
	if (st->error && !r->failed)
		tell_unsent(r, st->error);
	return 0;
}

/* The last step; what raises or waits in it does not come back here. */
static int
send_rest(lua_State *L, struct request *r)
{
	int n = send_written(L, r);

	stream_leave_unread(request_stream(r));
	return n;
}

static int
begin(lua_State *L, struct request *r)
{
	int n = 1;

	if (r->terms->generation.drive_ref) {
		lua_rawgeti(L, LUA_REGISTRYINDEX, r->terms->generation.drive_ref);
		if (r->open) {
			lua_getfield(L, SELF, "request");
			lua_getfield(L, SELF, "client_address");
		}
		n = r->open ? 2 : 0;
	} else {
		if (r->task->script->has_setup || r->terms->generation.verify_ref)
			lua_pushcfunction(L, body);
		else
			instance_push_handle(L, r);
		lua_pushvalue(L, SELF);
	}
	return lua_pcallk(L, n, 1, MESSAGE_HANDLER, RAN, steps);
}

/* Leaves the handler's error, or nil, at FAILURE.  False: verify_request said no. */
static bool
keep_failure(lua_State *L, struct request *r, int status)
{
	bool ok = status == LUA_OK || status == LUA_YIELD;
	bool refused = ok && r->terms->generation.verify_ref && lua_isboolean(L, -1) &&
		       !lua_toboolean(L, -1);

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
	    !r->task->script->has_finish && !r->terms->generation.verify_ref) {
		lua_settop(L, MESSAGE_HANDLER);
		return send_rest(L, r); /* nearly always */
	}
	if (step == RAN) {
		bool finishes = keep_failure(L, r, status) && r->task->script->has_finish &&
				!r->terms->generation.drive_ref;
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
		trace_forget(L, FAILURE);
		lua_settop(L, MESSAGE_HANDLER);
	}
	if (step == SENT && task_woke(L) == -ETIMEDOUT && !request_stream(r)->datagram)
		return lerror_raise_timeout(L, "write");
	return send_rest(L, r);
}

int
course_run(lua_State *L)
{
	struct request *r = running_request(L);

	if (r->open)
		instance_build(L, r);
	else
		lua_newtable(L);
	lua_pushcfunction(L, state_observe);
	return steps(L, LUA_OK, 0);
}

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
	lua_pushcfunction(L, state_observe);
	lua_insert(L, MESSAGE_HANDLER);
	return steps(L, LUA_ERRRUN, stage);
}

int
course_overran(struct task *t, lua_State *L)
{
	struct request *r = t->owner;
	lua_Debug outermost;

	lua_pushcfunction(L, last_steps);
	if (!find_outermost(t->co, &outermost))
		return -1;
	push_kept(L, t->co, &outermost, SELF);
	if (!lua_istable(L, -1))
		return -1;
	push_kept(L, t->co, &outermost, FAILURE);
	slice_push_error(L, t->co, task_cpu(t));
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, r);
	r->dying = true;
	return 3;
}

/* Runs protected.  Arguments: the request, its error value. */
static int
report_protected(lua_State *L)
{
	struct request *r = lua_touserdata(L, 1);

	if (r->dying)
		lua_rawgetp(L, LUA_REGISTRYINDEX, r);
	forget_failure(L, r);
	report_error(r, L);
	return 0;
}

void
course_died(struct request *r, lua_State *co)
{
	lua_State *L = r->task->script->state.L;

	lua_pushcfunction(L, report_protected);
	lua_pushlightuserdata(L, r);
	lua_xmove(co, L, 1);
	if (state_call(L, 2, 0) == LUA_OK)
		return;
	count_add(&request_site(r)->counters->errors, 1);
	report_outcome(r, LOG_ERROR, "handler error", "not enough memory");
	lua_pop(L, 1);
}
