#include "server/listening.h"

#include "base/clock.h"
#include "server/accepting.h"
#include "server/host.h"
#include "server/replies.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void
write_class_name(struct server *s)
{
	static const char *const kinds[] = {"TCPServer", "UDPServer", "UnixStreamServer",
					    "UnixDatagramServer"};

	snprintf(s->class_name, sizeof(s->class_name), "%s%s", s->policy->prefix,
		 kinds[s->listener.transport]);
}

static struct listen_options
listen_options(const struct server *s, bool listens)
{
	const struct attrs *a = &s->site.attrs;

	return (struct listen_options){
	    .backlog = listens ? (int)a->request_queue_size : -1,
	    .reuse_address = a->allow_reuse_address,
	    .reuse_port = a->allow_reuse_port,
	    .v6only = a->ipv6_v6only,
	    .nodelay = a->disable_nagle_algorithm,
	    .mode = (mode_t)a->socket_mode,
	    .switchable = s->switchable,
	};
}

static void
show_fd(struct server *s, int fd)
{
	s->site.view.fd = s->site.port.fd = fd;
}

int
listening_bind(struct server *s, const struct url *url, bool listens, char *why,
	       size_t size)
{
	struct listen_options o = listen_options(s, listens);
	int rc = listener_open(url, &o, &s->listener, why, size);

	if (rc < 0)
		return rc;
	s->site.view.addr = s->listener.addr;
	s->site.view.transport = s->listener.transport;
	show_fd(s, s->listener.fd);
	s->site.port.transport = s->listener.transport;
	if (s->listener.transport == TRANSPORT_UDP)
		s->site.reply = replies_put;
	write_class_name(s);
	s->site.view.class_name = s->class_name;
	return 0;
}

int
listening_watch(struct server *s, char *why, size_t size)
{
	/* What getting ready takes is not taken before there is a client. */
	unsigned flags = s->policy->ready ? 0 : LOOP_LIKELY;
	bool one_by_one = s->newest && transport_is_stream(s->site.view.transport);
	int rc;

	if (s->shared)
		flags |= one_by_one ? LOOP_STAYS : LOOP_SHARED;
	rc = loop_add(s->site.engine->loop, &s->fd, s->listener.fd, flags);
	if (rc < 0)
		snprintf(why, size, "cannot start accepting: %s", strerror(-rc));
	else
		accepting_resume(s);
	return rc;
}

/* Sends what replies can be sent at once, and lets go of the socket. */
static void
leave_loop(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out) {
		replies_flush(s);
		dgram_out_drop(s->dgrams.out, dgram_out_count(s->dgrams.out));
	}
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	loop_timer_set(s->site.engine->loop, &s->dgrams.retry, CLOCK_NEVER);
	loop_release_fd(&s->fd);
	s->dgrams.at = s->dgrams.n;
}

void
listening_rest(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out)
		replies_flush(s);
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	loop_release_fd(&s->fd);
}

void
listening_stop(struct server *s)
{
	listening_rest(s);
	s->draining = true;
	if (transport_is_stream(s->site.view.transport))
		listener_close(&s->listener);
}

void
listening_drain(struct server *s)
{
	if (!transport_is_stream(s->site.view.transport)) {
		loop_cancel(&s->accept_op);
		replies_leave_loop(s);
		return;
	}
	loop_release_fd(&s->fd);
	/* A child may still have it: pre-forked, or not yet begun. */
	if (s->policy->forks && !s->shared)
		listener_shut(&s->listener);
	listener_close(&s->listener);
	s->site.view.fd = -1;
}

void
listening_leave(struct server *s)
{
	leave_loop(s);
	listener_close(&s->listener);
	show_fd(s, -1);
}

static int
go_down(struct server *s, char *why, size_t size)
{
	bool unix_socket = transport_is_unix(s->site.view.transport);
	char rest[200];
	int rc;

	if (s->listener.transport != TRANSPORT_UDP)
		leave_loop(s);
	else
		loop_cancel(&s->accept_op);
	rc = listener_refuse(&s->listener);
	if (rc < 0) {
		snprintf(why, size, "%s cannot refuse connections: %s", s->name,
			 strerror(-rc));
		if (s->fd.fd < 0)
			(void)listening_watch(s, rest, sizeof(rest));
		return rc;
	}
	s->down = true;
	s->dgrams.at = s->dgrams.n; /* received, and not begun */
	if (unix_socket)
		show_fd(s, -1);
	return 0;
}

static int
come_up(struct server *s, char *why, size_t size)
{
	struct listen_options o = listen_options(s, true);
	int rc = listener_admit(&s->listener, &o, why, size);

	if (rc < 0)
		return rc;
	if (s->fd.fd < 0 && s->host->begun)
		rc = listening_watch(s, why, size);
	if (rc < 0) {
		(void)listener_refuse(&s->listener);
		return rc;
	}
	s->down = false;
	show_fd(s, s->listener.fd);
	accepting_resume(s);
	return 0;
}

int
listening_enable(struct server *s, bool up, char *why, size_t size)
{
	if (s->policy->threads || s->policy->forks) {
		snprintf(why, size, "%s runs its requests elsewhere (%s): it cannot refuse",
			 s->name, s->policy->name);
		return -ENOTSUP;
	}
	if (s->draining) {
		snprintf(why, size, "%s stops", s->name);
		return -EPIPE;
	}
	if (up != s->down)
		return 0;
	return up ? come_up(s, why, size) : go_down(s, why, size);
}
