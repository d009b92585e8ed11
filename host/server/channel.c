#include "server/channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int
channel_pair(int fds[2])
{
	int type = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;

	return socketpair(AF_UNIX, type, 0, fds) < 0 ? -errno : 0;
}

int
channel_write(int fd, enum message_kind kind, int number, const char *text)
{
	struct message m = {.kind = (int32_t)kind, .number = number};
	size_t n = offsetof(struct message, text) + 1;

	if (text) {
		snprintf(m.text, sizeof(m.text), "%s", text);
		n += strlen(m.text);
	}
	return send(fd, &m, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int
channel_send(struct channel *c, enum message_kind kind, int number, const char *text)
{
	return c->fd.fd < 0 ? -EPIPE : channel_write(c->fd.fd, kind, number, text);
}

/* The next message; 0: none now; -1: there will be no more. */
static int
receive(struct channel *c, struct message *m)
{
	ssize_t n;

	do
		n = recv(c->fd.fd, m, sizeof(*m), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > (ssize_t)offsetof(struct message, text) ? 1 : -1;
}

static void
on_readable(struct loop_op *op)
{
	struct channel *c = LIST_ENTRY(op, struct channel, op);
	struct message m;
	int rc = 1;

	while (c->fd.fd >= 0 && (rc = receive(c, &m)) > 0)
		c->heard(c, &m);
	if (c->fd.fd < 0)
		return;
	if (rc < 0) {
		channel_close(c);
		c->ended(c);
		return;
	}
	c->fd.readable = false;
	loop_poll(&c->fd, &c->op, false);
}

int
channel_open(struct channel *c, struct loop *loop, int fd)
{
	int rc = loop_add(loop, &c->fd, fd, 0);

	if (rc < 0) {
		close(fd);
		return rc;
	}
	c->op.done = on_readable;
	loop_poll(&c->fd, &c->op, false);
	return 0;
}

void
channel_close(struct channel *c)
{
	loop_close_fd(&c->fd);
}
