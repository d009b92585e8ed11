/* queues.h - an io_uring: its two queues, and the buffers that receives are given.
 *
 * Private to this folder.  One thread, the one that opened it.  A buffer is the
 * kernel's but for the time between the completion that names it and
 * queues_return(). */
#ifndef HOST_LOOP_QUEUES_H
#define HOST_LOOP_QUEUES_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

/* Buffers, a power of two, and their size: a request that fills one is the beginning of
 * bulk.  They are a group of this number. */
enum { QUEUES_BUFFERS = 256, QUEUES_BUFFER = 2048, QUEUES_GROUP = 0 };

/* The user_data of what is about no stream; all else is an address. */
enum { QUEUES_NOBODY = 0, QUEUES_EPOLL = 1 };

struct queues {
	struct io_uring io;
	struct io_uring_buf_ring *given; /* the buffers that the kernel may use */
	char *buffers;
	bool stale; /* the kernel's flag for unfinished work is of no use for now */
};

/* Errors: -ENOMEM; io_uring_queue_init_params(3)'s and io_uring_register_buf_ring(3)'s. */
int queues_open(struct queues *q);
void queues_close(struct queues *q);

/* What has come and is no completion yet. */
static inline bool
queues_unfinished(const struct queues *q)
{
	unsigned flags = IO_URING_READ_ONCE(*q->io.sq.kflags);

	return flags & IORING_SQ_CQ_OVERFLOW || (flags & IORING_SQ_TASKRUN && !q->stale);
}

/* Not all that has come has room among the completions. */
static inline bool
queues_overflow(const struct queues *q)
{
	return IO_URING_READ_ONCE(*q->io.sq.kflags) & IORING_SQ_CQ_OVERFLOW;
}

/* How many completions are there, and the i-th of them. */
static inline unsigned
queues_ready(const struct queues *q)
{
	return io_uring_cq_ready(&q->io);
}

static inline struct io_uring_cqe *
queues_at(const struct queues *q, unsigned i)
{
	return &q->io.cq.cqes[(*q->io.cq.khead + i) & *q->io.cq.kring_mask];
}

/* Submits, and has the kernel finish what has come. */
void queues_get(struct queues *q);

/* Submits, and waits at most timeout ns (-1: for ever) for a completion. */
void queues_wait(struct queues *q, int64_t timeout);

/* Until all is submitted and finished. */
void queues_settle(struct queues *q);

/* An entry for submission, which is nothing as yet. */
struct io_uring_sqe *queues_entry(struct queues *q);

/* The number of the entry that was taken last; whether the kernel has it. */
static inline unsigned
queues_last(const struct queues *q)
{
	return q->io.sq.sqe_tail;
}

static inline bool
queues_has(const struct queues *q, unsigned number)
{
	return (int)(number - q->io.sq.sqe_head) <= 0;
}

/* The buffer that a completion has filled; the kernel may use it again. */
static inline char *
queues_buffer(const struct queues *q, const struct io_uring_cqe *c)
{
	unsigned number = c->flags >> IORING_CQE_BUFFER_SHIFT;

	return q->buffers + (size_t)number * QUEUES_BUFFER;
}

void queues_return(struct queues *q, const struct io_uring_cqe *c);

#endif
