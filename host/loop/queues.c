#include "loop/queues.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>

/* Entries for submission; how often the kernel is asked to take what it has refused for
 * the moment. */
enum { ENTRIES = 256, TRIES = 16 };

/* The flag for unfinished work may be raised just after the work is done, and then stays
 * so until there is more work: a flag that outlives the asking says nothing. */
void
queues_get(struct queues *q)
{
	io_uring_submit_and_get_events(&q->io);
	q->stale = queues_ready(q) == 0 &&
		   IO_URING_READ_ONCE(*q->io.sq.kflags) & IORING_SQ_TASKRUN;
}

void
queues_wait(struct queues *q, int64_t timeout)
{
	struct __kernel_timespec t = {timeout / CLOCK_SECOND, timeout % CLOCK_SECOND};
	struct io_uring_cqe *c;

	if (timeout < 0)
		io_uring_submit_and_wait(&q->io, 1);
	else
		io_uring_submit_and_wait_timeout(&q->io, &c, 1, &t, NULL);
}

void
queues_settle(struct queues *q)
{
	for (int i = 0;
	     i < TRIES && (io_uring_sq_ready(&q->io) > 0 || queues_unfinished(q)); i++)
		queues_get(q);
}

struct io_uring_sqe *
queues_entry(struct queues *q)
{
	struct io_uring_sqe *e = io_uring_get_sqe(&q->io);

	while (!e) { /* the kernel takes them all */
		io_uring_submit(&q->io);
		e = io_uring_get_sqe(&q->io);
	}
	io_uring_prep_nop(e);
	return e;
}

static void
give(struct queues *q, unsigned number)
{
	io_uring_buf_ring_add(q->given, q->buffers + (size_t)number * QUEUES_BUFFER,
			      QUEUES_BUFFER, (unsigned short)number,
			      io_uring_buf_ring_mask(QUEUES_BUFFERS), 0);
	io_uring_buf_ring_advance(q->given, 1);
}

void
queues_return(struct queues *q, const struct io_uring_cqe *c)
{
	give(q, c->flags >> IORING_CQE_BUFFER_SHIFT);
}

static int
open_buffers(struct queues *q)
{
	struct io_uring_buf_reg reg = {.ring_entries = QUEUES_BUFFERS,
				       .bgid = QUEUES_GROUP};
	int rc = -ENOMEM;

	q->given = aligned_alloc(4096, QUEUES_BUFFERS * sizeof(struct io_uring_buf));
	q->buffers = malloc((size_t)QUEUES_BUFFERS * QUEUES_BUFFER);
	if (q->given && q->buffers) {
		reg.ring_addr = (uint64_t)(uintptr_t)q->given;
		rc = io_uring_register_buf_ring(&q->io, &reg, 0);
	}
	if (rc < 0) {
		free(q->given);
		free(q->buffers);
		return rc;
	}
	io_uring_buf_ring_init(q->given);
	for (unsigned i = 0; i < QUEUES_BUFFERS; i++)
		give(q, i);
	return 0;
}

int
queues_open(struct queues *q)
{
	struct io_uring_params p = {
	    .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL};
	int rc = io_uring_queue_init_params(ENTRIES, &q->io, &p);

	if (rc < 0)
		return rc;
	q->stale = false;
	rc = open_buffers(q);
	if (rc < 0)
		io_uring_queue_exit(&q->io);
	return rc;
}

void
queues_close(struct queues *q)
{
	io_uring_queue_exit(&q->io);
	free(q->given);
	free(q->buffers);
}
