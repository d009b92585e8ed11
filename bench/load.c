/* load - loads an echo server, and compares every byte of every reply.
 *
 * usage: load echo|conn URL [options]
 *   echo   connections that stay, each with one batch of lines under way
 *   conn   for every request: connect, send a batch, read it back, close
 *   URL    tcp://127.0.0.1:PORT  udp://127.0.0.1:PORT  unix://PATH
 *     -c N  connections (1)             -i N  more of them, open but idle (0)
 *     -s N  bytes of a line (64)        -p N  lines of a batch (1)
 *     -d S  seconds measured (1)        -w S  seconds of load before that (0.2)
 *     -a N  source addresses, from 127.0.0.1 up (1): each has 28,000 ports
 *
 * Who drives it measures the server meanwhile: "window" is printed when measuring starts
 * and "end" when it ends; then a line on standard input is awaited, or its end.  After
 * that every reply still under way must come, and every idle connection must answer once
 * more.  Prints one line of JSON; exits with 0 when nothing was wrong, else with 1. */
#include "url.h"
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BUFFER = 256 * 1024, AT_ONCE = 64, MANY_ERRORS = 1000 };
enum { SECOND = 1000000000 };
enum { SLOTS = 60 * 64 }; /* of the latencies: 64 steps to each power of two, 1.6 % wide */

enum state { CLOSED, BUSY, IDLE, DEAD };

struct conn {
	int fd;
	enum state state;
	int wants_out;
	uint32_t sequence;
	size_t sent, received; /* of this batch */
	uint64_t since;        /* when this batch began */
	char *batch;
};

static struct {
	struct url to;
	int connects; /* for every request */
	int busy, idle, addresses;
	size_t size, depth, length; /* of a line, lines of a batch, bytes of a batch */
	double seconds, warmup;

	int ep;
	struct conn *conns; /* the idle ones last */
	uint64_t now;
	int opening, opened, dead;
	int running, measuring, stopping;
	uint64_t requests, errors, lost;
	uint64_t answered; /* idle ones, at the end */
	uint64_t histogram[SLOTS];
	char in[BUFFER];
} run = {.busy = 1, .addresses = 1, .size = 64, .depth = 1, .seconds = 1, .warmup = 0.2};

static void start(struct conn *c);

static uint64_t
clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void
record(uint64_t ns)
{
	unsigned shift = ns < 64 ? 0 : 63 - (unsigned)__builtin_clzll(ns) - 6;

	run.histogram[ns < 64 ? ns : (shift + 1) * 64 + ((ns >> shift) & 63)]++;
}

static double
percentile_us(double percent)
{
	uint64_t all = 0, seen = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		all += run.histogram[i];
	for (unsigned i = 0; all && i < SLOTS; i++) {
		seen += run.histogram[i];
		if ((double)seen >= (double)all * percent / 100) {
			double width = (double)(1ull << (i < 128 ? 0 : i / 64 - 1));
			return (i < 64 ? i : (64 + i % 64 + 0.5) * width) / 1e3;
		}
	}
	return 0;
}

static void
watch(int op, struct conn *c)
{
	struct epoll_event event = {.data.ptr = c};

	event.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (c->wants_out ? EPOLLOUT : 0u);
	if (epoll_ctl(run.ep, op, c->fd, &event))
		die("epoll_ctl");
}

static void
fail(struct conn *c, const char *why)
{
	if (run.errors++ < 3)
		fprintf(stderr, "load: connection %d: %s\n", (int)(c - run.conns), why);
	close(c->fd);
	c->state = DEAD;
	run.opening -= !run.running;
	run.stopping |= run.errors >= MANY_ERRORS;
	if (run.connects && !run.stopping)
		start(c);
	else if (++run.dead == run.busy + run.idle)
		run.stopping = 1;
}

static void
transmit(struct conn *c)
{
	int rest, flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	ssize_t n = send(c->fd, c->batch + c->sent, run.length - c->sent, flags);

	if (n < 0 && errno != EAGAIN && errno != ENOTCONN) {
		fail(c, strerror(errno));
		return;
	}
	c->sent += (size_t)(n > 0 ? n : 0);
	rest = c->sent < run.length;
	if (c->wants_out != rest) {
		c->wants_out = rest;
		watch(EPOLL_CTL_MOD, c);
	}
}

/* The number of each line is its first eight bytes. */
static void
ask(struct conn *c)
{
	for (size_t line = 0; line < run.length; line += run.size) {
		uint32_t number = ++c->sequence;
		for (size_t i = line; i < line + 8 && i + 1 < line + run.size;
		     i++, number >>= 4)
			c->batch[i] = "0123456789abcdef"[number & 15];
	}
	c->sent = c->received = 0;
	c->state = BUSY;
	transmit(c);
}

static void
start(struct conn *c)
{
	static unsigned turn;
	int family = run.to.address.ss_family, one = 1;
	struct timeval patience = {.tv_sec = 5};

	c->since = clock_ns(CLOCK_MONOTONIC);
	/* A Unix connect waits for room in the queue; one of TCP ends in the background. */
	c->fd = socket(family, run.to.type | (family == AF_UNIX ? 0 : SOCK_NONBLOCK), 0);
	if (c->fd < 0)
		die("socket");
	if (family == AF_UNIX)
		setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (run.addresses > 1 && family == AF_INET) {
		struct sockaddr_in from = {.sin_family = AF_INET};
		from.sin_addr.s_addr =
		    htonl(INADDR_LOOPBACK + turn++ % (unsigned)run.addresses);
		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(c->fd, (void *)&from, sizeof(from)))
			die("bind");
	}
	c->wants_out = 0;
	if (connect(c->fd, (void *)&run.to.address, run.to.length) &&
	    errno != EINPROGRESS) {
		fail(c, strerror(errno));
		return;
	}
	watch(EPOLL_CTL_ADD, c);
	ask(c);
}

/* The whole batch is back. */
static void
complete(struct conn *c)
{
	c->state = IDLE;
	if (!run.running) {
		run.opening--;
		run.opened++;
		return;
	}
	run.now = clock_ns(CLOCK_MONOTONIC);
	if (run.measuring) {
		run.requests += run.depth;
		record(run.now - c->since);
	}
	if (run.connects) {
		close(c->fd);
		c->state = CLOSED;
		if (!run.stopping)
			start(c);
	} else if (!run.stopping) {
		c->since = run.now;
		ask(c);
	} else if (c - run.conns >= run.busy) {
		run.answered++;
	}
}

static int
is_late(const struct conn *c, size_t n)
{
	return run.lost && run.to.type == SOCK_DGRAM && n == run.length && n > 8 &&
	       memcmp(run.in, c->batch, 8) && !memcmp(run.in + 8, c->batch + 8, n - 8);
}

static void
receive(struct conn *c)
{
	ssize_t n;

	do {
		n = recv(c->fd, run.in, BUFFER, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			fail(c, n ? strerror(errno) : "closed by the server");
			return;
		}
		if (is_late(c, (size_t)n))
			continue; /* the answer to one that was given up */
		if (c->state != BUSY || c->received + (size_t)n > run.length ||
		    memcmp(run.in, c->batch + c->received, (size_t)n)) {
			fail(c, "the reply differs from the request");
			return;
		}
		c->received += (size_t)n;
	} while (c->received < run.length && (n == BUFFER || run.to.type == SOCK_DGRAM));
	if (c->received == run.length)
		complete(c);
}

/* Replies that do not come: a datagram is sent again, a stream has failed. */
static void
sweep(void)
{
	uint64_t patience = run.to.type == SOCK_DGRAM ? 2ull * SECOND : 5ull * SECOND;

	for (int i = 0; i < run.busy + run.idle; i++) {
		struct conn *c = &run.conns[i];
		if (c->state != BUSY || run.now < c->since + patience)
			continue;
		if (run.to.type == SOCK_DGRAM) {
			run.lost++;
			c->since = run.now;
			ask(c);
		} else {
			fail(c, "no reply in time");
		}
	}
}

static void
turn(void)
{
	static uint64_t swept;
	struct epoll_event events[EVENTS];
	int n = epoll_wait(run.ep, events, EVENTS, 50);

	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;
		int fd = c->fd;
		if (c->state == BUSY && c->sent < run.length && events[i].events & EPOLLOUT)
			transmit(c);
		if (c->fd == fd && c->state == BUSY)
			receive(c);
		/* The end, or bytes that nobody asked for, come behind the reply. */
		if (c->fd == fd && c->state == IDLE && events[i].events & EPOLLRDHUP)
			receive(c);
	}
	run.now = clock_ns(CLOCK_MONOTONIC);
	if (run.now - swept > SECOND / 5) {
		swept = run.now;
		sweep();
	}
}

/* Few at a time, so that no queue of the kernel's overflows.  Returns how long it took. */
static double
open_all(void)
{
	int all = run.busy + run.idle, started = 0;
	uint64_t since = clock_ns(CLOCK_MONOTONIC);

	run.now = since;
	while (run.opened + run.dead < all && run.now - since < 60ull * SECOND) {
		while (run.opening < AT_ONCE && started < all) {
			run.opening++;
			start(&run.conns[started++]);
		}
		turn();
	}
	return (double)(run.now - since) / SECOND;
}

static void
say(const char *word)
{
	puts(word);
	fflush(stdout);
}

/* Returns the seconds that were measured, and through cpu those of CPU time. */
static double
measure(double *cpu)
{
	uint64_t since = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(run.warmup * SECOND);
	uint64_t length = (uint64_t)(run.seconds * SECOND), used = 0;

	run.running = 1;
	run.now = clock_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < run.busy; i++) {
		struct conn *c = &run.conns[i];
		c->since = run.now;
		if (run.connects)
			start(c);
		else if (c->state == IDLE)
			ask(c);
	}
	while (!run.stopping) {
		turn();
		if (!run.measuring && run.now >= since) {
			say("window");
			run.measuring = 1;
			used = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
			since = clock_ns(CLOCK_MONOTONIC);
		} else if (run.measuring && run.now - since >= length) {
			/* On a busy machine a window may see no reply: wait for one. */
			run.stopping |= run.requests || !run.busy;
		}
	}
	run.measuring = 0;
	*cpu = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - used) / SECOND;
	return (double)(run.now - since) / SECOND;
}

/* What is under way comes back, and the idle ones still answer. */
static void
finish(void)
{
	char line[16];
	int left = 1;

	say("end");
	if (read(0, line, sizeof(line)) < 0)
		die("read");
	run.now = clock_ns(CLOCK_MONOTONIC);
	for (int i = run.busy; i < run.busy + run.idle; i++) {
		run.conns[i].since = run.now;
		if (run.conns[i].state == IDLE)
			ask(&run.conns[i]);
	}
	while (left) {
		turn();
		left = 0;
		for (int i = 0; i < run.busy + run.idle; i++)
			left += run.conns[i].state == BUSY;
	}
}

static int
usage(void)
{
	fprintf(stderr,
		"usage: load echo|conn URL [-c connections] [-i idle] [-s size] [-p depth] "
		"[-d seconds] [-w warm-up] [-a addresses]\n");
	return 2;
}

static int
options(int argc, char **argv)
{
	int option;

	if (argc < 3 || (strcmp(argv[1], "echo") && strcmp(argv[1], "conn")))
		return usage();
	run.connects = argv[1][0] == 'c';
	run.to = url_parse(argv[2]);
	optind = 3;
	while ((option = getopt(argc, argv, "c:i:s:p:d:w:a:")) != -1) {
		if (option == 'c')
			run.busy = atoi(optarg);
		else if (option == 'i')
			run.idle = atoi(optarg);
		else if (option == 's')
			run.size = strtoul(optarg, NULL, 10);
		else if (option == 'p')
			run.depth = strtoul(optarg, NULL, 10);
		else if (option == 'd')
			run.seconds = atof(optarg);
		else if (option == 'w')
			run.warmup = atof(optarg);
		else if (option == 'a')
			run.addresses = atoi(optarg);
		else
			return usage();
	}
	run.length = run.size * run.depth;
	if (run.busy < 0 || run.idle < 0 || run.busy + run.idle < 1 || run.length < 1 ||
	    run.addresses < 1 || run.addresses > 250 || (run.connects && run.idle))
		return usage();
	return 0;
}

static void
prepare(void)
{
	int all = run.busy + run.idle;

	signal(SIGPIPE, SIG_IGN);
	url_open_files();
	run.ep = epoll_create1(EPOLL_CLOEXEC);
	run.conns = calloc((size_t)all, sizeof(*run.conns));
	if (run.ep < 0 || !run.conns)
		die("load");
	for (int i = 0; i < all; i++) {
		char *batch = malloc(run.length);
		if (!batch)
			die("malloc");
		for (size_t k = 0; k < run.length; k++)
			batch[k] = (char)('a' + (k + (size_t)i * 7) % 26);
		for (size_t k = run.size; k <= run.length; k += run.size)
			batch[k - 1] = '\n';
		run.conns[i].batch = batch;
	}
}

int
main(int argc, char **argv)
{
	double opening = 0, seconds, cpu;

	if (options(argc, argv))
		return 2;
	prepare();
	if (!run.connects) {
		opening = open_all();
		if (run.opened < run.busy + run.idle) {
			fprintf(stderr, "load: only %d connections opened\n", run.opened);
			return 1;
		}
	}
	seconds = measure(&cpu);
	finish();
	run.errors += run.lost + (uint64_t)run.idle - run.answered;
	printf("{\"requests\": %llu, \"errors\": %llu, \"seconds\": %.6f, \"cpu\": %.6f, "
	       "\"opening\": %.6f, \"p50\": %.2f, \"p99\": %.2f}\n",
	       (unsigned long long)run.requests, (unsigned long long)run.errors, seconds,
	       cpu, opening, percentile_us(50), percentile_us(99));
	return run.errors > 0;
}
