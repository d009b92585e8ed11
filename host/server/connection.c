#include "server/connection.h"

#include "base/journal.h"
#include "bind/diary.h"
#include "bind/stream.h"
#include "script/task.h"
#include "server/host.h"
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The site's first one from l on. */
static struct request *
numbered(const struct site *s, const struct list *l)
{
	for (; l != &s->requests; l = l->next) {
		struct request *r = LIST_ENTRY(l, struct request, link);
		if (stream_conn(request_stream(r)) && !request_stream(r)->closed)
			return r;
	}
	return NULL;
}

struct request *
connection_next(const struct host *h, const struct request *r)
{
	const struct server *s;
	const struct list *l = h->servers.next;
	struct request *next = r ? numbered(request_site(r), r->link.next) : NULL;

	if (r && !next)
		l = LIST_ENTRY(request_site(r), struct server, site)->link.next;
	for (; !next && l != &h->servers; l = l->next) {
		s = LIST_ENTRY(l, struct server, link);
		next = numbered(&s->site, s->site.requests.next);
	}
	return next;
}

struct request *
host_connection(const struct host *h, uint64_t id)
{
	struct request *r = NULL;

	while ((r = connection_next(h, r)))
		if (stream_conn(request_stream(r)) == id)
			return r;
	return NULL;
}

static void
record_push(const struct request *r, const char *p, size_t n)
{
	const char *server = request_site(r)->view.name;
	const struct journal_record pushed = {.kind = JOURNAL_PUSH,
					      .server = server,
					      .server_len = server ? strlen(server) : 0,
					      .conn = stream_conn(request_stream(r)),
					      .data = p,
					      .data_len = n};

	(void)diary_add(&request_site(r)->engine->io, &pushed);
}

int
connection_push(struct request *r, const char *p, size_t n, char *why, size_t size)
{
	uint64_t id = stream_conn(request_stream(r));
	int rc = stream_push(request_stream(r), p, n);

	if (rc == 0 && n > 0)
		record_push(r, p, n);
	if (rc == -ENOBUFS)
		snprintf(why, size,
			 "connection %" PRIu64 " has %zu bytes unsent: no more than %d are "
			 "kept for a peer that does not read",
			 id, stream_unsent(request_stream(r)), STREAM_PUSHED);
	else if (rc == -EPIPE && request_stream(r)->datagram)
		snprintf(why, size,
			 "%" PRIu64 " is a datagram, and nothing can be pushed on that",
			 id);
	else if (rc < 0)
		snprintf(why, size, "cannot send on connection %" PRIu64 ": %s", id,
			 strerror(-rc));
	return rc;
}

void
connection_kill(struct request *r, bool reset)
{
	static const char WHY[] = "killed through the control API";
	struct stream *s = request_stream(r);
	bool runs = request_site(r)->engine->sched.current == r->task;

	stream_let_pushed(s);
	task_cancel(r->task, WHY);
	if (runs) {
		s->abortive |= reset; /* its next wait ends it */
		return;
	}
	if (reset)
		stream_reset(s);
	else if (stream_unsent(s) == 0)
		stream_shut(s);
}
