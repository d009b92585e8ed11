/* slots.h - what an io_uring receives for streams.
 *
 * A receive in the kernel outlives the descriptor that it is for, until its last
 * completion: so the kernel is given a slot, and not the descriptor's struct.  A
 * stream has a slot from the moment in which the ring begins to receive for it
 * until epoll alone is enough again and all that had come has been taken.
 *
 * A completion's user_data is its slot, if it is above QUEUES_EPOLL.  Private to this
 * folder: the io_uring backend owns the slots, a stream's functions are backend.h's. */
#ifndef HOST_LOOP_SLOTS_H
#define HOST_LOOP_SLOTS_H

#include "base/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct io_uring_cqe;
struct loop;
struct loop_fd;
struct loop_op;
struct queues;
struct slot;

struct slots {
	struct loop *loop;
	struct queues *queues;
	struct pool pool;
	struct {
		struct slot *slot; /* NULL: there is none */
		const char *p;
		size_t n;
	} chunk;                 /* what has just come, while its receiver is called */
	struct loop_fd *current; /* whose end is being told; NULL: it has gone meanwhile */
	unsigned regular; /* a stream that has waited so often is received from here */
	unsigned armed;   /* slots that the kernel has */
	bool starved; /* somebody got no buffer for what is there; the backend's to clear */
};

/* A stream that waits for the `regular`-th time gets a slot. */
void slots_init(struct slots *all, struct loop *loop, struct queues *q, unsigned regular);

/* The kernel has none any more. */
void slots_done(struct slots *all);

/* Handles a completion.  False: nobody was told of anything. */
bool slots_on(struct slots *all, const struct io_uring_cqe *c);

/* Brings into the cache what the completions that come after the next one need; so many
 * are ready. */
void slots_fetch(const struct queues *q, unsigned ready);

void slots_remove(struct loop_fd *f);
ssize_t slots_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data);
ssize_t slots_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n);
int slots_poll(struct loop_fd *f, struct loop_op *op, bool out);
void slots_doubted(struct loop_fd *f);

#endif
