#include "loop/slots.h"

#include "base/buf.h"
#include "loop/backend.h"
#include "loop/queues.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static void
free_held(struct slot *s)
{
	if (s->held)
		buf_free(s->held);
	free(s->held);
	s->held = NULL;
}

static void
free_item(void *item)
{
	free_held(item);
}

void
slots_init(struct slots *all, struct loop *loop, struct queues *q, unsigned regular)
{
	*all = (struct slots){.loop = loop, .queues = q, .regular = regular};
	pool_init(&all->pool, sizeof(struct slot));
}

void
slots_done(struct slots *all)
{
	pool_each(&all->pool, free_item);
	pool_free(&all->pool);
}

static void
arm(struct slots *all, struct slot *s)
{
	struct io_uring_sqe *e = queues_entry(all->queues);

	io_uring_prep_recv_multishot(e, s->f->fd, NULL, 0, 0);
	e->ioprio |= IORING_RECVSEND_POLL_FIRST; /* there is nothing yet */
	e->flags |= IOSQE_BUFFER_SELECT;
	e->buf_group = QUEUES_GROUP;
	io_uring_sqe_set_data(e, s);
	s->armed = true;
	s->entry = queues_last(all->queues);
	all->armed++;
}

static void
disarm(struct slots *all, struct slot *s)
{
	all->armed -= s->armed;
	s->armed = false;
}

/* What the kernel has not seen yet is about a number, which may soon be another's. */
static void
ask_back(struct slots *all, struct slot *s)
{
	struct io_uring_sqe *e;

	if (!queues_has(all->queues, s->entry))
		io_uring_submit(&all->queues->io);
	e = queues_entry(all->queues);

	io_uring_prep_cancel(e, s, 0);
	e->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_sqe_set_data64(e, QUEUES_NOBODY);
}

static void
free_slot(struct slots *all, struct slot *s)
{
	if (s->f)
		s->f->slot = NULL;
	free_held(s);
	pool_give(&all->pool, s);
}

/* Nothing is to come from the slot of a stream that epoll watches. */
static void
end_leaving(struct slots *all, struct slot *s)
{
	if (s->leaving && !s->armed && !s->held && !s->over && all->chunk.slot != s)
		free_slot(all, s);
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
		ask_back(f->loop->slots, s);
	end_leaving(f->loop->slots, s);
}

/* The kernel keeps the socket open as long as it has the slot: that is asked back at once,
 * but not while so much is there that what comes along would use up the buffers. */
static void
drop(struct slots *all, struct slot *s)
{
	ask_back(all, s);
	if (queues_ready(all->queues) < QUEUES_BUFFERS / 2)
		queues_get(all->queues);
}

void
slots_remove(struct loop_fd *f)
{
	struct slots *all = f->loop->slots;
	struct slot *s = f->slot;

	if (all->current == f) /* its slot may have gone before */
		all->current = NULL;
	if (s) {
		if (all->chunk.slot == s)
			all->chunk.slot = NULL;
		f->slot = NULL;
		s->f = NULL;
		free_held(s);
		if (s->armed)
			drop(all, s);
		else
			pool_give(&all->pool, s);
	}
	backend_epoll.remove(f);
}

static void
hold(struct slots *all, struct slot *s)
{
	bool first = !s->held;

	all->chunk.slot = NULL;
	if (first)
		s->held = calloc(1, sizeof(*s->held));
	if (!s->held || !buf_put(s->held, all->chunk.p, all->chunk.n)) {
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
take_chunk(struct slots *all, struct slot *s, size_t max, const char **data)
{
	size_t n = all->chunk.n < max ? all->chunk.n : max;

	*data = all->chunk.p;
	all->chunk.p += n;
	all->chunk.n -= n;
	if (all->chunk.n > 0)
		hold(all, s);
	all->chunk.slot = NULL;
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
		end_leaving(f->loop->slots, s);
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
lend_copy(struct slots *all, struct slot *s, const struct io_uring_cqe *c)
{
	if (all->chunk.slot)
		hold(all, all->chunk.slot);
	memcpy(all->loop->buffer, queues_buffer(all->queues, c), (size_t)c->res);
	queues_return(all->queues, c);
	all->chunk.slot = s;
	all->chunk.p = all->loop->buffer;
	all->chunk.n = (size_t)c->res;
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
		end_leaving(f->loop->slots, s);
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
	struct slots *all = f->loop->slots;
	struct slot *s = pool_take(&all->pool);

	if (!s)
		return;
	*s = (struct slot){.f = f};
	f->slot = s;
	epoll_hush(f);
	arm(all, s);
	io_uring_submit(
	    &all->queues->io); /* or what comes until then would be heard of late */
}

/* Whether it is time for that: once, and not for what epoll has to treat in a special way.
 */
static bool
is_regular(struct loop_fd *f)
{
	unsigned regular = f->loop->slots->regular;

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
take_queued(struct slots *all, struct slot *s)
{
	unsigned ready = queues_ready(all->queues);
	struct io_uring_cqe *c;

	for (unsigned i = 0; i < ready; i++) {
		c = queues_at(all->queues, i);
		if (c->user_data != (uintptr_t)s)
			continue;
		c->user_data = QUEUES_NOBODY;
		if (!(c->flags & IORING_CQE_F_MORE))
			disarm(all, s);
		if (c->res > 0) {
			lend_copy(all, s, c);
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
	struct slots *all = f->loop->slots;
	struct slot *s = f->slot;

	if (s->armed && queues_overflow(all->queues))
		return loop_pend_in(f, op); /* not all are */
	if (s->armed && take_queued(all, s))
		return take_chunk(all, s, max, data);
	if (s->over)
		return take_result(f);
	if (!s->armed)
		free_slot(all, s);
	return backend_epoll.recv(f, op, max, data);
}

ssize_t
slots_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	struct slots *all = f->loop->slots;
	struct slot *s = f->slot;

	if (max > LOOP_BUFFER)
		max = LOOP_BUFFER;
	if (!s)
		return epoll_recv(f, op, max, data);
	if (all->chunk.slot == s)
		return take_chunk(all, s, max, data);
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
		arm(all, s);
	doubts_add(&f->loop->doubts, f, f->loop->now);
	return loop_pend_in(f, op);
}

ssize_t
slots_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n)
{
	ssize_t w = backend_epoll.send(f, op, p, n);

	if (w == -EINPROGRESS)
		leave(f);
	return w;
}

int
slots_poll(struct loop_fd *f, struct loop_op *op, bool out)
{
	leave(f);
	if (!out && f->slot && (f->slot->held || f->slot->over))
		return 0;
	return backend_epoll.poll(f, op, out);
}

void
slots_doubted(struct loop_fd *f)
{
	if (f->slot)
		leave(f);
	else
		backend_epoll.doubted(f);
}

/* Has the reader look; who does not read hears of an error, once, or an end. */
static void
wake(struct slots *all, struct loop_fd *f, bool ended)
{
	all->current = f;
	if (f->in)
		loop_complete_in(f);
	if (all->current && f->failed && !f->reset && !f->in && !f->out) {
		f->reset = true;
		if (f->told)
			f->told(f, LOOP_GONE);
	}
	if (all->current && ended && f->wants_end)
		f->told(f, LOOP_END);
	all->current = NULL;
}

static void
deliver(struct slots *all, struct slot *s, const char *p, size_t n)
{
	struct loop_fd *f = s->f;

	if (s->over)
		return;
	all->chunk.slot = s;
	all->chunk.p = p;
	all->chunk.n = n;
	if (n == QUEUES_BUFFER)
		leave(f);
	wake(all, f, false);
	if (all->chunk.slot == s) /* still there, and has not been asked for */
		hold(all, s);
}

static void
end_receiving(struct slots *all, struct slot *s, int result)
{
	end_slot(s, result);
	wake(all, s->f, result == 0);
}

/* It was asked back, or the buffers ran out.  Whoever waits on epoll's word goes on, and is
 * told; true then. */
static bool
stop_receiving(struct slots *all, struct slot *s)
{
	if (s->leaving && s->f->in) {
		s->f->readable = true;
		wake(all, s->f, false);
		return true;
	}
	if (s->leaving)
		end_leaving(all, s);
	else if (s->f->in) {
		arm(all, s);
		all->starved = true;
	} else /* nobody reads: what else comes stays in the kernel */
		leave(s->f);
	return false;
}

bool
slots_on(struct slots *all, const struct io_uring_cqe *c)
{
	struct slot *s = io_uring_cqe_get_data(c);
	bool told = s->f;
	int result = c->res;

	if (!(c->flags & IORING_CQE_F_MORE))
		disarm(all, s);
	if (!s->f) {
		if (!s->armed)
			pool_give(&all->pool, s);
	} else if (result > 0) {
		if (!s->armed && !s->leaving)
			arm(all, s); /* it has ended, and the connection goes on */
		deliver(all, s, queues_buffer(all->queues, c), (size_t)result);
	} else if (is_break(result))
		told = stop_receiving(all, s);
	else
		end_receiving(all, s, result);
	if (c->flags & IORING_CQE_F_BUFFER)
		queues_return(all->queues, c);
	return told;
}

static const struct slot *
slot_at(const struct queues *q, unsigned i, unsigned ready)
{
	uint64_t about = i < ready ? queues_at(q, i)->user_data : QUEUES_NOBODY;

	return about > QUEUES_EPOLL ? (void *)(uintptr_t)about : NULL;
}

/* As with epoll: with a thousand connections none is in the cache when its turn comes. */
void
slots_fetch(const struct queues *q, unsigned ready)
{
	const struct slot *s = slot_at(q, 3, ready);
	const struct loop_fd *f;

	if (s)
		__builtin_prefetch(s);
	s = slot_at(q, 2, ready);
	for (int i = 0; s && s->f && i < 3; i++)
		__builtin_prefetch((const char *)s->f - 32 + i * 64);
	s = slot_at(q, 1, ready);
	f = s ? s->f : NULL;
	if (!f || !f->in)
		return;
	for (int i = 0; i < 2; i++)
		__builtin_prefetch((const char *)f->hint[0] + i * 64);
	for (int i = 0; i < 4; i++)
		__builtin_prefetch((const char *)f->hint[1] + i * 64);
}
