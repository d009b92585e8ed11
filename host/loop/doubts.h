/* doubts.h - streams that wait for the kernel's word, and whether it has come.
 *
 * A receive that gave less than was asked for is taken to have emptied the
 * socket.  That is not quite always true: urgent data and passed descriptors cut
 * a receive short, too, and of what is behind them no backend hears before more
 * comes.  So a stream that has waited for a moment since a short receive is
 * looked at, once; where there is data the backend is told, by doubted().
 *
 * The loop's own, and its thread's; a stream that is closed is to be removed. */
#ifndef HOST_LOOP_DOUBTS_H
#define HOST_LOOP_DOUBTS_H

#include "base/list.h"
#include "loop/loop.h"

struct doubts {
	struct loop *loop;
	struct list list; /* of loop_fd.doubts, roughly by `since` */
	struct loop_timer timer;
};

/* Errors: -ENOMEM. */
int doubts_init(struct doubts *d, struct loop *loop);
void doubts_done(struct doubts *d);

/* Of a forked child: there are none, and no timer. */
void doubts_forget(struct doubts *d);

/* A time in 2^20 ns, modulo 2^32: for times that are near each other. */
static inline uint32_t
doubts_stamp(int64_t t)
{
	return (uint32_t)(t >> 20);
}

/* See doubts_add(). */
void doubts_begin(struct doubts *d, struct loop_fd *f, int64_t now);

/* The stream begins to wait, not having been asked whether it has more. */
static inline void
doubts_add(struct doubts *d, struct loop_fd *f, int64_t now)
{
	f->since = doubts_stamp(now);
	if (list_empty(&f->doubts))
		doubts_begin(d, f, now);
}

void doubts_remove(struct doubts *d, struct loop_fd *f);

#endif
