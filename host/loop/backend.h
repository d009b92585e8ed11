/* backend.h - what a loop needs from the kernel's event interface.
 *
 * Private to this folder: loop.c calls it, a backend implements it.  Functions
 * are those of loop.h with the same names; a backend completes operations by
 * loop_complete_in() and loop_complete_out(). */
#ifndef HOST_LOOP_BACKEND_H
#define HOST_LOOP_BACKEND_H

#include "base/list.h"
#include "loop/busy.h"
#include "loop/doubts.h"
#include "loop/heap.h"
#include "loop/loop.h"

#include <pthread.h>

struct backend {
	const char *name;
	int (*open)(struct loop *loop);
	void (*close)(struct loop *loop);
	/* In a forked child: as if just opened, without a word to the parent's kernel side.
	 */
	int (*reborn)(struct loop *loop);
	int (*fd)(
	    const struct loop *loop); /* that is readable when wait() would not wait */
	int (*add)(struct loop_fd *f);
	/* The kernel may keep hold of it for a moment. */
	void (*remove)(struct loop_fd *f);
	/* Until this has returned.  NULL: it does not. */
	void (*settle)(struct loop *loop);
	void (*stand_back)(struct loop_fd *f);
	/* Waits at most timeout ns (-1: for ever) and handles what came.  True: more may be
	 * there that makes no new event. */
	bool (*wait)(struct loop *loop, int64_t timeout);
	/* Whether wait(0) might find something, told without a system call.  NULL: that
	 * cannot be told. */
	bool (*peek)(struct loop *loop);
	int (*accept)(struct loop_fd *f, struct loop_op *op, struct addr *peer);
	ssize_t (*recv)(struct loop_fd *f, struct loop_op *op, size_t max,
			const char **data);
	ssize_t (*send)(struct loop_fd *f, struct loop_op *op, const void *p, size_t n);
	int (*recvmmsg)(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m,
			unsigned n);
	int (*sendmmsg)(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m,
			unsigned n);
	int (*connect)(struct loop_fd *f, struct loop_op *op, const struct addr *to);
	int (*poll)(struct loop_fd *f, struct loop_op *op, bool out);
	/* A stream that waits has data, of which there was no event: see doubts.h. */
	void (*doubted)(struct loop_fd *f);
};

extern const struct backend backend_epoll;

/* For io_uring, of a stream: epoll tells of its end and of errors alone; of data again. */
void epoll_hush(struct loop_fd *f);
void epoll_watch(struct loop_fd *f);

/* For io_uring: whether there are streams that are to be registered before the loop waits;
 * does that.  False: one could not be, and who waits for it has been told. */
bool epoll_has_fresh(const struct loop *loop);
bool epoll_enter_fresh(struct loop *loop);

/* wait() in two parts: what has come by now, and what is done about it. */
void epoll_fetch(struct loop *loop, int64_t timeout);
bool epoll_handle(struct loop *loop);

struct loop {
	const struct backend *backend;
	void *backend_data;  /* epoll's */
	struct slots *slots; /* io_uring's; NULL: the loop runs on epoll alone */
	int64_t now;
	struct heap timers;
	struct doubts doubts;
	void (*fires[LOOP_TIMER_KINDS])(struct loop_timer *timer); /* by kind */
	unsigned nfires;
	int64_t due; /* of the timer that fires now */
	size_t timer_room, nfds;
	struct list deferred;
	struct loop_fd wake; /* an eventfd */
	struct loop_op wake_op;
	pthread_mutex_t mutex; /* guards posts */
	struct post *posts;
	bool more;   /* what the last wait() said */
	bool unseen; /* the backend's: there may have been more events than it could take */
	int came; /* events in the last wait(), and who was told that there will be none */
	size_t held; /* events that deadlines still wait for */
	struct busy busy;
	char *buffer; /* what loop_recv() lends */
	/* Of an embedded loop: a timerfd, and when it will go off; CLOCK_NEVER: it will
	 * not. */
	struct loop_fd alarm;
	struct loop_op alarm_op;
	int64_t alarm_at;
};

enum { LOOP_BUFFER = 64 * 1024 };

/* Events that one wait() can take. */
enum { LOOP_EVENTS = 256 };

/* Marks the operation as pending.  Returns -EINPROGRESS. */
int loop_pend_in(struct loop_fd *f, struct loop_op *op);
int loop_pend_out(struct loop_fd *f, struct loop_op *op);

/* Takes the pending operation off and calls it.  f may be gone afterwards. */
void loop_complete_in(struct loop_fd *f);
void loop_complete_out(struct loop_fd *f);

#endif
