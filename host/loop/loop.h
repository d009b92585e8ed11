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

/* Read only for callers, but for hangup, at_end and hint, which may be set at any time. */
struct loop_fd {
	struct loop *loop;
	struct loop_op *in, *out;           /* pending */
	void (*hangup)(struct loop_fd *fd); /* the peer is gone and no operation is there to
					       learn of it */
	void (*at_end)(struct loop_fd *f);  /* the peer's end has come, be it behind
					       unread data; not for a reset */
	int fd;
	unsigned armed;  /* the backend's own */
	uint32_t since;  /* the backend's own: when it began to wait, about in ms */
	bool readable;   /* a receive is worth trying */
	bool ended;      /* the peer's end or an error is behind the data */
	uint8_t crowds;  /* the backend's own: receives in a row that gave much */
	bool shared : 1; /* LOOP_SHARED */
	bool level : 1;  /* the backend's own: a stream that is watched level-triggered */
	bool edge : 1;   /* registered edge-triggered: a stream that keeps to the rules */
	bool stream : 1; /* io_uring's: a stream that it was given */
	struct list doubts;  /* the backend's own */
	struct slot *slot;   /* io_uring's */
	const void *hint[2]; /* what the receiver's done() will need first, to be fetched
				into the cache; or NULL; may be set at any time */
};

/* Called once, before the loop waits next. */
struct loop_task {
	struct list link;
	void (*run)(struct loop_task *task);
};

struct loop_timer {
	int64_t when;
	size_t slot; /* 0: not set */
	void (*fire)(struct loop_timer *timer);
};

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
};

/* Registers a non-blocking descriptor for its life; f owns it from here on.
 * Errors: -EPERM (not a descriptor that can be waited for), -ENOMEM, -ENOSPC. */
int loop_add(struct loop *loop, struct loop_fd *f, int fd, unsigned flags);

/* Forgets the pending operations without calling them, and closes the descriptor. */
void loop_close_fd(struct loop_fd *f);

/* The same, but hands the descriptor back to the caller. */
int loop_release_fd(struct loop_fd *f);

/* Of a LOOP_SHARED descriptor: others are woken, not this loop, until an operation begins
 * again. */
void loop_stand_back(struct loop_fd *f);

/* Forgets a pending operation; harmless when it is not pending. */
void loop_cancel(struct loop_op *op);

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

/* Makes room for one more timer, so that setting it cannot fail.  Errors: -ENOMEM. */
int loop_timer_init(struct loop *loop, struct loop_timer *t,
		    void (*fire)(struct loop_timer *));

/* Sets, or moves, the deadline; CLOCK_NEVER clears it. */
void loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t when);

/* Clears the timer and gives its room back. */
void loop_timer_done(struct loop *loop, struct loop_timer *t);

/* Descriptors and timers that are registered now. */
size_t loop_live_fds(const struct loop *loop);
size_t loop_live_timers(const struct loop *loop);

#endif
