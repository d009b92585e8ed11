#include "base/log.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/line.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FIELDS = 24, CHUNK = 4096, URGENT = 4096 };

/* The most of one value that is written: a handler's error may have any length. */
enum { LONGEST = 64 * 1024 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct log_field
log_str(const char *name, const char *value)
{
	const char *v = value ? value : "";

	return (struct log_field){.name = name, .str = v, .len = strlen(v)};
}

struct log_field
log_bytes(const char *name, const char *value, size_t len)
{
	return (struct log_field){.name = name, .str = value, .len = len};
}

struct log_field
log_int(const char *name, int64_t value)
{
	return (struct log_field){.name = name, .num = value};
}

int
log_level_of(const char *word)
{
	for (int i = 0; i <= LOG_ERROR; i++)
		if (strcmp(word, level_names[i]) == 0)
			return i;
	return -1;
}

static void
put_stamp(struct line *t)
{
	struct timespec now;
	struct tm tm;
	char s[64];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(s, sizeof(s), "%Y-%m-%dT%H:%M:%S", &tm);
	line_put(t, s);
	snprintf(s, sizeof(s), ".%03ldZ", now.tv_nsec / 1000000);
	line_put(t, s);
}

static bool
is_plain(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] == '"' || s[i] == '\\' || s[i] == '=' ||
		    s[i] == 0x7f)
			return false;
	return n > 0;
}

static void
put_text_field(struct line *t, const struct log_field *f, bool multiline)
{
	char num[32];

	if (f->str && multiline && memchr(f->str, '\n', f->len)) {
		line_put(t, "\n    ");
		for (size_t i = 0; i < f->len; i++) {
			if (f->str[i] == '\n')
				line_put(t, "\n    ");
			else if ((unsigned char)f->str[i] < ' ' && f->str[i] != '\t')
				line_put(
				    t,
				    "?"); /* a peer's bytes must not steer the terminal */
			else
				line_put_bytes(t, f->str + i, 1);
		}
		return;
	}
	line_put(t, " ");
	line_put(t, f->name);
	line_put(t, "=");
	if (!f->str) {
		snprintf(num, sizeof(num), "%lld", (long long)f->num);
		line_put(t, num);
	} else if (is_plain(f->str, f->len))
		line_put_bytes(t, f->str, f->len);
	else
		json_quote(t, f->str, f->len);
}

static void
put_json_field(struct line *t, const struct log_field *f)
{
	char num[32];

	line_put(t, ",");
	json_quote(t, f->name, strlen(f->name));
	line_put(t, ":");
	if (f->str) {
		json_quote(t, f->str, f->len);
		return;
	}
	snprintf(num, sizeof(num), "%lld", (long long)f->num);
	line_put(t, num);
}

static void
put_fields(struct log *log, struct line *t, const struct log_field *fields)
{
	for (; fields && fields->name; fields++) {
		struct log_field f = *fields,
				 whole = log_int("whole_length", (int64_t)f.len);
		bool cut = f.str && f.len > LONGEST;

		f.len = cut ? LONGEST : f.len;
		if (log->format == LOG_JSON)
			put_json_field(t, &f);
		else
			put_text_field(t, &f, log->multiline);
		if (cut && log->format == LOG_JSON)
			put_json_field(t, &whole);
		else if (cut)
			put_text_field(t, &whole, false);
	}
}

static void
compose(struct log *log, struct line *t, enum log_level level, const char *event,
	const struct log_field *fields)
{
	if (log->format == LOG_JSON) {
		line_put(t, "{\"time\":\"");
		put_stamp(t);
		line_put(t, "\",\"level\":\"");
		line_put(t, level_names[level]);
		line_put(t, "\",\"event\":");
		json_quote(t, event, strlen(event));
		if (log->own.name)
			put_json_field(t, &log->own);
		put_fields(log, t, fields);
		line_put(t, "}\n");
		return;
	}
	put_stamp(t);
	line_put(t, " ");
	line_put(t, level_names[level]);
	line_put(t, " ");
	line_put(t, event);
	if (log->own.name)
		put_text_field(t, &log->own, log->multiline);
	put_fields(log, t, fields);
	line_put(t, "\n");
}

/* Writes the line in pieces that a pipe takes whole.  False: no room for the first. */
static bool
deliver(struct log *log, const char *p, size_t n)
{
	bool begun = false;

	while (n > 0) {
		struct pollfd pfd = {.fd = log->fd, .events = POLLOUT};
		ssize_t w;

		/* A line that has begun gets a moment, so that it is not left half. */
		if (poll(&pfd, 1, begun ? 50 : 0) <= 0 || !(pfd.revents & POLLOUT))
			return begun;
		w = write(log->fd, p, n < CHUNK ? n : CHUNK);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return begun;
		begun = true;
		p += w;
		n -= (size_t)w;
	}
	return true;
}

/* Under the mutex. */
static void
write_event(struct log *log, enum log_level level, const char *event,
	    const struct log_field *fields)
{
	struct line t = {0};

	if (log->untold) {
		struct log_field lost[] = {log_int("count", (int64_t)log->untold), {0}};
		compose(log, &t, LOG_WARN, "log events dropped", lost);
	}
	compose(log, &t, level, event, fields);
	if (!t.lost && deliver(log, buf_data(&t.buf), buf_len(&t.buf)))
		log->untold = 0;
	else {
		log->dropped++;
		log->untold++;
	}
	line_free(&t);
}

void
log_event(struct log *log, enum log_level level, const char *event,
	  const struct log_field *fields)
{
	if (level < log->level)
		return;
	pthread_mutex_lock(&log->mutex);
	write_event(log, level, event, fields);
	pthread_mutex_unlock(&log->mutex);
}

void
log_urgent(struct log *log, enum log_level level, const char *event,
	   const struct log_field *fields)
{
	_Alignas(struct bytes) char room[URGENT];
	struct bytes *bytes = (struct bytes *)(void *)room;
	struct line l = {.buf = {.at = bytes}};
	size_t n = 64;

	*bytes = (struct bytes){.cap = sizeof(room) - sizeof(*bytes)};
	for (const struct log_field *f = fields; f->name; f++)
		n += strlen(f->name) + 24 + 6 * f->len; /* at worst, all is escaped */
	if (level < log->level)
		return;
	if (n > bytes->cap) /* then it must do without them */
		fields = NULL;
	compose(log, &l, level, event, fields);
	deliver(log, buf_data(&l.buf), buf_len(&l.buf));
}

uint64_t
log_dropped(struct log *log)
{
	uint64_t n;

	pthread_mutex_lock(&log->mutex);
	n = log->dropped;
	pthread_mutex_unlock(&log->mutex);
	return n;
}

void
log_gated(struct log *log, struct log_gate *gate, enum log_level level, const char *event,
	  const struct log_field *fields)
{
	struct log_field all[MAX_FIELDS + 2];
	int64_t now = clock_now();
	int n = 0;

	if (now < gate->next) {
		gate->held++;
		return;
	}
	for (; fields && fields[n].name && n < MAX_FIELDS; n++)
		all[n] = fields[n];
	if (gate->held)
		all[n++] = log_int("suppressed", (int64_t)gate->held);
	all[n] = (struct log_field){0};
	*gate = (struct log_gate){.next = now + CLOCK_SECOND};
	log_event(log, level, event, all);
}
