#include "server/ballot.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/host.h"
#include "server/master.h"
#include "server/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const int64_t PATIENCE = 10 * CLOCK_SECOND;

static struct loop *
loop_of(const struct ballot *b)
{
	return b->unit->host->engine.loop;
}

/* The worker, if there is one in its place. */
static struct process *
voter(const struct ballot *b, unsigned worker)
{
	struct process *p = &b->set->master->processes[worker];

	return p->pid ? p : NULL;
}

/* The first whose vote is missing; NULL: none. */
static const struct process *
missing(const struct ballot *b)
{
	for (unsigned i = 0; i < b->set->master->n; i++)
		if (voter(b, i) && !b->votes[i].cast)
			return voter(b, i);
	return NULL;
}

static void
look_again(struct ballot *b)
{
	if (b->open && !missing(b))
		loop_timer_set(loop_of(b), &b->due, loop_now(loop_of(b)));
}

static void
send_verdict(const struct ballot *b, unsigned worker, const char *why)
{
	const struct process *p = voter(b, worker);

	if (p)
		(void)channel_write(p->channel.fd.fd, MESSAGE_VERDICT, b->number, 0, why);
}

/* To all who have voted. */
static void
announce(struct ballot *b, const char *why)
{
	for (unsigned i = 0; i < b->set->master->n; i++) {
		struct vote *v = &b->votes[i];
		if (v->cast)
			send_verdict(b, i, why);
		else if (b->open && voter(b, i))
			v->late = true;
		v->cast = false;
	}
	b->open = false;
	*b->why = 0;
}

static const char *
objection(struct ballot *b)
{
	uint64_t hash = sources_hash(b->unit->reload.next->sources);
	const struct process *p = missing(b);

	if (*b->why)
		return b->why;
	if (p) {
		snprintf(b->why, sizeof(b->why),
			 "worker %u did not get ready within %d seconds", p->number,
			 (int)(PATIENCE / CLOCK_SECOND));
		return b->why;
	}
	for (unsigned i = 0; i < b->set->master->n; i++)
		if (b->votes[i].cast && b->votes[i].hash != hash)
			return "the files changed while they were read";
	return NULL;
}

static void
on_due(struct loop_timer *t)
{
	struct ballot *b = LIST_ENTRY(t, struct ballot, due);
	const char *why;
	char text[MESSAGE_TEXT];
	if (!b->open || !b->unit->reload.votes)
		return;
	why = objection(b);
	if (why)
		snprintf(text, sizeof(text), "%s", why);
	reload_verdict(b->unit, why ? text : NULL);
	announce(b, why ? text : NULL);
}

/* The host's vote(): the master's own copy is ready, or will not be. */
static bool
vote(struct host *h, struct unit *u, const char *why)
{
	struct ballot *b = h->ballots->all;

	while (b->unit != u)
		b++;
	if (why) {
		announce(b, why);
		return false;
	}
	b->open = true;
	for (unsigned i = 0; i < b->set->master->n; i++)
		if (voter(b, i) && !b->votes[i].cast)
			(void)channel_send(&voter(b, i)->channel, MESSAGE_PREPARE,
					   b->number);
	loop_timer_set(loop_of(b), &b->due, clock_now() + PATIENCE);
	look_again(b);
	return true;
}

void
ballot_cast(struct ballots *set, unsigned worker, const struct message *m)
{
	struct ballot *b;
	struct vote *v;

	if (m->number < 0 || (unsigned)m->number >= set->n)
		return;
	b = &set->all[m->number];
	v = &b->votes[worker];
	if (v->late && !b->open) {
		v->late = false;
		send_verdict(b, worker, "it was not ready in time");
		return;
	}
	*v = (struct vote){.cast = true, .hash = m->hash};
	if (*m->text && !*b->why)
		snprintf(b->why, sizeof(b->why), "%s", m->text);
	if (b->open)
		look_again(b);
	else if (!b->unit->reload.runs)
		reload_ask(b->unit, NULL);
}

void
ballots_leave(struct ballots *set, unsigned worker)
{
	for (unsigned i = 0; i < set->n; i++) {
		set->all[i].votes[worker] = (struct vote){0};
		look_again(&set->all[i]);
	}
}

bool
ballots_busy(const struct ballots *set)
{
	for (unsigned i = 0; i < set->n; i++)
		if (set->all[i].unit->reload.runs)
			return true;
	return false;
}

int
ballots_init(struct ballots *set, struct master *m)
{
	struct host *h = m->host;
	unsigned n = 0;

	while (host_unit(h, n))
		n++;
	*set = (struct ballots){.master = m, .all = calloc(n, sizeof(*set->all))};
	if (!set->all)
		return -ENOMEM;
	for (; set->n < n; set->n++) {
		struct ballot *b = &set->all[set->n];
		*b = (struct ballot){.set = set,
				     .unit = host_unit(h, set->n),
				     .number = (int)set->n,
				     .votes = calloc(m->n, sizeof(*b->votes))};
		if (!b->votes || loop_timer_init(h->engine.loop, &b->due, on_due) < 0) {
			free(b->votes);
			return -ENOMEM;
		}
	}
	h->ballots = set;
	h->vote = vote;
	return 0;
}

void
ballots_free(struct ballots *set)
{
	for (unsigned i = 0; i < set->n; i++) {
		loop_timer_done(loop_of(&set->all[i]), &set->all[i].due);
		free(set->all[i].votes);
	}
	free(set->all);
	*set = (struct ballots){0};
}
