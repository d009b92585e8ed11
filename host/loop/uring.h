/* uring.h - receiving by io_uring, for a loop that serves many streams.
 *
 * A stream that is read request by request has one receive in the kernel for as long as it
 * lives, which puts what comes into buffers of the ring: no call to wait for it, none to
 * fetch it.  epoll goes on to watch it, for its end and for errors alone: the ring does
 * not tell of those in all cases.
 *
 * All else is epoll's, whose descriptor the ring waits for: listeners (what is accepted has
 * to be begun, and the ring would accept past any limit), datagrams, what has to wait for
 * room, a stream that nobody reads, and bulk, for which one large buffer that stays in the
 * processor's cache is better than many.  Such a stream goes back to epoll for good.
 *
 * The loop owns the ring.  Private to this folder. */
#ifndef HOST_LOOP_URING_H
#define HOST_LOOP_URING_H

#include <stdbool.h>

struct loop;

/* Has a loop that runs on epoll receive by a ring: all streams from the start, or those
 * that have waited a few times and so will probably be there for longer.  On the thread
 * that will run it.  Errors, and then nothing has changed: -ENOMEM, -EMFILE; -ENOSYS,
 * -EPERM, -EINVAL: the kernel has no ring, allows none, or has one that cannot do what is
 * needed. */
int uring_attach(struct loop *loop, bool all);

#endif
