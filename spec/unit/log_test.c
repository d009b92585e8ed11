#include "base/clock.h"
#include "base/log.h"
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Everything in the pipe, as a string. */
static const char *
drain(int fd)
{
	static char all[1 << 20];
	size_t have = 0;
	ssize_t n;

	while ((n = read(fd, all + have, sizeof(all) - 1 - have)) > 0)
		have += (size_t)n;
	all[have] = 0;
	return all;
}

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static void
forms(int fd, struct log *log)
{
	struct log_field f[] = {
	    log_str("word", "plain"), log_str("text", "two words"),   log_str("none", NULL),
	    log_int("n", -5),         log_bytes("b", "a\n\0\xff", 4), {0}};

	log->format = LOG_TEXT;
	log_event(log, LOG_WARN, "it happened", f);
	CHECK(ends_with(drain(fd),
			"Z warn it happened word=plain text=\"two words\" none=\"\" n=-5 "
			"b=\"a\\n\\u0000\\u00ff\"\n"));
	log->format = LOG_JSON;
	log_event(log, LOG_ERROR, "it happened", f);
	CHECK(ends_with(
	    drain(fd),
	    "Z\",\"level\":\"error\",\"event\":\"it happened\",\"word\":\"plain\","
	    "\"text\":\"two "
	    "words\",\"none\":\"\",\"n\":-5,\"b\":\"a\\n\\u0000\\u00ff\"}\n"));
	log_event(log, LOG_INFO, "bare", NULL);
	CHECK(ends_with(drain(fd), ",\"event\":\"bare\"}\n"));
	log->own = log_int("worker", 3);
	log_event(log, LOG_ERROR, "own", f + 3);
	CHECK(strstr(drain(fd), ",\"event\":\"own\",\"worker\":3,\"n\":-5,"));
	log->format = LOG_TEXT;
	log_event(log, LOG_ERROR, "own", f + 3);
	CHECK(strstr(drain(fd), " error own worker=3 n=-5 "));
	log->format = LOG_JSON;
	log->own = (struct log_field){0};
}

static void
levels(int fd, struct log *log)
{
	log->level = LOG_WARN;
	log_event(log, LOG_INFO, "unseen", NULL);
	CHECK(*drain(fd) == 0);
	log_event(log, LOG_WARN, "seen", NULL);
	CHECK(strstr(drain(fd), "seen"));
	log->level = LOG_DEBUG;
	CHECK(log_level_of("debug") == LOG_DEBUG && log_level_of("error") == LOG_ERROR);
	CHECK(log_level_of("loud") == -1 && log_level_of("") == -1);
}

/* A pipe that nobody reads: events are dropped and counted, and nobody waits. */
static void
full(int fd, struct log *log)
{
	int64_t began = clock_now();
	uint64_t lost;
	char line[64];

	for (int i = 0; i < 20000; i++)
		log_event(log, LOG_INFO, "filling the pipe until it is full", NULL);
	CHECK(log->dropped > 0 && log->dropped < 20000);
	CHECK(clock_now() - began < 5 * CLOCK_SECOND);
	lost = log->dropped;
	drain(fd);
	log_event(log, LOG_INFO, "after", NULL);
	snprintf(line, sizeof(line), "\"event\":\"log events dropped\",\"count\":%llu}\n",
		 (unsigned long long)lost);
	const char *text = drain(fd);
	CHECK(strstr(text, line) && ends_with(text, "\"event\":\"after\"}\n"));
	CHECK(log->dropped == lost);
	log_event(log, LOG_INFO, "and again", NULL);
	CHECK(!strstr(drain(fd), "dropped"));
}

static void
gate(int fd, struct log *log)
{
	struct log_gate g = {0};

	for (int i = 0; i < 10; i++)
		log_gated(log, &g, LOG_WARN, "often", NULL);
	CHECK(g.held == 9);
	const char *text = drain(fd);
	CHECK(strstr(text, "often") && !strstr(strstr(text, "often") + 1, "often"));
	g.next = clock_now(); /* as if the second were over */
	log_gated(log, &g, LOG_WARN, "often", NULL);
	CHECK(ends_with(drain(fd), "\"event\":\"often\",\"suppressed\":9}\n"));
	CHECK(g.held == 0);
	g.next = clock_now();
	log_gated(log, &g, LOG_WARN, "often", NULL);
	CHECK(ends_with(drain(fd), "\"event\":\"often\"}\n"));
}

static void
long_lines(int fd, struct log *log)
{
	static char text[30000];
	struct log_field f[] = {log_bytes("long", text, sizeof(text)), {0}};

	memset(text, 'y', sizeof(text));
	log_event(log, LOG_INFO, "long", f);
	CHECK(strlen(drain(fd)) > sizeof(text));
}

/* What a handler says may be as long as its memory: the log keeps the beginning. */
static void
longer_lines(struct log *log)
{
	enum { LENGTH = 10 << 20 };
	char *text = malloc(LENGTH), *line = malloc(1 << 20);
	struct log_field f[] = {log_bytes("long", text, LENGTH), {0}};
	FILE *file = tmpfile();
	int was = log->fd;
	size_t n;

	if (!text || !line || !file) {
		CHECK(!"memory and a file");
		return;
	}
	memset(text, 1, LENGTH); /* each becomes six bytes of JSON */
	log->fd = fileno(file);
	log_event(log, LOG_INFO, "longer", f);
	log->fd = was;
	rewind(file);
	n = fread(line, 1, (1 << 20) - 1, file);
	line[n] = 0;
	CHECK(n > 6 * 65536 && n < 6 * 65536 + 200);
	CHECK(ends_with(line, "\\u0001\",\"whole_length\":10485760}\n"));
	fclose(file);
	free(text);
	free(line);
}

void
test_log(void)
{
	struct log log = {.format = LOG_JSON};
	int fds[2];

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		CHECK(!"a pipe");
		return;
	}
	log.fd = fds[1];
	forms(fds[0], &log);
	levels(fds[0], &log);
	gate(fds[0], &log);
	long_lines(fds[0], &log);
	longer_lines(&log);
	full(fds[0], &log);
	close(fds[0]);
	log_event(&log, LOG_INFO, "to nobody",
		  NULL); /* the reader is gone: no signal, no wait */
	CHECK(log.untold == 1);
	close(fds[1]);
}
