#include "loop/doubts.h"

#include "base/clock.h"
#include "loop/backend.h"

#include <poll.h>

/* How long a stream may wait before it is looked at, and how many are in one turn. */
static const int64_t DOUBT = 50 * CLOCK_MS;

enum { LOOKS = 256 };

/* Not by a receive: that would take an error from the socket.  Of an end there is an
 * event. */
static bool
has_data(const struct loop_fd *f)
{
	struct pollfd p = {.fd = f->fd, .events = POLLIN | POLLRDHUP};

	return poll(&p, 1, 0) > 0 && p.revents == POLLIN;
}

static void
on_time(struct loop_timer *timer)
{
	struct doubts *d = LIST_ENTRY(timer, struct doubts, timer);
	int64_t now = loop_now(d->loop);

	for (int i = 0; i < LOOKS && !list_empty(&d->list); i++) {
		struct loop_fd *f = LIST_ENTRY(d->list.next, struct loop_fd, doubts);
		list_remove(&f->doubts);
		if (!f->in)
			continue; /* not waiting now: it will come again */
		if (doubts_stamp(now) - f->since <= doubts_stamp(DOUBT))
			list_append(&d->list, &f->doubts);
		else if (has_data(f))
			d->loop->backend->doubted(f);
	}
	if (!list_empty(&d->list))
		loop_timer_set(d->loop, timer, now + DOUBT);
}

int
doubts_init(struct doubts *d, struct loop *loop)
{
	d->loop = loop;
	list_init(&d->list);
	return loop_timer_init(loop, &d->timer, on_time);
}

void
doubts_done(struct doubts *d)
{
	loop_timer_done(d->loop, &d->timer);
}

void
doubts_forget(struct doubts *d)
{
	while (!list_empty(&d->list))
		list_remove(d->list.next);
}

void
doubts_begin(struct doubts *d, struct loop_fd *f, int64_t now)
{
	list_append(&d->list, &f->doubts);
	if (!d->timer.slot)
		loop_timer_set(d->loop, &d->timer, now + DOUBT);
}

void
doubts_remove(struct doubts *d, struct loop_fd *f)
{
	list_remove(&f->doubts);
	if (list_empty(&d->list))
		loop_timer_set(d->loop, &d->timer, CLOCK_NEVER);
}
