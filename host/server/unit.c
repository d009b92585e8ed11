#include "server/unit.h"

#include "base/clock.h"
#include "server/calls.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"

#include <malloc.h>
#include <stdlib.h>

/* At most one retired generation may still have requests this long after it was replaced,
 * so that those of a few milliseconds do not count. */
static const int64_t SETTLE = CLOCK_SECOND / 2;

/* How often it is looked whether retired ones still have requests: soon after a reload,
 * and then. */
static const int64_t OFTEN = 50 * CLOCK_MS, SELDOM = CLOCK_SECOND;

struct server *
unit_server(const struct unit *u, const struct server *s)
{
	const struct list *l = s ? s->link.next : u->host->servers.next;

	for (; l != &u->host->servers; l = l->next)
		if (LIST_ENTRY(l, struct server, link)->unit == u)
			return LIST_ENTRY(l, struct server, link);
	return NULL;
}

static uint64_t
running(const struct unit *u, unsigned number)
{
	uint64_t n = 0;

	for (struct server *s = NULL; (s = unit_server(u, s));)
		n += s->policy->running(s, number);
	return n;
}

static void
cancel(struct unit *u, struct retired *g, const char *why)
{
	g->cancelled = true;
	for (struct server *s = NULL; (s = unit_server(u, s));)
		s->policy->retire(s, g->number, why);
}

/* Cancels what has gone on for retire_timeout.  Returns when to look again. */
static int64_t
cancel_late(struct unit *u, struct retired *g, int64_t now)
{
	int64_t due, soonest = CLOCK_NEVER;

	for (struct server *s = NULL; (s = unit_server(u, s));) {
		if (s->site.attrs.retire_timeout == 0)
			continue;
		due = clock_after(g->at, s->site.attrs.retire_timeout);
		if (due <= now)
			s->policy->retire(s, g->number, "retire_timeout");
		else if (due < soonest)
			soonest = due;
	}
	return soonest;
}

static void
forget(struct retired *g)
{
	list_remove(&g->link);
	free(g);
	/* its states lay among those that live: only this gives their room back, and once
	 * for a reload it costs nobody anything */
	malloc_trim(0);
}

/* Two generations may live: of the retired ones the newest. */
static void
cancel_surplus(struct unit *u, int64_t now, int64_t *next)
{
	bool newer = false;

	for (struct list *l = u->retired.prev; l != &u->retired; l = l->prev) {
		struct retired *g = LIST_ENTRY(l, struct retired, link);
		if (g->at + SETTLE > now) {
			if (g->at + SETTLE < *next)
				*next = g->at + SETTLE;
			continue;
		}
		if (newer && !g->cancelled)
			cancel(u, g, "its code was replaced twice");
		newer = true;
	}
}

static void
look(struct unit *u)
{
	int64_t now = clock_now(), next = CLOCK_NEVER, due;
	unsigned alive = 1;

	for (struct list *l = u->retired.next, *after; l != &u->retired; l = after) {
		struct retired *g = LIST_ENTRY(l, struct retired, link);
		after = l->next;
		if (running(u, g->number) == 0) {
			forget(g);
			continue;
		}
		alive++;
		due = cancel_late(u, g, now);
		next = due < next ? due : next;
		due = now + (g->at + CLOCK_SECOND > now ? OFTEN : SELDOM);
		next = due < next ? due : next;
	}
	count_set(&u->alive, alive);
	cancel_surplus(u, now, &next);
	loop_timer_set(u->host->engine.loop, &u->look, next);
}

static void
on_look(struct loop_timer *t)
{
	look(LIST_ENTRY(t, struct unit, look));
}

struct unit *
unit_new(struct host *h, struct script *script)
{
	struct unit *u = calloc(1, sizeof(*u));

	if (!u || loop_timer_init(h->engine.loop, &u->look, on_look) < 0) {
		free(u);
		script_release(script);
		return NULL;
	}
	u->host = h;
	u->script = script;
	u->allowance = h->engine.sched.allowance;
	list_init(&u->retired);
	list_init(&u->calls);
	count_set(&u->alive, 1);
	reload_init(u);
	list_append(&h->units, &u->link);
	return u;
}

const struct allowance *
unit_allowance(struct unit *u)
{
	const struct server *s = unit_server(u, NULL);

	if (s)
		u->allowance = s->site.allowance;
	return &u->allowance;
}

void
unit_lose(struct unit *u, struct server *s)
{
	if (u->allowance.preempted == &s->site.counters->preempted)
		u->allowance.preempted = NULL;
}

void
unit_reborn(struct unit *u)
{
	while (!list_empty(&u->retired)) /* the master runs no requests */
		forget(LIST_ENTRY(u->retired.next, struct retired, link));
	u->look.slot = 0;
	count_set(&u->alive, 1);
	reload_init(u);
}

void
unit_stop(struct unit *u)
{
	reload_end(u, "the server stops");
	calls_end(u, "the server stops");
	loop_timer_set(u->host->engine.loop, &u->look, CLOCK_NEVER);
}

void
unit_free(struct unit *u)
{
	unit_stop(u);
	while (!list_empty(&u->retired))
		forget(LIST_ENTRY(u->retired.next, struct retired, link));
	loop_timer_done(u->host->engine.loop, &u->look);
	list_remove(&u->link);
	script_release(u->script);
	free(u);
}

void
unit_switch(struct unit *u, struct script *next, struct retired *record)
{
	*record = (struct retired){.number = u->script->number, .at = clock_now()};
	list_append(&u->retired, &record->link);
	script_release(u->script);
	u->script = next;
	look(u);
}
