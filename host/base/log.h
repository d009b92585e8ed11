/* log.h - one event a line on a descriptor, as text or JSON.
 *
 * Writing does not wait: an event that the descriptor has no room for is
 * dropped and counted; only a line that has begun waits a moment for its end.  Any thread;
 * a zeroed mutex is a good one. */
#ifndef HOST_BASE_LOG_H
#define HOST_BASE_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

/* A named value of an event; an array of them ends with a NULL name. */
struct log_field {
	const char *name;
	const char *str; /* borrowed; NULL: the value is num */
	size_t len;
	int64_t num;
};

struct log {
	int fd; /* borrowed */
	enum log_level level;
	enum log_format format;
	struct log_field own;  /* in every event, first; no name: none */
	bool multiline;        /* text to a terminal: a traceback keeps its lines */
	pthread_mutex_t mutex; /* of all below */
	uint64_t dropped;      /* events lost since the start */
	uint64_t untold;       /* of these, not yet reported in the log itself */
};

/* At most one event a second for each cause; the next one says how many were kept back. */
struct log_gate {
	int64_t next; /* clock_now() from which the next may pass */
	uint64_t held;
};

struct log_field log_str(const char *name, const char *value);
struct log_field log_bytes(const char *name, const char *value, size_t len);
struct log_field log_int(const char *name, int64_t value);

/* Writes an event if its level is on.  fields may be NULL.  Of a value of more than 64 KiB
 * the beginning is written, and a field `whole_length`. */
void log_event(struct log *log, enum log_level level, const char *event,
	       const struct log_field *fields);

/* The same, behind a gate; the event then carries "suppressed" when any were. */
void log_gated(struct log *log, struct log_gate *gate, enum log_level level,
	       const char *event, const struct log_field *fields);

/* The same from a signal handler, whose thread is known not to be in this log: nothing is
 * allocated, no lock is taken, and fields of more than a few hundred bytes are left out. */
void log_urgent(struct log *log, enum log_level level, const char *event,
		const struct log_field *fields);

/* Events lost since the start. */
uint64_t log_dropped(struct log *log);

/* "debug", "info", "warn" or "error" to a level; -1 for another word. */
int log_level_of(const char *word);

#endif
