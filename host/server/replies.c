#include "server/replies.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "server/accepting.h"
#include "server/engine.h"
#include "server/report.h"
#include "server/server.h"

#include <errno.h>
#include <string.h>

/* Replies sent at a time: clients should not wait for the last of a large batch. */
enum { REPLIES = 32 };

/* The socket had no room.  When it says that there is some, and there is none again,
 * the shortage lies elsewhere in the kernel: then it is tried at growing intervals. */
static void
pace_replies(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	int64_t ms = d->stuck < 6 ? (int64_t)1 << d->stuck : 50;

	if (d->stuck++ == 0)
		return;
	loop_cancel(&d->out_op);
	loop_timer_set(s->site.engine->loop, &d->retry,
		       loop_now(s->site.engine->loop) + ms * CLOCK_MS);
}

void
replies_flush(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	struct mmsghdr *m;
	unsigned n;
	int rc;

	while (dgram_out_count(d->out) > 0 && !d->out_op.fd && !d->retry.slot) {
		m = dgram_out_headers(d->out, &n);
		rc = loop_sendmmsg(&s->fd, &d->out_op, m, n);
		if (rc == -EINPROGRESS) {
			pace_replies(s);
			return;
		}
		d->stuck = 0;
		if (rc < 0) { /* the first of them was refused */
			count_add(&s->site.counters->send_errors, 1);
			report_unsent(&s->site, strerror(-rc));
			rc = 1;
		}
		for (int i = 0; i < rc; i++)
			count_add(&s->site.engine->io.bytes_out, m[i].msg_len);
		dgram_out_drop(d->out, (unsigned)rc);
	}
}

/* A draining datagram server needs its socket for the last reply, and no longer. */
void
replies_leave_loop(struct server *s)
{
	if (s->draining && s->site.nrequests == 0 &&
	    (!s->dgrams.out || dgram_out_count(s->dgrams.out) == 0))
		loop_release_fd(&s->fd);
}

static void
flush_due(struct loop_task *t)
{
	struct server *s = LIST_ENTRY(t, struct server, dgrams.flush);

	s->dgrams.flush_due = false;
	replies_flush(s);
	replies_leave_loop(s);
}

static void
send_on(struct server *s)
{
	replies_flush(s);
	replies_leave_loop(s);
	accepting_resume(s);
}

static void
on_reply_room(struct loop_op *op)
{
	send_on(LIST_ENTRY(op, struct server, dgrams.out_op));
}

static void
on_retry(struct loop_timer *t)
{
	send_on(LIST_ENTRY(t, struct server, dgrams.retry));
}

bool
replies_put(struct site *site, const char *p, size_t n, const struct addr *to,
	    const struct dgram_local *local)
{
	struct server *s = LIST_ENTRY(site, struct server, site);
	struct datagrams *d = &s->dgrams;

	if (!dgram_out_put(d->out, p, n, to, local)) {
		replies_flush(s);
		return false;
	}
	if (!d->flush_due) {
		d->flush_due = true;
		loop_defer(s->site.engine->loop, &d->flush);
	}
	if (dgram_out_count(d->out) >= REPLIES)
		replies_flush(s);
	return true;
}

int
replies_init(struct server *s)
{
	s->dgrams.out_op.done = on_reply_room;
	s->dgrams.flush.run = flush_due;
	list_init(&s->dgrams.flush.link);
	return loop_timer_init(s->site.engine->loop, &s->dgrams.retry, on_retry);
}
