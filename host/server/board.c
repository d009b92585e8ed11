#include "server/board.h"

#include "base/clock.h"
#include "server/engine.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* How old the figures of requests that run elsewhere may be. */
static const int64_t TICK = 50 * CLOCK_MS;

static size_t
memory_size(const struct boards *b)
{
	return sizeof(struct board_memory) +
	       b->nservers * (b->nworkers + 1) * sizeof(struct counters);
}

static void
publish(struct board *b)
{
	struct counters here;

	if (!b->mine || b->mute)
		return;
	stats_count_here(b->server, &here);
	counters_copy(b->mine, &here);
}

static void
set_tick(struct board *b)
{
	struct loop *loop = b->server->site.engine->loop;

	if (!b->tick.slot)
		loop_timer_set(loop, &b->tick, loop_now(loop) + TICK);
}

/* Pre-forked children accept without a word. */
static void
on_tick(struct loop_timer *t)
{
	struct board *b = LIST_ENTRY(t, struct board, tick);

	publish(b);
	if (!b->server->draining &&
	    (b->server->elsewhere || b->server->policy->active(b->server) > 0))
		set_tick(b);
}

void
board_touch(struct board *b)
{
	const struct policy *p = b->server->policy;

	if (!b->mine || b->mute)
		return;
	if (p->threads || p->forks)
		set_tick(b);
	else
		publish(b);
}

void
board_forget(struct board *b)
{
	if (b->tick.kind)
		loop_timer_done(b->server->site.engine->loop, &b->tick);
	b->server->board = NULL;
	b->server = NULL;
}

void
board_add_others(const struct board *b, struct counters *sum)
{
	for (unsigned i = 0; i <= b->set->nworkers; i++)
		if (&b->slots[i] != b->mine)
			counters_add(sum, &b->slots[i]);
}

static int
init_one(struct boards *set, unsigned i, struct server *s)
{
	struct board *b = &set->all[i];

	*b = (struct board){
	    .set = set,
	    .server = s,
	    .slots = set->memory->slots + i * (set->nworkers + 1),
	};
	s->board = b;
	return loop_timer_init(s->site.engine->loop, &b->tick, on_tick);
}

int
boards_init(struct boards *b, struct host *h, unsigned nworkers)
{
	unsigned i = 0;
	int rc = 0;

	*b = (struct boards){.nworkers = nworkers};
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		b->nservers++;
	b->memory = mmap(NULL, memory_size(b), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->memory == MAP_FAILED)
		b->memory = NULL;
	b->all = calloc(b->nservers, sizeof(*b->all));
	if (!b->memory || !b->all)
		rc = -ENOMEM;
	for (struct list *l = h->servers.next; rc == 0 && l != &h->servers; l = l->next)
		rc = init_one(b, i++, LIST_ENTRY(l, struct server, link));
	if (rc < 0)
		boards_free(b);
	return rc;
}

void
boards_free(struct boards *b)
{
	for (unsigned i = 0; b->all && i < b->nservers; i++)
		if (b->all[i].server)
			board_forget(&b->all[i]);
	if (b->memory)
		munmap(b->memory, memory_size(b));
	free(b->all);
	*b = (struct boards){0};
}

void
boards_claim(struct boards *b, unsigned worker)
{
	for (unsigned i = 0; i < b->nservers; i++) {
		struct board *board = &b->all[i];
		if (!board->server)
			continue;
		board->mine = &board->slots[worker];
		if (board->server->elsewhere)
			set_tick(board);
	}
}

void
boards_leave(struct boards *b)
{
	for (unsigned i = 0; i < b->nservers; i++) {
		struct board *board = &b->all[i];
		if (!board->server)
			continue;
		publish(board);
		loop_timer_set(board->server->site.engine->loop, &board->tick, CLOCK_NEVER);
	}
}

void
boards_fold(struct boards *b, unsigned worker)
{
	for (unsigned i = 0; i < b->nservers; i++) {
		struct counters *slot = &b->all[i].slots[worker];
		count_set(&slot->ended,
			  count_get(&slot->requests)); /* one way or another */
		counters_add(&b->all[i].slots[b->nworkers], slot);
		counters_copy(slot, &(struct counters){0});
	}
}
