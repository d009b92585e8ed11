/* The epoll backend.
 *
 * A descriptor is registered once for its life, a stream when the loop first waits and not
 * before: many are closed by then.  Streams are edge-triggered, and a
 * receive that gave less than was asked for is taken to have emptied the socket: the
 * next one waits for an edge without trying (trying first, and failing, costs a tenth
 * of the throughput).  That is not quite always true: urgent data and passed descriptors
 * cut a receive short, too: see doubts.h.  A stream that had data is watched
 * level-triggered from then on, where nothing can hide.
 *
 * Everything else is level-triggered while a receive is awaited.  An event that nobody
 * awaits makes such a registration "quiet", that is edge-triggered and without EPOLLIN,
 * so that data which nobody wants cannot spin the loop; the next receive tries first.
 * All changes are rare: the usual request costs no epoll_ctl.  A listener that several
 * processes share wakes one of them at a time (EPOLLEXCLUSIVE), which cannot be changed.
 *
 * A process that serves one connection at a time waits at the door between two of them. */
#include "base/clock.h"
#include "base/rare.h"
#include "loop/backend.h"
#include "loop/door.h"
#include "net/addr.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	AWAKE = EPOLLIN | EPOLLRDHUP,
	EDGE = AWAKE | (int)EPOLLET,
	QUIET = EPOLLRDHUP | (int)EPOLLET,
	SHARED = EPOLLIN | (int)EPOLLEXCLUSIVE, /* cannot be changed, only left */
};

/* So often a single stream is polled; then it is registered. */
enum { POLLS = 3 };

/* The pipe of signals is looked at so often, in ms, also while a single stream is polled.
 */
enum { MOMENT = 100 };

struct data {
	struct loop *loop;
	int ep;
	int n, at;    /* the batch: how many, and which is being handled */
	bool refused; /* somebody has been told that it cannot be waited for */
	struct epoll_event batch[LOOP_EVENTS];
	unsigned levels;   /* streams that are watched level-triggered now */
	struct list fresh; /* streams that are not registered yet */
	unsigned streams;  /* that are */
	unsigned others;   /* of all that is registered: not the pipe of signals */
	int64_t looked;    /* when a poll of a single stream was also one of the set */
	struct door door;
};

static int
ep_open(struct loop *loop)
{
	struct data *d = malloc(sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->n = d->at = 0;
	d->refused = false;
	d->levels = 0;
	d->loop = loop;
	d->streams = d->others = 0;
	d->looked = 0;
	door_init(&d->door);
	list_init(&d->fresh);
	d->ep = epoll_create1(EPOLL_CLOEXEC);
	if (d->ep < 0) {
		int rc = -errno;
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

	door_close(&d->door);
	close(d->ep);
	free(d);
}

static int
ep_reborn(struct loop *loop)
{
	struct data *d = loop->backend_data;

	d->n = d->at = 0;
	d->refused = false;
	d->levels = 0;
	d->batch[0].data.ptr = NULL; /* what is being handled right now */
	while (!list_empty(&d->fresh))
		list_remove(d->fresh.next);
	d->streams = d->others = 0;
	door_init(&d->door);
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
	struct data *d = f->loop->backend_data;
	struct epoll_event e = {.events = events, .data.ptr = f};

	if (f->armed == events)
		return;
	f->armed = events;
	epoll_ctl(d->ep, EPOLL_CTL_MOD, f->fd, &e);
}

void
epoll_hush(struct loop_fd *f)
{
	arm(f, QUIET);
}

void
epoll_watch(struct loop_fd *f)
{
	arm(f, EDGE | (f->armed & EPOLLOUT));
}

static int
enter(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;
	struct epoll_event e = {.data.ptr = f};

	e.events = f->shared ? SHARED : f->edge ? EDGE : AWAKE;
	if (f->out)
		e.events |= EPOLLOUT;
	if (epoll_ctl(d->ep, EPOLL_CTL_ADD, f->fd, &e) < 0)
		return -errno;
	f->armed = e.events;
	d->streams += f->edge;
	d->others += !f->signals;
	return 0;
}

static int
ep_add(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	/* What waits for the set from outside must find all in it. */
	if (!f->edge || f->loop->alarm.fd >= 0)
		return enter(f);
	list_append(&d->fresh, &f->doubts);
	return 0;
}

/* It cannot be waited for: whoever does so is told.  f may be gone afterwards. */
static RARE void
refuse(struct data *d, struct loop_fd *f)
{
	f->lost = f->readable = true;
	d->batch[0].data.ptr = f;
	d->at = 0;
	d->n = 1;
	if (f->in)
		loop_complete_in(f);
	f = d->batch[0].data.ptr;
	if (f && f->out)
		loop_complete_out(f);
	d->n = 0;
}

bool
epoll_has_fresh(const struct loop *loop)
{
	const struct data *d = loop->backend_data;

	return !list_empty(&d->fresh);
}

bool
epoll_enter_fresh(struct loop *loop)
{
	struct data *d = loop->backend_data;
	bool all = true;

	while (!list_empty(&d->fresh)) {
		struct loop_fd *f = LIST_ENTRY(d->fresh.next, struct loop_fd, doubts);
		list_remove(&f->doubts);
		if (enter(f) == 0)
			continue;
		refuse(d, f);
		all = false;
	}
	return all;
}

/* Whoever is in the set while it waits for other things takes wake-ups that another
 * process should have. */
static void
ep_stand_back(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	f->readable = true; /* to be tried when it comes back */
	if (d->door.keeper == f)
		return;
	if (f->armed) {
		epoll_ctl(d->ep, EPOLL_CTL_DEL, f->fd, NULL);
		d->others--;
	}
	f->armed = 0;
}

/* No event has told of what is there. */
static void
ep_doubted(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	f->edge = false;
	f->level = true;
	d->levels++;
	arm(f, AWAKE | (f->armed & EPOLLOUT));
}

static void
ep_remove(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;

	doubts_remove(&f->loop->doubts, f);
	if (d->door.keeper == f) {
		door_close(&d->door);
	} else if (f->armed) {
		/* Closing would do that, but not when a child still holds a copy. */
		epoll_ctl(d->ep, EPOLL_CTL_DEL, f->fd, NULL);
		d->streams -= f->edge || f->level;
		d->others -= !f->signals;
	}
	d->levels -= f->level;
	f->level = false;
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
	unsigned got = e->events, end = got & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);

	if (got & EPOLLIN || end) {
		f->readable = true;
		if (end) {
			f->ended = true;
			f->failed = got & EPOLLERR;
		}
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
	/* io_uring may have taken the error meanwhile, and epoll have seen an end only. */
	if (f && !f->in && !f->out && f->told && end && f->failed && !f->reset)
		f->told(f, LOOP_GONE);
	f = d->batch[d->at].data.ptr;
	if (f && f->wants_end && got & EPOLLRDHUP && !f->failed && !f->reset)
		f->told(f, LOOP_END);
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
		fetch_lines((const char *)d->batch[ahead + 2].data.ptr - 32, 3);
	if (ahead >= d->n || !(f = d->batch[ahead].data.ptr) || !f->in)
		return;
	fetch_lines(f->hint[0], 2);
	fetch_lines(f->hint[1], 4);
}

/* Adds what the set has to the n events that there are. */
static int
gather(struct data *d, int n)
{
	int rc = epoll_wait(d->ep, d->batch + n, LOOP_EVENTS - n, 0);

	return rc > 0 ? n + rc : n;
}

static int
wait_at_door(struct data *d, int ms)
{
	bool set;
	int n = door_wait(&d->door, d->batch, ms, &set);

	return set ? gather(d, n) : n;
}

/* The only stream that there is.  poll(2) and epoll(7) have the same names for what comes.
 * A signal ends the wait; one that comes just before that is seen a moment later, also when
 * the stream always has something. */
static int
wait_for(struct data *d, struct loop_fd *f, int ms)
{
	struct pollfd p[] = {{.fd = f->fd, .events = POLLIN | POLLRDHUP},
			     {.fd = d->ep, .events = POLLIN}};
	int64_t now = d->loop->now;
	bool alone = d->others == 0 && now - d->looked < MOMENT * CLOCK_MS;
	int n = 0, rc;

	if (!alone)
		d->looked = now;
	else if (ms < 0 || ms > MOMENT)
		ms = MOMENT;
	f->polls++;
	rc = poll(p, alone ? 1 : 2, ms);
	if (rc == 0)
		f->polls = POLLS;
	if (rc <= 0)
		return gather(d, 0);
	if (p[0].revents) {
		d->batch[n].events = (unsigned)p[0].revents;
		if (p[0].revents & POLLNVAL) /* somebody has closed it */
			d->batch[n].events = EPOLLIN | EPOLLERR;
		d->batch[n++].data.ptr = f;
	}
	return p[1].revents ? gather(d, n) : n;
}

/* The stream whose registration would not pay: there is no other, and it has come to little
 * so far.  NULL: there is none. */
static struct loop_fd *
single(const struct data *d)
{
	struct list *first = d->fresh.next;
	struct loop_fd *f = LIST_ENTRY(first, struct loop_fd, doubts);

	if (d->streams > 0 || first == &d->fresh || first->next != &d->fresh)
		return NULL;
	return f->in && !f->out && f->polls < POLLS ? f : NULL;
}

static int
wait_somewhere(struct data *d, int ms)
{
	bool at_door = d->door.keeper && d->door.keeper->in;
	struct loop_fd *f = list_empty(&d->fresh) || at_door ? NULL : single(d);

	if (f)
		return wait_for(d, f, ms);
	if (!list_empty(&d->fresh) && !epoll_enter_fresh(d->loop)) {
		d->refused = true;
		ms = 0; /* whoever has been told may want something by now */
	}
	if (at_door)
		return wait_at_door(d, ms);
	return epoll_wait(d->ep, d->batch, LOOP_EVENTS, ms);
}

void
epoll_fetch(struct loop *loop, int64_t timeout)
{
	struct data *d = loop->backend_data;
	int64_t ms = timeout < 0 ? -1 : (timeout + CLOCK_MS - 1) / CLOCK_MS;

	d->n = wait_somewhere(d, ms > INT32_MAX ? INT32_MAX : (int)ms);
}

bool
epoll_handle(struct loop *loop)
{
	struct data *d = loop->backend_data;
	bool more;

	loop->came = (d->n > 0 ? d->n : 0) + d->refused;
	d->refused = false;
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

static bool
ep_wait(struct loop *loop, int64_t timeout)
{
	epoll_fetch(loop, timeout);
	loop_refresh(loop);
	return epoll_handle(loop);
}

/* At a listener that others wait at, too.  The kernel wakes who has been in the set for the
 * longest: what has taken its share goes to the end of the queue, or else to the door. */
static void
await_turn(struct loop_fd *f, bool sure)
{
	struct data *d = f->loop->backend_data;

	if (f->stays && !f->armed) {
		f->stays = door_open(&d->door, d->ep, f, SHARED) == 0;
		f->armed = f->stays ? SHARED : 0;
	}
	if (d->door.keeper == f)
		return;
	if (f->armed && sure)
		ep_stand_back(f);
	f->readable = false;
	if (!f->armed)
		(void)enter(f);
}

/* A stream that nobody has registered is about to wait.  If it is not alone it is
 * registered before what its task wrote goes out: what the peer does then, here and
 * elsewhere, is told in order. */
static int
wait_fresh(struct loop_fd *f)
{
	struct data *d = f->loop->backend_data;
	bool alone =
	    d->streams == 0 && d->fresh.next == &f->doubts && d->fresh.prev == &f->doubts;

	if (alone)
		return 0;
	list_remove(&f->doubts);
	f->lost = enter(f) < 0;
	return f->lost ? -ENOSPC : 0;
}

/* A receive is not worth trying; `sure`: it was tried, and found nothing. */
static int
await_in(struct loop_fd *f, struct loop_op *op, bool sure)
{
	if (f->lost)
		return -ENOSPC;
	f->readable = false;
	if (f->edge && !f->armed) {
		if (wait_fresh(f) < 0) /* it tells whether there is something */
			return -ENOSPC;
	} else if (f->edge) {
		if (sure)
			f->since = doubts_stamp(f->loop->now);
		else
			doubts_add(&f->loop->doubts, f, f->loop->now);
	} else if (f->shared) {
		await_turn(f, sure);
	} else if (f->armed & EPOLLET)
		arm(f, AWAKE | (f->armed & EPOLLOUT));
	return loop_pend_in(f, op);
}

static int
await_out(struct loop_fd *f, struct loop_op *op)
{
	if (f->lost)
		return -ENOSPC;
	if (f->armed || !f->edge)
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
    .accept = ep_accept,
    .recv = ep_recv,
    .send = ep_send,
    .recvmmsg = ep_recvmmsg,
    .sendmmsg = ep_sendmmsg,
    .connect = ep_connect,
    .poll = ep_poll,
    .doubted = ep_doubted,
};
