#include "server/site.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/task.h"
#include "server/counters.h"
#include "server/course.h"
#include "server/engine.h"
#include "server/instance.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>

void
site_init(struct site *s)
{
	list_init(&s->requests);
	list_init(&s->view.objects);
	list_init(&s->port.objects);
	pool_init(&s->pool, sizeof(struct request));
	pool_init(&s->extras, sizeof(struct extra));
	pool_init(&s->all_terms, sizeof(struct terms));
	s->allowance = site_allowance(&s->given);
	s->allowance.preempted = &s->counters->preempted;
}

void
site_count_in(struct site *s, struct counters *counters)
{
	s->counters = counters;
	s->allowance.preempted = &counters->preempted;
	if (s->terms)
		s->terms->allowance.preempted = &counters->preempted;
	for (struct list *l = s->requests.next; l != &s->requests; l = l->next)
		LIST_ENTRY(l, struct request, link)->terms->allowance.preempted =
		    &counters->preempted;
}

static int64_t
nanoseconds(double seconds)
{
	return seconds == ATTR_NONE ? CLOCK_NEVER : clock_after(0, seconds);
}

struct allowance
site_allowance(const struct attrs *a)
{
	return (struct allowance){.slice = nanoseconds(a->time_slice),
				  .limit = nanoseconds(a->cpu_limit)};
}

static void
forget_refs(const struct script *sc, const struct generation *g)
{
	const int refs[] = {g->self_ref,   g->port_ref,  g->course_ref,
			    g->verify_ref, g->error_ref, g->drive_ref};

	for (size_t i = 0; i < sizeof(refs) / sizeof(*refs); i++)
		if (refs[i])
			luaL_unref(sc->state.L, LUA_REGISTRYINDEX, refs[i]);
}

void
site_drop(const struct site_plan *plan)
{
	forget_refs(plan->script, &plan->generation);
}

void
terms_release(struct site *s, struct terms *t)
{
	if (--t->refs == 0)
		pool_give(&s->all_terms, t);
}

void
site_leave(struct site *s)
{
	if (s->terms)
		terms_release(s, s->terms);
	s->terms = NULL;
	forget_refs(s->script, &s->generation);
	s->generation = (struct generation){0};
	script_release(s->script);
	s->script = NULL;
}

void
site_free(struct site *s)
{
	if (s->script)
		script_release(s->script);
	s->script = NULL;
	pool_free(&s->pool);
	pool_free(&s->extras);
	pool_free(&s->all_terms);
	server_vanish(&s->view);
	datagram_vanish(&s->port);
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
site_read_attrs(struct script *script, struct attrs *attrs, char *why, size_t size)
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

/* The reference of a function in the table on top of the stack. */
static int
hook(lua_State *L, const char *name)
{
	if (lua_getfield(L, -1, name) == LUA_TFUNCTION)
		return luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pop(L, 1);
	return 0;
}

/* Runs protected: what the state must know of the server.  Arguments: the site, the
 * script, the generation to fill in. */
static int
attach(lua_State *L)
{
	struct site *s = lua_touserdata(L, 1);
	struct script *sc = lua_touserdata(L, 2);
	struct generation *g = lua_touserdata(L, 3);

	*g = (struct generation){.bound = s->hooks_ref != 0, .self_ref = s->self_ref};
	if (g->bound)
		lua_rawgeti(L, LUA_REGISTRYINDEX, s->hooks_ref);
	else {
		lua_rawgeti(L, LUA_REGISTRYINDEX, sc->handler_ref);
		lua_getfield(L, -1, "server");
	}
	if (lua_istable(L, -1)) {
		g->verify_ref = hook(L, "verify_request");
		g->error_ref = hook(L, "handle_error");
		if (g->bound)
			g->drive_ref = hook(L, "drive");
	}
	if (!g->self_ref) {
		server_push(L, &s->view);
		g->self_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	}
	datagram_push(L, &s->port);
	g->port_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	instance_push_course(L, course_run, sc, g);
	g->course_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

/* The pool gets room, and keeps it. */
static bool
warm_pool(struct pool *p)
{
	void *item = pool_take(p);

	if (item)
		pool_give(p, item);
	return item != NULL;
}

int
site_prepare(struct site *s, struct script *script, struct site_plan *plan, char *why,
	     size_t size)
{
	lua_State *L = script->state.L;

	*plan = (struct site_plan){.script = script, .attrs = s->given};
	if (!warm_pool(&s->all_terms)) {
		snprintf(why, size, "out of memory");
		return -EINVAL;
	}
	if (site_read_attrs(script, &plan->attrs, why, size) < 0)
		return -EINVAL;
	lua_pushcfunction(L, attach);
	lua_pushlightuserdata(L, s);
	lua_pushlightuserdata(L, script);
	lua_pushlightuserdata(L, &plan->generation);
	if (state_call(L, 3, 0) == LUA_OK)
		return 0;
	script_keep_error(L, script->path, why, size);
	return -EINVAL;
}

/* What the socket, its buffers, children and running timers were made with. */
static void
keep_fixed(struct attrs *next, const struct attrs *old)
{
	next->request_queue_size = old->request_queue_size;
	next->max_packet_size = old->max_packet_size;
	next->socket_mode = old->socket_mode;
	next->idle_timeout = old->idle_timeout;
	next->max_children = old->max_children;
	next->max_requests_per_child = old->max_requests_per_child;
}

void
site_commit(struct site *s, const struct site_plan *plan)
{
	struct script *old = s->script;
	struct attrs next = plan->attrs;

	if (old)
		keep_fixed(&next, &s->attrs);
	if (!plan->script->borrowed)
		plan->script->state.alloc.limit = (size_t)next.memory_limit;
	script_hold(plan->script);
	s->attrs = next;
	s->allowance = site_allowance(&next);
	s->allowance.preempted = &s->counters->preempted;
	s->generation = plan->generation;
	s->script = plan->script;
	if (s->terms)
		terms_release(s, s->terms);
	s->terms = pool_take(&s->all_terms); /* there is one: see site_prepare() */
	*s->terms = (struct terms){
	    .site = s, .refs = 1, .generation = s->generation, .allowance = s->allowance};
	terms_init(s->terms, &next);
	if (old)
		script_release(old);
}

int
site_adopt(struct site *s, struct script *script, char *why, size_t size)
{
	struct site_plan plan;
	int rc = site_prepare(s, script, &plan, why, size);

	if (rc == 0)
		site_commit(s, &plan);
	script_release(script);
	return rc;
}

uint64_t
site_running(const struct site *s, unsigned number)
{
	uint64_t n = 0;

	for (const struct list *l = s->requests.next; l != &s->requests; l = l->next)
		n += LIST_ENTRY(l, struct request, link)->task->script->number == number;
	return n;
}

void
site_retire(struct site *s, unsigned number, const char *why)
{
	for (struct list *l = s->requests.next; l != &s->requests; l = l->next) {
		struct request *r = LIST_ENTRY(l, struct request, link);
		if (r->task->script->number == number)
			task_cancel(r->task, why);
	}
}

bool
site_warm(struct site *s)
{
	int ref;
	lua_State *co = script_take_co(s->script, &ref);

	if (!co)
		return false;
	script_give_co(s->script, co, ref, true);
	return warm_pool(&s->pool) && warm_pool(&s->extras) &&
	       warm_pool(&s->engine->sched.pool) && warm_pool(&s->engine->io.streams) &&
	       (s->script->borrowed || alloc_reserve(&s->script->state.alloc));
}

void
site_cancel(struct site *s, const char *why)
{
	for (struct list *l = s->requests.next; l != &s->requests; l = l->next)
		task_cancel(LIST_ENTRY(l, struct request, link)->task, why);
}

void
site_kill(struct site *s)
{
	while (!list_empty(&s->requests))
		task_kill(LIST_ENTRY(s->requests.next, struct request, link)->task);
}
