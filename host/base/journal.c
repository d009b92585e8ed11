#include "base/journal.h"

#include "base/names.h"
#include "base/ring.h"
#include "base/sparse.h"
#include "base/texts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	STRIDE = 64,  /* records from one milestone to the next */
	CURSORS = 64, /* places where readers were last; a power of two */
	MOST_SERVERS = 64 * 1024,
};

/* In the ring, with the data and the detail behind it. */
struct entry {
	uint64_t seq, conn;
	int64_t time;
	uint32_t length; /* of the data, before it was cut */
	uint32_t server; /* number + 1; 0: none */
	uint16_t detail; /* its length + 1; 0: none */
	uint8_t kind;
};

struct cursor {
	uint64_t seq;
	size_t pos;
};

struct journal {
	struct ring ring;
	struct sparse index;
	size_t records;
	uint64_t last;        /* the newest number */
	uint64_t first, kept; /* of the oldest and the newest record in the ring */
	uint64_t milestone;   /* the last one in the index */
	uint64_t conns, dropped;
	struct names servers;
	struct journal_counts *counts; /* by the servers' numbers */
	size_t counts_room;
	uint32_t server; /* whose record was added last; a number + 1 */
	struct names marks;
	struct texts failures;
	struct list listeners;
	struct cursor cursors[CURSORS];
};

struct journal *
journal_new(void)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->ring.max = JOURNAL_LIMIT;
	j->failures.max = JOURNAL_FAILURES;
	list_init(&j->listeners);
	return j;
}

static size_t
kept_of(size_t length)
{
	return length < JOURNAL_DATA ? length : JOURNAL_DATA;
}

static size_t
size_of(const struct entry *e)
{
	size_t n = sizeof(*e) + kept_of(e->length) + (e->detail ? e->detail - 1u : 0);

	return (n + 7) & ~(size_t)7;
}

static struct entry *
entry_at(const struct journal *j, size_t pos)
{
	return (struct entry *)(void *)(j->ring.base + pos);
}

static size_t
step(const struct journal *j, size_t pos)
{
	return ring_next(&j->ring, pos, size_of(entry_at(j, pos)));
}

static void
count_dropped(struct journal *j, uint32_t server)
{
	j->dropped++;
	if (server)
		j->counts[server - 1].dropped++;
}

static void
drop_oldest(struct journal *j)
{
	const struct entry *e = entry_at(j, j->ring.head);

	count_dropped(j, e->server);
	sparse_drop(&j->index, e->seq);
	ring_drop(&j->ring, size_of(e));
	if (--j->records)
		j->first = entry_at(j, j->ring.head)->seq;
}

/* Notes where the newest record is, now and then. */
static void
index_entry(struct journal *j, uint64_t seq, size_t pos)
{
	if (j->index.n && seq < j->milestone + STRIDE)
		return;
	if (sparse_add(&j->index, seq, pos))
		j->milestone = seq;
}

/* The records are at other positions. */
static void
index_again(struct journal *j)
{
	size_t pos = j->ring.head;

	memset(j->cursors, 0, sizeof(j->cursors));
	sparse_clear(&j->index);
	for (size_t i = 0; i < j->records; i++, pos = step(j, pos))
		index_entry(j, entry_at(j, pos)->seq, pos);
}

int
journal_limit(struct journal *j, size_t bytes)
{
	if (bytes < JOURNAL_LEAST || bytes > SIZE_MAX / 4)
		return -EINVAL;
	while (j->ring.used > bytes)
		drop_oldest(j);
	if (!ring_fit(&j->ring, bytes))
		return -ENOMEM;
	index_again(j);
	return 0;
}

/* Counters for one more server. */
static bool
make_counts(struct journal *j)
{
	size_t room = j->counts_room ? j->counts_room * 2 : 8;
	struct journal_counts *c;

	if (j->servers.n < j->counts_room)
		return true;
	c = j->servers.n < MOST_SERVERS ? realloc(j->counts, room * sizeof(*c)) : NULL;
	if (!c)
		return false;
	memset(c + j->counts_room, 0, (room - j->counts_room) * sizeof(*c));
	j->counts = c;
	j->counts_room = room;
	return true;
}

/* Its number + 1; 0: there is no memory for another one. */
static uint32_t
server_of(struct journal *j, const char *p, size_t n)
{
	size_t len;
	const char *again = j->server ? names_text(&j->servers, j->server - 1, &len) : NULL;

	if (again && len == n && memcmp(again, p, n) == 0)
		return j->server;
	j->server = make_counts(j) ? names_add(&j->servers, p, n) + 1
				   : names_find(&j->servers, p, n) + 1;
	return j->server;
}

static void
count(struct journal *j, uint32_t server, enum journal_kind kind, uint64_t n)
{
	struct journal_counts *c = &j->counts[server - 1];

	c->kinds[kind]++;
	if (kind == JOURNAL_RECEIVED || kind == JOURNAL_PARTIAL)
		c->bytes_in += n;
	else if (kind == JOURNAL_SENT || kind == JOURNAL_PUSH)
		c->bytes_out += n;
}

static void
tell(struct journal *j)
{
	struct list batch;

	list_take(&batch, &j->listeners);
	while (!list_empty(&batch)) {
		struct journal_listener *l =
		    LIST_ENTRY(batch.next, struct journal_listener, link);
		list_remove(&l->link);
		l->heard(l);
	}
}

/* Its place in the ring, which e names; RING_FULL: none. */
static size_t
place(struct journal *j, const struct entry *e)
{
	size_t size = size_of(e), pos;

	while ((pos = ring_put(&j->ring, size)) == RING_FULL && j->records)
		drop_oldest(j);
	if (pos == RING_FULL)
		return pos;
	if (j->records++ == 0)
		j->first = e->seq;
	j->kept = e->seq;
	index_entry(j, e->seq, pos);
	return pos;
}

/* False: it could not be kept. */
static bool
keep(struct journal *j, uint32_t server, const struct journal_record *r)
{
	size_t detail = r->detail_len < JOURNAL_DETAIL ? r->detail_len : JOURNAL_DETAIL;
	struct entry e = {
	    .seq = j->last,
	    .conn = r->conn,
	    .time = r->time,
	    .length = r->data_len < UINT32_MAX ? (uint32_t)r->data_len : UINT32_MAX,
	    .server = server,
	    .detail = r->detail ? (uint16_t)(detail + 1) : 0,
	    .kind = (uint8_t)r->kind,
	};
	size_t pos = place(j, &e);
	char *to;

	if (pos == RING_FULL)
		return false;
	to = j->ring.base + pos;
	memcpy(to, &e, sizeof(e));
	to += sizeof(e);
	if (e.length)
		memcpy(to, r->data, kept_of(e.length));
	if (r->detail)
		memcpy(to + kept_of(e.length), r->detail, detail);
	return true;
}

uint64_t
journal_add(struct journal *j, const struct journal_record *r)
{
	uint32_t server = r->server ? server_of(j, r->server, r->server_len) : 0;
	uint64_t seq = ++j->last;

	if (server)
		count(j, server, r->kind, r->data_len);
	if (r->kind == JOURNAL_FAILED)
		texts_add(&j->failures, r->data, kept_of(r->data_len));
	if ((r->server && !server) || !keep(j, server, r))
		count_dropped(j, server);
	else if (!list_empty(&j->listeners))
		tell(j);
	return seq;
}

uint64_t
journal_open(struct journal *j, const struct journal_record *r, uint64_t *nth)
{
	struct journal_record copy = *r;

	copy.kind = JOURNAL_OPEN;
	copy.conn = ++j->conns;
	journal_add(j, &copy);
	*nth = r->server && j->server ? j->counts[j->server - 1].kinds[JOURNAL_OPEN] : 0;
	return copy.conn;
}

bool
journal_has(const struct journal *j, uint64_t after)
{
	return j->records && j->kept > after;
}

static struct cursor *
cursor_of(struct journal *j, uint64_t seq)
{
	return &j->cursors[(seq * UINT64_C(0x9E3779B97F4A7C15)) >> 58];
}

/* The first record past `after`; there is one. */
static size_t
seek(struct journal *j, uint64_t after)
{
	const struct cursor *c = cursor_of(j, after);
	const struct milestone *m;
	size_t pos = j->ring.head;

	if (after < j->first)
		return pos;
	if (c->seq == after)
		return step(j, c->pos);
	m = sparse_find(&j->index, after);
	if (m)
		pos = m->pos;
	while (entry_at(j, pos)->seq <= after)
		pos = step(j, pos);
	return pos;
}

static void
show(const struct journal *j, const struct entry *e, struct journal_record *out)
{
	const char *data = (const char *)(e + 1);

	*out = (struct journal_record){
	    .seq = e->seq,
	    .conn = e->conn,
	    .time = e->time,
	    .kind = (enum journal_kind)e->kind,
	    .data = data,
	    .data_len = kept_of(e->length),
	    .length = e->length,
	};
	if (e->server)
		out->server = names_text(&j->servers, e->server - 1, &out->server_len);
	if (e->detail) {
		out->detail = data + out->data_len;
		out->detail_len = e->detail - 1u;
	}
}

bool
journal_next(struct journal *j, uint64_t after, unsigned kinds, const char *server,
	     size_t server_len, struct journal_record *out)
{
	uint32_t id = server ? names_find(&j->servers, server, server_len) + 1 : 0;
	const struct entry *e;
	size_t pos;

	if (!journal_has(j, after) || (server && !id))
		return false;
	for (pos = seek(j, after);; pos = step(j, pos)) {
		e = entry_at(j, pos);
		if ((kinds >> e->kind & 1) && (!server || e->server == id))
			break;
		if (e->seq == j->kept)
			return false;
	}
	*cursor_of(j, e->seq) = (struct cursor){e->seq, pos};
	show(j, e, out);
	return true;
}

void
journal_listen(struct journal *j, struct journal_listener *l)
{
	list_append(&j->listeners, &l->link);
}

void
journal_unlisten(struct journal_listener *l)
{
	list_remove(&l->link);
}

static void
clear_records(struct journal *j)
{
	ring_clear(&j->ring);
	sparse_clear(&j->index);
	memset(j->cursors, 0, sizeof(j->cursors));
	j->records = 0;
	j->first = j->kept = j->milestone = j->dropped = 0;
	for (uint32_t i = 0; i < j->servers.n; i++)
		j->counts[i].dropped = 0;
}

/* Records that stay go on naming their servers. */
static void
clear_counts(struct journal *j)
{
	if (j->servers.n)
		memset(j->counts, 0, j->servers.n * sizeof(*j->counts));
	if (j->records)
		return;
	names_clear(&j->servers);
	j->server = 0;
}

static void
clear_verdict(struct journal *j)
{
	texts_clear(&j->failures);
	names_clear(&j->marks);
}

void
journal_clear(struct journal *j, unsigned what)
{
	if (what & JOURNAL_RECORDS)
		clear_records(j);
	if (what & JOURNAL_COUNTS)
		clear_counts(j);
	if (what & JOURNAL_VERDICT)
		clear_verdict(j);
}

void
journal_free(struct journal *j)
{
	if (!j)
		return;
	journal_clear(j, JOURNAL_EVERYTHING);
	free(j->counts);
	ring_free(&j->ring);
	free(j);
}

struct journal_info
journal_info(const struct journal *j)
{
	return (struct journal_info){
	    .limit = j->ring.max,
	    .bytes = j->ring.used,
	    .records = j->records,
	    .first = j->records ? j->first : j->last + 1,
	    .last = j->last,
	    .dropped = j->dropped,
	    .failures = j->failures.added,
	    .servers = j->servers.n,
	};
}

const struct journal_counts *
journal_server(const struct journal *j, size_t i, const char **name, size_t *len)
{
	*name = names_text(&j->servers, (uint32_t)i, len);
	return &j->counts[i];
}

const char *
journal_failure(const struct journal *j, size_t i, size_t *len)
{
	return texts_get(&j->failures, i, len);
}

bool
journal_mark(struct journal *j, const char *key, size_t n)
{
	return names_add(&j->marks, key, n) != NAMES_NONE;
}

bool
journal_marked(const struct journal *j, const char *key, size_t n)
{
	return names_find(&j->marks, key, n) != NAMES_NONE;
}

static const char *const kind_names[JOURNAL_KINDS] = {
    "open",  "received", "unmatched", "sent",  "partial", "closed",
    "toxic", "note",     "reload",    "error", "failed",  "push"};

const char *
journal_kind_name(enum journal_kind kind)
{
	return kind_names[kind];
}

enum journal_kind
journal_kind_of(const char *name, size_t n)
{
	int i = 0;

	while (i < JOURNAL_KINDS &&
	       (strlen(kind_names[i]) != n || memcmp(kind_names[i], name, n) != 0))
		i++;
	return (enum journal_kind)i;
}
