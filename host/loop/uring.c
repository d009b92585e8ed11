#include "loop/uring.h"

#include "loop/backend.h"
#include "loop/queues.h"
#include "loop/slots.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

/* Behind so many completions there may be more. */
enum { MANY = 8 };

/* A stream that has waited so often will do so again: what it costs to have the ring
 * receive, and to ask that back, is what so many requests save. */
enum { REGULAR = 16 };

struct uring {
	struct backend backend;
	struct queues queues;
	struct slots slots;
	bool watches_epoll;
	bool fetched; /* epoll was asked, and what it had is still to be handled */
	bool more;    /* what it says then */
	bool many;    /* so many were ready that the kernel may have more */
	bool unseen;  /* there may be more than the last wait() has handled */
};

static struct uring *
uring_of(const struct loop *loop)
{
	return LIST_ENTRY(loop->slots, struct uring, slots);
}

static bool
has_work(const struct uring *u)
{
	return u->unseen || queues_ready(&u->queues) > 0 ||
	       io_uring_sq_ready(&u->queues.io) > 0 || queues_unfinished(&u->queues);
}

/* What epoll had when it was asked; how much that was. */
static int
handle_fetched(struct loop *loop)
{
	struct uring *u = uring_of(loop);

	if (!u->fetched)
		return 0;
	u->fetched = false;
	u->more |= epoll_handle(loop);
	return loop->came;
}

/* Handles what is there; how many have told somebody who is still there of something. */
static int
handle_ready(struct loop *loop)
{
	struct uring *u = uring_of(loop);
	struct queues *q = &u->queues;
	struct io_uring_cqe c;
	unsigned ready = queues_ready(q), n = 0;
	int came = 0;

	for (; n < ready && n < LOOP_EVENTS; n++) {
		slots_fetch(q, ready - n);
		c = *queues_at(q, 0);
		io_uring_cq_advance(&q->io, 1);
		if (c.user_data > QUEUES_EPOLL) {
			came += slots_on(&u->slots, &c);
		} else if (c.user_data == QUEUES_EPOLL) {
			u->watches_epoll = false;
			came += handle_fetched(loop); /* in its turn */
		}
	}
	u->many = n >= MANY;
	return came + handle_fetched(loop);
}

/* Whether epoll has something: asked before anything is handled, so that what comes of
 * handling it is not heard of before its time. */
static bool
epoll_is_ready(const struct queues *q)
{
	unsigned ready = queues_ready(q);

	for (unsigned i = 0; i < ready; i++)
		if (queues_at(q, i)->user_data == QUEUES_EPOLL)
			return true;
	return queues_unfinished(q);
}

static void
watch_epoll(struct loop *loop)
{
	struct uring *u = uring_of(loop);
	struct io_uring_sqe *e;

	if (u->watches_epoll)
		return;
	u->watches_epoll = true;
	e = queues_entry(&u->queues);
	io_uring_prep_poll_add(e, backend_epoll.fd(loop), POLLIN);
	io_uring_sqe_set_data64(e, QUEUES_EPOLL);
}

static bool
ur_peek(struct loop *loop)
{
	const struct uring *u = uring_of(loop);

	return u->slots.armed == 0 || !u->watches_epoll || has_work(u) || u->queues.stale ||
	       epoll_has_fresh(loop);
}

static void
enter(struct uring *u, int64_t timeout)
{
	struct queues *q = &u->queues;

	if (timeout != 0 && !u->unseen && queues_ready(q) == 0)
		queues_wait(q, timeout);
	else if (has_work(u) || q->stale)
		queues_get(q);
	if (queues_ready(q) > 0)
		q->stale = false; /* the work that these come from has cleared the flag */
}

/* The kernel finishes some twenty at a time, and does not say that there are more: tasks
 * are not to run in between.  Few are all that there was; what comes while they are handled
 * is for the next wait. */
static void
handle_all(struct loop *loop)
{
	struct uring *u = uring_of(loop);
	int came = 0;

	loop->unseen = u->more = u->slots.starved = false;
	for (;;) {
		u->fetched = epoll_is_ready(&u->queues);
		if (u->fetched)
			epoll_fetch(loop, 0);
		came += handle_ready(loop);
		if (!u->many || came >= LOOP_EVENTS)
			break;
		watch_epoll(loop);
		queues_get(&u->queues);
	}
	u->unseen =
	    u->many || queues_ready(&u->queues) > 0 || queues_unfinished(&u->queues);
	loop->came = came;
	loop->unseen |= u->unseen || u->slots.starved;
}

static bool
ur_wait(struct loop *loop, int64_t timeout)
{
	struct uring *u = uring_of(loop);
	bool all;

	if (u->slots.armed == 0 && !has_work(u)) /* nothing is to come from here */
		return backend_epoll.wait(loop, timeout);
	all = epoll_enter_fresh(loop);
	watch_epoll(loop);
	enter(u, all ? timeout : 0);
	loop_refresh(loop);
	handle_all(loop);
	loop->came += !all; /* somebody has been told */
	return u->more || u->unseen;
}

/* What was asked back is back, or at least receives no more. */
static void
ur_settle(struct loop *loop)
{
	queues_settle(&uring_of(loop)->queues);
}

static void
ur_close(struct loop *loop)
{
	struct uring *u = uring_of(loop);

	ur_settle(loop); /* or sockets would be open for a while after that */
	queues_close(&u->queues);
	slots_done(&u->slots);
	free(u);
	backend_epoll.close(loop);
}

/* The ring is the parent's, and so is what it maps: a word to it would be said for that. */
static int
ur_reborn(struct loop *loop)
{
	loop->backend = &backend_epoll;
	loop->slots = NULL;
	return backend_epoll.reborn(loop);
}

int
uring_attach(struct loop *loop, bool all)
{
	struct uring *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return -ENOMEM;
	rc = queues_open(&u->queues);
	if (rc < 0) {
		free(u);
		return rc;
	}
	slots_init(&u->slots, loop, &u->queues, all ? 1 : REGULAR);
	u->backend = backend_epoll; /* but for streams */
	u->backend.name = "io_uring";
	u->backend.close = ur_close;
	u->backend.reborn = ur_reborn;
	u->backend.settle = ur_settle;
	u->backend.wait = ur_wait;
	u->backend.peek = ur_peek;
	u->backend.remove = slots_remove;
	u->backend.recv = slots_recv;
	u->backend.send = slots_send;
	u->backend.poll = slots_poll;
	u->backend.doubted = slots_doubted;
	loop->slots = &u->slots;
	loop->backend = &u->backend;
	return 0;
}
