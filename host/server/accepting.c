#include "server/accepting.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/script.h"
#include "server/board.h"
#include "server/datagrams.h"
#include "server/engine.h"
#include "server/host.h"
#include "server/replies.h"
#include "server/request.h"
#include "server/server.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

/* When something that accepting needs is used up, it is tried again so often. */
static const int64_t PAUSE = 100 * CLOCK_MS;

bool
accepting_allowed(const struct server *s)
{
	uint64_t active = s->policy->active(s);

	if (s->newest && *s->newest != s->site.script->number)
		return false; /* a child with old code */

	if (s->policy->threads || s->policy->forks)
		active += s->site.nrequests; /* on their way there */
	return !s->closed && !s->down && !s->paused.slot && !s->pulling && s->budget > 0 &&
	       active < s->policy->ceiling(&s->site.attrs);
}

bool
accepting_is_transient(int err)
{
	switch (err) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM:
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

void
accepting_pause(struct server *s, int err)
{
	struct log_field f[] = {
	    log_str("server", s->site.view.name), log_str("why", strerror(err)), {0}};

	log_gated(s->site.engine->log, &s->accept_gate, LOG_WARN, "accepting paused", f);
	if (!s->draining)
		loop_timer_set(s->site.engine->loop, &s->paused,
			       loop_now(s->site.engine->loop) + PAUSE);
}

bool
accepting_ready(struct server *s)
{
	int rc = s->policy->ready && s->fd.readable ? s->policy->ready(s) : 0;

	if (rc < 0)
		accepting_pause(s, -rc);
	return rc == 0;
}

void
accepting_begin(struct server *s, const struct arrival *a)
{
	int rc = s->drives ? request_start(&s->site, a) : s->policy->begin(s, a);

	if (s->board)
		board_touch(s->board);
	if (s->budget != UINT64_MAX)
		s->budget--;
	if (rc < 0) {
		count_add(&s->site.counters->accept_errors, 1);
		accepting_pause(s, -rc);
	}
}

static void
begin_connection(struct server *s, int fd, const struct addr *peer)
{
	struct arrival a = {.fd = fd, .client = peer};

	accepting_begin(s, &a);
}

void
accepting_go_on(struct server *s)
{
	if (accepting_allowed(s))
		accepting_resume(s);
	else
		loop_stand_back(&s->fd);
}

static void
accept_some(struct server *s, int most)
{
	struct addr peer;
	int fd = 0, failed = 0;

	if (s->defers)
		sched_yield(); /* there may be none left then */
	/* A handler that runs at once may stop the server. */
	for (int i = 0; i < most && s->fd.fd >= 0 && accepting_allowed(s); i++) {
		if (!accepting_ready(s))
			return;
		fd = loop_accept(&s->fd, &s->accept_op, &peer);
		if (fd == -EINPROGRESS)
			return;
		if (fd >= 0) {
			begin_connection(s, fd, &peer);
			continue;
		}
		if (fd == -EINVAL && s->newest) { /* its parent stops */
			server_drain(s);
			return;
		}
		count_add(&s->site.counters->accept_errors, 1);
		failed++;
		if (accepting_is_transient(-fd) && failed < ACCEPTING_BATCH)
			continue;
		if ((fd == -EMFILE || fd == -ENFILE) && s->site.engine->io.lingers.n > 0) {
			lingers_drop(&s->site.engine->io.lingers);
			continue;
		}
		if (fd == -EMFILE || fd == -ENFILE)
			host_collect(s->host);
		accepting_pause(s, -fd);
	}
	accepting_go_on(s);
}

void
accepting_empty(struct server *s)
{
	int64_t until = clock_after(clock_now() + PAUSE, s->site.attrs.drain_timeout);
	int n = listener_waiting(&s->listener, (int)s->site.attrs.request_queue_size);

	loop_cancel(&s->accept_op);
	s->fd.readable = true;
	for (int i = 0; i < n && accepting_allowed(s) && !s->accept_op.fd; i++) {
		if (clock_now() > until)
			return;
		accept_some(s, 1);
	}
}

int
accepting_pull(struct server *s, struct arrival *a, struct addr *client, struct dgram *d)
{
	int rc;

	s->pulling = false;
	accepting_resume(s);
	*a = (struct arrival){.fd = -1, .client = client};
	if (s->fd.fd < 0)
		return -EAGAIN;
	loop_cancel(&s->accept_op);
	if (transport_is_stream(s->site.view.transport)) {
		rc = a->fd = loop_accept(&s->fd, &s->accept_op, client);
	} else {
		rc = datagrams_next(s, d, client);
		if (rc == 0)
			a->dgram = d;
	}
	return rc == -EINPROGRESS ? -EAGAIN : rc < 0 ? rc : 0;
}

/* Has a request accept for itself, when there is something to accept. */
static void
pull_some(struct server *s)
{
	struct pollfd p = {.fd = s->fd.fd, .events = POLLIN};
	bool any = s->dgrams.at < s->dgrams.n || poll(&p, 1, 0) > 0;
	int rc;

	if (!any) {
		s->fd.readable = false;
		loop_poll(&s->fd, &s->accept_op, false);
		return;
	}
	if (!accepting_allowed(s) || !accepting_ready(s))
		return;
	s->fd.readable = true;
	s->pulling = true;
	rc = request_pull(&s->site);
	if (s->budget != UINT64_MAX)
		s->budget--;
	if (rc < 0) {
		s->pulling = false;
		accepting_pause(s, -rc);
	}
}

static void
take_some(struct server *s)
{
	if (s->accept_op.fd || s->fd.fd < 0)
		return;
	if (s->pulls)
		pull_some(s);
	else if (transport_is_stream(s->site.view.transport))
		accept_some(s, ACCEPTING_BATCH);
	else
		datagrams_receive(s);
}

static void
on_acceptable(struct loop_op *op)
{
	take_some(LIST_ENTRY(op, struct server, accept_op));
}

static void
on_accept_task(struct loop_task *t)
{
	struct server *s = LIST_ENTRY(t, struct server, accept_task);

	s->accept_due = false;
	if (!s->draining)
		take_some(s);
}

static void
on_pause_over(struct loop_timer *t)
{
	accepting_resume(LIST_ENTRY(t, struct server, paused));
}

void
accepting_resume(struct server *s)
{
	/* A descriptor may just have become free: no need to wait out the pause. */
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	replies_leave_loop(s);
	if (s->board)
		board_touch(s->board);
	if (s->draining || s->closed || s->elsewhere || s->accept_due || s->accept_op.fd)
		return;
	s->accept_due = true;
	loop_defer(s->site.engine->loop, &s->accept_task);
}

int
accepting_init(struct server *s)
{
	s->accept_op.done = on_acceptable;
	s->accept_task.run = on_accept_task;
	list_init(&s->accept_task.link);
	return loop_timer_init(s->site.engine->loop, &s->paused, on_pause_over);
}
