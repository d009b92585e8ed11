#include "server/ballot.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/host.h"
#include "server/master.h"
#include "server/unit.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a worker may take to build a generation, or to switch to it. */
static const int64_t PATIENCE = 30 * CLOCK_SECOND;

static struct loop *
loop_of(const struct ballot *b)
{
	return b->master->host->engine.loop;
}

static void
tell_all(struct ballot *b, enum message_kind kind, const char *text)
{
	struct master *m = b->master;
	int number = host_unit_number(m->host, b->unit);

	for (unsigned i = 0; i < m->n; i++) {
		struct process *p = &m->processes[i];
		p->owes = p->pid != 0;
		/* One that has not read for hundreds of messages would go on with other
		 * code than the rest: its replacement will not. */
		if (p->pid && channel_send(&p->channel, kind, number, text) < 0)
			kill(p->pid, SIGKILL);
	}
	loop_timer_set(loop_of(b), &b->late, clock_now() + PATIENCE);
}

/* It is decided; a unit that waits has its turn. */
static void
close_ballot(struct ballot *b)
{
	struct unit *u = b->unit;

	b->unit = NULL;
	if (!*b->why)
		b->retried = NULL;
	loop_timer_set(loop_of(b), &b->late, CLOCK_NEVER);
	if (!b->next_due) {
		b->next_due = true;
		loop_defer(loop_of(b), &b->next);
	}
	reload_verdict(u, *b->why ? b->why : NULL);
}

/* One answer less to wait for. */
static void
look(struct ballot *b)
{
	struct master *m = b->master;

	if (!b->unit)
		return;
	for (unsigned i = 0; i < m->n; i++)
		if (m->processes[i].owes)
			return;
	if (*b->why) { /* each goes on with what it has */
		tell_all(b, MESSAGE_VERDICT, b->why);
		close_ballot(b);
	} else if (b->switching)
		close_ballot(b);
	else {
		b->switching = true;
		tell_all(b, MESSAGE_VERDICT, NULL);
		look(b); /* there may be nobody */
	}
}

static void
begin(struct ballot *b, struct unit *u)
{
	b->unit = u;
	b->switching = false;
	*b->why = 0;
	u->reload.in_line = false;
	tell_all(b, MESSAGE_RELOAD, NULL);
	look(b);
}

/* The host's vote: the master's own copy could go on, or could not. */
static bool
vote(struct host *h, struct unit *u, const char *why)
{
	struct ballot *b = h->ballot;

	if (why)
		return false; /* no worker has heard of it */
	u->reload.votes = true;
	u->reload.in_line = true;
	if (!b->unit && !b->next_due) {
		b->next_due = true;
		loop_defer(loop_of(b), &b->next);
	}
	return true;
}

static void
on_next(struct loop_task *t)
{
	struct ballot *b = LIST_ENTRY(t, struct ballot, next);
	struct list *units = &b->master->host->units;

	b->next_due = false;
	for (struct list *l = units->next; l != units && !b->unit; l = l->next) {
		struct unit *u = LIST_ENTRY(l, struct unit, link);
		if (u->reload.votes && u->reload.in_line)
			begin(b, u);
	}
}

static void
refuse(struct ballot *b, const struct process *p, const char *why)
{
	if (!*b->why)
		snprintf(b->why, sizeof(b->why), "%s (in worker %u)", why, p->number);
}

static void
on_late(struct loop_timer *t)
{
	struct ballot *b = LIST_ENTRY(t, struct ballot, late);
	struct master *m = b->master;

	for (unsigned i = 0; i < m->n; i++) {
		struct process *p = &m->processes[i];
		if (!p->owes)
			continue;
		p->owes = false;
		if (!b->switching)
			refuse(b, p, "no answer for 30 s");
		else
			kill(p->pid, SIGKILL); /* its replacement has the new code */
	}
	look(b);
}

/* They may well be saved by now; but there are files that change whenever they are read. */
static void
retry_once(struct ballot *b)
{
	if (*b->why)
		return;
	if (b->retried == b->unit)
		b->retried = NULL;
	else {
		b->retried = b->unit;
		reload_ask(b->unit, NULL);
	}
}

/* What a worker could go on with must be what the master has. */
static void
count_vote(struct ballot *b, struct process *p, const char *text)
{
	char own[32];

	snprintf(own, sizeof(own), "+%016" PRIx64,
		 sources_hash(b->unit->reload.next->sources));
	if (*text == '-')
		refuse(b, p, text + 1);
	else if (strcmp(text, own) != 0) {
		retry_once(b);
		refuse(b, p, "its files have changed while they were being loaded");
	}
}

/* A worker's question, until it is answered. */
struct remote {
	struct reload_ask ask;
	struct process *process;
	pid_t pid; /* it was */
	int id;
};

static void
answer(struct reload_ask *a, unsigned number, const char *why)
{
	struct remote *r = LIST_ENTRY(a, struct remote, ask);
	char text[MESSAGE_TEXT];

	if (why)
		snprintf(text, sizeof(text), "-%s", why);
	else
		snprintf(text, sizeof(text), "+%u", number);
	if (r->process->pid == r->pid &&
	    channel_send(&r->process->channel, MESSAGE_ANSWER, r->id, text) < 0)
		kill(r->pid, SIGKILL); /* a request there would wait for ever */
	free(r);
}

static void
take_question(struct process *p, const struct message *message)
{
	struct unit *u = host_unit(p->master->host, atoi(message->text));
	struct remote *r = u ? malloc(sizeof(*r)) : NULL;

	if (!r) {
		(void)channel_send(&p->channel, MESSAGE_ANSWER, message->number,
				   "-out of memory");
		return;
	}
	*r = (struct remote){
	    .ask.told = answer, .process = p, .pid = p->pid, .id = message->number};
	list_init(&r->ask.link);
	reload_ask(u, &r->ask);
}

void
ballot_heard(struct process *p, const struct message *message)
{
	struct ballot *b = &p->master->ballot;
	bool due = p->owes && b->unit &&
		   message->number == host_unit_number(p->master->host, b->unit);

	if (message->kind == MESSAGE_ASK) {
		take_question(p, message);
		return;
	}
	if (!due || (message->kind == MESSAGE_SWITCHED) != b->switching)
		return; /* an answer to what nobody waits for any more */
	p->owes = false;
	if (message->kind == MESSAGE_VOTE)
		count_vote(b, p, message->text);
	look(b);
}

void
ballot_gone(struct process *p)
{
	p->owes = false;
	look(&p->master->ballot);
}

bool
ballot_busy(const struct ballot *b)
{
	const struct list *units = &b->master->host->units;

	for (const struct list *l = units->next; l != units; l = l->next)
		if (LIST_ENTRY(l, struct unit, link)->reload.runs)
			return true;
	return false;
}

int
ballot_init(struct ballot *b, struct master *m)
{
	*b = (struct ballot){.master = m};
	list_init(&b->next.link);
	b->next.run = on_next;
	if (loop_timer_init(m->host->engine.loop, &b->late, on_late) < 0)
		return -1;
	m->host->ballot = b;
	m->host->vote = vote;
	return 0;
}

void
ballot_free(struct ballot *b)
{
	if (!b->late.kind)
		return;
	list_remove(&b->next.link);
	loop_timer_done(loop_of(b), &b->late);
	if (b->master->host->vote == vote)
		b->master->host->vote = NULL;
}
