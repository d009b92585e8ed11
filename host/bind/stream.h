/* stream.h - the bytes of one connection, or of one datagram, under rfile and wfile.
 *
 * A stream reads ahead into a buffer that exists only while bytes are in it, and
 * collects small writes in a buffer that all streams of an engine share: only the
 * task that runs now has bytes there, for they are sent when it waits or ends.
 * What the socket would not take is kept by the stream and sent as room appears.
 *
 * The server (or the socket object that made the connection) owns the stream and
 * closes it.  Structs come from a
 * pool: `serial` tells a stream from an earlier one at the same address.  Sizes
 * are bytes, times clock.h's, failing functions return -errno.  One engine, its
 * thread. */
#ifndef HOST_BIND_STREAM_H
#define HOST_BIND_STREAM_H

#include "base/buf.h"
#include "base/count.h"
#include "base/pool.h"
#include "base/rare.h"
#include "loop/linger.h"
#include "loop/loop.h"

#include <lua.h>
#include <stdint.h>
#include <string.h>

struct alloc;
struct dgram_from;
struct diary;
struct log;
struct sched;
struct task;

enum {
	STREAM_GATHER = 64 * 1024,   /* small writes collected before one send */
	STREAM_DIRECT = 4 * 1024,    /* a write of this size is sent from where it is */
	STREAM_MAX_LINE = 64 * 1024, /* the longest line or delimited part, unless told */
	STREAM_PUSHED = 16 << 20,    /* unsent bytes of stream_push(), and all others */
	STREAM_SENDS = 64,           /* of one task in a row before others get a turn */
	STREAM_SPARED = 256 * 1024,  /* a larger buffer counts as memory of the Lua state */
};

struct stream;

/* What the streams of an engine share.  Owned by the server floor. */
struct io {
	struct sched *sched;
	struct log *log; /* borrowed; NULL: no log */
	struct pool streams, mores;
	char *gather; /* STREAM_GATHER bytes */
	size_t gathered;
	struct stream *gatherer; /* whose bytes they are */
	/* Whose unread bytes are in a receive buffer, not its own; these. */
	struct stream *borrower;
	const char *lent;
	size_t lent_len; /* 0 without a borrower */
	counter bytes_in, bytes_out;
	struct stream *kept;    /* in a forked child: the only one that is its own */
	struct lingers lingers; /* connections closed here, not yet by the peer */
	bool journals;          /* may have a journal: see diary.h */
	struct diary *diary;    /* NULL: none yet */
};

enum stream_mode { STREAM_FULL, STREAM_LINE, STREAM_NO };

/* What all connections of a server have in common, unless the handler changes it.  Whoever
 * gives one to a stream keeps it in place while that is there. */
struct stream_limits {
	uint32_t receive_max; /* rbufsize */
	uint32_t collect_max; /* wbufsize */
	uint32_t max_line;
	int64_t timeout; /* of each operation, ns; CLOCK_NEVER: none */
};

extern const struct stream_limits stream_defaults;

/* What few streams need. */
struct stream_more {
	struct task *writer; /* who waits to write */
	struct buf pushed;   /* by others, to go behind the write that is under way */
	struct stream_limits limits; /* its own */
	struct alloc *payer; /* the memory of the state that large buffers count as, once */
	size_t charged;      /* there are any; and how much of it */
	uint64_t conn;       /* its number in the journal (diary.h); 0: none */
};

/* In the order in which a request needs the fields: there is one for
 * each idle connection, and it is kept small. */
struct stream {
	struct io *io;     /* the pool's, while the struct is there */
	struct task *task; /* whose connection it is; is cancelled when the peer is gone */
	uint32_t serial;
	uint32_t scanned;      /* of the unread bytes, searched in vain; at most max_line */
	uint16_t error;        /* a write failed with this errno: so will all others */
	uint8_t fills;         /* receives since the last wait */
	uint8_t sends;         /* sends since the last wait */
	bool closed;           /* by the handler; the descriptor is gone */
	bool eof;              /* nothing more will be received */
	uint8_t mode : 2;      /* enum stream_mode */
	bool open : 1;         /* between stream_new() and stream_free() */
	bool datagram : 1;     /* no descriptor: one datagram in, one out */
	bool pushing : 1;      /* more->pushed has bytes */
	bool parked_end : 1;   /* the reader waits for the peer's end */
	bool read_closed : 1;  /* rfile:close() */
	bool write_closed : 1; /* wfile:close() */
	bool lost : 1;         /* unread bytes were lost for want of memory */
	bool abortive : 1;     /* closing sends a reset: so_linger is 0 */
	bool interrupted : 1;  /* see stream_interrupt() */

	union {
		struct loop_fd fd; /* its hint[0] is who waits to read; fd.fd -1: none */
		const struct dgram_from *from; /* of a datagram, as `loop`; the request's */
	};
	int64_t active; /* when bytes last moved */
	const struct stream_limits *limits;
	struct buf in;            /* received, not yet read */
	struct buf out;           /* written, not yet sent; a datagram's reply */
	struct stream_more *more; /* NULL: none */
};

_Static_assert(sizeof(struct stream) <= 160, "an idle connection is small");

/* Who waits to read, or to write; NULL: nobody. */
static inline struct task *
stream_reader(const struct stream *s)
{
	return s->fd.hint[0];
}

static inline struct task *
stream_writer(const struct stream *s)
{
	return s->more ? s->more->writer : NULL;
}

/* Errors: -ENOMEM. */
int io_init(struct io *io, struct sched *sched, struct log *log);
void io_free(struct io *io);

/* In a forked child: forgets all streams but `keep`, which may be NULL, and has that on
 * the child's loop.  Errors: -ENOMEM, -ENOSPC. */
int io_reborn(struct io *io, struct stream *keep);

/* A stream on a connected, non-blocking descriptor, which it owns from here on;
 * fd -1: a datagram.  likely: data may be there already.  On failure fd is closed.
 * Errors: -ENOMEM, -ENOSPC. */
int stream_new(struct io *io, int fd, bool likely, struct stream **out);

/* Gives a datagram's stream, whose bytes are not asked for yet, a connection instead; fd
 * is closed on failure.  Errors: as stream_new(). */
int stream_open(struct stream *s, int fd);

/* Its number in the journal; 0: none.  Errors, of setting it: -ENOMEM. */
uint64_t stream_conn(const struct stream *s);
int stream_set_conn(struct stream *s, uint64_t conn);

/* Its limits, for the handler to change.  NULL: out of memory. */
struct stream_limits *stream_own_limits(struct stream *s);

/* Sets who waits to write.  Errors, but for NULL: -ENOMEM. */
int stream_set_writer(struct stream *s, struct task *t);

/* Hands the descriptor over to somebody else, who will use it: -1 if there is none, or if
 * received bytes would be lost. */
int stream_give(struct stream *s);

/* Closes a descriptor that somebody else has a copy of: the peer notices nothing. */
void stream_drop(struct stream *s);

/* Closes the descriptor and forgets all bytes; whoever waits finds the stream over. */
void stream_free(struct stream *s);

/* The unread bytes at hand.  They may be in a receive buffer; when the task has
 * run, or something else is received, what is left moves to the stream's own. */
static inline void
stream_view(const struct stream *s, const char **p, size_t *n)
{
	if (s->io->borrower == s) {
		*p = s->io->lent;
		*n = s->io->lent_len;
	} else {
		*p = buf_data(&s->in);
		*n = buf_len(&s->in);
	}
}

/* Unread bytes are at hand. */
static inline bool
stream_has(const struct stream *s)
{
	return s->io->borrower == s || buf_len(&s->in) > 0;
}

void stream_drop_kept(struct stream *s, size_t n); /* for the next one */

static inline void
stream_consume(struct stream *s, size_t n)
{
	struct io *io = s->io;

	s->scanned = 0;
	if (io->borrower == s) {
		io->lent += n;
		io->lent_len -= n;
		if (io->lent_len == 0)
			io->borrower = NULL;
	} else
		stream_drop_kept(s, n);
}

/* Nobody will read any more: what is unread in a receive buffer need not move. */
void stream_leave_unread(struct stream *s);

/* Gives a datagram's stream its bytes, which the caller keeps until the task has run. */
void stream_lend(struct stream *s, const char *p, size_t n);

/* Receives more.  Returns the count, 0 at the end, -EINPROGRESS (park by
 * stream_park_in()), -EAGAIN (others are due: yield, then call again). */
ssize_t stream_fill(struct stream *s);

/* May the running task write?  0, -EINPROGRESS (another task's write is under way: park
 * by stream_park_out(), which says so) or -EAGAIN (others are due: stream_yield_out()). */
int stream_may_write(struct stream *s);

/* Where n bytes can simply be added to what is collected; NULL: they cannot.  Once they
 * are there, stream_placed(). */
static inline char *
stream_place(struct stream *s, size_t n)
{
	struct io *io = s->io;

	if (n >= STREAM_DIRECT || io->gathered + n > s->limits->collect_max ||
	    s->mode != STREAM_FULL || stream_writer(s) || s->pushing || s->error ||
	    s->sends >= STREAM_SENDS || buf_len(&s->out) > 0)
		return NULL;
	if (io->gatherer != s && io->gatherer)
		return NULL;
	return io->gather + io->gathered;
}

static inline void
stream_placed(struct stream *s, size_t n)
{
	s->io->gatherer = s;
	s->io->gathered += n;
}

/* Takes all of n bytes if they can simply be added to what is collected; false: see
 * stream_write(). */
static inline bool
stream_collect(struct stream *s, const char *p, size_t n)
{
	char *to = stream_place(s, n);

	if (!to)
		return false;
	memcpy(to, p, n);
	stream_placed(s, n);
	return true;
}

/* Takes some of n bytes: returns how many, or as stream_may_write(). */
ssize_t stream_write(struct stream *s, const char *p, size_t n);

/* Sends what was collected, as far as the socket takes it; errors are kept in s->error. */
void stream_flush(struct stream *s);

/* All that was written to a datagram's stream; valid until the task has run. */
size_t stream_reply(struct stream *s, const char **p);

/* The reply has gone. */
void stream_replied(struct stream *s);

/* Bytes written and not yet sent. */
size_t stream_unsent(const struct stream *s);

/* Puts bytes of others on a connection without waiting: the socket takes what it can, the
 * rest follows as room appears.  They go behind a write that is under way, never into it.
 * Errors: -EPIPE (it is closed, or no connection), -ENOBUFS (more than STREAM_PUSHED would
 * be unsent), -ENOMEM, and those of sending; nothing was taken then. */
int stream_push(struct stream *s, const char *p, size_t n);

/* What was pushed goes before what is written now, unless that is under way. */
void stream_let_pushed(struct stream *s);

/* Ends a connection by a reset, whatever is unread or unsent. */
void stream_reset(struct stream *s);

/* Ends receiving and sending; what was not sent is lost.  The peer can still read all
 * that the kernel has: see linger.h. */
void stream_shut(struct stream *s);

/* Before a read, and before each piece of it: raises if another task is in the middle of
 * one, for neither would get what it wants. */
RARE void stream_refuse_reader(lua_State *L, struct stream *s); /* for the next one */

static inline void
stream_check_reader(lua_State *L, struct stream *s)
{
	if (stream_reader(s))
		stream_refuse_reader(L, s);
}

/* Wakes the task that waits for more to be received, which finds s->interrupted set;
 * harmless when none does. */
void stream_interrupt(struct stream *s);

/* A task beside the stream's own has ended, maybe between two pieces of a read or write. */
void stream_forget(struct stream *s, const struct task *t);

/* Park the running task until the stream can go on, or its timeout. */
int stream_park_in(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k);
int stream_park_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k);

/* Parks the running task until the peer's end is there, received or not, or a deadline. */
int stream_park_end(lua_State *L, struct stream *s, int64_t deadline, lua_KContext ctx,
		    lua_KFunction k);

/* From now on the peer's end, received or not, cancels the stream's task, as a reset does;
 * or not any more.  False: it is there already, and cancels nothing.  Not while a task is
 * parked for it. */
bool stream_need_peer(struct stream *s, bool need);

/* Let others run in the middle of a read or write, which stays in one piece. */
int stream_yield_in(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k);
int stream_yield_out(lua_State *L, struct stream *s, lua_KContext ctx, lua_KFunction k);

#endif
