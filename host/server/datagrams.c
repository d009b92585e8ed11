#include "server/datagrams.h"

#include "server/accepting.h"
#include "server/engine.h"
#include "server/server.h"

#include <errno.h>

int
datagrams_init(struct server *s)
{
	s->dgrams.in = dgram_in_new((size_t)s->site.attrs.max_packet_size,
				    addr_is_any(&s->site.view.addr));
	s->dgrams.out = dgram_out_new();
	return s->dgrams.in && s->dgrams.out ? 0 : -ENOMEM;
}

void
datagrams_free(struct datagrams *d)
{
	dgram_in_free(d->in);
	dgram_out_free(d->out);
}

/* What is received here no other process can take, and no poll(2) of the program's shows.
 */
static unsigned
batch_size(const struct server *s)
{
	return s->shared || s->budget != UINT64_MAX ? 1 : DGRAM_BATCH;
}

static int
receive_batch(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	int n = loop_recvmmsg(&s->fd, &s->accept_op, dgram_in_headers(d->in, d->n),
			      batch_size(s));

	if (n >= 0) {
		d->at = 0;
		d->n = (unsigned)n;
	}
	return n;
}

static void
begin_next(struct server *s)
{
	struct dgram d;
	struct arrival a = {.fd = -1, .dgram = &d};

	a.client = dgram_in_get(s->dgrams.in, s->dgrams.at++, &d);
	if (d.full_len > d.len) {
		struct log_field f[] = {
		    log_str("server", s->site.view.name),
		    log_int("length", (int64_t)d.full_len),
		    log_int("max_packet_size", s->site.attrs.max_packet_size),
		    {0}};
		count_add(&s->site.counters->truncated, 1);
		log_gated(s->site.engine->log, &s->trunc_gate, LOG_WARN,
			  "datagram truncated", f);
	}
	accepting_begin(s, &a);
}

void
datagrams_receive(struct server *s)
{
	struct datagrams *d = &s->dgrams;
	int n;

	for (int i = 0; i < ACCEPTING_BATCH && s->fd.fd >= 0 && accepting_allowed(s); i++) {
		if (!accepting_ready(s))
			return;
		if (d->at < d->n) {
			begin_next(s);
			continue;
		}
		if (d->out_op.fd || d->retry.slot || s->draining)
			return; /* replies wait for room: so must the next requests */
		n = receive_batch(s);
		if (n == -EINPROGRESS)
			return;
		if (n < 0) { /* an earlier reply could not be delivered: it has been taken
				off */
			if (n != -ECONNREFUSED && !accepting_is_transient(-n)) {
				accepting_pause(s, -n);
				return;
			}
			continue;
		}
		i = -1;
	}
	accepting_go_on(s);
}

int
datagrams_next(struct server *s, struct dgram *d, struct addr *from)
{
	struct datagrams *in = &s->dgrams;
	int rc = in->at == in->n ? receive_batch(s) : 0;

	if (rc < 0)
		return rc;
	addr_copy(from, dgram_in_get(in->in, in->at++, d));
	return 0;
}
