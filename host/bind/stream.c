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

const struct stream_limits stream_defaults = {.receive_max = 64 * 1024,
					      .collect_max = STREAM_GATHER,
					      .max_line = STREAM_MAX_LINE,
					      .timeout = CLOCK_NEVER};

/* Receives of one task in a row before others get a turn; and so much unread is the
 * beginning of bulk. */
enum { FILLS = 16, BULK = 32 * 1024 };

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
	size_t now = charge_of(&s->in) + charge_of(&s->out) +
		     (s->more ? charge_of(&s->more->pushed) : 0);
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
	if (!keep(s, &s->in, io->lent, io->lent_len))
		s->lost = true; /* the next read reports it */
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
on_readable(struct stream *s)
{
	struct task *t = stream_reader(s);

	s->fd.hint[0] = NULL;
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
		n = loop_send(&s->fd, LOOP_OWN, buf_data(&s->out), buf_len(&s->out));
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
	t = stream_writer(s);
	(void)stream_set_writer(s, NULL);
	if (t)
		task_wake(t);
	if (s->serial == serial && s->pushing)
		stream_let_pushed(s);
}

static void
on_end(struct stream *s)
{
	struct task *t = stream_reader(s);

	s->fd.wants_end = false;
	if (!s->parked_end) {
		if (s->task)
			task_cancel(s->task, "the peer has ended the connection");
		return;
	}
	s->parked_end = false;
	s->fd.hint[0] = NULL;
	if (t)
		task_wake(t);
}

static void
on_told(struct loop_fd *f, enum loop_news news)
{
	struct stream *s = LIST_ENTRY(f, struct stream, fd);

	if (news == LOOP_IN)
		on_readable(s);
	else if (news == LOOP_OUT)
		push_out(s);
	else if (news == LOOP_END)
		on_end(s);
	else if (s->task) /* the handler waits for something else */
		task_cancel(s->task, "the peer is gone");
}

static int
register_fd(struct stream *s, int fd, bool likely)
{
	int rc = loop_add(s->io->sched->loop, &s->fd, fd,
			  LOOP_STREAM | (likely ? LOOP_LIKELY : 0));

	if (rc < 0)
		close(fd);
	s->fd.told = on_told;
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
	s->limits = &stream_defaults;
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
stream_set_writer(struct stream *s, struct task *t)
{
	if (!s->more && (!t || !need_more(s)))
		return t ? -ENOMEM : 0;
	s->more->writer = t;
	return 0;
}

struct stream_limits *
stream_own_limits(struct stream *s)
{
	if (!need_more(s))
		return NULL;
	if (s->limits != &s->more->limits) {
		s->more->limits = *s->limits;
		s->limits = &s->more->limits;
	}
	return &s->more->limits;
}

int
stream_give(struct stream *s)
{
	const char *p;
	size_t n;

	stream_view(s, &p, &n);
	if (s->fd.fd < 0 || n > 0 || s->eof || stream_reader(s) || stream_writer(s))
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
	s->fd.hint[0] = NULL;
	(void)stream_set_writer(s, NULL);
	s->fd.in = s->fd.out = NULL;
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
	keep->fd.told = on_told;
	return rc;
}

/* Another request's task may wait here, by an object that it got hold of: it finds
 * the stream closed, or over. */
static void
release_reader(struct stream *s)
{
	struct task *t = stream_reader(s);

	s->fd.hint[0] = NULL;
	if (t)
		task_wake_soon(t);
}

static void
release_writer(struct stream *s)
{
	struct task *t = stream_writer(s);

	(void)stream_set_writer(s, NULL);
	if (t)
		task_wake_soon(t);
}

void
stream_shut(struct stream *s)
{
	release_reader(s);
	release_writer(s);
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
		linger_start(&s->io->lingers, loop_forget_fd(&s->fd));
	buf_free(&s->in);
	buf_free(&s->out);
	if (s->more)
		buf_free(&s->more->pushed);
	s->pushing = false;
	charge(s);
	s->scanned = 0;
	s->closed = true;
}

void
stream_interrupt(struct stream *s)
{
	if (!stream_reader(s) || !loop_is_pending_in(&s->fd))
		return;
	loop_cancel_in(&s->fd);
	s->interrupted = true;
	release_reader(s);
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
}

void
stream_lend(struct stream *s, const char *p, size_t n)
{
	if (s->io->borrower)
		settle(s->io);
	s->io->lent = p;
	s->io->lent_len = n;
	s->io->borrower = s;
}

/* Bulk goes to where it will be anyway, and not through the loop's buffer. */
static RARE ssize_t
receive_bulk(struct stream *s, const char **p)
{
	struct loop *loop = s->fd.loop;
	char *room = buf_room(&s->in, loop_buffer_size()), *own;
	ssize_t n;

	if (!room)
		return -ENOMEM;
	own = loop_swap_buffer(loop, room);
	n = loop_recv(&s->fd, LOOP_OWN, s->limits->receive_max, p);
	loop_swap_buffer(loop, own);
	if (n > 0 && *p == room) {
		buf_filled(&s->in, (size_t)n);
		*p = NULL;
	}
	charge(s);
	return n;
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
	if (!may_keep(s, &s->in, s->limits->receive_max))
		return -ENOMEM; /* before anything is received, and lost */
	if (buf_len(&s->in) >= BULK && may_keep(s, &s->in, loop_buffer_size()))
		n = receive_bulk(s, &p);
	else
		n = loop_recv(&s->fd, LOOP_OWN, s->limits->receive_max, &p);
	if (n == 0)
		s->eof = true;
	if (n <= 0)
		return n;
	s->fills++;
	s->active = loop_now(s->fd.loop);
	count_add(&s->io->bytes_in, (uint64_t)n);
	if (!p)
		return n;
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
		sent = loop_send(&s->fd, LOOP_OWN, io->gather, n);
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
	if (!s->datagram && !loop_is_pending_out(&s->fd))
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
	if (io->gathered + n > s->limits->collect_max || io->gathered + n > STREAM_GATHER) {
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
	return s->task == t || (s->task && s->task == task_main(t));
}

void
stream_forget(struct stream *s, const struct task *t)
{
	if (stream_reader(s) == t)
		s->fd.hint[0] = NULL;
	if (stream_writer(s) == t)
		(void)stream_set_writer(s, NULL);
}

int
stream_may_write(struct stream *s)
{
	struct task *t = s->io->sched->current;

	if (stream_writer(s) == t)
		(void)stream_set_writer(s, NULL); /* back from a yield */
	if (stream_writer(s))
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
	if (n < STREAM_DIRECT && n <= s->limits->collect_max)
		return collect(s, p, n);
	stream_flush(s);
	if (s->error)
		return -s->error;
	if (s->datagram)
		return keep(s, &s->out, p, n) ? (ssize_t)n : -ENOMEM;
	if (buf_len(&s->out) > 0)
		return -EINPROGRESS;
	s->sends++;
	sent = loop_send(&s->fd, LOOP_OWN, p, n);
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
	return stream_writer(s) != NULL;
}

void
stream_let_pushed(struct stream *s)
{
	struct buf b;

	if (!s->pushing || is_writing(s))
		return;
	b = s->more->pushed;
	s->pushing = false;
	s->more->pushed = (struct buf){0};
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
	if (!s->error && !loop_is_pending_out(&s->fd))
		push_out(s);
}

int
stream_push(struct stream *s, const char *p, size_t n)
{
	if (s->datagram || s->closed)
		return -EPIPE;
	if (s->error)
		return -s->error;
	if (!need_more(s))
		return -ENOMEM;
	if (stream_unsent(s) + buf_len(&s->more->pushed) + n > STREAM_PUSHED)
		return -ENOBUFS;
	if (n == 0)
		return 0;
	if (!keep(s, &s->more->pushed, p, n))
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

	if (s->limits->timeout == CLOCK_NEVER)
		return CLOCK_NEVER;
	now = clock_now();
	return s->limits->timeout < CLOCK_NEVER - now ? now + s->limits->timeout
						      : CLOCK_NEVER;
}

static void
detach_reader(void *arg)
{
	struct stream *s = arg;

	s->fd.hint[0] = NULL;
	loop_cancel_in(&s->fd);
}

static void
detach_writer(void *arg)
{
	struct stream *s = arg;

	(void)stream_set_writer(s, NULL);
	/* What the stream itself has kept goes on being sent.  Else a write from its own
	 * place ends in the middle: nothing sensible can follow it. */
	if (buf_len(&s->out) == 0) {
		loop_cancel_out(&s->fd);
		s->error = ECANCELED;
	}
}

void
stream_refuse_reader(lua_State *L, struct stream *s)
{
	if (stream_reader(s) == s->io->sched->current)
		s->fd.hint[0] = NULL; /* back from a yield */
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
	s->fd.hint[0] = t;
	s->fd.hint[1] = t->co;
	return task_wait(t, L, deadline_of(s), detach_reader, s, ctx, k);
}

/* In the middle of a write, after which nothing sensible can follow if this fails. */
static void
become_writer(lua_State *L, struct stream *s, struct task *t)
{
	if (stream_set_writer(s, t) == 0)
		return;
	if (!s->datagram && buf_len(&s->out) == 0)
		loop_cancel_out(&s->fd);
	s->error = ENOMEM;
	luaL_error(L, "not enough memory");
}

int
stream_park_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	if (stream_writer(s) && stream_writer(s) != t)
		return luaL_error(L, "another task is writing to this connection: only one "
				     "can at a time");
	s->fills = s->sends = 0;
	become_writer(L, s, t);
	return task_wait(t, L, deadline_of(s), detach_writer, s, ctx, k);
}

static void
detach_end(void *arg)
{
	struct stream *s = arg;

	s->fd.wants_end = s->parked_end = false;
	s->fd.hint[0] = NULL;
}

bool
stream_need_peer(struct stream *s, bool need)
{
	bool there = !s->eof && !s->fd.ended;

	s->fd.wants_end = need && there;
	s->parked_end = false;
	return there;
}

int
stream_park_end(lua_State *L, struct stream *s, int64_t deadline, lua_KContext ctx,
		lua_KFunction k)
{
	stream_check_reader(L, s);
	s->fd.hint[0] = task_current(L);
	s->fd.wants_end = s->parked_end = true;
	return task_park(L, deadline, detach_end, s, ctx, k);
}

int
stream_yield_in(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	s->fd.hint[0] = is_own(s, t) ? t : NULL;
	return task_yield(L, ctx, k);
}

int
stream_yield_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k)
{
	s->sends = 0;
	become_writer(L, s, task_current(L));
	return task_yield(L, ctx, k);
}
