#include "server/host.h"

#include "base/clock.h"
#include "bind/lmoonport.h"
#include "script/script.h"
#include "server/request.h"
#include "server/server.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A script of this host and its current generation, for all servers that run it. */
struct unit {
	struct list link;
	struct script *script; /* holds a reference */
	unsigned servers;      /* how many have been added: names the next */
};

int
host_init(struct host *h, struct log *log, const char *lua_path)
{
	int rc;

	*h = (struct host){.log = log, .lua_path = lua_path, .drain_until = CLOCK_NEVER};
	list_init(&h->servers);
	list_init(&h->units);
	rc = loop_new(&h->loop);
	if (rc < 0)
		return rc;
	sched_init(&h->sched, h->loop);
	rc = io_init(&h->io, &h->sched, log);
	if (rc < 0) {
		sched_free(&h->sched);
		loop_free(h->loop);
	}
	return rc;
}

void
host_free(struct host *h)
{
	while (!list_empty(&h->servers))
		server_close(LIST_ENTRY(h->servers.next, struct server, link));
	while (!list_empty(&h->units)) {
		struct unit *u = LIST_ENTRY(h->units.next, struct unit, link);
		list_remove(&u->link);
		script_release(u->script);
		free(u);
	}
	io_free(&h->io);
	sched_free(&h->sched);
	loop_free(h->loop);
}

static int
load(struct host *h, const char *path, const struct attrs *a, unsigned number,
     struct script **out, char *why, size_t size)
{
	struct script_options o = {.memory_limit = (size_t)a->memory_limit,
				   .lua_path = h->lua_path,
				   .open = preload_moonport,
				   .number = number};

	return script_load(&h->sched, path, &o, out, why, size);
}

static int
find_unit(struct host *h, const char *path, const struct attrs *a, struct unit **out,
	  char *why, size_t size)
{
	struct unit *u;
	int rc;

	for (struct list *l = h->units.next; l != &h->units; l = l->next) {
		u = LIST_ENTRY(l, struct unit, link);
		if (strcmp(u->script->path, path) == 0) {
			*out = u;
			return 0;
		}
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	rc = load(h, path, a, 1, &u->script, why, size);
	if (rc < 0) {
		free(u);
		return rc;
	}
	list_append(&h->units, &u->link);
	*out = u;
	return 0;
}

static bool
name_is_taken(struct host *h, const char *name)
{
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const char *other = LIST_ENTRY(l, struct server, link)->name;
		if (other && strcmp(other, name) == 0)
			return true;
	}
	return false;
}

/* "upper", then "upper-2" for a second listener (or a second script of that name). */
static char *
make_name(struct host *h, const char *base)
{
	char *name = strdup(base);

	for (unsigned i = 2; name && name_is_taken(h, name); i++) {
		free(name);
		if (asprintf(&name, "%s-%u", base, i) < 0)
			name = NULL;
	}
	return name;
}

int
host_add(struct host *h, const char *script, const struct url *url,
	 const struct policy *policy, const struct attrs *attrs, struct server **out,
	 char *why, size_t size)
{
	struct unit *u;
	struct server *s;
	int rc = find_unit(h, script, attrs, &u, why, size);

	if (rc < 0)
		return rc;
	script_hold(u->script);
	rc = server_open(h, url, policy, attrs, u->script, &s, why, size);
	if (rc < 0)
		return rc;
	s->name = make_name(h, u->script->name);
	if (!s->name) {
		server_close(s);
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	s->view.name = s->name;
	*out = s;
	return 0;
}

int
host_check(struct host *h, const char *script, const struct attrs *attrs, char *why,
	   size_t size)
{
	struct script *sc;
	struct attrs copy = *attrs;
	int rc = load(h, script, attrs, 1, &sc, why, size);

	if (rc == 0) {
		rc = server_read_attrs(sc, &copy, why, size);
		script_release(sc);
	}
	return rc;
}

int
host_begin(struct host *h)
{
	int rc = 0;

	for (struct list *l = h->servers.next; rc == 0 && l != &h->servers; l = l->next)
		rc = server_begin(LIST_ENTRY(l, struct server, link));
	return rc;
}

static bool
is_done(struct host *h)
{
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		if (!server_is_done(LIST_ENTRY(l, struct server, link), h->cancelled))
			return false;
	return h->io.lingers.n == 0 || h->cancelled;
}

/* Runs protected: a traceback may need more memory than the state may have. */
static int
push_traceback(lua_State *L)
{
	luaL_traceback(L, lua_touserdata(L, 1), NULL, 0);
	return 1;
}

static void
log_task(struct host *h, struct task *t, const char *event)
{
	static const char *const states[] = {"new", "running", "waiting", "ready"};
	struct request *r = t->owner;
	char client[ADDR_TEXT];
	lua_State *L = t->script->state.L;
	struct log_field f[7];

	addr_text(&r->client, client, sizeof(client));
	lua_pushcfunction(L, push_traceback);
	lua_pushlightuserdata(L, t->co);
	(void)state_call(L, 1, 1);
	f[0] = log_str("server", r->server->name);
	f[1] = log_str("client", client);
	f[2] = log_int("generation", t->script->number);
	f[3] = log_int("age_ms", (clock_now() - t->started) / CLOCK_MS);
	f[4] = log_str("state", states[t->state]);
	f[5] =
	    log_str("traceback", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "");
	f[6] = (struct log_field){0};
	log_event(h->log, LOG_INFO, event, f);
	lua_pop(L, 1);
}

void
host_log_tasks(struct host *h)
{
	struct log_field f[] = {log_int("count", (int64_t)h->sched.ntasks), {0}};

	log_event(h->log, LOG_INFO, "tasks", f);
	for (struct list *l = h->sched.tasks.next; l != &h->sched.tasks; l = l->next)
		log_task(h, LIST_ENTRY(l, struct task, link), "task");
}

/* The drain is past its deadline: what still runs is told to end. */
static void
cancel_all(struct host *h)
{
	h->cancelled = true;
	for (struct list *l = h->sched.tasks.next; l != &h->sched.tasks; l = l->next)
		log_task(h, LIST_ENTRY(l, struct task, link), "still running");
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_cancel(LIST_ENTRY(l, struct server, link), "the server stops");
}

/* A server that a script has stopped (server:shutdown()) has its own drain_timeout. */
static void
watch_drain(struct host *h)
{
	double longest = 0;
	bool any = false;

	if (h->drain_until != CLOCK_NEVER)
		return;
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		if (!s->draining)
			return;
		any = true;
		if (s->attrs.drain_timeout > longest)
			longest = s->attrs.drain_timeout;
	}
	if (any)
		h->drain_until = clock_after(clock_now(), longest);
}

void
host_run(struct host *h)
{
	while (!is_done(h)) {
		watch_drain(h);
		if (!h->cancelled && loop_now(h->loop) >= h->drain_until)
			cancel_all(h);
		loop_turn(h->loop, h->cancelled ? CLOCK_NEVER : h->drain_until);
	}
	h->collected = 0;
	host_collect(h); /* connections that scripts have made and forgotten */
	lingers_drop(&h->io.lingers);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_end_drain(LIST_ENTRY(l, struct server, link));
}

void
host_drain(struct host *h)
{
	struct log_field f[] = {log_int("active", (int64_t)h->sched.ntasks), {0}};

	if (h->draining)
		return;
	h->draining = true;
	log_event(h->log, LOG_INFO, "draining", f);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_drain(LIST_ENTRY(l, struct server, link));
	watch_drain(h);
}

void
host_stop(struct host *h)
{
	h->cancelled = true;
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		s->draining = s->closed = true;
		while (!list_empty(&s->requests))
			task_kill(LIST_ENTRY(s->requests.next, struct request, link)->task);
	}
}

static void
log_reload(struct host *h, const struct unit *u, const char *why)
{
	struct log_field f[] = {log_str("script", u->script->path),
				log_int("generation", u->script->number),
				{0},
				{0}};

	if (why)
		f[2] = log_str("why", why);
	log_event(h->log, why ? LOG_ERROR : LOG_INFO, why ? "reload failed" : "reloaded",
		  f);
}

/* Gives every server of the unit the new generation; on failure all keep the old one. */
static int
switch_unit(struct host *h, struct unit *u, struct script *next, char *why, size_t size)
{
	struct script *old = u->script;
	int rc = 0;

	for (struct list *l = h->servers.next; rc == 0 && l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		if (s->script != old)
			continue;
		script_hold(next);
		rc = server_adopt(s, next, why, size);
	}
	for (struct list *l = h->servers.next; rc < 0 && l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		char ignored[SCRIPT_ERROR];
		if (s->script != next)
			continue;
		script_hold(old);
		(void)server_adopt(s, old, ignored, sizeof(ignored));
	}
	if (rc < 0) {
		script_release(next);
		return rc;
	}
	u->script = next;
	script_release(old);
	return 0;
}

int
host_reload(struct host *h)
{
	struct attrs defaults;
	int failed = 0;

	attrs_init(&defaults);
	for (struct list *l = h->units.next; l != &h->units; l = l->next) {
		struct unit *u = LIST_ENTRY(l, struct unit, link);
		struct script *next;
		char why[SCRIPT_ERROR];
		int rc;

		defaults.memory_limit = (int64_t)u->script->state.alloc.limit;
		rc = load(h, u->script->path, &defaults, u->script->number + 1, &next, why,
			  sizeof(why));
		if (rc == 0)
			rc = switch_unit(h, u, next, why, sizeof(why));
		failed += rc < 0;
		h->reloads += rc == 0;
		h->failed_reloads += rc < 0;
		log_reload(h, u, rc < 0 ? why : NULL);
	}
	return failed;
}

void
host_collect(struct host *h)
{
	int64_t now = clock_now();

	if (now - h->collected < CLOCK_SECOND)
		return;
	h->collected = now;
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		lua_gc(LIST_ENTRY(l, struct unit, link)->script->state.L, LUA_GCCOLLECT);
}

static void
put(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

void
host_push_stats(struct host *h, lua_State *L)
{
	put(L, "tasks", h->sched.ntasks);
	put(L, "streams", h->io.streams.taken);
	put(L, "lingering", h->io.lingers.n);
	put(L, "descriptors", loop_live_fds(h->loop));
	put(L, "timers", loop_live_timers(h->loop));
	put(L, "bytes_in", h->io.bytes_in);
	put(L, "bytes_out", h->io.bytes_out);
	put(L, "reloads", h->reloads);
	put(L, "failed_reloads", h->failed_reloads);
	put(L, "log_dropped", h->log->dropped);
}
