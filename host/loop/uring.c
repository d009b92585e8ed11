#include "loop/uring.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/pool.h"
#include "loop/backend.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* Entries for submission; buffers, a power of two, and their size: a request that fills one
 * is the beginning of bulk. */
enum { ENTRIES = 256, BUFFERS = 256, BUFFER = 2048, GROUP = 0 };

/* Behind so many completions there may be more; how often the kernel is asked to take what
 * it has refused for the moment. */
enum { MANY = 8, TRIES = 16 };

/* A receive in the kernel outlives the descriptor that it is for, until its last
 * completion: so the kernel is given a slot, and not the descriptor's struct. */
struct slot {
	struct loop_fd *f; /* NULL: it has gone */
	struct buf *held;  /* received while nobody asked; NULL: nothing */
	unsigned entry;    /* behind this one of those for submission, if it is armed */
	int result;        /* how receiving ended, once `over` */
	bool armed;        /* the kernel has it */
	bool leaving;      /* epoll watches it; only what is left comes from here */
	bool over;
	bool lost; /* there was no memory for what has come: over for good */
};

/* A stream that has waited so often will do so again: what it costs to have the ring
 * receive, and to ask that back, is what so many requests save. */
enum { REGULAR = 16 };

/* What a completion is about, when it is about no slot. */
enum { NOBODY = 0, EPOLL = 1 };

struct ring {
	struct backend backend;
	struct io_uring io;
	struct io_uring_buf_ring *given; /* the buffers that the kernel may use */
	char *buffers;
	struct pool slots;
	struct {
		struct slot *slot; /* NULL: there is none */
		const char *p;
		size_t n;
	} chunk;                 /* what has just come, while its receiver is called */
	struct loop_fd *current; /* whose end is being told; NULL: it has gone meanwhile */
	unsigned regular; /* a stream that has waited so often is received from here */
	unsigned armed;   /* slots that the kernel has */
	bool watches_epoll;
	struct loop *loop;
	bool fetched; /* epoll was asked, and what it had is still to be handled */
	bool more;    /* what it says then */
	bool stale;   /* the kernel's flag for unfinished work is of no use for now */
	bool starved; /* somebody got no buffer for what is there */
	bool many;    /* so many were ready that the kernel may have more */
	bool unseen;  /* there may be more than the last wait() has handled */
};

/* What has come and is no completion yet. */
static bool
has_unfinished(const struct ring *r)
{
	unsigned flags = IO_URING_READ_ONCE(*r->io.sq.kflags);

	return flags & IORING_SQ_CQ_OVERFLOW || (flags & IORING_SQ_TASKRUN && !r->stale);
}

/* Submits, and has the kernel finish what has come.  Its flag for that may be raised just
 * after the work is done, and then stays so until there is more work: a flag that outlives
 * the asking says nothing. */
static void
get_events(struct ring *r)
{
	io_uring_submit_and_get_events(&r->io);
	r->stale = io_uring_cq_ready(&r->io) == 0 &&
		   IO_URING_READ_ONCE(*r->io.sq.kflags) & IORING_SQ_TASKRUN;
}

static struct io_uring_sqe *
new_entry(struct ring *r, void *about)
{
	struct io_uring_sqe *e = io_uring_get_sqe(&r->io);

	while (!e) { /* the kernel takes them all */
		io_uring_submit(&r->io);
		e = io_uring_get_sqe(&r->io);
	}
	io_uring_prep_nop(e);
	io_uring_sqe_set_data(e, about);
	return e;
}

static void
arm(struct ring *r, struct slot *s)
{
	struct io_uring_sqe *e = new_entry(r, s);

	io_uring_prep_recv_multishot(e, s->f->fd, NULL, 0, 0);
	e->ioprio |= IORING_RECVSEND_POLL_FIRST; /* there is nothing yet */
	e->flags |= IOSQE_BUFFER_SELECT;
	e->buf_group = GROUP;
	io_uring_sqe_set_data(e, s);
	s->armed = true;
	s->entry = r->io.sq.sqe_tail;
	r->armed++;
}

static void
disarm(struct ring *r, struct slot *s)
{
	r->armed -= s->armed;
	s->armed = false;
}

/* What the kernel has not seen yet is about a number, which may soon be another's. */
static void
ask_back(struct ring *r, struct slot *s)
{
	struct io_uring_sqe *e;

	if ((int)(s->entry - r->io.sq.sqe_head) > 0)
		io_uring_submit(&r->io);
	e = new_entry(r, NULL);

	io_uring_prep_cancel(e, s, 0);
	e->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_sqe_set_data64(e, NOBODY);
}

static void
give_buffer(struct ring *r, unsigned number)
{
	io_uring_buf_ring_add(r->given, r->buffers + (size_t)number * BUFFER, BUFFER,
			      (unsigned short)number, io_uring_buf_ring_mask(BUFFERS), 0);
	io_uring_buf_ring_advance(r->given, 1);
}

static void
free_held(struct slot *s)
{
	if (s->held)
		buf_free(s->held);
	free(s->held);
	s->held = NULL;
}

static void
free_slot(struct ring *r, struct slot *s)
{
	if (s->f)
		s->f->slot = NULL;
	free_held(s);
	pool_give(&r->slots, s);
}

/* Nothing is to come from the slot of a stream that epoll watches. */
static void
end_leaving(struct ring *r, struct slot *s)
{
	if (s->leaving && !s->armed && !s->held && !s->over && r->chunk.slot != s)
		free_slot(r, s);
}

/* From here on epoll watches the stream; what has come already is still delivered. */
static void
leave(struct loop_fd *f)
{
	struct slot *s = f->slot;

	if (!s || s->leaving)
		return;
	f->readable = true;
	epoll_watch(f);
	s->leaving = true;
	if (s->armed)
		ask_back(f->loop->ring, s);
	end_leaving(f->loop->ring, s);
}

/* The kernel keeps the socket open as long as it has the slot: that is asked back at once,
 * but not while so much is there that what comes along would use up the buffers. */
static void
drop(struct ring *r, struct slot *s)
{
	ask_back(r, s);
	if (io_uring_cq_ready(&r->io) < BUFFERS / 2)
		get_events(r);
}

static void
ur_remove(struct loop_fd *f)
{
	struct ring *r = f->loop->ring;
	struct slot *s = f->slot;

	if (r->current == f) /* its slot may have gone before */
		r->current = NULL;
	if (s) {
		if (r->chunk.slot == s)
			r->chunk.slot = NULL;
		f->slot = NULL;
		s->f = NULL;
		free_held(s);
		if (s->armed)
			drop(r, s);
		else
			pool_give(&r->slots, s);
	}
	backend_epoll.remove(f);
}

/* What was asked back is back, or at least receives no more. */
static void
ur_settle(struct loop *loop)
{
	struct ring *r = loop->ring;

	for (int i = 0; i < TRIES && (io_uring_sq_ready(&r->io) > 0 || has_unfinished(r));
	     i++)
		get_events(r);
}

static void
hold(struct ring *r, struct slot *s)
{
	bool first = !s->held;

	r->chunk.slot = NULL;
	if (first)
		s->held = calloc(1, sizeof(*s->held));
	if (!s->held || !buf_put(s->held, r->chunk.p, r->chunk.n)) {
		if (first)
			free_held(s);
		s->over = s->lost = true; /* nothing may follow what is missing */
		s->result = -ENOMEM;
		first = false;
	}
	if (!first) /* nobody reads: what else comes stays in the kernel */
		leave(s->f);
}

/* Delivers at most max bytes of what is at hand, the rest later. */
static ssize_t
take_chunk(struct ring *r, struct slot *s, size_t max, const char **data)
{
	size_t n = r->chunk.n < max ? r->chunk.n : max;

	*data = r->chunk.p;
	r->chunk.p += n;
	r->chunk.n -= n;
	if (r->chunk.n > 0)
		hold(r, s);
	r->chunk.slot = NULL;
	return (ssize_t)n;
}

static ssize_t
take_held(struct loop_fd *f, size_t max, const char **data)
{
	struct slot *s = f->slot;
	size_t n = buf_len(s->held);

	if (n > max)
		n = max;
	memcpy(f->loop->buffer, buf_data(s->held), n);
	buf_drop(s->held, n);
	*data = f->loop->buffer;
	if (buf_len(s->held) == 0) {
		free_held(s);
		end_leaving(f->loop->ring, s);
	}
	return (ssize_t)n;
}

/* That a receive has ended for a reason of the ring's own: the stream goes on. */
static bool
is_break(int result)
{
	return result == -ENOBUFS || result == -ECANCELED || result == -EINTR;
}

/* No more will come.  An error has been taken from the socket: epoll sees an end only. */
static void
end_slot(struct slot *s, int result)
{
	s->over = true;
	s->result = result;
	s->f->ended = s->f->readable = true;
	s->f->failed |= result < 0;
}

/* The chunk is what the completion brings. */
static void
lend_copy(struct ring *r, struct slot *s, const struct io_uring_cqe *c)
{
	unsigned number = c->flags >> IORING_CQE_BUFFER_SHIFT;

	if (r->chunk.slot)
		hold(r, r->chunk.slot);
	memcpy(r->loop->buffer, r->buffers + (size_t)number * BUFFER, (size_t)c->res);
	give_buffer(r, number);
	r->chunk.slot = s;
	r->chunk.p = r->loop->buffer;
	r->chunk.n = (size_t)c->res;
}

/* The end; or an error, which is told once by the slot, and again by the socket if it can.
 * That bytes are lost is told again and again. */
static ssize_t
take_result(struct loop_fd *f)
{
	struct slot *s = f->slot;
	int result = s->result;

	if (result == 0 || s->lost)
		return result;
	s->over = false;
	if (s->leaving)
		end_leaving(f->loop->ring, s);
	else
		leave(f);
	return result;
}

/* The stream waits: has the ring receive from now on, and epoll tell of its end alone.  The
 * ring does not always: it goes on while the socket says that there is more, and a reset
 * that has come with the last bytes is not counted as more, nor, on a Unix socket, an end.
 * Without memory it stays as it is. */
static void
adopt(struct loop_fd *f)
{
	struct ring *r = f->loop->ring;
	struct slot *s = pool_take(&r->slots);

	if (!s)
		return;
	*s = (struct slot){.f = f};
	f->slot = s;
	epoll_hush(f);
	arm(r, s);
	io_uring_submit(&r->io); /* or what comes until then would be heard of late */
}

/* Whether it is time for that: once, and not for what epoll has to treat in a special way.
 */
static bool
is_regular(struct loop_fd *f)
{
	unsigned regular = f->loop->ring->regular;

	return f->armed && f->waits < regular && ++f->waits == regular && f->edge &&
	       !f->out && !f->ended;
}

static ssize_t
epoll_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	ssize_t n = backend_epoll.recv(f, op, max, data);

	if (n == -EINPROGRESS && is_regular(f))
		adopt(f);
	return n;
}

/* Takes what has been received for the stream out of the queue of completions, before its
 * turn.  False: there are no bytes; but the stream may be over now. */
static bool
take_queued(struct ring *r, struct slot *s)
{
	unsigned ready = io_uring_cq_ready(&r->io), mask = *r->io.cq.kring_mask;
	struct io_uring_cqe *c;

	for (unsigned i = 0; i < ready; i++) {
		c = &r->io.cq.cqes[(*r->io.cq.khead + i) & mask];
		if (c->user_data != (uintptr_t)s)
			continue;
		c->user_data = NOBODY;
		if (!(c->flags & IORING_CQE_F_MORE))
			disarm(r, s);
		if (c->res > 0) {
			lend_copy(r, s, c);
			return true;
		}
		if (!is_break(c->res))
			end_slot(s, c->res);
		return false;
	}
	return false;
}

/* The kernel receives nothing but while it is asked for completions: so what is in the
 * socket now comes behind those that are there. */
static ssize_t
recv_leaving(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	struct ring *r = f->loop->ring;
	struct slot *s = f->slot;

	if (s->armed && IO_URING_READ_ONCE(*r->io.sq.kflags) & IORING_SQ_CQ_OVERFLOW)
		return loop_pend_in(f, op); /* not all are */
	if (s->armed && take_queued(r, s))
		return take_chunk(r, s, max, data);
	if (s->over)
		return take_result(f);
	if (!s->armed)
		free_slot(r, s);
	return backend_epoll.recv(f, op, max, data);
}

static ssize_t
ur_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	struct ring *r = f->loop->ring;
	struct slot *s = f->slot;

	if (max > LOOP_BUFFER)
		max = LOOP_BUFFER;
	if (!s)
		return epoll_recv(f, op, max, data);
	if (r->chunk.slot == s)
		return take_chunk(r, s, max, data);
	if (s->held)
		return take_held(f, max, data);
	if (s->over)
		return take_result(f);
	if (f->ended) /* the ring does not know, but there is an end: see adopt() */
		leave(f);
	if (!f->slot)
		return backend_epoll.recv(f, op, max, data);
	if (s->leaving)
		return recv_leaving(f, op, max, data);
	if (!s->armed)
		arm(r, s);
	doubts_add(&f->loop->doubts, f, f->loop->now);
	return loop_pend_in(f, op);
}

static ssize_t
ur_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n)
{
	ssize_t w = backend_epoll.send(f, op, p, n);

	if (w == -EINPROGRESS)
		leave(f);
	return w;
}

static int
ur_poll(struct loop_fd *f, struct loop_op *op, bool out)
{
	leave(f);
	if (!out && f->slot && (f->slot->held || f->slot->over))
		return 0;
	return backend_epoll.poll(f, op, out);
}

static void
ur_doubted(struct loop_fd *f)
{
	if (f->slot)
		leave(f);
	else
		backend_epoll.doubted(f);
}

/* ---- what the kernel says ---- */

/* Has the reader look; who does not read hears of an error, once, or an end. */
static void
wake(struct ring *r, struct loop_fd *f, bool ended)
{
	r->current = f;
	if (f->in)
		loop_complete_in(f);
	if (r->current && f->failed && !f->reset && !f->in && !f->out) {
		f->reset = true;
		if (f->told)
			f->told(f, LOOP_GONE);
	}
	if (r->current && ended && f->wants_end)
		f->told(f, LOOP_END);
	r->current = NULL;
}

static void
deliver(struct ring *r, struct slot *s, const char *p, size_t n)
{
	struct loop_fd *f = s->f;

	if (s->over)
		return;
	r->chunk.slot = s;
	r->chunk.p = p;
	r->chunk.n = n;
	if (n == BUFFER)
		leave(f);
	wake(r, f, false);
	if (r->chunk.slot == s) /* still there, and has not been asked for */
		hold(r, s);
}

static void
end_receiving(struct ring *r, struct slot *s, int result)
{
	end_slot(s, result);
	wake(r, s->f, result == 0);
}

/* It was asked back, or the buffers ran out.  Whoever waits on epoll's word goes on, and is
 * told; true then. */
static bool
stop_receiving(struct ring *r, struct slot *s)
{
	if (s->leaving && s->f->in) {
		s->f->readable = true;
		wake(r, s->f, false);
		return true;
	}
	if (s->leaving)
		end_leaving(r, s);
	else if (s->f->in) {
		arm(r, s);
		r->starved = true;
	} else /* nobody reads: what else comes stays in the kernel */
		leave(s->f);
	return false;
}

/* False: nobody was told. */
static bool
on_received(struct ring *r, const struct io_uring_cqe *c)
{
	struct slot *s = io_uring_cqe_get_data(c);
	unsigned number = c->flags >> IORING_CQE_BUFFER_SHIFT;
	bool buffer = c->flags & IORING_CQE_F_BUFFER, told = s->f;
	int result = c->res;

	if (!(c->flags & IORING_CQE_F_MORE))
		disarm(r, s);
	if (!s->f) {
		if (!s->armed)
			pool_give(&r->slots, s);
	} else if (result > 0) {
		if (!s->armed && !s->leaving)
			arm(r, s); /* it has ended, and the connection goes on */
		deliver(r, s, r->buffers + (size_t)number * BUFFER, (size_t)result);
	} else if (is_break(result))
		told = stop_receiving(r, s);
	else
		end_receiving(r, s, result);
	if (buffer)
		give_buffer(r, number);
	return told;
}

/* As with epoll: with a thousand connections none is in the cache when its turn comes. */
static void
fetch(struct ring *r, unsigned head, unsigned ready)
{
	const struct io_uring_cqe *all = r->io.cq.cqes;
	unsigned mask = *r->io.cq.kring_mask;
	const struct slot *s;
	const struct loop_fd *f;

	if (ready > 3 && all[(head + 3) & mask].user_data > EPOLL)
		__builtin_prefetch((void *)all[(head + 3) & mask].user_data);
	if (ready > 2 && all[(head + 2) & mask].user_data > EPOLL) {
		s = (void *)all[(head + 2) & mask].user_data;
		for (int i = 0; s->f && i < 3; i++)
			__builtin_prefetch((const char *)s->f - 32 + i * 64);
	}
	if (ready < 2 || all[(head + 1) & mask].user_data <= EPOLL)
		return;
	s = (void *)all[(head + 1) & mask].user_data;
	f = s->f;
	if (!f || !f->in)
		return;
	for (int i = 0; i < 2; i++)
		__builtin_prefetch((const char *)f->hint[0] + i * 64);
	for (int i = 0; i < 4; i++)
		__builtin_prefetch((const char *)f->hint[1] + i * 64);
}

/* What epoll had when it was asked; how much that was. */
static int
handle_fetched(struct loop *loop)
{
	struct ring *r = loop->ring;

	if (!r->fetched)
		return 0;
	r->fetched = false;
	r->more |= epoll_handle(loop);
	return loop->came;
}

/* Handles what is there; how many have told somebody who is still there of something. */
static int
handle_ready(struct loop *loop)
{
	struct ring *r = loop->ring;
	struct io_uring_cqe c;
	unsigned ready = io_uring_cq_ready(&r->io), n = 0;
	int came = 0;

	for (; n < ready && n < LOOP_EVENTS; n++) {
		fetch(r, *r->io.cq.khead, ready - n);
		c = r->io.cq.cqes[*r->io.cq.khead & *r->io.cq.kring_mask];
		io_uring_cq_advance(&r->io, 1);
		if (c.user_data > EPOLL) {
			came += on_received(r, &c);
		} else if (c.user_data == EPOLL) {
			r->watches_epoll = false;
			came += handle_fetched(loop); /* in its turn */
		}
	}
	r->many = n >= MANY;
	return came + handle_fetched(loop);
}

/* Whether epoll has something: asked before anything is handled, so that what comes of
 * handling it is not heard of before its time. */
static bool
epoll_is_ready(const struct ring *r)
{
	unsigned head = *r->io.cq.khead, ready = io_uring_cq_ready(&r->io);

	for (unsigned i = 0; i < ready; i++)
		if (r->io.cq.cqes[(head + i) & *r->io.cq.kring_mask].user_data == EPOLL)
			return true;
	return has_unfinished(r);
}

static void
watch_epoll(struct loop *loop)
{
	struct ring *r = loop->ring;
	struct io_uring_sqe *e;

	if (r->watches_epoll)
		return;
	r->watches_epoll = true;
	e = new_entry(r, NULL);
	io_uring_prep_poll_add(e, backend_epoll.fd(loop), POLLIN);
	io_uring_sqe_set_data64(e, EPOLL);
}

static bool
has_work(const struct ring *r)
{
	return r->unseen || io_uring_cq_ready(&r->io) > 0 ||
	       io_uring_sq_ready(&r->io) > 0 || has_unfinished(r);
}

static bool
ur_peek(struct loop *loop)
{
	const struct ring *r = loop->ring;

	return r->armed == 0 || !r->watches_epoll || has_work(r) || r->stale ||
	       epoll_has_fresh(loop);
}

static void
enter(struct ring *r, int64_t timeout)
{
	struct __kernel_timespec t = {timeout / CLOCK_SECOND, timeout % CLOCK_SECOND};
	struct io_uring_cqe *c;

	if (timeout == 0 || r->unseen || io_uring_cq_ready(&r->io) > 0) {
		if (has_work(r) || r->stale)
			get_events(r);
	} else if (timeout < 0)
		io_uring_submit_and_wait(&r->io, 1);
	else
		io_uring_submit_and_wait_timeout(&r->io, &c, 1, &t, NULL);
	if (io_uring_cq_ready(&r->io) > 0)
		r->stale = false; /* the work that these come from has cleared the flag */
}

/* The kernel finishes some twenty at a time, and does not say that there are more: tasks
 * are not to run in between.  Few are all that there was; what comes while they are handled
 * is for the next wait. */
static void
handle_all(struct loop *loop)
{
	struct ring *r = loop->ring;
	int came = 0;

	loop->unseen = r->more = r->starved = false;
	for (;;) {
		r->fetched = epoll_is_ready(r);
		if (r->fetched)
			epoll_fetch(loop, 0);
		came += handle_ready(loop);
		if (!r->many || came >= LOOP_EVENTS)
			break;
		watch_epoll(loop);
		get_events(r);
	}
	r->unseen = r->many || io_uring_cq_ready(&r->io) > 0 || has_unfinished(r);
	loop->came = came;
	loop->unseen |= r->unseen || r->starved;
}

static bool
ur_wait(struct loop *loop, int64_t timeout)
{
	struct ring *r = loop->ring;
	bool all;

	if (r->armed == 0 && !has_work(r)) /* nothing is to come from here */
		return backend_epoll.wait(loop, timeout);
	all = epoll_enter_fresh(loop);
	watch_epoll(loop);
	enter(r, all ? timeout : 0);
	loop_refresh(loop);
	handle_all(loop);
	loop->came += !all; /* somebody has been told */
	return r->more || r->unseen;
}

/* ---- its life ---- */

static int
open_buffers(struct ring *r)
{
	struct io_uring_buf_reg reg = {.ring_entries = BUFFERS, .bgid = GROUP};
	int rc = -ENOMEM;

	r->given = aligned_alloc(4096, BUFFERS * sizeof(struct io_uring_buf));
	r->buffers = malloc((size_t)BUFFERS * BUFFER);
	if (r->given && r->buffers) {
		reg.ring_addr = (uint64_t)(uintptr_t)r->given;
		rc = io_uring_register_buf_ring(&r->io, &reg, 0);
	}
	if (rc < 0) {
		free(r->given);
		free(r->buffers);
		return rc;
	}
	io_uring_buf_ring_init(r->given);
	for (unsigned i = 0; i < BUFFERS; i++)
		give_buffer(r, i);
	return 0;
}

static void
free_item(void *item)
{
	free_held(item);
}

static void
ur_close(struct loop *loop)
{
	struct ring *r = loop->ring;

	ur_settle(loop); /* or sockets would be open for a while after that */
	io_uring_queue_exit(&r->io);
	pool_each(&r->slots, free_item);
	pool_free(&r->slots);
	free(r->given);
	free(r->buffers);
	free(r);
	backend_epoll.close(loop);
}

/* The ring is the parent's, and so is what it maps: a word to it would be said for that. */
static int
ur_reborn(struct loop *loop)
{
	loop->backend = &backend_epoll;
	loop->ring = NULL;
	return backend_epoll.reborn(loop);
}

int
uring_attach(struct loop *loop, bool all)
{
	struct io_uring_params p = {
	    .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
		     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL};
	struct ring *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	rc = io_uring_queue_init_params(ENTRIES, &r->io, &p);
	if (rc < 0)
		goto fail;
	rc = open_buffers(r);
	if (rc < 0)
		goto fail_ring;
	r->loop = loop;
	r->regular = all ? 1 : REGULAR;
	pool_init(&r->slots, sizeof(struct slot));
	r->backend = backend_epoll; /* but for streams */
	r->backend.name = "io_uring";
	r->backend.close = ur_close;
	r->backend.reborn = ur_reborn;
	r->backend.remove = ur_remove;
	r->backend.settle = ur_settle;
	r->backend.wait = ur_wait;
	r->backend.peek = ur_peek;
	r->backend.recv = ur_recv;
	r->backend.send = ur_send;
	r->backend.poll = ur_poll;
	r->backend.doubted = ur_doubted;
	loop->ring = r;
	loop->backend = &r->backend;
	return 0;

fail_ring:
	io_uring_queue_exit(&r->io);
fail:
	free(r);
	return rc;
}
