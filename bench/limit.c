/* limit - the raw limit: one thread, one epoll, one receive and one send for each event.
 *
 * usage: limit echo|http|resp|prefork URL
 *   echo     sends back what comes: TCP, UDP, Unix
 *   http     a greeting for each request       resp     +PONG for each PING
 *   prefork  64 processes that accept, each blocks on one client at a time
 *
 * Every ratio of the benchmark is taken against it.  Level-triggered, registered once,
 * one buffer for all, accept until there is none left; what cannot be sent is kept. */
#include "url.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, MOST = 20000, EVENTS = 256, CHILDREN = 64 };

/* Unsent bytes, and how much of a request's end has been seen; zero when idle. */
struct conn {
	char *out;
	size_t length, sent;
	size_t match;
};

static struct {
	int ep;
	const char *end, *reply; /* of a request; NULL: echo */
	struct conn conns[MOST];
	char in[BUFFER], out[BUFFER * 8];
} run;

static void
watch(int op, int fd, unsigned events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (epoll_ctl(run.ep, op, fd, &event))
		die("epoll_ctl");
}

static void
drop(int fd)
{
	free(run.conns[fd].out);
	run.conns[fd] = (struct conn){0};
	close(fd);
}

/* One reply for each whole request; where a request was cut is kept for the next receive.
 */
static size_t
answer(struct conn *c, size_t count)
{
	size_t size = strlen(run.reply), length = 0;

	if (run.reply[0] == '+' && count > 2 && !memcmp(run.in, "*3", 2)) {
		/* redis-benchmark asks for settings first, and goes on without them. */
		memcpy(run.out, "-ERR\r\n", 6);
		return 6;
	}
	for (size_t i = 0; i < count && length + size <= sizeof(run.out); i++) {
		c->match =
		    run.in[i] == run.end[c->match] ? c->match + 1 : run.in[i] == run.end[0];
		if (run.end[c->match])
			continue;
		memcpy(run.out + length, run.reply, size);
		length += size;
		c->match = 0;
	}
	return length;
}

/* Returns whether all of it went out. */
static int
put(int fd, const char *data, size_t count)
{
	struct conn *c = &run.conns[fd];
	ssize_t n = send(fd, data, count, MSG_DONTWAIT);

	if (n == (ssize_t)count)
		return 1;
	c->sent = 0;
	c->length = count - (size_t)(n > 0 ? n : 0);
	c->out = malloc(c->length);
	if (!c->out)
		die("malloc");
	memcpy(c->out, data + count - c->length, c->length);
	watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
	return 0;
}

static void
put_rest(int fd)
{
	struct conn *c = &run.conns[fd];
	ssize_t n = send(fd, c->out + c->sent, c->length - c->sent, MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN) {
		drop(fd);
		return;
	}
	c->sent += (size_t)(n > 0 ? n : 0);
	if (c->sent < c->length)
		return;
	free(c->out);
	c->out = NULL;
	watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void
serve(int fd)
{
	ssize_t n;

	do {
		n = recv(fd, run.in, BUFFER, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			drop(fd);
		if (n <= 0)
			return;
		if (!run.reply) {
			if (!put(fd, run.in, (size_t)n))
				return;
		} else {
			size_t length = answer(&run.conns[fd], (size_t)n);
			if (length && !put(fd, run.out, length))
				return;
		}
	} while (n == BUFFER);
}

static void
take(int listener)
{
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (fd < MOST)
			watch(EPOLL_CTL_ADD, fd, EPOLLIN);
		else
			close(fd);
	}
}

static void
datagrams(int fd)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(fd, run.in, BUFFER, MSG_DONTWAIT, (void *)&from, &length)) >=
	       0) {
		sendto(fd, run.in, (size_t)n, MSG_DONTWAIT, (void *)&from, length);
		length = sizeof(from);
	}
}

/* Blocks; never returns. */
static void
child(int listener)
{
	ssize_t n;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		while ((n = recv(fd, run.in, BUFFER, 0)) > 0)
			send(fd, run.in, (size_t)n, 0);
		close(fd);
	}
	exit(1);
}

static int
listen_at(const struct url *url, int flags)
{
	int one = 1;
	int fd = socket(url->address.ss_family, url->type | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		die("socket");
	if (url->address.ss_family == AF_INET && url->type == SOCK_STREAM) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		/* What is accepted inherits it: nothing for each connection. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	if (bind(fd, (const void *)&url->address, url->length))
		die("bind");
	if (url->type == SOCK_STREAM && listen(fd, 4096))
		die("listen");
	return fd;
}

static void
loop(int listener, int type)
{
	struct epoll_event events[EVENTS];

	run.ep = epoll_create1(EPOLL_CLOEXEC);
	if (run.ep < 0)
		die("epoll_create1");
	watch(EPOLL_CTL_ADD, listener, EPOLLIN);
	for (;;) {
		int n = epoll_wait(run.ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd != listener && run.conns[fd].out)
				put_rest(fd);
			else if (fd != listener)
				serve(fd);
			else if (type == SOCK_DGRAM)
				datagrams(fd);
			else
				take(fd);
		}
	}
}

int
main(int argc, char **argv)
{
	const char *what = argc == 3 ? argv[1] : "";
	int prefork = !strcmp(what, "prefork");
	struct url url;
	int listener;

	if (!strcmp(what, "http")) {
		run.end = "\r\n\r\n";
		run.reply = "HTTP/1.1 200 OK\r\nContent-Type: "
			    "text/plain\r\nContent-Length: 14\r\n\r\n"
			    "Hello, world!\n";
	} else if (!strcmp(what, "resp")) {
		run.end = "PING\r\n";
		run.reply = "+PONG\r\n";
	} else if (strcmp(what, "echo") && !prefork) {
		fprintf(stderr, "usage: limit echo|http|resp|prefork URL\n");
		return 2;
	}
	url = url_parse(argv[2]);
	url_open_files();
	signal(SIGPIPE, SIG_IGN);
	listener = listen_at(&url, prefork ? 0 : SOCK_NONBLOCK);
	for (int i = 1; prefork && i < CHILDREN; i++) {
		if (fork() > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		break;
	}
	if (prefork)
		child(listener);
	loop(listener, url.type);
}
