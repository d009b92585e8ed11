/* visit - clients of a server whose code is replaced meanwhile.
 *
 * usage: visit HOST:PORT RATE STREAMS PERIOD
 *
 * Opens RATE connections a second, each of which sends "get" and reads to the end (fewer
 * where the server does not keep up: no more than ABREAST are open at a time), and keeps
 * STREAMS connections open, on each of which it says a line every PERIOD milliseconds.  All
 * that a server's version N writes must carry N:
 *
 *   get    ->  N 1 <any bytes>, N 2 ..., N PARTS ..., N end; a line each, then the end
 *   say K  ->  N K
 *   and, if the stream's request is cancelled: N bye, then the end; it is opened again
 *
 * So a reply that is cut short, lost, or of two versions is a failure; so is a stream whose
 * version changes.  Standard input says what is expected:
 *
 *   ready     "ok" is written when each stream has had an answer
 *   least N   connections opened from now on are answered by N or a later one; "ok" is
 *             written when that holds
 *   pause     opens no more; "ok" is written when none but the streams is left
 *   go on     opens them again
 *   (its end) closes all, writes one line of JSON, and exits with 0 if nothing has failed
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PARTS = 8 };           /* of a reply to "get" */
enum { LINE = 4096 };         /* longest one */
enum { PATIENCE_MS = 20000 }; /* for a reply */
enum { ABREAST = 64 };        /* short connections */
enum {
	SAMPLES = 1024 * 1024
}; /* of latencies; later ones take the place of earlier ones */

struct conn {
	struct conn *next, **at; /* among the short ones */
	bool stream;
	int fd;
	bool connected, moved;
	long least, version; /* version 0: not known yet */
	long said;           /* streams: the last K */
	bool waits;          /* for the answer to it */
	int part;            /* short ones: parts so far; PARTS + 1: "end" as well */
	int64_t since;       /* when it was opened, or has said something; ns */
	int64_t due;         /* streams: when to say the next thing */
	size_t len;
	char line[LINE];
};

static struct {
	struct sockaddr_in to;
	int ep;
	double rate;
	int64_t period;
	long least;
	bool paused, stopping, answer_due, ready_due;
	struct conn *shorts;
	struct conn *streams;
	size_t nstreams, nopen; /* nopen: short ones */
	uint64_t connections, messages, moves, failures, nsamples;
	uint32_t *samples; /* microseconds of a stream's round trip */
	char failure[256];
} run;

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

__attribute__((format(printf, 2, 3))) static void
failed(const struct conn *c, const char *format, ...)
{
	va_list ap;
	int n;

	if (run.failures++ > 0)
		return;
	n = snprintf(run.failure, sizeof(run.failure),
		     "%s of version %ld: ", c->stream ? "a stream" : "a connection",
		     c->version);
	va_start(ap, format);
	vsnprintf(run.failure + n, sizeof(run.failure) - (size_t)n, format, ap);
	va_end(ap);
}

__attribute__((noreturn)) static void
die(const char *what)
{
	fprintf(stderr, "visit: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void
begin(struct conn *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->connected = c->moved = c->waits = false;
	c->version = 0;
	c->len = 0;
	c->least = run.least;
	c->since = now();
	if (connect(c->fd, (void *)&run.to, sizeof(run.to)) < 0 && errno != EINPROGRESS)
		failed(c, "connect: %s", strerror(errno));
	if (epoll_ctl(run.ep, EPOLL_CTL_ADD, c->fd, &e) < 0)
		die("epoll_ctl");
	run.connections++;
}

static void
begin_short(void)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		die("calloc");
	c->next = run.shorts;
	c->at = &run.shorts;
	if (c->next)
		c->next->at = &c->next;
	run.shorts = c;
	run.nopen++;
	begin(c);
}

/* It is over; a stream is opened again. */
static void
end(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	if (!c->stream) {
		*c->at = c->next;
		if (c->next)
			c->next->at = c->at;
		free(c);
		run.nopen--;
	} else if (!run.stopping)
		begin(c);
}

/* Lines are short: the socket has room for them. */
static bool
put(struct conn *c, const char *text)
{
	size_t n = strlen(text);

	if (send(c->fd, text, n, MSG_NOSIGNAL) == (ssize_t)n)
		return true;
	if (errno != EPIPE && errno != ECONNRESET) /* what was sent before it says more */
		failed(c, "send: %s", strerror(errno));
	return false;
}

static void
say(struct conn *c, int64_t at)
{
	char text[32];

	c->due = at + run.period;
	if (c->waits || !c->connected)
		return;
	snprintf(text, sizeof(text), "say %ld\n", ++c->said);
	c->since = now();
	c->waits = put(c, text);
}

static void
on_answer(struct conn *c, const char *rest)
{
	if (strcmp(rest, "bye") == 0) {
		c->moved = true;
		run.moves++;
	} else if (!c->waits || strtol(rest, NULL, 10) != c->said)
		failed(c, "it says \"%s\" after %ld", rest, c->said);
	else {
		c->waits = false;
		run.samples[run.nsamples++ % SAMPLES] =
		    (uint32_t)((now() - c->since) / 1000);
		run.messages++;
	}
}

static void
on_part(struct conn *c, const char *rest)
{
	if (c->part < PARTS ? strtol(rest, NULL, 10) == c->part + 1
			    : c->part == PARTS && strcmp(rest, "end") == 0)
		c->part++;
	else
		failed(c, "\"%.20s\" after part %d", rest, c->part);
}

static void
on_line(struct conn *c)
{
	char *rest;
	long version = strtol(c->line, &rest, 10);

	if (*rest++ != ' ') {
		failed(c, "\"%.40s\" has no version", c->line);
		return;
	}
	if (c->version == 0) {
		c->version = version;
		if (version < c->least)
			failed(c, "%ld was live when it was opened", c->least);
	}
	if (version != c->version)
		failed(c, "a part is of %ld", version);
	if (c->stream)
		on_answer(c, rest);
	else
		on_part(c, rest);
}

static void
on_end(struct conn *c, const char *how)
{
	if (c->stream ? !c->moved && !run.stopping : c->part != PARTS + 1)
		failed(c, "it ended %s after %ld %s", how, c->stream ? c->said : c->part,
		       c->stream ? "lines" : "parts");
	end(c);
}

static void
receive(struct conn *c)
{
	char bytes[65536], *nl;
	ssize_t n;

	while ((n = recv(c->fd, bytes, sizeof(bytes), 0)) > 0)
		for (char *p = bytes; p < bytes + n; p = nl) {
			size_t left = (size_t)(bytes + n - p), m;
			nl = memchr(p, '\n', left);
			m = nl ? (size_t)(nl - p) : left;
			nl = nl ? nl + 1 : bytes + n;
			if (c->len + m >= LINE) {
				failed(c, "a line is too long");
				m = 0;
			}
			memcpy(c->line + c->len, p, m);
			c->len += m;
			if (nl[-1] != '\n')
				break;
			c->line[c->len] = 0;
			c->len = 0;
			on_line(c);
		}
	if (n == 0)
		on_end(c, "in order");
	else if (errno != EAGAIN)
		on_end(c, strerror(errno));
}

static void
on_event(struct conn *c, unsigned events)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!c->connected && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (err) {
			on_end(c, strerror(err));
			return;
		}
		c->connected = true;
		if (!c->stream && !put(c, "get\n"))
			failed(c, "it was closed before it could ask");
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(c);
}

static void
answer(void)
{
	(void)!write(1, "ok\n", 3);
}

static void
on_command(char *line)
{
	if (strncmp(line, "least ", 6) == 0) {
		run.least = strtol(line + 6, NULL, 10);
		answer();
	} else if (strcmp(line, "pause") == 0)
		run.paused = run.answer_due = true;
	else if (strcmp(line, "ready") == 0)
		run.ready_due = true;
	else if (strcmp(line, "go on") == 0) {
		run.paused = false;
		answer();
	} else
		die(line);
}

static void
on_input(void)
{
	char text[256];
	ssize_t n = read(0, text, sizeof(text) - 1);

	if (n < 0)
		die("read");
	if (n == 0)
		run.paused = run.stopping = true;
	text[n] = 0;
	for (char *p = text, *nl; (nl = strchr(p, '\n')); p = nl + 1) {
		*nl = 0;
		on_command(p);
	}
}

/* What nobody answers. */
static void
look_for_late(int64_t t)
{
	int64_t longest = (int64_t)PATIENCE_MS * 1000000;
	struct conn *next;

	for (struct conn *c = run.shorts; c; c = next) {
		next = c->next;
		if (t - c->since > longest)
			on_end(c, "by its patience");
	}
	for (size_t i = 0; i < run.nstreams; i++) {
		struct conn *c = &run.streams[i];
		if (c->fd >= 0 && t - c->since > longest && (c->waits || !c->connected)) {
			failed(c, "no answer to %ld", c->said);
			end(c);
		}
	}
}

static bool
all_ready(void)
{
	for (size_t i = 0; i < run.nstreams; i++)
		if (run.streams[i].version == 0)
			return false;
	return true;
}

static void
step(int64_t t, int64_t began)
{
	static int64_t looked, opened;

	int64_t due = (int64_t)((double)(t - began) * run.rate / 1e9);

	for (; !run.paused && run.nopen < ABREAST && opened < due; opened++)
		begin_short();
	opened = due; /* those missed are not made up for */
	for (size_t i = 0; i < run.nstreams; i++)
		if (!run.stopping && run.streams[i].due <= t)
			say(&run.streams[i], t);
	if (t - looked > 1000000000) {
		look_for_late(t);
		looked = t;
	}
	if ((run.answer_due && run.nopen == 0) || (run.ready_due && all_ready())) {
		run.answer_due = run.ready_due = false;
		answer();
	}
}

static bool
is_done(void)
{
	static bool shut;
	bool open = run.nopen > 0;

	if (!run.stopping)
		return false;
	for (size_t i = 0; i < run.nstreams; i++) {
		if (run.streams[i].fd < 0)
			continue;
		open = true;
		if (!shut)
			shutdown(run.streams[i].fd, SHUT_WR);
	}
	shut = true;
	return !open;
}

static void
visit(void)
{
	struct epoll_event events[256];
	int64_t began = now();
	int n;

	while (!is_done()) {
		step(now(), began);
		n = epoll_wait(run.ep, events, 256, 1);
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr)
				on_event(events[i].data.ptr, events[i].events);
			else
				on_input();
	}
}

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void
report(double seconds)
{
	size_t n = run.nsamples < SAMPLES ? run.nsamples : SAMPLES;

	qsort(run.samples, n, sizeof(*run.samples), compare);
	printf("{\"connections\":%llu,\"per_second\":%.0f,\"messages\":%llu,\"moves\":%llu,"
	       "\"median_us\":%u,\"p999_us\":%u,\"max_us\":%u,\"failures\":%llu",
	       (unsigned long long)run.connections, (double)run.connections / seconds,
	       (unsigned long long)run.messages, (unsigned long long)run.moves,
	       n ? run.samples[n / 2] : 0, n ? run.samples[n - 1 - n / 1000] : 0,
	       n ? run.samples[n - 1] : 0, (unsigned long long)run.failures);
	for (char *p = run.failure; *p; p++)
		if (*p == '"' || *p == '\\')
			*p = '\'';
	printf(",\"failure\":\"%s\"}\n", run.failure);
}

int
main(int argc, char **argv)
{
	struct epoll_event e = {.events = EPOLLIN};
	struct rlimit rl;
	char *colon;
	int64_t began = now();

	if (argc != 5 || !(colon = strrchr(argv[1], ':'))) {
		fputs("usage: visit HOST:PORT RATE STREAMS PERIOD\n", stderr);
		return 2;
	}
	*colon = 0;
	run.to.sin_family = AF_INET;
	run.to.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, argv[1], &run.to.sin_addr) != 1)
		die("not an IPv4 address");
	run.rate = atof(argv[2]);
	run.nstreams = strtoul(argv[3], NULL, 10);
	run.period = (int64_t)(atof(argv[4]) * 1e6);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	run.ep = epoll_create1(EPOLL_CLOEXEC);
	run.streams = calloc(run.nstreams + 1, sizeof(*run.streams));
	run.samples = calloc(SAMPLES, sizeof(*run.samples));
	if (run.ep < 0 || !run.streams || !run.samples ||
	    epoll_ctl(run.ep, EPOLL_CTL_ADD, 0, &e) < 0)
		die("set-up");
	for (size_t i = 0; i < run.nstreams; i++) {
		run.streams[i].stream = true;
		run.streams[i].due =
		    now() + run.period * (int64_t)i / (int64_t)run.nstreams;
		begin(&run.streams[i]);
	}
	visit();
	report((double)(now() - began) / 1e9);
	return run.failures > 0;
}
