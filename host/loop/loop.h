/* loop.h - one thread's operations on descriptors, and its deadlines.
 *
 * An operation is begun by its function.  Either it completes at once and the
 * function returns the result, or it returns -EINPROGRESS and stays pending:
 * op->done(op) is then called once, and the same function, called again,
 * collects the result (or stays pending once more).  A descriptor has room for
 * one pending operation in each direction.
 *
 * A send is tried at once.  A receive is tried only when the descriptor is
 * likely to hold data; otherwise it waits without a system call.
 *
 * Ownership: the caller owns every struct below and may free it once
 * loop_close_fd() (or loop_release_fd()), loop_cancel() or loop_timer_done()
 * has returned, also from inside a callback.  All functions but loop_post()
 * are for the loop's own thread.  Deadlines are clock.h's.  Failing functions
 * return -errno. */
#ifndef HOST_LOOP_LOOP_H
#define HOST_LOOP_LOOP_H

#include "base/list.h"
#include "loop/busy.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct addr;
struct slot;
struct loop;
struct loop_fd;

struct loop_op {
	void (*done)(struct loop_op *op);
	struct loop_fd *fd; /* while pending, else NULL */
};

/* What a descriptor's own function is told. */
enum loop_news {
	LOOP_IN, /* an operation that was begun with LOOP_OWN is complete */
	LOOP_OUT,
	LOOP_GONE, /* the peer is gone and no operation is there to learn of it */
	LOOP_END,  /* for those with wants_end: the peer's end has come, be it behind unread
		      data; not for a reset */
};

/* Read only for callers, but for told, wants_end and hint, which may be set at any time. */
struct loop_fd {
	struct loop *loop;
	struct loop_op *in, *out;                             /* pending */
	void (*told)(struct loop_fd *f, enum loop_news news); /* or NULL */
	int fd;
	unsigned armed; /* the backend's own */
	uint32_t since; /* doubts.h's: when it began to wait, about in ms */
	bool readable;  /* a receive is worth trying */
	bool ended;     /* the peer's end or an error is behind the data */
	bool wants_end : 1;
	bool shared : 1;  /* LOOP_SHARED */
	bool level : 1;   /* the backend's own: a stream that is watched level-triggered */
	bool edge : 1;    /* registered edge-triggered: a stream that keeps to the rules */
	bool stays : 1;   /* LOOP_STAYS */
	bool signals : 1; /* LOOP_SIGNALS */
	bool lost : 1;    /* the backend's own: it cannot be waited for */
	bool failed : 1;  /* the backend's own: an error has come */
	bool reset : 1;   /* the backend's own: io_uring has told of an error */
	unsigned char polls : 2; /* epoll's: waits for it alone, so far */
	unsigned char
	    waits : 5;      /* io_uring's: how often it has waited for data, at first */
	struct list doubts; /* in loop.doubts, or among epoll's fresh streams */
	struct slot *slot;  /* io_uring's */
	void *hint[2];      /* what the receiver's done() will need first, to be fetched
			       into the cache; or NULL; may be set at any time */
};

/* In place of an operation: the descriptor's own, for there are two for each idle
 * connection, and done() is told() then. */
extern const struct loop_op loop_own;
#define LOOP_OWN ((struct loop_op *)&loop_own)

static inline bool
loop_is_pending_in(const struct loop_fd *f)
{
	return f->in;
}

static inline bool
loop_is_pending_out(const struct loop_fd *f)
{
	return f->out;
}

/* Called once, before the loop waits next. */
struct loop_task {
	struct list link;
	void (*run)(struct loop_task *task);
};

/* One for each idle connection, not set: it is kept small. */
struct loop_timer {
	uint32_t slot : 24; /* 0: not set */
	uint32_t kind : 8;  /* the loop's own; 0: not initialized */
};

enum { LOOP_TIMERS = (1 << 24) - 1, LOOP_TIMER_KINDS = 64 };

/* Errors: -EMFILE, -ENFILE, -ENOMEM. */
int loop_new(struct loop **out);

/* Frees the loop; its descriptors and timers must be gone. */
void loop_free(struct loop *loop);

/* How a loop waits.  A new one is as all zeros say. */
struct loop_tuning {
	enum loop_kind { LOOP_EPOLL, LOOP_AUTO, LOOP_URING } kind; /* see uring.h */
	int64_t busy_poll; /* ns of polling before a sleep, or BUSY_AUTO; 0: none */
};

/* To be called once, on the loop's thread, before it has streams.  Errors: those of
 * uring_attach(): it runs on epoll then. */
int loop_tune(struct loop *loop, const struct loop_tuning *tuning);

/* The time at the start of this turn. */
int64_t loop_now(const struct loop *loop);

/* Reads the clock again: for a caller that has worked long since the turn began. */
int64_t loop_refresh(struct loop *loop);

/* Waits at most until `until` for events and handles them.  Errors: none that a caller can
 * mend. */
void loop_turn(struct loop *loop, int64_t until);

/* Has fn(arg) called on the loop's thread, soon.  Any thread.  Errors: -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* For a loop that is waited for from outside: the descriptor that becomes readable when
 * loop_step() has something to do; it is the loop's.  It takes no posts any more.  Errors:
 * -EMFILE, -ENFILE, -ENOMEM. */
int loop_embed(struct loop *loop);

/* Handles what is due, never waits, and has the descriptor tell when more is.  True: more
 * is due already, and the descriptor need not say so. */
bool loop_step(struct loop *loop);

/* In a forked child: forgets the parent's descriptors and timers without a trace in the
 * parent.  The descriptors stay open; closing them is the caller's.  Errors: -EMFILE,
 * -ENFILE: the loop is of no more use. */
int loop_reborn(struct loop *loop);

enum loop_flags {
	LOOP_LIKELY = 1, /* a receive may be tried before the first event */
	LOOP_STREAM = 2, /* a connected stream socket, read by loop_recv() alone */
	LOOP_SHARED = 4, /* a listener that other processes accept on, too */
	LOOP_STAYS = 8,  /* the same, in a process that serves one connection at a time: the
			    first one that waits is woken; at most one for a loop */
	LOOP_SIGNALS = 16, /* only a signal handler makes it readable */
};

/* Registers a non-blocking descriptor for its life; f owns it from here on.
 * Errors: -EPERM (not a descriptor that can be waited for), -ENOMEM, -ENOSPC; of a stream
 * they may come later, as -ENOSPC of an operation that would have to wait. */
int loop_add(struct loop *loop, struct loop_fd *f, int fd, unsigned flags);

/* Forgets the pending operations without calling them, and closes the descriptor.  A
 * stream's connection may outlast that until the loop waits again: see loop_forget_fd(). */
void loop_close_fd(struct loop_fd *f);

/* The same, but hands the descriptor back to the caller, who will use it.  From a stream
 * that receives, what comes in that moment may be lost. */
int loop_release_fd(struct loop_fd *f);

/* The same at less cost, for one that will only be closed: until the loop waits again it
 * may receive what comes, and keep the connection from ending. */
int loop_forget_fd(struct loop_fd *f);

/* Of a LOOP_SHARED descriptor: others are woken, not this loop, until an operation begins
 * again. */
void loop_stand_back(struct loop_fd *f);

/* Forgets a pending operation; harmless when it is not pending. */
void loop_cancel(struct loop_op *op);
void loop_cancel_in(struct loop_fd *f);
void loop_cancel_out(struct loop_fd *f);

/* A new descriptor, non-blocking and CLOEXEC, and who is behind it. */
int loop_accept(struct loop_fd *f, struct loop_op *op, struct addr *peer);

/* At most max bytes into the loop's one buffer, valid until the next receive on
 * this loop.  0: end of stream. */
ssize_t loop_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data);

/* Some of the n bytes, at least one. */
ssize_t loop_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n);

/* How many datagrams were received or sent, at least one. */
int loop_recvmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n);
int loop_sendmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n);

/* 0 once connected.  To collect the result, call again with to NULL.  Errors: connect(2)'s.
 */
int loop_connect(struct loop_fd *f, struct loop_op *op, const struct addr *to);

/* Waits until f can be read (or written).  0: it can; done() says the same. */
int loop_poll(struct loop_fd *f, struct loop_op *op, bool out);

/* The size of the buffer that loop_recv() lends. */
size_t loop_buffer_size(void);

/* Has it lend another one of that size; returns the one before. */
char *loop_swap_buffer(struct loop *loop, char *buffer);

void loop_defer(struct loop *loop, struct loop_task *task);

/* Makes room for one more timer, so that setting it cannot fail.  Errors: -ENOMEM, also for
 * more than LOOP_TIMERS timers or LOOP_TIMER_KINDS functions. */
int loop_timer_init(struct loop *loop, struct loop_timer *t,
		    void (*fire)(struct loop_timer *));

/* Sets, or moves, the deadline; CLOCK_NEVER clears it. */
void loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t when);

/* When a timer that is set, or whose function is being called, fires. */
int64_t loop_timer_when(const struct loop *loop, const struct loop_timer *t);

/* Clears the timer and gives its room back. */
void loop_timer_done(struct loop *loop, struct loop_timer *t);

/* Descriptors and timers that are registered now. */
size_t loop_live_fds(const struct loop *loop);
size_t loop_live_timers(const struct loop *loop);

#endif
