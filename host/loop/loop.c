#include "loop/loop.h"

#include "base/clock.h"
#include "loop/backend.h"
#include "loop/uring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Turns in one step: other loops have something to do as well. */
enum { ROUNDS = 64 };

/* Who comes back from a wait so much too late was stopped in between, and does not know
 * what has come since. */
static const int64_t LATE = 5 * CLOCK_MS;

const struct loop_op loop_own;

struct post {
	struct post *next;
	void (*fn)(void *arg);
	void *arg;
};

static void
run_posts(struct loop *loop)
{
	struct post *p, *first = NULL, *next;

	pthread_mutex_lock(&loop->mutex);
	p = loop->posts;
	loop->posts = NULL;
	pthread_mutex_unlock(&loop->mutex);
	for (; p; p = next) { /* last in, first out: turn the list round */
		next = p->next;
		p->next = first;
		first = p;
	}
	for (p = first; p; p = next) {
		next = p->next;
		p->fn(p->arg);
		free(p);
	}
}

static void
on_wake(struct loop_op *op)
{
	struct loop *loop = LIST_ENTRY(op, struct loop, wake_op);
	uint64_t n;

	while (read(loop->wake.fd, &n, sizeof(n)) > 0)
		;
	run_posts(loop);
	loop->wake.readable = false;
	loop_poll(&loop->wake, op, false);
}

int
loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));
	uint64_t one = 1;

	if (!p)
		return -ENOMEM;
	*p = (struct post){.fn = fn, .arg = arg};
	pthread_mutex_lock(&loop->mutex);
	p->next = loop->posts;
	loop->posts = p;
	pthread_mutex_unlock(&loop->mutex);
	/* A full counter cannot happen, and a wake-up that is already there is enough. */
	return write(loop->wake.fd, &one, sizeof(one)) < 0 && errno != EAGAIN ? -errno : 0;
}

static int
open_wake(struct loop *loop)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = loop_add(loop, &loop->wake, fd, 0);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	loop->wake_op.done = on_wake;
	loop_poll(&loop->wake, &loop->wake_op, false);
	return 0;
}

int
loop_new(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc = -ENOMEM;

	if (!loop)
		return -ENOMEM;
	loop->backend = &backend_epoll;
	loop->now = clock_now();
	loop->alarm.fd = -1;
	loop->alarm_at = CLOCK_NEVER;
	list_init(&loop->deferred);
	pthread_mutex_init(&loop->mutex, NULL);
	rc = doubts_init(&loop->doubts, loop);
	if (rc < 0)
		goto fail_loop;
	rc = loop->backend->open(loop);
	if (rc < 0)
		goto fail_loop;
	rc = -ENOMEM;
	loop->buffer = malloc(LOOP_BUFFER);
	if (!loop->buffer)
		goto fail_backend;
	rc = open_wake(loop);
	if (rc < 0)
		goto fail_buffer;
	*out = loop;
	return 0;

fail_buffer:
	free(loop->buffer);
fail_backend:
	loop->backend->close(loop);
fail_loop:
	heap_free(&loop->timers);
	pthread_mutex_destroy(&loop->mutex);
	free(loop);
	return rc;
}

static void
drop_posts(struct loop *loop)
{
	while (loop->posts) {
		struct post *next = loop->posts->next;
		free(loop->posts);
		loop->posts = next;
	}
}

void
loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_close_fd(&loop->alarm);
	loop_close_fd(&loop->wake);
	drop_posts(loop);
	loop->backend->close(loop);
	doubts_done(&loop->doubts);
	heap_free(&loop->timers);
	pthread_mutex_destroy(&loop->mutex);
	free(loop->buffer);
	free(loop);
}

int
loop_tune(struct loop *loop, const struct loop_tuning *tuning)
{
	busy_init(&loop->busy, tuning->busy_poll);
	if (tuning->kind == LOOP_EPOLL)
		return 0;
	return uring_attach(loop, tuning->kind == LOOP_URING);
}

int64_t
loop_now(const struct loop *loop)
{
	return loop->now;
}

int64_t
loop_refresh(struct loop *loop)
{
	return loop->now = clock_now();
}

static void
run_deferred(struct loop *loop)
{
	struct list batch;

	list_take(&batch, &loop->deferred);
	while (!list_empty(&batch)) {
		struct loop_task *t = LIST_ENTRY(batch.next, struct loop_task, link);
		list_remove(&t->link);
		t->run(t);
	}
}

static void
run_timers(struct loop *loop)
{
	struct loop_timer *t;

	while ((t = heap_top(&loop->timers)) &&
	       (loop->due = heap_soonest(&loop->timers)) <= loop->now) {
		heap_remove(&loop->timers, t);
		loop->fires[t->kind - 1](t);
	}
}

/* When there was no time to take all events, deadlines wait for the rest.  Not for ever:
 * for eight times as many as there are descriptors, for the kernel may put those of peers
 * that were served and have left before the others.  Such a one makes three events, and up
 * to seven where io_uring and epoll both tell of it, also while it lingers. */
static bool
is_time(struct loop *loop)
{
	size_t rest = loop->held ? loop->held : 8 * loop->nfds;

	loop->held =
	    loop->unseen && rest > (size_t)loop->came ? rest - (size_t)loop->came : 0;
	return loop->held == 0;
}

/* Sleeps until something comes. */
static void
rest(struct loop *loop, int64_t timeout)
{
	int64_t began = loop->now;

	loop->more = loop->backend->wait(loop, timeout);
	if (timeout != 0)
		busy_slept(&loop->busy, loop->now - began);
}

static void
look(struct loop *loop)
{
	loop->came = 0;
	if (!loop->backend->peek || loop->backend->peek(loop))
		loop->more = loop->backend->wait(loop, 0);
	else
		loop_refresh(loop);
}

/* Looks again and again for a while.  False: nothing has come nor is to be done, and it is
 * time to sleep. */
static bool
poll_first(struct loop *loop, int64_t timeout, int64_t soonest)
{
	int64_t began = loop->now, spin = busy_begin(&loop->busy, began, loop->came);

	if (timeout >= 0 && spin > timeout)
		spin = 0;
	while (spin > 0) {
		look(loop);
		if (loop->came > 0) {
			busy_found(&loop->busy);
			return true;
		}
		if (!list_empty(&loop->deferred) || heap_soonest(&loop->timers) < soonest)
			return true; /* somebody has run all the same */
		if (!busy_go_on(&loop->busy, loop->now))
			return false;
		if (loop->now - began > spin) {
			busy_missed(&loop->busy);
			return false;
		}
	}
	return false;
}

/* Data that has come goes before a deadline that is past: when the process was stopped
 * there are both, and no healthy peer is to pay for that. */
void
loop_turn(struct loop *loop, int64_t until)
{
	int64_t soonest = heap_soonest(&loop->timers);
	int64_t timeout = -1, expected = loop_refresh(loop);

	if (soonest < until)
		until = soonest;
	if (!list_empty(&loop->deferred))
		timeout = 0;
	else if (until != CLOCK_NEVER) {
		timeout = until > loop->now ? until - loop->now : 0;
		expected += timeout;
	}
	if (timeout == 0 || !poll_first(loop, timeout, soonest))
		rest(loop, timeout);
	if (soonest != CLOCK_NEVER && loop->now > expected + LATE)
		loop->more = loop->backend->wait(loop, 0);
	if (is_time(loop))
		run_timers(loop);
	run_deferred(loop);
}

static void
on_alarm(struct loop_op *op)
{
	struct loop *loop = LIST_ENTRY(op, struct loop, alarm_op);
	uint64_t n;

	(void)!read(loop->alarm.fd, &n, sizeof(n));
	loop->alarm_at = CLOCK_NEVER;
	loop->alarm.readable = false;
	loop_poll(&loop->alarm, op, false);
}

/* An alarm that is too early does no harm: it is set again then. */
static void
set_alarm(struct loop *loop)
{
	int64_t soonest = heap_soonest(&loop->timers);
	struct itimerspec at = {0};

	if (soonest >= loop->alarm_at)
		return;
	loop->alarm_at = soonest;
	at.it_value.tv_sec = soonest / CLOCK_SECOND;
	at.it_value.tv_nsec = soonest % CLOCK_SECOND;
	timerfd_settime(loop->alarm.fd, TFD_TIMER_ABSTIME, &at, NULL);
}

int
loop_embed(struct loop *loop)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = loop_add(loop, &loop->alarm, fd, 0);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	loop_close_fd(&loop->wake);
	loop->alarm_op.done = on_alarm;
	loop_poll(&loop->alarm, &loop->alarm_op, false);
	return loop->backend->fd(loop);
}

bool
loop_step(struct loop *loop)
{
	for (int i = 0; i < ROUNDS; i++) {
		loop_turn(loop, 0);
		if (list_empty(&loop->deferred) && !loop->more)
			break;
	}
	set_alarm(loop);
	return loop->more || !list_empty(&loop->deferred);
}

int
loop_reborn(struct loop *loop)
{
	drop_posts(loop);
	while (!list_empty(&loop->deferred))
		list_remove(loop->deferred.next);
	heap_clear(&loop->timers);
	doubts_forget(&loop->doubts);
	busy_init(&loop->busy, 0);
	loop->nfds = 0;
	loop->wake.fd = loop->alarm.fd = -1;
	return loop->backend->reborn(loop);
}

int
loop_add(struct loop *loop, struct loop_fd *f, int fd, unsigned flags)
{
	int rc;

	*f = (struct loop_fd){.loop = loop,
			      .fd = fd,
			      .readable = flags & LOOP_LIKELY,
			      .shared = flags & (LOOP_SHARED | LOOP_STAYS),
			      .stays = flags & LOOP_STAYS,
			      .signals = flags & LOOP_SIGNALS,
			      .edge = flags & LOOP_STREAM};
	list_init(&f->doubts);
	rc = loop->backend->add(f);
	if (rc < 0) {
		f->fd = -1;
		return rc;
	}
	loop->nfds++;
	return 0;
}

int
loop_forget_fd(struct loop_fd *f)
{
	int fd = f->fd;

	if (fd < 0)
		return -1;
	loop_cancel_in(f);
	loop_cancel_out(f);
	f->loop->backend->remove(f);
	f->loop->nfds--;
	f->fd = -1;
	return fd;
}

int
loop_release_fd(struct loop_fd *f)
{
	int fd = loop_forget_fd(f);

	if (fd >= 0 && f->loop->backend->settle)
		f->loop->backend->settle(f->loop);
	return fd;
}

void
loop_stand_back(struct loop_fd *f)
{
	if (f->fd < 0 || !f->shared)
		return;
	loop_cancel_in(f);
	f->loop->backend->stand_back(f);
}

void
loop_close_fd(struct loop_fd *f)
{
	int fd = loop_forget_fd(f);

	if (fd >= 0)
		close(fd);
}

int
loop_pend_in(struct loop_fd *f, struct loop_op *op)
{
	f->in = op;
	if (op != LOOP_OWN)
		op->fd = f;
	return -EINPROGRESS;
}

int
loop_pend_out(struct loop_fd *f, struct loop_op *op)
{
	f->out = op;
	if (op != LOOP_OWN)
		op->fd = f;
	return -EINPROGRESS;
}

void
loop_cancel(struct loop_op *op)
{
	if (!op->fd)
		return;
	if (op->fd->in == op)
		op->fd->in = NULL;
	if (op->fd->out == op)
		op->fd->out = NULL;
	op->fd = NULL;
}

void
loop_cancel_in(struct loop_fd *f)
{
	if (f->in && f->in != LOOP_OWN)
		f->in->fd = NULL;
	f->in = NULL;
}

void
loop_cancel_out(struct loop_fd *f)
{
	if (f->out && f->out != LOOP_OWN)
		f->out->fd = NULL;
	f->out = NULL;
}

void
loop_complete_in(struct loop_fd *f)
{
	struct loop_op *op = f->in;

	f->in = NULL;
	if (op == LOOP_OWN) {
		f->told(f, LOOP_IN);
		return;
	}
	op->fd = NULL;
	op->done(op);
}

void
loop_complete_out(struct loop_fd *f)
{
	struct loop_op *op = f->out;

	f->out = NULL;
	if (op == LOOP_OWN) {
		f->told(f, LOOP_OUT);
		return;
	}
	op->fd = NULL;
	op->done(op);
}

int
loop_accept(struct loop_fd *f, struct loop_op *op, struct addr *peer)
{
	return f->loop->backend->accept(f, op, peer);
}

ssize_t
loop_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	return f->loop->backend->recv(f, op, max, data);
}

ssize_t
loop_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n)
{
	return f->loop->backend->send(f, op, p, n);
}

int
loop_recvmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n)
{
	return f->loop->backend->recvmmsg(f, op, m, n);
}

int
loop_sendmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n)
{
	return f->loop->backend->sendmmsg(f, op, m, n);
}

int
loop_connect(struct loop_fd *f, struct loop_op *op, const struct addr *to)
{
	return f->loop->backend->connect(f, op, to);
}

int
loop_poll(struct loop_fd *f, struct loop_op *op, bool out)
{
	return f->loop->backend->poll(f, op, out);
}

size_t
loop_buffer_size(void)
{
	return LOOP_BUFFER;
}

char *
loop_swap_buffer(struct loop *loop, char *buffer)
{
	char *before = loop->buffer;

	loop->buffer = buffer;
	return before;
}

void
loop_defer(struct loop *loop, struct loop_task *task)
{
	list_append(&loop->deferred, &task->link);
}

/* The number of a function, of which there are few.  0: too many. */
static unsigned
kind_of(struct loop *loop, void (*fire)(struct loop_timer *))
{
	unsigned i = 0;

	while (i < loop->nfires && loop->fires[i] != fire)
		i++;
	if (i == LOOP_TIMER_KINDS)
		return 0;
	if (i == loop->nfires)
		loop->fires[loop->nfires++] = fire;
	return i + 1;
}

int
loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fire)(struct loop_timer *))
{
	unsigned kind = kind_of(loop, fire);

	if (kind == 0 || !heap_reserve(&loop->timers, loop->timer_room + 1))
		return -ENOMEM;
	loop->timer_room++;
	*t = (struct loop_timer){.kind = kind & 0xff};
	return 0;
}

void
loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t when)
{
	if (when == CLOCK_NEVER) {
		if (t->slot)
			heap_remove(&loop->timers, t);
		return;
	}
	if (t->slot)
		heap_move(&loop->timers, t, when);
	else
		heap_add(&loop->timers, t, when);
}

int64_t
loop_timer_when(const struct loop *loop, const struct loop_timer *t)
{
	return t->slot ? loop->timers.at[t->slot].when : loop->due;
}

void
loop_timer_done(struct loop *loop, struct loop_timer *t)
{
	if (t->slot)
		heap_remove(&loop->timers, t);
	loop->timer_room--;
}

size_t
loop_live_fds(const struct loop *loop)
{
	return loop->nfds - (loop->wake.fd >= 0) - (loop->alarm.fd >= 0);
}

size_t
loop_live_timers(const struct loop *loop)
{
	return loop->timers.len;
}
