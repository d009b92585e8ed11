#include "bind/stream.h"

#include "base/clock.h"
#include "base/rare.h"
#include "bind/diary.h"
#include "script/script.h"
#include "script/task.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Receives of one task in a row before others get a turn. */
enum { FILLS = 16 };

static struct alloc *
payer_of(const struct stream *s)
{
	const struct task *t = s->task ? s->task : s->io->sched->current;

	if (s->more && s->more->payer)
		return s->more->payer;
	return t ? &t->script->state.alloc : NULL;
}

static size_t
charge_of(const struct buf *b)
{
	return buf_cap(b) > STREAM_SPARED ? buf_cap(b) : 0;
}

/* False: out of memory. */
static bool
need_more(struct stream *s)
{
	if (s->more)
		return true;
	s->more = pool_take(&s->io->mores);
	if (s->more)
		*s->more = (struct stream_more){0};
	return s->more != NULL;
}

/* To be called when a buffer has grown or gone. */
static void
charge(struct stream *s)
{
	size_t now = charge_of(&s->in) + charge_of(&s->out) + charge_of(&s->pushed);
	struct stream_more *m;

	if (now == (s->more ? s->more->charged : 0) || !need_more(s))
		return;
	m = s->more;
	m->payer = payer_of(s);
	if (m->payer)
		alloc_count(m->payer, (ptrdiff_t)(now - m->charged));
	m->charged = now;
}

/* Whether the state may have a buffer that holds n bytes more.  What the peers of many
 * connections send is bounded for each; what one handler has its own collect is not. */
static RARE bool
may_grow(const struct stream *s, const struct buf *b, size_t len)
{
	struct alloc *a = payer_of(s);

	return !a || alloc_has_room(a, buf_cap(b) * 2 > len ? buf_cap(b) * 2 : len);
}

static bool
may_keep(const struct stream *s, const struct buf *b, size_t n)
{
	size_t len = buf_len(b) + n;

	return len <= STREAM_SPARED || len <= buf_cap(b) || may_grow(s, b, len);
}

static RARE bool
keep(struct stream *s, struct buf *b, const char *p, size_t n)
{
	bool ok = may_keep(s, b, n) && buf_put(b, p, n);

	charge(s);
	return ok;
}

/* The receive buffer is needed again: what is unread in it moves to its stream. */
static void
settle(struct io *io)
{
	struct stream *s = io->borrower;

	io->borrower = NULL;
	if (s->lent_len == 0)
		return;
	if (!keep(s, &s->in, s->lent, s->lent_len))
		s->lost = true; /* the next read reports it */
	s->lent_len = 0;
}

/* A send has failed while its task does something else.  That a peer is gone shows when
 * the connection is used; any other reason would never come out. */
static RARE void
notice_failure(struct stream *s)
{
	if (s->error && s->error != EPIPE && s->error != ECONNRESET && s->task)
		task_cancel(s->task, "what was written could not be sent");
}

/* Runs after each run of a task: what it wrote goes out. */
static void
task_ran(struct sched *sched)
{
	struct io *io = sched->io;
	struct stream *s = io->gatherer;

	if (io->borrower)
		settle(io);
	if (s) {
		stream_flush(s);
		if (s->error)
			notice_failure(s);
	}
	s = sched->current ? sched->current->stream : NULL;
	if (s && s->pushing)
		stream_let_pushed(s);
}

int
io_init(struct io *io, struct sched *sched, struct log *log)
{
	*io = (struct io){.sched = sched, .log = log};
	pool_init(&io->streams, sizeof(struct stream));
	pool_init(&io->mores, sizeof(struct stream_more));
	lingers_init(&io->lingers, sched->loop);
	io->gather = malloc(STREAM_GATHER);
	if (!io->gather)
		return -ENOMEM;
	sched->io = io;
	sched->ran = task_ran;
	return 0;
}

void
io_free(struct io *io)
{
	diary_close(io);
	lingers_drop(&io->lingers);
	pool_free(&io->streams);
	pool_free(&io->mores);
	free(io->gather);
	io->gather = NULL;
}

static void
on_readable(struct loop_op *op)
{
	struct stream *s = LIST_ENTRY(op, struct stream, in_op);
	struct task *t = s->reader;

	s->reader = NULL;
	if (t)
		task_wake(t);
}

/* Sends what is kept; wakes the writer when all of it is gone, or cannot go. */
static void
push_out(struct stream *s)
{
	uint32_t serial = s->serial;
	struct task *t;
	ssize_t n;

	while (buf_len(&s->out) > 0) {
		n = loop_send(&s->fd, &s->out_op, buf_data(&s->out), buf_len(&s->out));
		if (n == -EINPROGRESS)
			return;
		if (n < 0) {
			s->error = (int)-n;
			buf_free(&s->out);
			charge(s);
			notice_failure(s);
			break;
		}
		s->active = loop_now(s->fd.loop);
		count_add(&s->io->bytes_out, (uint64_t)n);
		buf_drop(&s->out, (size_t)n);
	}
	charge(s);
	t = s->writer;
	s->writer = NULL;
	if (t)
		task_wake(t);
	if (s->serial == serial && s->pushing)
		stream_let_pushed(s);
}

static void
on_writable(struct loop_op *op)
{
	push_out(LIST_ENTRY(op, struct stream, out_op));
}

/* The peer has reset the connection while the handler waits for something else. */
static void
on_hangup(struct loop_fd *f)
{
	struct stream *s = LIST_ENTRY(f, struct stream, fd);

	if (s->task)
		task_cancel(s->task, "the peer is gone");
}

static int
register_fd(struct stream *s, int fd, bool likely)
{
	int rc = loop_add(s->io->sched->loop, &s->fd, fd,
			  LOOP_STREAM | (likely ? LOOP_LIKELY : 0));

	if (rc < 0)
		close(fd);
	s->fd.hangup = on_hangup;
	return rc;
}

int
stream_new(struct io *io, int fd, bool likely, struct stream **out)
{
	struct stream *s = pool_take(&io->streams);
	uint32_t serial;
	int rc = -ENOMEM;

	if (!s) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	serial = s->serial;
	memset(s, 0, io->streams.size); /* as pool_take_clear() */
	s->io = io;
	s->serial = serial;
	s->open = true;
	s->datagram = s->eof = fd < 0;
	s->fd.fd = -1;
	s->in_op.done = on_readable;
	s->out_op.done = on_writable;
	s->receive_max = (uint32_t)loop_buffer_size();
	s->collect_max = STREAM_GATHER;
	s->max_line = STREAM_MAX_LINE;
	s->timeout = CLOCK_NEVER;
	s->active = loop_now(io->sched->loop);
	if (fd >= 0) {
		rc = register_fd(s, fd, likely);
		if (rc < 0) {
			s->open = false;
			pool_give(&io->streams, s);
			return rc;
		}
	}
	*out = s;
	return 0;
}

int
stream_open(struct stream *s, int fd)
{
	int rc = register_fd(s, fd, true);

	if (rc == 0)
		s->datagram = s->eof = false;
	return rc;
}

uint64_t
stream_conn(const struct stream *s)
{
	return s->more ? s->more->conn : 0;
}

int
stream_set_conn(struct stream *s, uint64_t conn)
{
	if (!need_more(s))
		return -ENOMEM;
	s->more->conn = conn;
	return 0;
}

int
stream_give(struct stream *s)
{
	const char *p;
	size_t n;

	stream_view(s, &p, &n);
	if (s->fd.fd < 0 || n > 0 || s->eof || s->reader || s->writer)
		return -1;
	stream_flush(s);
	s->closed = true;
	return loop_release_fd(&s->fd);
}

/* The number of its descriptor may be anything by now. */
static void
forget(void *item)
{
	struct stream *s = item;

	if (!s->open || s == s->io->kept)
		return;
	s->fd.fd = -1;
	s->closed = true;
	s->reader = s->writer = NULL;
	s->in_op.fd = s->out_op.fd = NULL;
}

int
io_reborn(struct io *io, struct stream *keep)
{
	int rc;

	io->kept = keep;
	pool_each(&io->streams, forget);
	if (io->gatherer != keep)
		io->gatherer = NULL;
	if (!io->gatherer)
		io->gathered = 0;
	if (io->borrower && io->borrower == keep)
		settle(io);
	io->borrower = NULL;
	count_set(&io->bytes_in, 0);
	count_set(&io->bytes_out, 0);
	lingers_init(&io->lingers, io->sched->loop);
	diary_reborn(io);
	if (!keep || keep->fd.fd < 0)
		return 0;
	rc = loop_add(io->sched->loop, &keep->fd, keep->fd.fd, LOOP_STREAM | LOOP_LIKELY);
	keep->fd.hangup = on_hangup;
	return rc;
}

/* Another request's task may wait here, by an object that it got hold of: it finds
 * the stream closed, or over. */
static void
release(struct task **waiter)
{
	struct task *t = *waiter;

	*waiter = NULL;
	if (t)
		task_wake_soon(t);
}

void
stream_shut(struct stream *s)
{
	release(&s->reader);
	release(&s->writer);
	if (s->io->gatherer == s) {
		s->io->gatherer = NULL;
		s->io->gathered = 0;
	}
	if (s->io->borrower == s)
		s->io->borrower = NULL;
	else if (s->io->borrower)
		settle(s->io); /* lingering receives, into the same buffer */
	if (s->fd.fd >= 0 && (s->eof || s->error || s->abortive))
		loop_close_fd(&s->fd);
	else if (s->fd.fd >= 0)
		linger_start(&s->io->lingers, loop_release_fd(&s->fd));
	buf_free(&s->in);
	buf_free(&s->out);
	buf_free(&s->pushed);
	s->pushing = false;
	charge(s);
	s->lent_len = 0;
	s->scanned = 0;
	s->closed = true;
}

void
stream_interrupt(struct stream *s)
{
	if (!s->reader || !s->in_op.fd)
		return;
	loop_cancel(&s->in_op);
	s->interrupted = true;
	release(&s->reader);
}

void
stream_drop(struct stream *s)
{
	s->abortive = true; /* no shutdown(2), which would be the copy's as well */
	stream_shut(s);
}

void
stream_free(struct stream *s)
{
	stream_shut(s);
	s->serial++;
	s->open = false;
	if (s->more)
		pool_give(&s->io->mores, s->more);
	pool_give(&s->io->streams, s);
}

void
stream_drop_kept(struct stream *s, size_t n)
{
	buf_drop(&s->in, n);
	charge(s);
}

void
stream_leave_unread(struct stream *s)
{
	if (s->io->borrower != s)
		return;
	s->io->borrower = NULL;
	s->lent_len = 0;
}

void
stream_lend(struct stream *s, const char *p, size_t n)
{
	if (s->io->borrower)
		settle(s->io);
	s->lent = p;
	s->lent_len = n;
	s->io->borrower = s;
}

ssize_t
stream_fill(struct stream *s)
{
	const char *p;
	ssize_t n;

	if (s->io->borrower)
		settle(s->io);
	if (s->lost)
		return -ENOMEM;
	if (s->eof)
		return 0;
	if (s->fills >= FILLS) {
		s->fills = 0;
		return -EAGAIN;
	}
	if (!may_keep(s, &s->in, s->receive_max))
		return -ENOMEM; /* before anything is received, and lost */
	n = loop_recv(&s->fd, &s->in_op, s->receive_max, &p);
	if (n == 0)
		s->eof = true;
	if (n <= 0)
		return n;
	s->fills++;
	s->active = loop_now(s->fd.loop);
	count_add(&s->io->bytes_in, (uint64_t)n);
	if (buf_len(&s->in) == 0) {
		stream_lend(s, p, (size_t)n);
		return n;
	}
	if (keep(s, &s->in, p, (size_t)n))
		return n;
	s->lost = true;
	return -ENOMEM;
}

void
stream_flush(struct stream *s)
{
	struct io *io = s->io;
	size_t n = io->gathered;
	ssize_t sent = 0;

	if (io->gatherer != s)
		return;
	io->gatherer = NULL;
	io->gathered = 0;
	if (s->error || n == 0)
		return;
	if (!s->datagram && buf_len(&s->out) == 0) {
		s->sends++;
		sent = loop_send(&s->fd, &s->out_op, io->gather, n);
		if (sent == -EINPROGRESS)
			sent = 0;
		if (sent < 0) {
			s->error = (int)-sent;
			return;
		}
		s->active = loop_now(s->fd.loop);
		count_add(&io->bytes_out, (uint64_t)sent);
		if ((size_t)sent == n)
			return;
	}
	if (!keep(s, &s->out, io->gather + sent, n - (size_t)sent)) {
		s->error = ENOMEM;
		return;
	}
	if (!s->datagram && !s->out_op.fd)
		push_out(s);
}

size_t
stream_reply(struct stream *s, const char **p)
{
	if (s->io->gatherer == s && buf_len(&s->out) == 0) {
		*p = s->io->gather;
		return s->io->gathered;
	}
	stream_flush(s);
	*p = buf_data(&s->out);
	return buf_len(&s->out);
}

void
stream_replied(struct stream *s)
{
	if (s->io->gatherer == s) {
		s->io->gatherer = NULL;
		s->io->gathered = 0;
	}
	buf_free(&s->out);
	charge(s);
}

size_t
stream_unsent(const struct stream *s)
{
	return buf_len(&s->out) + (s->io->gatherer == s ? s->io->gathered : 0);
}

static ssize_t
collect(struct stream *s, const char *p, size_t n)
{
	struct io *io = s->io;

	/* What has been kept at each wait of the task must go before there is more. */
	if (!s->datagram && buf_len(&s->out) >= STREAM_GATHER)
		return -EINPROGRESS;
	if (io->gatherer != s) {
		if (io->gatherer)
			stream_flush(io->gatherer);
		io->gatherer = s;
	}
	if (io->gathered + n > s->collect_max || io->gathered + n > STREAM_GATHER) {
		stream_flush(s);
		if (s->error)
			return -s->error;
		if (!s->datagram && buf_len(&s->out) > 0)
			return -EINPROGRESS; /* the peer is slow: wait before keeping more
					      */
		io->gatherer = s;
	}
	memcpy(io->gather + io->gathered, p, n);
	io->gathered += n;
	return (ssize_t)n;
}

/* The stream's own task, or one beside it: these cannot end and leave themselves behind as
 * the reader or writer. */
static bool
is_own(const struct stream *s, const struct task *t)
{
	return s->task == t || (t->main && s->task == t->main);
}

void
stream_forget(struct stream *s, const struct task *t)
{
	if (s->reader == t)
		s->reader = NULL;
	if (s->writer == t)
		s->writer = NULL;
}

int
stream_may_write(struct stream *s)
{
	struct task *t = s->io->sched->current;

	if (s->writer == t)
		s->writer = NULL; /* back from a yield */
	if (s->writer)
		return -EINPROGRESS;
	return s->sends >= STREAM_SENDS && is_own(s, t) ? -EAGAIN : 0;
}

ssize_t
stream_write(struct stream *s, const char *p, size_t n)
{
	ssize_t sent = stream_may_write(s);

	if (s->error)
		return -s->error;
	if (sent < 0)
		return sent;
	if (n < STREAM_DIRECT && n <= s->collect_max)
		return collect(s, p, n);
	stream_flush(s);
	if (s->error)
		return -s->error;
	if (s->datagram)
		return keep(s, &s->out, p, n) ? (ssize_t)n : -ENOMEM;
	if (buf_len(&s->out) > 0)
		return -EINPROGRESS;
	s->sends++;
	sent = loop_send(&s->fd, &s->out_op, p, n);
	if (sent > 0) {
		s->active = loop_now(s->fd.loop);
		count_add(&s->io->bytes_out, (uint64_t)sent);
	} else if (sent < 0 && sent != -EINPROGRESS)
		s->error = (int)-sent;
	return sent;
}

/* Whether some task is in the middle of a write: bytes from its own place come next. */
static bool
is_writing(const struct stream *s)
{
	return s->writer != NULL;
}

void
stream_let_pushed(struct stream *s)
{
	struct buf b = s->pushed;

	if (!s->pushing || is_writing(s))
		return;
	s->pushing = false;
	s->pushed = (struct buf){0};
	stream_flush(s);
	if (s->error)
		buf_free(&b);
	else if (buf_len(&s->out) == 0)
		s->out = b;
	else if (!buf_put(&s->out, buf_data(&b), buf_len(&b)))
		s->error = ENOMEM;
	if (s->out.at != b.at)
		buf_free(&b);
	charge(s);
	if (!s->error && !s->out_op.fd)
		push_out(s);
}

int
stream_push(struct stream *s, const char *p, size_t n)
{
	if (s->datagram || s->closed)
		return -EPIPE;
	if (s->error)
		return -s->error;
	if (stream_unsent(s) + buf_len(&s->pushed) + n > STREAM_PUSHED)
		return -ENOBUFS;
	if (n == 0)
		return 0;
	if (!keep(s, &s->pushed, p, n))
		return -ENOMEM;
	s->pushing = true;
	stream_let_pushed(s);
	return -s->error;
}

void
stream_reset(struct stream *s)
{
	const struct linger at_once = {.l_onoff = 1};

	if (s->fd.fd >= 0)
		(void)setsockopt(s->fd.fd, SOL_SOCKET, SO_LINGER, &at_once,
				 sizeof(at_once));
	s->abortive = true;
	stream_shut(s);
}

static int64_t
deadline_of(const struct stream *s)
{
	int64_t now;

	if (s->timeout == CLOCK_NEVER)
		return CLOCK_NEVER;
	now = clock_now();
	return s->timeout < CLOCK_NEVER - now ? now + s->timeout : CLOCK_NEVER;
}

static void
detach_reader(void *arg)
{
	struct stream *s = arg;

	s->reader = NULL;
	loop_cancel(&s->in_op);
}

static void
detach_writer(void *arg)
{
	struct stream *s = arg;

	s->writer = NULL;
	/* What the stream itself has kept goes on being sent.  Else a write from its own
	 * place ends in the middle: nothing sensible can follow it. */
	if (buf_len(&s->out) == 0) {
		loop_cancel(&s->out_op);
		s->error = ECANCELED;
	}
}

void
stream_refuse_reader(lua_State *L, struct stream *s)
{
	if (s->reader == s->io->sched->current)
		s->reader = NULL; /* back from a yield */
	else
		luaL_error(L, "another task is reading from this connection: only one can "
			      "at a time");
}

int
stream_park_in(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	stream_check_reader(L, s);
	s->fills = s->sends = 0;
	s->reader = t;
	s->fd.hint[0] = t;
	s->fd.hint[1] = t->co;
	return task_wait(t, L, deadline_of(s), detach_reader, s, ctx, k);
}

int
stream_park_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	if (s->writer && s->writer != t)
		return luaL_error(L, "another task is writing to this connection: only one "
				     "can at a time");
	s->fills = s->sends = 0;
	s->writer = t;
	return task_wait(t, L, deadline_of(s), detach_writer, s, ctx, k);
}

static void
on_end(struct loop_fd *f)
{
	struct stream *s = LIST_ENTRY(f, struct stream, fd);
	struct task *t = s->reader;

	f->at_end = NULL;
	s->reader = NULL;
	if (t)
		task_wake(t);
}

static void
detach_end(void *arg)
{
	struct stream *s = arg;

	s->fd.at_end = NULL;
	s->reader = NULL;
}

static void
on_lost(struct loop_fd *f)
{
	struct stream *s = LIST_ENTRY(f, struct stream, fd);

	f->at_end = NULL;
	if (s->task)
		task_cancel(s->task, "the peer has ended the connection");
}

bool
stream_need_peer(struct stream *s, bool need)
{
	bool there = !s->eof && !s->fd.ended;

	s->fd.at_end = need && there ? on_lost : NULL;
	return there;
}

int
stream_park_end(lua_State *L, struct stream *s, int64_t deadline, lua_KContext ctx,
		lua_KFunction k)
{
	stream_check_reader(L, s);
	s->reader = task_current(L);
	s->fd.at_end = on_end;
	return task_park(L, deadline, detach_end, s, ctx, k);
}

int
stream_yield_in(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	s->reader = is_own(s, t) ? t : NULL;
	return task_yield(L, ctx, k);
}

int
stream_yield_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	s->sends = 0;
	s->writer = task_current(L);
	return task_yield(L, ctx, k);
}
