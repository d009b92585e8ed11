/* flood - loads an echo server and compares every byte that comes back.
 *
 * usage: flood URL CONNECTIONS REQUESTS SIZE
 *
 * Opens CONNECTIONS connections (or datagram sockets) at once and sends REQUESTS
 * lines of SIZE bytes over them in all, each connection its share.  The bytes follow
 * from the connection's number and their place, so that a reply which is short, twice
 * there, out of place or another's is a mismatch.  After its last line a connection
 * shuts its sending side and must see the end of the stream and nothing else.
 * A datagram that is not answered in time is sent again.
 * URL: tcp://HOST:PORT unix://PATH unix://@NAME udp://HOST:PORT unixgram://PATH (or @NAME).
 * Prints one line; exits with 0 when every byte was right, else 1. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 4 };       /* lines of a stream that may be under way */
enum { CHUNK = 65536 };    /* longest receive, and longest line */
enum { RESEND_MS = 300 };  /* a datagram is given up and sent again */
enum { TRIES = 100 };      /* so often at most */
enum { LIMIT_MS = 60000 }; /* of the whole run */

struct conn {
	int fd;
	uint64_t number;
	uint64_t total; /* bytes to send */
	uint64_t sent, received;
	int connected, finished, wants_out;
	int tries;   /* datagrams: of this line */
	int64_t due; /* datagrams: when to send again, ms */
};

static struct {
	struct sockaddr_storage to;
	socklen_t len;
	int datagram;
	size_t size;
	int ep;
	size_t open, done, resent;
	uint64_t bytes;
} run;

static unsigned char buffer[CHUNK + 1];

__attribute__((format(printf, 1, 2), noreturn)) static void
die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("flood: ", stdout);
	vprintf(format, ap);
	putchar('\n');
	exit(1);
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Byte `at` of what connection `number` sends: never a newline but at the end of a line. */
static unsigned char
byte_at(uint64_t number, uint64_t at)
{
	uint64_t x = (number << 40) + at / 8 + 0x9e3779b97f4a7c15u;
	unsigned char b;

	if (at % run.size == run.size - 1)
		return '\n';
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	b = (unsigned char)((x ^ (x >> 31)) >> at % 8 * 8);
	return b == '\n' ? 'N' : b;
}

static void
make_bytes(const struct conn *c, uint64_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buffer[i] = byte_at(c->number, from + i);
}

static int
matches(const struct conn *c, uint64_t from, size_t n, size_t *where)
{
	for (size_t i = 0; i < n; i++)
		if (buffer[i] != byte_at(c->number, from + i)) {
			*where = i;
			return 0;
		}
	return 1;
}

static void
parse(const char *url)
{
	struct sockaddr_in *in = (void *)&run.to;
	struct sockaddr_in6 *in6 = (void *)&run.to;
	struct sockaddr_un *un = (void *)&run.to;
	const char *rest = strstr(url, "://"), *colon;
	char host[128];
	size_t n;

	if (!rest)
		die("%s is not a URL", url);
	rest += 3;
	run.datagram = strncmp(url, "udp", 3) == 0 || strncmp(url, "unixgram", 8) == 0;
	if (strncmp(url, "unix", 4) == 0) {
		n = strlen(rest);
		if (n == 0 || n > sizeof(un->sun_path))
			die("%s: no usable path", url);
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, rest, n);
		if (*rest == '@')
			un->sun_path[0] = 0;
		run.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
		return;
	}
	colon = strrchr(rest, ':');
	if (!colon)
		die("%s: no port", url);
	n = (size_t)(colon - rest);
	snprintf(host, sizeof(host), "%.*s", *rest == '[' ? (int)n - 2 : (int)n,
		 *rest == '[' ? rest + 1 : rest);
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)atoi(colon + 1));
		run.len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)atoi(colon + 1));
		run.len = sizeof(*in6);
	} else
		die("%s: not an IP address", url);
}

static void
watch(struct conn *c, int op, int out)
{
	struct epoll_event e = {.events = out ? EPOLLIN | EPOLLOUT : EPOLLIN,
				.data.ptr = c};

	c->wants_out = out;
	if (epoll_ctl(run.ep, op, c->fd, &e) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* A Unix socket whose queue is full answers EAGAIN: waits for room a little. */
static void
connect_to(struct conn *c)
{
	int64_t until = now_ms() + LIMIT_MS;
	struct timespec pause = {.tv_nsec = 1000000};

	while (connect(c->fd, (void *)&run.to, run.len) < 0) {
		if (errno == EINPROGRESS)
			return;
		if (errno != EAGAIN || now_ms() > until)
			die("connection %llu: connect: %s", (unsigned long long)c->number,
			    strerror(errno));
		nanosleep(&pause, NULL);
	}
}

static void
open_conn(struct conn *c)
{
	int type = (run.datagram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    one = 1;
	struct sockaddr_un own = {.sun_family = AF_UNIX};

	c->fd = socket(run.to.ss_family, type, 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	if (!run.datagram && run.to.ss_family != AF_UNIX)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* The kernel gives an abstract name, so that the server can answer. */
	if (run.datagram && run.to.ss_family == AF_UNIX &&
	    bind(c->fd, (void *)&own, offsetof(struct sockaddr_un, sun_path)) < 0)
		die("bind: %s", strerror(errno));
	connect_to(c);
	run.open++;
}

static void
close_conn(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	run.done++;
}

/* ---- streams ---- */

static void
push(struct conn *c)
{
	for (;;) {
		uint64_t room = c->received + WINDOW * run.size, n = c->total - c->sent;
		ssize_t w;

		if (n > room - c->sent)
			n = room - c->sent;
		if (n > CHUNK)
			n = CHUNK;
		if (n == 0)
			break;
		make_bytes(c, c->sent, (size_t)n);
		w = send(c->fd, buffer, (size_t)n, MSG_NOSIGNAL);
		if (w < 0 && errno == EAGAIN) {
			if (!c->wants_out)
				watch(c, EPOLL_CTL_MOD, 1);
			return;
		}
		if (w < 0)
			die("connection %llu: send after %llu bytes: %s",
			    (unsigned long long)c->number, (unsigned long long)c->sent,
			    strerror(errno));
		c->sent += (uint64_t)w;
	}
	if (c->wants_out)
		watch(c, EPOLL_CTL_MOD, 0);
	if (c->received == c->total && !c->finished) {
		c->finished = 1;
		shutdown(c->fd, SHUT_WR);
	}
}

static void
pull(struct conn *c)
{
	ssize_t n = recv(c->fd, buffer, CHUNK, 0);
	size_t where;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		die("connection %llu: receive after %llu bytes: %s",
		    (unsigned long long)c->number, (unsigned long long)c->received,
		    strerror(errno));
	if (n == 0 && !c->finished)
		die("connection %llu: the stream ended after %llu of %llu bytes",
		    (unsigned long long)c->number, (unsigned long long)c->received,
		    (unsigned long long)c->total);
	if (n == 0) {
		close_conn(c);
		return;
	}
	if ((uint64_t)n > c->sent - c->received)
		die("connection %llu: more bytes than were sent",
		    (unsigned long long)c->number);
	if (!matches(c, c->received, (size_t)n, &where))
		die("connection %llu: byte %llu is wrong", (unsigned long long)c->number,
		    (unsigned long long)(c->received + where));
	c->received += (uint64_t)n;
	run.bytes += (uint64_t)n;
	push(c);
}

static void
on_stream(struct conn *c, unsigned events)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!c->connected) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (err)
			die("connection %llu: %s", (unsigned long long)c->number,
			    strerror(err));
		c->connected = 1;
	}
	if (events & EPOLLOUT)
		push(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		pull(c);
}

/* ---- datagrams ---- */

static void
send_line(struct conn *c, int64_t now)
{
	if (c->tries++ == TRIES)
		die("socket %llu: no answer to line %llu", (unsigned long long)c->number,
		    (unsigned long long)(c->received / run.size));
	if (c->tries > 1)
		run.resent++;
	make_bytes(c, c->received, run.size);
	c->due = now + RESEND_MS;
	if (send(c->fd, buffer, run.size, MSG_NOSIGNAL) == (ssize_t)run.size)
		return;
	if (errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED)
		die("socket %llu: send: %s", (unsigned long long)c->number,
		    strerror(errno));
	c->due = now + 2; /* the queue of the server is full */
	c->tries--;
}

/* An answer to an earlier line is one that was sent twice: it must be right, too. */
static int
is_earlier(const struct conn *c)
{
	size_t where;

	for (uint64_t at = 0; at < c->received; at += run.size)
		if (matches(c, at, run.size, &where))
			return 1;
	return 0;
}

static void
on_datagram(struct conn *c)
{
	ssize_t n;
	size_t where;

	while (c->fd >= 0 && (n = recv(c->fd, buffer, CHUNK, 0)) >= 0) {
		if ((size_t)n != run.size)
			die("socket %llu: an answer of %zd bytes",
			    (unsigned long long)c->number, n);
		if (!matches(c, c->received, run.size, &where)) {
			if (!is_earlier(c))
				die("socket %llu: line %llu is wrong",
				    (unsigned long long)c->number,
				    (unsigned long long)(c->received / run.size));
			continue;
		}
		c->received += run.size;
		run.bytes += run.size;
		c->tries = 0;
		if (c->received == c->total)
			close_conn(c);
		else
			send_line(c, now_ms());
	}
}

static void
resend(struct conn *conns, size_t n)
{
	int64_t now = now_ms();

	for (size_t i = 0; i < n; i++)
		if (conns[i].fd >= 0 && conns[i].due <= now)
			send_line(&conns[i], now);
}

/* ---- the run ---- */

static void
go(struct conn *conns, size_t n)
{
	struct epoll_event events[256];
	int64_t until = now_ms() + LIMIT_MS;

	while (run.done < n) {
		int got = epoll_wait(run.ep, events, 256, run.datagram ? 2 : 1000);
		for (int i = 0; i < got; i++) {
			struct conn *c = events[i].data.ptr;
			if (run.datagram)
				on_datagram(c);
			else
				on_stream(c, events[i].events);
		}
		if (run.datagram)
			resend(conns, n);
		if (now_ms() > until)
			die("%zu of %zu connections were not done in time", n - run.done,
			    n);
	}
}

int
main(int argc, char **argv)
{
	struct rlimit rl;
	struct conn *conns;
	size_t n, requests;

	if (argc != 5)
		die("usage: flood URL CONNECTIONS REQUESTS SIZE");
	parse(argv[1]);
	n = strtoul(argv[2], NULL, 10);
	requests = strtoul(argv[3], NULL, 10);
	run.size = strtoul(argv[4], NULL, 10);
	if (n < 1 || requests < n || run.size < 2 || run.size > CHUNK)
		die("numbers out of range");
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	run.ep = epoll_create1(EPOLL_CLOEXEC);
	conns = calloc(n, sizeof(*conns));
	if (run.ep < 0 || !conns)
		die("no memory");
	for (size_t i = 0; i < n; i++) {
		conns[i].number = i;
		conns[i].total = (requests / n + (i < requests % n)) * run.size;
		open_conn(&conns[i]);
	}
	for (size_t i = 0; i < n; i++)
		watch(&conns[i], EPOLL_CTL_ADD, !run.datagram);
	go(conns, n);
	printf("%zu connections, %zu requests, %llu bytes right, %zu sent again\n",
	       run.open, requests, (unsigned long long)run.bytes, run.resent);
	return 0;
}
