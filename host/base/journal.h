/* journal.h - what happened on the connections of mocks, in order: records with one
 * sequence number, which outlive the scripts that write them.
 *
 * Bounded in bytes: where there is no room, the oldest records make some, and are counted
 * as dropped.  An append never fails: a record that cannot be kept at all is counted as
 * dropped, too.  Counts, failures and marks are kept apart from the records, and can be
 * cleared apart.
 *
 * The caller owns the journal, and what it passes in, which is copied.  What a record
 * points to is the journal's, valid until the next call that adds or clears.  Sizes are
 * bytes, times nanoseconds since 1970, sequence numbers and connections are numbered from
 * 1.  One thread.  Knows no Lua: see bind/diary.h. */
#ifndef HOST_BASE_JOURNAL_H
#define HOST_BASE_JOURNAL_H

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	JOURNAL_LIMIT = 64 * 1024 * 1024, /* bytes of records, unless told */
	JOURNAL_LEAST = 128 * 1024,       /* the least that can be told */
	JOURNAL_DATA = 64 * 1024,         /* a record's longer data is cut */
	JOURNAL_DETAIL = 16 * 1024,       /* and its detail, without a trace */
	JOURNAL_NAME = 255,               /* the longest name of a server */
	JOURNAL_FAILURES = 1024 * 1024,   /* bytes of texts of failures that are kept */
};

enum journal_kind {
	JOURNAL_OPEN,
	JOURNAL_RECEIVED,
	JOURNAL_UNMATCHED,
	JOURNAL_SENT,
	JOURNAL_PARTIAL,
	JOURNAL_CLOSED,
	JOURNAL_TOXIC,
	JOURNAL_NOTE,
	JOURNAL_RELOAD,
	JOURNAL_ERROR,
	JOURNAL_FAILED,
	JOURNAL_PUSH,
	JOURNAL_KINDS /* how many */
};

#define JOURNAL_ALL ((1u << JOURNAL_KINDS) - 1)

struct journal;

struct journal_record {
	uint64_t seq;  /* set by the journal */
	uint64_t conn; /* 0: none */
	int64_t time;
	enum journal_kind kind;
	const char *server; /* NULL: none */
	size_t server_len;
	const char *data;
	size_t data_len;    /* of what is kept */
	uint64_t length;    /* of what there was; set by the journal, at most UINT32_MAX */
	const char *detail; /* NULL: none; of one that was read it follows the data */
	size_t detail_len;
};

/* Since the journal was made, or cleared; dropped records count as well. */
struct journal_counts {
	uint64_t kinds[JOURNAL_KINDS];
	uint64_t bytes_in;  /* received and partial */
	uint64_t bytes_out; /* sent and push */
	uint64_t dropped;
};

struct journal_info {
	size_t limit, bytes, records;
	uint64_t first, last; /* none is kept: first is last + 1 */
	uint64_t dropped, failures;
	size_t servers;
};

/* NULL: out of memory. */
struct journal *journal_new(void);
void journal_free(struct journal *j);

/* Changes the bound.  Errors: -EINVAL (less than JOURNAL_LEAST), -ENOMEM; nothing changed.
 */
int journal_limit(struct journal *j, size_t bytes);

/* Adds a record: its sequence number.  JOURNAL_FAILED is a failure as well: its data is the
 * text. */
uint64_t journal_add(struct journal *j, const struct journal_record *r);

/* Adds JOURNAL_OPEN, a record of a new connection: its number.  *nth: which one of the
 * server it is, from 1; 0 for want of memory. */
uint64_t journal_open(struct journal *j, const struct journal_record *r, uint64_t *nth);

/* The first record past `after` that is of one of these kinds, a mask of 1 << kind, and of
 * that server, unless it is NULL.  False: none is, up to the last one.  Walks from where
 * the record `after` is, which it finds in about the same time wherever that is. */
bool journal_next(struct journal *j, uint64_t after, unsigned kinds, const char *server,
		  size_t server_len, struct journal_record *out);

/* Whether there is a record past `after`. */
bool journal_has(const struct journal *j, uint64_t after);

/* The caller owns it, and keeps it in place while it listens. */
struct journal_listener {
	struct list link;
	void (*heard)(struct journal_listener *l); /* must add nothing, and clear nothing */
};

/* Calls it once, when the next record is added. */
void journal_listen(struct journal *j, struct journal_listener *l);
void journal_unlisten(struct journal_listener *l);

enum {
	JOURNAL_RECORDS = 1, /* and how many were dropped */
	JOURNAL_COUNTS = 2,
	JOURNAL_VERDICT = 4, /* failures and marks */
	JOURNAL_EVERYTHING = 7,
};

/* Forgets some of that, a mask; numbers go on. */
void journal_clear(struct journal *j, unsigned what);

struct journal_info journal_info(const struct journal *j);

/* Server i < info.servers. */
const struct journal_counts *journal_server(const struct journal *j, size_t i,
					    const char **name, size_t *len);

/* Text i of the failures; NULL: no more are kept. */
const char *journal_failure(const struct journal *j, size_t i, size_t *len);

/* A flag.  False: out of memory. */
bool journal_mark(struct journal *j, const char *key, size_t n);
bool journal_marked(const struct journal *j, const char *key, size_t n);

/* "received" and the like; JOURNAL_KINDS: there is no such kind. */
const char *journal_kind_name(enum journal_kind kind);
enum journal_kind journal_kind_of(const char *name, size_t n);

#endif
