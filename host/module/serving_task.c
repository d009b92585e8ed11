/* What a request's task may ask of the server that it belongs to, when Lua runs its course.
 */
#include "base/clock.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "module/serving.h"
#include "script/lerror.h"
#include "script/state.h"
#include "script/task.h"
#include "script/trace.h"
#include "server/accepting.h"
#include "server/crew.h"
#include "server/forking.h"
#include "server/instance.h"
#include "server/policy.h"
#include "server/report.h"
#include "server/request.h"
#include "server/server.h"

#include <errno.h>
#include <string.h>

/* The request of the running task, which must be this server's. */
static struct request *
own_request(lua_State *L, struct core *c)
{
	const struct sched *s = &c->host.engine.sched;

	if (!s->current)
		luaL_error(
		    L, "this is for the server's methods, while they deal with a request");
	if (task_main(s->current))
		luaL_error(L, "this is for the request's own task, not for a spawned one");
	return s->current->owner;
}

/* core:accept() -> request, client_address */
static int
core_accept(lua_State *L)
{
	struct core *c = core_check(L);
	struct request *r = own_request(L, c);
	struct arrival a = {.fd = -1};
	struct addr client, room;
	struct dgram d;
	int rc;

	if (r->open)
		return luaL_error(L, "this request has been accepted already");
	rc = accepting_pull(c->server, &a, &client, &d);
	if (rc == 0)
		rc = request_open(r, &a);
	if (rc < 0)
		return lerror_raise_errno(L, "accept", -rc);
	instance_push_request(L, r);
	push_address(L, request_client(r, &room));
	return 2;
}

/* core:files([packet]) -> rfile, wfile of the request; packet: what rfile reads instead */
static int
core_files(lua_State *L)
{
	struct core *c = core_check(L);
	struct request *r = own_request(L, c);
	size_t n, have;
	const char *packet = luaL_optlstring(L, 2, NULL, &n), *p;

	if (packet && request_stream(r)->datagram) {
		stream_view(request_stream(r), &p, &have);
		if (have != n || memcmp(p, packet, n) != 0) {
			stream_consume(request_stream(r), have);
			if (!buf_put(&request_stream(r)->in, packet, n))
				return luaL_error(L, "not enough memory");
		}
	}
	handle_push(L, rfile_class, request_stream(r), 0);
	handle_push(L, wfile_class, request_stream(r), 0);
	return 2;
}

/* core:hand_over(): a thread goes on with the request */
static int
core_hand_over(lua_State *L)
{
	struct core *c = core_check(L);
	struct request *r = own_request(L, c);
	struct stream *st = request_stream(r);
	struct addr room;
	struct arrival a = {.fd = -1, .client = request_client(r, &room)};
	struct dgram d = {0};
	int rc;

	if (st->datagram) {
		stream_view(st, &d.data, &d.len);
		d.local = r->extra->from.local;
		d.full_len = r->extra->full_len ? r->extra->full_len : d.len;
		a.dgram = &d;
	} else {
		a.fd = stream_give(st);
		if (a.fd < 0)
			return luaL_error(
			    L, "the request cannot go to a thread: it is closed, or "
			       "bytes were read from it already");
	}
	r->passed_on = true;
	rc = c->server->policy->begin(c->server, &a);
	return rc < 0 ? lerror_raise_errno(L, "hand_over", -rc) : 0;
}

/* core:fork() -> pid, or 0 in the child; nil where this is a pre-forked child already */
static int
core_fork(lua_State *L)
{
	struct core *c = core_check(L);
	struct request *r = own_request(L, c);
	struct stream *st = request_stream(r);
	struct addr room;
	pid_t pid;

	if (c->host.child) {
		lua_pushnil(L);
		return 1;
	}
	stream_flush(st); /* the parent's bytes are not the child's */
	pid = forking_fork(c->server, st, request_client(r, &room));
	if (pid < 0)
		return lerror_raise_errno(L, "fork", (int)-pid);
	if (pid > 0) {
		r->passed_on = true;
		if (st->datagram)
			stream_replied(st);
		else
			stream_drop(st);
	} else
		count_add(&request_site(r)->counters->requests, 1);
	lua_pushinteger(L, pid);
	return 1;
}

static int exit_child_k(lua_State *L, int status, lua_KContext step);

enum { POLL_MS = 10 };

/* Sends what was written; lingers; ends. */
static int
exit_child_step(lua_State *L, struct core *c)
{
	struct request *r = own_request(L, c);
	struct stream *st = request_stream(r);
	int64_t next = clock_now() + POLL_MS * CLOCK_MS;

	if (!st->closed && st->datagram) {
		int rc = request_send_reply(L, r, 0, exit_child_k);
		if (rc != 0)
			return rc;
	} else if (!st->closed) {
		stream_flush(st);
		if (!st->error && buf_len(&st->out) > 0)
			return stream_park_out(L, st, 0, exit_child_k);
		stream_shut(st);
	}
	if (c->host.engine.io.lingers.n > 0)
		return task_park(L, next, NULL, NULL, 0, exit_child_k);
	count_add(&request_site(r)->counters->ended, 1);
	forking_exit(c->server, c->status);
}

static int
exit_child_k(lua_State *L, int status, lua_KContext step)
{
	(void)status, (void)step;
	(void)task_woke(L);
	return exit_child_step(L, core_check(L));
}

/* core:exit_child(status), in a child: does not return */
static int
core_exit_child(lua_State *L)
{
	struct core *c = core_check(L);

	c->status = (int)luaL_optinteger(L, 2, 0);
	if (!c->host.child)
		return luaL_error(L, "this process is no child of a forking server");
	task_dismiss(own_request(L, c)->task);
	return exit_child_step(L, c);
}

/* core:report(client_address, err): the default handle_error */
static int
core_report(lua_State *L)
{
	struct core *c = core_check(L);
	const struct sched *s = &c->host.engine.sched;

	lua_settop(L, 3);
	if (s->current)
		report_error(s->current->owner, L);
	else {
		state_push_report(L, 3);
		trace_forget(L, 3);
		if (!lua_isnil(L, 2))
			luaL_tolstring(L, 2, NULL);
		else
			lua_pushliteral(L, "");
		report_text(&c->server->site, lua_tostring(L, -1), lua_tostring(L, -2));
	}
	return 0;
}

const luaL_Reg core_task_methods[] = {
    {"accept", core_accept},
    {"exit_child", core_exit_child},
    {"files", core_files},
    {"fork", core_fork},
    {"hand_over", core_hand_over},
    {"report", core_report},
    {NULL, NULL},
};
