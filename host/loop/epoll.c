/* The epoll backend.
 *
 * A descriptor is registered once for its life.  Streams are edge-triggered, and a
 * receive that gave less than was asked for is taken to have emptied the socket: the
 * next one waits for an edge without trying (trying first, and failing, costs a tenth
 * of the throughput).  That is not quite always true: urgent data and passed descriptors
 * cut a receive short, too.  So a stream that has waited for DOUBT is looked at, once;
 * if data is there it is watched level-triggered from then on, where nothing can hide.
 *
 * Everything else is level-triggered while a receive is awaited.  An event that nobody
 * awaits makes such a registration "quiet", that is edge-triggered and without EPOLLIN,
 * so that data which nobody wants cannot spin the loop; the next receive tries first.
 * All changes are rare: the usual request costs no epoll_ctl.  A listener that several
 * processes share wakes one of them at a time (EPOLLEXCLUSIVE), which cannot be changed.
 *
 * The kernel tells a set of all that happens to its sockets, of each datagram that has left
 * one, too, and there are locks on the way: a twentieth of what an answer costs.  So a
 * datagram socket that is used by a crowd leaves the set.  It is "apart": tried once in
 * each turn, and back in the set before the loop sleeps. */
#include "base/clock.h"
#include "loop/backend.h"
#include "net/addr.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	AWAKE = EPOLLIN | EPOLLRDHUP,
	EDGE = AWAKE | (int)EPOLLET,
	QUIET = EPOLLRDHUP | (int)EPOLLET,
	SHARED = EPOLLIN | (int)EPOLLEXCLUSIVE, /* cannot be changed, only left */
};

/* How long a stream may wait on the word of a short receive, and how many are looked
 * at in one turn. */
static const int64_t DOUBT = 50 * CLOCK_MS;

enum { LOOKS = 256 };

/* A datagram socket leaves the set when so many receives in a row gave so much each: to
 * leave and to join costs as much as half a dozen datagrams save. */
enum { CROWD = 8, CROWDS = 4 };

/* The longest sleep without a socket that should be in the set, and cannot. */
enum { BLIND = 10 /* ms */ };

/* A time in 2^20 ns, modulo 2^32: for times that are near each other. */
static uint32_t
stamp(int64_t t)
{
	return (uint32_t)(t >> 20);
}

struct data {
	struct loop *loop;
	int ep;
	int n, at; /* the batch: how many, and which is being handled */
	struct epoll_event batch[LOOP_EVENTS];
	/* Streams that have waited since a short receive, roughly in order. */
	struct list doubts;
	struct loop_timer timer;
	unsigned levels; /* streams that are watched level-triggered now */
	bool picked;     /* that has had something */
};

static void on_doubt(struct loop_timer *timer);

static int
ep_open(struct loop *loop)
{
	struct data *d = malloc(sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->n = d->at = 0;
	d->levels = 0;
	d->picked = false;
	d->loop = loop;
	list_init(&d->doubts);
	if (loop_timer_init(loop, &d->timer, on_doubt) < 0) {
		free(d);
		return -ENOMEM;
	}
	d->ep = epoll_create1(EPOLL_CLOEXEC);
	if (d->ep < 0) {
		int rc = -errno;
		loop_timer_done(loop, &d->timer);
		free(d);
		return rc;
	}
	loop->backend_data = d;
	return 0;
}

static void
ep_close(struct loop *loop)
{
	struct data *d = loop->backend_data;

	loop_timer_done(loop, &d->timer);
	close(d->ep);
	free(d);
}

static int
ep_reborn(struct loop *loop)
{
	struct data *d = loop->backend_data;

	d->n = d->at = 0;
	d->levels = 0;
	loop->apart = NULL;
	d->batch[0].data.ptr = NULL; /* what is being handled right now */
	while (!list_empty(&d->doubts))
		list_remove(d->doubts.next);
	d->ep = epoll_create1(EPOLL_CLOEXEC);
	return d->ep < 0 ? -errno : 0;
}

static int
ep_fd(const struct loop *loop)
{
	const struct data *d = loop->backend_data;

	return d->ep;
}

static void
arm(struct loop_fd *f, unsigned events)
{
	const struct data *d = f->loop->backend_data;
	struct epoll_event e = {.events = events, .data.ptr = f};

	if (f->armed == events)
		return;
	f->armed = events;
	epoll_ctl(d->ep, EPOLL_CTL_MOD, f->fd, &e);
}

static int
ep_add(struct loop_fd *f)
{
	const struct data *d = f->loop->backend_data;
	struct epoll_event e = {.data.ptr = f};

	e.events = f->armed = f->shared ? SHARED : f->edge ? EDGE : AWAKE;
	return epoll_ctl(d->ep, EPOLL_CTL_ADD, f->fd, &e) < 0 ? -errno : 0;
}

/* Whoever is in the set while it waits for other things takes wake-ups that another
 * process should have. */
static void
ep_stand_back(struct loop_fd *f)
{
	const struct data *d = f->loop->backend_data;

	if (f->armed)
		epoll_ctl(d->ep, EPOLL_CTL_DEL, f->fd, NULL);
	f->armed = 0;
	f->readable = true; /* to be tried when it comes back */
}

/* False: it cannot. */
static bool
join_set(struct loop_fd *f, unsigned events)
{
	const struct data *d = f->loop->backend_data;
	struct epoll_event e = {.events = events, .data.ptr = f};

	if (epoll_ctl(d->ep, EPOLL_CTL_ADD, f->fd, &e) < 0)
		return false;
	f->armed = events;
	f->crowds = 0;
	f->loop->apart = NULL;
	return true;
}

/* A receive gave n datagrams.  Only a loop that waits by itself may have a socket apart:
 * somebody else would not know. */
static void
count_crowd(struct loop_fd *f, int n)
{
	struct data *d = f->loop->backend_data;

	d->picked |= f == f->loop->apart;
	if (n < CROWD)
		f->crowds = 0;
	else if (f->crowds < CROWDS)
		f->crowds++;
	else if (!f->loop->apart && f->loop->alone && f->armed && !f->shared && !f->out &&
		 epoll_ctl(d->ep, EPOLL_CTL_DEL, f->fd, NULL) == 0) {
		f->armed = 0;
		f->loop->apart = f;
	}
}

static bool
ep_pick(struct loop *loop)
{
	struct data *d = loop->backend_data;

	if (!loop->apart->in)
		return false;
	d->picked = false;
	loop->apart->readable = true;
	loop_complete_in(loop->apart);
	return d->picked || !loop->apart || !loop->apart->in;
}

/* Looks at streams that have waited long enough, once each. */
static void
on_doubt(struct loop_timer *timer)
{
	struct data *d = LIST_ENTRY(timer, struct data, timer);
	int64_t now = loop_now(d->loop);
	char c;

	for (int i = 0; i < LOOKS && !list_empty(&d->doubts); i++) {
		struct loop_fd *f = LIST_ENTRY(d->doubts.next, struct loop_fd, doubts);
		list_remove(&f->doubts);
		if (!f->in)
			continue; /* not waiting now: it will come again */
		if (stamp(now) - f->since <= stamp(DOUBT)) {
			list_append(&d->doubts, &f->doubts);
			continue;
		}
		if (recv(f->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN)
			continue;
		f->edge = false;
		f->level = true;
		d->levels++;
		arm(f, AWAKE | (f->armed & EPOLLOUT));
	}
	if (!list_empty(&d->doubts))
		loop_timer_set(d->loop, timer, now + DOUBT);
}

static void
doubt(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	list_append(&d->doubts, &f->doubts);
	if (!d->timer.slot)
		loop_timer_set(f->loop, &d->timer, f->loop->now + DOUBT);
}

static void
ep_remove(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	d->levels -= f->level;
	f->level = false;
	list_remove(&f->doubts);
	if (list_empty(&d->doubts))
		loop_timer_set(d->loop, &d->timer, CLOCK_NEVER);

	if (f->loop->apart == f)
		f->loop->apart = NULL;
	/* Closing would unregister it, but not when a child still holds a copy. */
	if (f->armed)
		epoll_ctl(d->ep, EPOLL_CTL_DEL, f->fd, NULL);
	for (int i = d->at + 1; i < d->n; i++)
		if (d->batch[i].data.ptr == f)
			d->batch[i].data.ptr = NULL;
	if (d->at < d->n && d->batch[d->at].data.ptr == f)
		d->batch[d->at].data.ptr = NULL;
}

static void
handle(struct data *d, struct epoll_event *e)
{
	struct loop_fd *f = e->data.ptr;
	unsigned got = e->events;

	if (got & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		f->readable = true;
		if (got & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			f->ended = true;
		if (f->in)
			loop_complete_in(f);
		else if (f->shared)
			ep_stand_back(f);
		else if (!f->edge && !(f->armed & EPOLLET))
			arm(f, QUIET | (f->armed & EPOLLOUT));
	}
	/* Callbacks may have closed f: then its place in the batch is empty. */
	f = d->batch[d->at].data.ptr;
	if (f && f->out && got & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		loop_complete_out(f);
	f = d->batch[d->at].data.ptr;
	if (f && !f->shared && !f->out && f->armed & EPOLLOUT)
		arm(f, f->armed & ~(unsigned)EPOLLOUT);
	if (f && !f->in && !f->out && f->hangup && got & EPOLLERR)
		f->hangup(f);
	f = d->batch[d->at].data.ptr;
	if (f && f->at_end && got & EPOLLRDHUP && !(got & EPOLLERR))
		f->at_end(f);
}

static void
fetch_lines(const void *p, int n)
{
	for (int i = 0; i < n; i++)
		__builtin_prefetch((const char *)p + i * 64);
}

/* With a thousand connections none is in the cache when its event comes: the next ones
 * are fetched while this one is handled.  A prefetch of a wrong address does nothing. */
static void
fetch(const struct data *d, int ahead)
{
	const struct loop_fd *f;

	if (ahead + 2 < d->n && d->batch[ahead + 2].data.ptr)
		fetch_lines((const char *)d->batch[ahead + 2].data.ptr - 48, 4);
	if (ahead >= d->n || !(f = d->batch[ahead].data.ptr) || !f->in)
		return;
	fetch_lines(f->hint[0], 2);
	fetch_lines(f->hint[1], 4);
}

static bool
ep_wait(struct loop *loop, int64_t timeout)
{
	struct data *d = loop->backend_data;
	bool more;
	int64_t ms = timeout < 0 ? -1 : (timeout + CLOCK_MS - 1) / CLOCK_MS;

	if (timeout != 0 && loop->apart && loop->apart->in &&
	    !join_set(loop->apart, AWAKE) && (ms < 0 || ms > BLIND))
		ms = BLIND;
	d->n =
	    epoll_wait(d->ep, d->batch, LOOP_EVENTS, ms > INT32_MAX ? INT32_MAX : (int)ms);
	loop_refresh(loop);
	loop->came = d->n > 0 ? d->n : 0;
	loop->unseen = d->n == LOOP_EVENTS;
	more = loop->unseen || (d->n > 0 && d->levels > 0);
	for (d->at = 0; d->at < d->n; d->at++) {
		fetch(d, d->at + 1);
		if (d->batch[d->at].data.ptr)
			handle(d, &d->batch[d->at]);
	}
	d->at = d->n = 0;
	return more;
}

/* A receive is not worth trying; `sure`: it was tried, and found nothing. */
static int
await_in(struct loop_fd *f, struct loop_op *op, bool sure)
{
	f->readable = false;
	if (f->edge) {
		f->since = stamp(f->loop->now);
		if (!sure && list_empty(&f->doubts))
			doubt(f);
	} else if (f->shared) {
		/* The kernel wakes who has been in the set for the longest: what has taken
		 * its share goes to the end of the queue. */
		if (f->armed && sure)
			ep_stand_back(f);
		f->readable = false;
		if (!f->armed)
			(void)ep_add(f);
	} else if (f->armed & EPOLLET)
		arm(f, AWAKE | (f->armed & EPOLLOUT));
	return loop_pend_in(f, op);
}

static int
await_out(struct loop_fd *f, struct loop_op *op)
{
	if (f->loop->apart == f)
		(void)join_set(f, AWAKE | EPOLLOUT);
	else
		arm(f, f->armed | EPOLLOUT);
	return loop_pend_out(f, op);
}

static int
ep_accept(struct loop_fd *f, struct loop_op *op, struct addr *peer)
{
	int fd;

	if (!f->readable)
		return await_in(f, op, false);
	peer->len = sizeof(peer->ss);
	fd = accept4(f->fd, addr_sa_out(peer), &peer->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		return fd;
	return errno == EAGAIN ? await_in(f, op, true) : -errno;
}

static ssize_t
ep_recv(struct loop_fd *f, struct loop_op *op, size_t max, const char **data)
{
	ssize_t n;

	if (!f->readable)
		return await_in(f, op, false);
	if (max > LOOP_BUFFER)
		max = LOOP_BUFFER;
	do
		n = recv(f->fd, f->loop->buffer, max, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? await_in(f, op, true) : -errno;
	/* Less than was asked for: there is nothing more, or it shows while waiting. */
	if ((size_t)n < max && !f->ended)
		f->readable = false;
	*data = f->loop->buffer;
	return n;
}

static ssize_t
ep_send(struct loop_fd *f, struct loop_op *op, const void *p, size_t n)
{
	ssize_t w;

	do
		w = send(f->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (w < 0 && errno == EINTR);
	if (w >= 0)
		return w;
	return errno == EAGAIN ? await_out(f, op) : -errno;
}

static int
ep_recvmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n)
{
	int got;

	if (!f->readable)
		return await_in(f, op, false);
	do
		got = recvmmsg(f->fd, m, n, MSG_DONTWAIT | MSG_TRUNC, NULL);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN ? await_in(f, op, true) : -errno;
	if ((unsigned)got < n)
		f->readable = false;
	count_crowd(f, got);
	return got;
}

static int
ep_sendmmsg(struct loop_fd *f, struct loop_op *op, struct mmsghdr *m, unsigned n)
{
	int sent;

	do
		sent = sendmmsg(f->fd, m, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return sent;
	return errno == EAGAIN ? await_out(f, op) : -errno;
}

static int
ep_connect(struct loop_fd *f, struct loop_op *op, const struct addr *to)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (to) {
		if (connect(f->fd, addr_sa(to), to->len) == 0)
			return 0;
		return errno == EINPROGRESS ? await_out(f, op) : -errno;
	}
	if (getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		return -errno;
	return -err;
}

static int
ep_poll(struct loop_fd *f, struct loop_op *op, bool out)
{
	if (out)
		return await_out(f, op);
	return f->readable ? 0 : await_in(f, op, false);
}

const struct backend backend_epoll = {
    .name = "epoll",
    .open = ep_open,
    .close = ep_close,
    .reborn = ep_reborn,
    .fd = ep_fd,
    .add = ep_add,
    .remove = ep_remove,
    .stand_back = ep_stand_back,
    .wait = ep_wait,
    .pick = ep_pick,
    .accept = ep_accept,
    .recv = ep_recv,
    .send = ep_send,
    .recvmmsg = ep_recvmmsg,
    .sendmmsg = ep_sendmmsg,
    .connect = ep_connect,
    .poll = ep_poll,
};
