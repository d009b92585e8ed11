#include "server/host.h"

#include "base/clock.h"
#include "bind/diary.h"
#include "bind/lmoonport.h"
#include "script/script.h"
#include "server/admin.h"
#include "server/control.h"
#include "server/report.h"
#include "server/roster.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
host_init(struct host *h, struct log *log, const char *lua_path)
{
	int rc;

	*h = (struct host){
	    .lua_path = lua_path, .drain_until = CLOCK_NEVER, .pid = getpid()};
	list_init(&h->servers);
	list_init(&h->units);
	rc = engine_init(&h->engine, log);
	if (rc < 0)
		return rc;
	h->engine.io.journals = true;
	h->watchdog.log = log;
	watchdog_watch(&h->watchdog, &h->engine.sched);
	return 0;
}

void
host_free(struct host *h)
{
	while (!list_empty(&h->servers))
		server_close(LIST_ENTRY(h->servers.next, struct server, link));
	while (!list_empty(&h->units))
		unit_free(LIST_ENTRY(h->units.next, struct unit, link));
	meter_close(&h->meter);
	engine_free(&h->engine);
}

/* Limits what this thread computes, for the engine. */
static void
measure(struct host *h)
{
	int rc = h->metered ? meter_claim(&h->meter) : 0;

	if (rc < 0) {
		struct log_field f[] = {log_str("why", strerror(-rc)), {0}};
		log_event(h->engine.log, LOG_WARN, "no limits of CPU time", f);
		h->metered = false;
		return;
	}
	if (h->metered)
		meter_watch(&h->meter, &h->engine.sched);
}

/* The attributes of a script that is to be loaded. */
static void
limit(struct host *h, const struct attrs *a)
{
	if (a->cpu_limit == ATTR_NONE && a->time_slice == ATTR_NONE)
		return;
	h->metered = true;
	h->engine.sched.allowance = site_allowance(a);
	measure(h);
}

struct script_options
host_script_options(const struct host *h, size_t memory_limit, unsigned number)
{
	return (struct script_options){.memory_limit = memory_limit,
				       .lua_path = h->lua_path,
				       .open = preload_moonport,
				       .sandbox = h->sandbox,
				       .strict = h->strict,
				       .number = number};
}

int
host_load(struct host *h, const char *path, const struct attrs *a, lua_CFunction open,
	  struct script **out, char *why, size_t size)
{
	struct script_options o = host_script_options(h, (size_t)a->memory_limit, 1);

	if (open) { /* the host's own, which is no part of what is served */
		o.open = open;
		o.sandbox = o.strict = false;
	}
	limit(h, a);
	return script_load(&h->engine.sched, path, &o, out, why, size);
}

/* "upper", then "upper-2" for a second listener (or a second script of that name). */
static char *
make_name(struct host *h, const char *base)
{
	char *name = strdup(base);

	for (unsigned i = 2; name && host_server(h, name); i++) {
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
	int rc = host_unit_load(h, script, attrs, &u, why, size);

	if (rc < 0)
		return rc;
	script_hold(u->script);
	rc = server_new(h, policy, attrs, u->script, &s, why, size);
	if (rc < 0)
		return rc;
	s->unit = u;
	s->site.view.name = s->name = make_name(h, u->script->name);
	if (!s->name) {
		snprintf(why, size, "out of memory");
		rc = -ENOMEM;
	} else
		rc = host_bind(s, url, why, size);
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int
host_check(struct host *h, const char *script, const struct attrs *attrs, char *why,
	   size_t size)
{
	struct script *sc;
	struct attrs copy = *attrs;
	int rc = host_load(h, script, attrs, NULL, &sc, why, size);

	if (rc == 0) {
		rc = site_read_attrs(sc, &copy, why, size);
		script_release(sc);
	}
	return rc;
}

/* A forked child has only the thread that forked: what another one held stays locked. */
int
host_check_policies(const struct host *h, char *why, size_t size)
{
	const struct server *forks = NULL, *threads = NULL;

	for (const struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		if (s->policy->forks)
			forks = s;
		if (s->policy->threads)
			threads = s;
	}
	if (!forks || !threads)
		return 0;
	snprintf(why, size,
		 "%s forks and %s runs threads: a process with threads cannot fork "
		 "safely; serve them from two processes",
		 forks->site.view.name, threads->site.view.name);
	return -EINVAL;
}

/* Whether the loop is to be quick.  Where processes or threads run the requests, it only
 * accepts, and would take the core from them. */
static bool
serves_itself(const struct host *h)
{
	bool elsewhere = false, here = false;

	for (const struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct policy *p = LIST_ENTRY(l, struct server, link)->policy;
		if (p->forks)
			return false;
		elsewhere |= p->threads;
		here |= !p->threads;
	}
	return here || !elsewhere;
}

static int
tune(struct host *h, char *why, size_t size)
{
	int rc = loop_tune(h->engine.loop, &h->tuning);
	struct log_field f[] = {log_str("why", strerror(-rc)), {0}};

	if (rc == 0)
		return 0;
	if (h->tuning.kind != LOOP_URING) {
		log_event(h->engine.log, LOG_INFO, "no io_uring here: epoll it is", f);
		return 0;
	}
	snprintf(why, size, "--loop io_uring: the kernel does not give one (%s); use auto",
		 strerror(-rc));
	return rc == -EINVAL ? -ENOSYS : rc;
}

int
host_begin(struct host *h, char *why, size_t size)
{
	int rc = host_check_policies(h, why, size);

	h->begun = true;
	if (rc == 0 && serves_itself(h))
		rc = tune(h, why, size);
	for (struct list *l = h->servers.next; rc == 0 && l != &h->servers; l = l->next)
		rc = server_begin(LIST_ENTRY(l, struct server, link), why, size);
	return rc;
}

/* Nothing is served any more: the control API has only to end. */
static bool
are_done(struct host *h)
{
	bool any = h->draining || !h->admin; /* the API may open the first one */

	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		if (s == h->admin)
			continue;
		if (!server_is_done(s, h->cancelled))
			return false;
		any = any || !s->leaving;
	}
	return any;
}

static bool
is_done(struct host *h)
{
	if (!are_done(h) || (h->admin && !server_is_done(h->admin, h->cancelled)))
		return false;
	return h->engine.io.lingers.n == 0 || h->cancelled;
}

/* The requests of threads and children. */
static void
log_elsewhere(struct host *h, const char *event)
{
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		if (s->policy->log_requests)
			s->policy->log_requests(s, event);
	}
}

static uint64_t
count_active(const struct host *h)
{
	uint64_t n = 0;

	for (const struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		n += s->policy->active(s);
	}
	return n;
}

void
host_log_tasks(struct host *h)
{
	struct log_field f[] = {log_int("count", (int64_t)count_active(h)), {0}};

	log_event(h->engine.log, LOG_INFO, "tasks", f);
	report_tasks(&h->engine, "task");
	log_elsewhere(h, "task");
}

/* The drain is past its deadline: what still runs is told to end. */
static void
cancel_all(struct host *h)
{
	h->cancelled = true;
	report_tasks(&h->engine, "still running");
	log_elsewhere(h, "still running");
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		if (LIST_ENTRY(l, struct server, link) != h->admin)
			server_cancel(LIST_ENTRY(l, struct server, link),
				      "the server stops");
}

/* A server that a script has stopped (server:shutdown()) has its own drain_timeout. */
static void
watch_drain(struct host *h)
{
	double longest = 0;
	bool any = false;

	if (h->drain_until != CLOCK_NEVER || h->child)
		return;
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		if (s->leaving || s == h->admin)
			continue;
		if (!s->draining)
			return;
		any = true;
		if (s->site.attrs.drain_timeout > longest)
			longest = s->site.attrs.drain_timeout;
	}
	if (any)
		h->drain_until = clock_after(clock_now(), longest);
}

void
host_end_reloads(struct host *h)
{
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		unit_stop(LIST_ENTRY(l, struct unit, link));
}

void
host_run(struct host *h)
{
	measure(h);
	while (!is_done(h)) {
		watch_drain(h);
		if (are_done(h) && admin_end(h))
			continue;
		if (!h->cancelled && loop_now(h->engine.loop) >= h->drain_until) {
			cancel_all(h);
			continue; /* there may be nothing left to wait for */
		}
		loop_turn(h->engine.loop, h->cancelled ? CLOCK_NEVER : h->drain_until);
	}
	host_end_reloads(h);
	h->collected = 0;
	host_collect(h); /* connections that scripts have made and forgotten */
	lingers_drop(&h->engine.io.lingers);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_end_drain(LIST_ENTRY(l, struct server, link));
}

int
host_reborn(struct host *h, struct stream *keep)
{
	h->child = true;
	h->drain_until = CLOCK_NEVER;
	h->cancelled = false;
	if (!keep)
		h->engine.sched.current = NULL;
	diary_close(&h->engine.io); /* what a child adds, nobody would read */
	meter_reborn(&h->meter);
	measure(h);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_forget(LIST_ENTRY(l, struct server, link));
	return engine_reborn(&h->engine, keep);
}

int
host_share(struct host *h)
{
	int rc = engine_reborn(&h->engine, NULL);

	h->pid = getpid();
	meter_reborn(&h->meter);
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		unit_reborn(LIST_ENTRY(l, struct unit, link));
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		state_reseed(&LIST_ENTRY(l, struct unit, link)->script->state);
	for (struct list *l = h->servers.next, *next; l != &h->servers; l = next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		next = l->next;
		server_share(s);
		if (s->draining && rc == 0)
			server_close(s);
	}
	return rc;
}

void
host_run_child(struct host *h)
{
	while (!is_done(h))
		loop_turn(h->engine.loop, CLOCK_NEVER);
}

void
host_drain(struct host *h)
{
	struct log_field f[] = {log_int("active", (int64_t)count_active(h)), {0}};

	if (h->draining)
		return;
	h->draining = true;
	log_event(h->engine.log, LOG_INFO, "draining", f);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		if (LIST_ENTRY(l, struct server, link) != h->admin)
			server_drain(LIST_ENTRY(l, struct server, link));
	watch_drain(h);
}

void
host_stop(struct host *h)
{
	h->cancelled = true;
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		server_kill(LIST_ENTRY(l, struct server, link));
}

struct unit *
host_unit(const struct host *h, int number)
{
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		if (number-- == 0)
			return LIST_ENTRY(l, struct unit, link);
	return NULL;
}

int
host_unit_number(const struct host *h, const struct unit *u)
{
	int n = 0;

	for (struct list *l = h->units.next; l != &u->link; l = l->next)
		n++;
	return n;
}

void
host_reload(struct host *h)
{
	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		if (!control_owns(h, LIST_ENTRY(l, struct unit, link)))
			reload_ask(LIST_ENTRY(l, struct unit, link), NULL);
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
