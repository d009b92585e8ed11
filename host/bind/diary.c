#include "bind/diary.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/task.h"

#include <stdlib.h>
#include <time.h>

/* In the next turn of the loop, however much is added in this one. */
static void
on_heard(struct journal_listener *l)
{
	struct diary *d = LIST_ENTRY(l, struct diary, listener);

	if (list_empty(&d->wake.link))
		loop_defer(d->loop, &d->wake);
}

static void
on_wake(struct loop_task *t)
{
	struct diary *d = LIST_ENTRY(t, struct diary, wake);
	struct list batch;

	list_take(&batch, &d->waiters);
	while (!list_empty(&batch)) {
		struct diary_waiter *w = LIST_ENTRY(batch.next, struct diary_waiter, link);
		list_remove(&w->link);
		task_wake(w->task);
	}
}

struct diary *
diary_make(struct io *io)
{
	struct diary *d;

	if (io->diary || !io->journals)
		return io->diary;
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->journal = journal_new();
	if (!d->journal) {
		free(d);
		return NULL;
	}
	d->loop = io->sched->loop;
	d->turn = -1;
	list_init(&d->waiters);
	list_init(&d->listener.link);
	list_init(&d->wake.link);
	d->listener.heard = on_heard;
	d->wake.run = on_wake;
	return io->diary = d;
}

void
diary_close(struct io *io)
{
	struct diary *d = io->diary;

	io->diary = NULL;
	io->journals = false;
	if (!d)
		return;
	list_remove(&d->wake.link);
	journal_free(d->journal);
	free(d);
}

void
diary_reborn(struct io *io)
{
	struct diary *d = io->diary;

	if (!d)
		return;
	list_init(&d->waiters);
	journal_unlisten(&d->listener);
	list_remove(&d->wake.link);
	d->turn = -1;
}

int64_t
diary_time(struct diary *d)
{
	int64_t turn = loop_now(d->loop);
	struct timespec t;

	if (turn != d->turn) {
		d->turn = turn;
		clock_gettime(CLOCK_REALTIME, &t);
		d->time = (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec;
	}
	return d->time;
}

uint64_t
diary_add(struct io *io, const struct journal_record *r)
{
	struct journal_record copy = *r;

	if (!io->diary)
		return 0;
	copy.time = diary_time(io->diary);
	return journal_add(io->diary->journal, &copy);
}

void
diary_wait(struct diary *d, struct diary_waiter *w)
{
	list_append(&d->waiters, &w->link);
	if (list_empty(&d->listener.link))
		journal_listen(d->journal, &d->listener);
}
