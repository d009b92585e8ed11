/* diary.h - the journal (base/journal.h) of a host, and the tasks that wait for what comes.
 *
 * All scripts whose requests run on the host's own thread share one: it is made when it is
 * first asked for, belongs to the engine's struct io, and goes with it; no reload touches
 * it.  A threading server's seats and a forked child have none (io->journals is false); a
 * worker of a master has one of its own.
 *
 * The connection that journal.open() numbers has its number in its stream, as
 * stream_conn(), by which the host can find it.  One engine, its thread. */
#ifndef HOST_BIND_DIARY_H
#define HOST_BIND_DIARY_H

#include "base/journal.h"
#include "base/list.h"
#include "loop/loop.h"

#include <stdint.h>

struct io;
struct task;

struct diary {
	struct journal *journal;
	/* Its own: */
	struct loop *loop;
	int64_t turn, time; /* loop_now() when the wall clock was read; and what it said */
	struct list waiters;
	struct journal_listener listener; /* listens while somebody waits */
	struct loop_task wake;            /* has been deferred, if it is linked */
};

/* io->diary, which is made if it is not there yet.  NULL: out of memory, or none may be
 * here. */
struct diary *diary_make(struct io *io);

/* The wall clock, in nanoseconds since 1970, read once each turn of the loop. */
int64_t diary_time(struct diary *d);

/* Adds a record, with that for its time: its number, 0 if there is no journal. */
uint64_t diary_add(struct io *io, const struct journal_record *r);

/* The caller owns it, and keeps it in place until the task was woken, or it took it out of
 * the list. */
struct diary_waiter {
	struct list link;
	struct task *task;
	int64_t deadline; /* the caller's */
};

/* Has the task woken once the next record is added: in the loop's next turn at the latest,
 * and once however many are added in one. */
void diary_wait(struct diary *d, struct diary_waiter *w);

/* Frees it; there will be no other one. */
void diary_close(struct io *io);

/* In a forked copy: those who waited are not here any more. */
void diary_reborn(struct io *io);

#endif
