#include "server/reload.h"

#include "base/clock.h"
#include "script/sources.h"
#include "server/accepting.h"
#include "server/calls.h"
#include "server/host.h"
#include "server/mocking.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
tell_all(struct list *asks, unsigned number, const char *why)
{
	struct list told;

	list_take(&told, asks);
	while (!list_empty(&told)) {
		struct reload_ask *a = LIST_ENTRY(told.next, struct reload_ask, link);
		list_remove(&a->link);
		a->told(a, number, why);
	}
}

/* A text in place of the script's file. */
struct text_ask {
	struct list link; /* in the reload's texts */
	struct list asks; /* who has given it, if he wants to know */
	size_t len;
	char text[];
};

/* Begins the next one, if there is one to begin. */
static void
go_on(struct unit *u)
{
	struct reload *r = &u->reload;

	if (!r->runs && (r->again || !list_empty(&r->texts)) && list_empty(&r->begin.link))
		loop_defer(u->host->engine.loop, &r->begin);
}

static void
log_outcome(struct unit *u, const char *why)
{
	struct reload *r = &u->reload;
	char hash[20];
	struct log_field f[6] = {log_str("script", u->script->path),
				 log_int("generation", u->script->number)};

	snprintf(hash, sizeof(hash), "%016llx",
		 (unsigned long long)sources_hash(u->script->sources));
	f[2] = why ? log_str("why", why) : log_str("hash", hash);
	f[3] = log_int("ms", (clock_now() - r->began) / CLOCK_MS);
	log_event(u->host->engine.log, why ? LOG_ERROR : LOG_INFO,
		  why ? "reload failed" : "reloaded", f);
}

void
reload_tell(struct unit *u, int64_t began, unsigned number, const char *why)
{
	for (struct server *s = NULL; (s = unit_server(u, s));)
		if (s->policy->told)
			s->policy->told(s, began, number, why);
}

/* It is over, one way or the other. */
static void
finish(struct unit *u, const char *why, const struct sources *tried)
{
	struct reload *r = &u->reload;
	unsigned number = why ? 0 : u->script->number;

	r->runs = false;
	r->prepared = r->handing = false;
	buf_free(&r->handover.data);
	free(r->record);
	free(r->text);
	r->record = NULL;
	r->text = NULL;
	count_add(why ? &u->host->failed_reloads : &u->host->reloads, 1);
	if (!u->host->member) /* the master says it for all */
		log_outcome(u, why);
	if (u->mocks)
		mocking_record(u, why);
	reload_tell(u, r->began, number, why);
	tell_all(&r->asks, number, why);
	if (u->host->reloaded)
		u->host->reloaded(u->host, u, tried);
	go_on(u);
	calls_go_on(u);
}

static void
fail(struct unit *u)
{
	struct reload *r = &u->reload;
	struct sources *tried = r->next ? sources_hold(r->next->sources) : r->loading.tried;

	for (struct server *s = NULL; (s = unit_server(u, s));) {
		s->planned = s->awaited = false;
		if (s->policy->abandon)
			s->policy->abandon(s);
	}
	if (u->mocks)
		mocking_abandon(u);
	if (r->next)
		script_release(r->next);
	r->next = NULL;
	r->loading.tried = NULL;
	finish(u, r->why, tried);
	sources_release(tried);
}

static void
commit(struct unit *u)
{
	struct reload *r = &u->reload;
	struct server *s = NULL;

	while ((s = unit_server(u, s))) {
		if (!s->planned)
			continue; /* it leaves */
		s->planned = false;
		site_commit(&s->site, &s->plan);
		if (s->policy->adopted)
			s->policy->adopted(s);
	}
	if (u->mocks)
		mocking_commit(u);
	unit_switch(u, r->next, r->record);
	r->next = NULL;
	r->record = NULL;
	while ((s = unit_server(u, s)))
		accepting_resume(s); /* the ceiling may be higher now */
	finish(u, NULL, NULL);
}

/* Everything of this process has had its say. */
static void
decide(struct unit *u)
{
	struct reload *r = &u->reload;
	const char *why = *r->why ? r->why : NULL;

	r->votes = true; /* the verdict may come at once */
	if (u->host->vote && u->host->vote(u->host, u, why))
		return;
	r->votes = false;
	if (why)
		fail(u);
	else
		commit(u);
}

static void
fail_for(struct unit *u, const char *why)
{
	if (why != u->reload.why)
		snprintf(u->reload.why, sizeof(u->reload.why), "%s", why);
	decide(u);
}

void
reload_verdict(struct unit *u, const char *why)
{
	struct reload *r = &u->reload;

	if (!r->votes)
		return;
	r->votes = false;
	if (why && !*r->why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	if (*r->why)
		fail(u);
	else
		commit(u);
}

void
reload_prepared(struct server *s, const char *why)
{
	struct reload *r = &s->unit->reload;

	if (!r->runs || !s->awaited)
		return;
	s->awaited = false;
	if (why && !*r->why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	if (--r->waiting == 0)
		decide(s->unit);
}

static int
plan(struct server *s, char *why, size_t size)
{
	int rc = site_prepare(&s->site, s->unit->reload.next, &s->plan, why, size);

	s->planned = rc == 0;
	return rc;
}

/* Has the server's other engines prepare, if it has any. */
static void
prepare_engines(struct server *s)
{
	struct reload *r = &s->unit->reload;

	s->awaited = s->policy->prepare && s->policy->prepare(s, r->next) > 0;
	r->waiting += s->awaited;
}

/* The new generation is there: would it do for all? */
static void
prepare(struct unit *u)
{
	struct reload *r = &u->reload;
	struct server *s = NULL;

	r->record = calloc(1, sizeof(*r->record));
	if (!r->record) {
		fail_for(u, "out of memory");
		return;
	}
	while ((s = unit_server(u, s)))
		if (!s->leaving && plan(s, r->why, sizeof(r->why)) < 0) {
			decide(u);
			return;
		}
	if (u->mocks && mocking_prepare(u, r->next, r->why, sizeof(r->why)) < 0) {
		decide(u);
		return;
	}
	r->prepared = true;
	r->waiting = 1; /* not before all were asked */
	while ((s = unit_server(u, s)))
		if (!s->leaving)
			prepare_engines(s);
	if (--r->waiting == 0)
		decide(u);
}

int
reload_join(struct server *s, char *why, size_t size)
{
	struct reload *r = &s->unit->reload;

	if (!r->prepared)
		return 0;
	if (plan(s, why, size) < 0)
		return -EINVAL;
	prepare_engines(s);
	return 0;
}

void
reload_leave(struct server *s)
{
	if (s->planned)
		site_drop(&s->plan);
	s->planned = false;
	if (s->awaited)
		reload_prepared(s, NULL);
}

static void
initialized(struct handover *h, int rc)
{
	struct unit *u = LIST_ENTRY(h, struct unit, reload.handover);

	if (rc < 0)
		fail_for(u, h->why);
	else
		prepare(u);
}

static void
saved(struct handover *h, int rc)
{
	struct unit *u = LIST_ENTRY(h, struct unit, reload.handover);

	if (rc < 0) {
		fail_for(u, h->why);
		return;
	}
	h->done = initialized;
	if (handover_init(h, u->reload.next, unit_allowance(u)) < 0)
		fail_for(u, "out of memory");
}

static void
hand_over(struct unit *u)
{
	struct reload *r = &u->reload;

	r->handing = true;
	r->handover.done = saved;
	if (handover_save(&r->handover, u->script, unit_allowance(u)) < 0)
		fail_for(u, "out of memory");
}

void
reload_go_on(struct unit *u)
{
	struct reload *r = &u->reload;

	if (r->runs && r->next && !r->handing)
		hand_over(u);
}

static void
loaded(struct loading *l, int rc)
{
	struct unit *u = LIST_ENTRY(l, struct unit, reload.loading);
	struct reload *r = &u->reload;

	if (rc < 0) {
		fail_for(u, l->why);
		return;
	}
	r->next = l->script;
	if (!calls_run(u))
		hand_over(u);
}

/* What this one is about: a text, or else all those who have asked for the file. */
static void
choose(struct reload *r)
{
	r->text = NULL;
	if (list_empty(&r->texts)) {
		r->again = false;
		list_take(&r->asks, &r->later);
		return;
	}
	r->text = LIST_ENTRY(r->texts.next, struct text_ask, link);
	list_remove(&r->text->link);
	list_take(&r->asks, &r->text->asks);
}

static void
begin(struct unit *u)
{
	struct reload *r = &u->reload;
	struct script_options o = host_script_options(u->host, u->script->state.alloc.limit,
						      u->script->number + 1);
	int rc;

	r->runs = true;
	r->began = clock_now();
	*r->why = 0;
	choose(r);
	r->loading.done = loaded;
	o.allowance = unit_allowance(u);
	o.open = u->open ? u->open : o.open;
	if (r->text) {
		o.text = r->text->text;
		o.text_len = r->text->len;
	}
	rc = script_begin(u->script->sched, u->script->path, &o, &r->loading);
	r->passing = rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM;
	if (rc < 0)
		fail_for(u, r->loading.why);
}

static void
on_begin(struct loop_task *t)
{
	struct unit *u = LIST_ENTRY(t, struct unit, reload.begin);

	if (!u->reload.runs && (u->reload.again || !list_empty(&u->reload.texts)))
		begin(u);
}

void
reload_init(struct unit *u)
{
	struct reload *r = &u->reload;

	list_init(&r->asks);
	list_init(&r->later);
	list_init(&r->texts);
	list_init(&r->begin.link);
	r->begin.run = on_begin;
}

void
reload_end(struct unit *u, const char *why)
{
	struct reload *r = &u->reload;

	list_remove(&r->begin.link);
	r->again = r->in_line = false;
	if (r->runs) {
		script_give_up(&r->loading);
		chore_cancel(&r->handover.chore);
		snprintf(r->why, sizeof(r->why), "%s", why);
		r->votes = false;
		r->waiting = 0;
		fail(u);
	}
	tell_all(&r->later, 0, why);
	while (!list_empty(&r->texts)) {
		struct text_ask *x = LIST_ENTRY(r->texts.next, struct text_ask, link);
		list_remove(&x->link);
		tell_all(&x->asks, 0, why);
		free(x);
	}
}

void
reload_ask(struct unit *u, struct reload_ask *a)
{
	if (u->host->ask)
		u->host->ask(u->host, u, a);
	else
		reload_here(u, a);
}

void
reload_here(struct unit *u, struct reload_ask *a)
{
	struct reload *r = &u->reload;

	if (a)
		list_append(&r->later, &a->link);
	r->again = true;
	go_on(u);
}

int
reload_text(struct unit *u, struct reload_ask *a, const char *text, size_t n)
{
	struct text_ask *x = malloc(sizeof(*x) + n + 1);

	if (!x)
		return -ENOMEM;
	x->len = n;
	memcpy(x->text, text, n);
	list_init(&x->asks);
	if (a)
		list_append(&x->asks, &a->link);
	list_append(&u->reload.texts, &x->link);
	go_on(u);
	return 0;
}

void
reload_withdraw(struct reload_ask *a)
{
	list_remove(&a->link);
}
