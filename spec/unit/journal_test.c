#include "base/journal.h"
#include "unit.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPS = 60000, BIGGEST = 90 * 1024, SERVERS = 5 };

static const char *const names[SERVERS] = {"redis", "smtp", "dns", "a", ""};

static uint64_t
dice(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* ---- the model: every record that was ever added, none of them dropped */

struct seen {
	uint64_t conn;
	int64_t time;
	size_t n, detail; /* SIZE_MAX: none */
	int kind, server; /* -1: none */
	char fill;
};

struct model {
	struct journal *j;
	struct seen *all;    /* by seq - 1 */
	uint64_t n, cleared; /* records up to that are gone */
	char *bytes;
};

static void
add(struct model *m)
{
	uint64_t what = dice();
	struct seen s = {
	    .conn = what % 7,
	    .time = (int64_t)(what >> 20),
	    .n = what % 97 == 0 ? dice() % BIGGEST : dice() % 200,
	    .detail = what % 5 == 0 ? dice() % 40 : SIZE_MAX,
	    .kind = (int)(dice() % JOURNAL_KINDS),
	    .server = (int)(dice() % (SERVERS + 1)) - 1,
	    .fill = (char)(dice() % 255 + 1),
	};
	struct journal_record r = {.conn = s.conn, .time = s.time};

	memset(m->bytes, s.fill, BIGGEST);
	r.kind = (enum journal_kind)s.kind;
	r.data = m->bytes;
	r.data_len = s.n;
	if (s.server >= 0) {
		r.server = names[s.server];
		r.server_len = strlen(r.server);
	}
	if (s.detail != SIZE_MAX) {
		r.detail = m->bytes;
		r.detail_len = s.detail;
	}
	m->all[m->n++] = s;
	CHECK(journal_add(m->j, &r) == m->n);
}

static bool
is_filled(const char *p, size_t n, char c)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != c)
			return false;
	return true;
}

static bool
is(const struct seen *s, const struct journal_record *r)
{
	size_t kept = s->n < JOURNAL_DATA ? s->n : JOURNAL_DATA;

	return r->conn == s->conn && r->time == s->time && (int)r->kind == s->kind &&
	       r->length == s->n && r->data_len == kept &&
	       is_filled(r->data, kept, s->fill) &&
	       (s->server < 0 ? !r->server
			      : r->server && strcmp(r->server, names[s->server]) == 0 &&
				    r->server_len == strlen(r->server)) &&
	       (s->detail == SIZE_MAX ? !r->detail
				      : r->detail && r->detail_len == s->detail &&
					    is_filled(r->detail, s->detail, s->fill));
}

/* What next() should find, by looking at each. */
static uint64_t
expected(const struct model *m, uint64_t first, uint64_t after, unsigned kinds, int server)
{
	for (uint64_t i = after + 1 > first ? after + 1 : first; i <= m->n; i++)
		if ((kinds >> m->all[i - 1].kind & 1) &&
		    (server < 0 || m->all[i - 1].server == server))
			return i;
	return 0;
}

static void
look(struct model *m, uint64_t *after)
{
	struct journal_info info = journal_info(m->j);
	unsigned kinds = dice() % 3 ? JOURNAL_ALL : (unsigned)dice() & JOURNAL_ALL;
	int server = dice() % 3 ? -1 : (int)(dice() % SERVERS);
	const char *name = server < 0 ? NULL : names[server];
	uint64_t want = expected(m, info.first, *after, kinds, server);
	struct journal_record r = {0};
	bool found = journal_next(m->j, *after, kinds, name, name ? strlen(name) : 0, &r);

	CHECK(found == (want != 0));
	CHECK(!found || (r.seq == want && is(&m->all[want - 1], &r)));
	*after = found ? want : info.last;
}

/* The records that are kept are the newest ones, and the others are counted. */
static void
check_info(const struct model *m)
{
	struct journal_info info = journal_info(m->j);
	uint64_t sum = 0, kinds = 0, nameless = 0;
	const char *name;
	size_t len = 0;

	CHECK(info.last == m->n && info.bytes <= info.limit);
	CHECK(info.first + info.records == m->n + 1);
	CHECK(info.dropped == info.first - 1 - m->cleared);
	CHECK(journal_has(m->j, m->n) == false);
	CHECK(journal_has(m->j, 0) == (info.records > 0));
	for (size_t i = 0; i < info.servers; i++) {
		const struct journal_counts *c = journal_server(m->j, i, &name, &len);
		sum += c->dropped;
		for (int k = 0; k < JOURNAL_KINDS; k++)
			kinds += c->kinds[k];
	}
	for (uint64_t i = m->cleared; i < info.first - 1; i++)
		nameless += m->all[i].server < 0;
	CHECK(sum + nameless == info.dropped);
	for (uint64_t i = info.first - 1; i < m->n; i++)
		nameless += m->all[i].server < 0;
	CHECK(kinds + nameless == m->n - m->cleared);
}

static void
change(struct model *m, uint64_t what)
{
	if (what == 0) {
		journal_clear(m->j, JOURNAL_EVERYTHING);
		m->cleared = m->n;
	} else if (what < 4)
		CHECK(journal_limit(m->j, JOURNAL_LEAST + dice() % (512 * 1024)) == 0);
	check_info(m);
}

static void
against_a_model(void)
{
	struct model m = {.j = journal_new(),
			  .all = calloc(OPS, sizeof(*m.all)),
			  .bytes = malloc(BIGGEST)};
	uint64_t readers[8] = {0};

	CHECK(journal_limit(m.j, JOURNAL_LEAST) == 0);
	for (int i = 0; i < OPS; i++) {
		uint64_t what = dice() % 4000;
		if (what < 40)
			change(&m, what);
		else if (what < 2000)
			add(&m);
		else
			look(&m, &readers[what % 8]);
		if (what % 1000 == 7)
			readers[dice() % 8] = m.n ? dice() % (m.n + 3) : 0;
	}
	check_info(&m);
	journal_free(m.j);
	free(m.all);
	free(m.bytes);
}

/* ---- the rest */

static uint64_t
put(struct journal *j, const char *server, const char *data)
{
	struct journal_record r = {.kind = JOURNAL_RECEIVED,
				   .server = server,
				   .server_len = strlen(server),
				   .data = data,
				   .data_len = strlen(data)};

	return journal_add(j, &r);
}

/* All that is left is there, in order, and can be found from anywhere. */
static void
a_million(void)
{
	struct journal *j = journal_new();
	struct journal_info info;
	struct journal_record r;
	const char *name;
	uint64_t n = 0, at = 0;
	size_t len = 0;

	for (int i = 0; i < 1000000; i++)
		put(j, "redis", "*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$4\r\nxxxx\r\n");
	info = journal_info(j);
	CHECK(info.limit == JOURNAL_LIMIT && info.bytes <= info.limit);
	CHECK(info.bytes > info.limit - 256);
	CHECK(info.last == 1000000 && info.dropped > 0);
	CHECK(info.records + info.dropped == 1000000);
	CHECK(journal_server(j, 0, &name, &len)->dropped == info.dropped);
	while (journal_next(j, at, JOURNAL_ALL, NULL, 0, &r)) {
		at = r.seq;
		n++;
	}
	CHECK(n == info.records && at == 1000000);
	for (uint64_t i = 0; i < 1000; i++) {
		at = info.first + i * 7919 % (info.records - 1);
		CHECK(journal_next(j, at, JOURNAL_ALL, "redis", 5, &r) && r.seq == at + 1);
	}
	journal_free(j);
}

#ifdef __SANITIZE_ADDRESS__ /* which needs more memory than there is */
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif

/* In a process of its own, which may not grow much: records are dropped instead. */
static int
with_little_memory(void)
{
	struct journal *j = journal_new();
	struct rlimit few = {16 << 20, 16 << 20}; /* the data of this program is less */
	struct journal_info info;
	struct journal_record r;
	uint64_t last = 0;

	if (setrlimit(RLIMIT_DATA, &few) < 0)
		return 1;
	for (int i = 0; i < 1000000; i++)
		last = put(j, "redis", "$11\r\nhello there\r\n");
	info = journal_info(j);
	return !(last == 1000000 && info.bytes < (16 << 20) && info.records > 1000 &&
		 info.dropped + info.records == last &&
		 journal_next(j, last - 1, JOURNAL_ALL, "redis", 5, &r) && r.seq == last);
}

static void
little_memory(void)
{
	int status = -1;
	pid_t pid = SANITIZED ? -1 : fork();

	if (pid == 0)
		_exit(with_little_memory());
	CHECK(SANITIZED || (waitpid(pid, &status, 0) == pid && status == 0));
}

static unsigned heard;

static void
on_heard(struct journal_listener *l)
{
	(void)l;
	heard++;
}

static void
listeners(void)
{
	struct journal *j = journal_new();
	struct journal_listener a = {.heard = on_heard}, b = {.heard = on_heard};

	journal_listen(j, &a);
	journal_listen(j, &b);
	journal_clear(j, JOURNAL_EVERYTHING); /* it forgets no listener */
	CHECK(heard == 0);
	put(j, "s", "1");
	CHECK(heard == 2);
	put(j, "s", "2"); /* once */
	CHECK(heard == 2);
	journal_listen(j, &a);
	journal_listen(j, &b);
	journal_unlisten(&a);
	journal_unlisten(&a);
	put(j, "s", "3");
	CHECK(heard == 3);
	journal_free(j);
}

static void
connections(void)
{
	struct journal *j = journal_new();
	struct journal_record r = {.server = "s", .server_len = 1, .data = "", .kind = 0};
	uint64_t nth;

	CHECK(journal_open(j, &r, &nth) == 1 && nth == 1);
	CHECK(journal_open(j, &r, &nth) == 2 && nth == 2);
	r.server = "t";
	CHECK(journal_open(j, &r, &nth) == 3 && nth == 1);
	journal_clear(j, JOURNAL_EVERYTHING);
	CHECK(journal_info(j).first == 4 && journal_info(j).last == 3);
	CHECK(journal_open(j, &r, &nth) == 4 && nth == 1);
	CHECK(journal_info(j).servers == 1 && journal_info(j).last == 4);
	journal_free(j);
}

static void
clears_a_part(void)
{
	struct journal *j = journal_new();
	struct journal_record r = {.server = "s",
				   .server_len = 1,
				   .kind = JOURNAL_FAILED,
				   .data = "no",
				   .data_len = 2};
	uint64_t nth;

	journal_open(j, &r, &nth);
	journal_add(j, &r);
	CHECK(journal_mark(j, "k", 1));
	journal_clear(j, JOURNAL_COUNTS);
	CHECK(journal_next(j, 0, JOURNAL_ALL, "s", 1, &r) && r.seq == 1);
	CHECK(journal_open(j, &r, &nth) == 2 && nth == 1);
	journal_clear(j, JOURNAL_RECORDS);
	CHECK(!journal_next(j, 0, JOURNAL_ALL, NULL, 0, &r));
	CHECK(journal_info(j).first == 4 && journal_info(j).bytes == 0);
	r = (struct journal_record){.server = "s", .server_len = 1, .data = ""};
	CHECK(journal_open(j, &r, &nth) == 3 && nth == 2);
	CHECK(journal_info(j).failures == 1 && journal_marked(j, "k", 1));
	CHECK(journal_next(j, 0, JOURNAL_ALL, "s", 1, &r) && r.seq == 4);
	journal_clear(j, JOURNAL_VERDICT);
	CHECK(journal_info(j).failures == 0 && !journal_marked(j, "k", 1));
	CHECK(journal_info(j).records == 1);
	journal_free(j);
}

static void
marks_and_failures(void)
{
	struct journal *j = journal_new();
	struct journal_record r = {
	    .kind = JOURNAL_FAILED, .data = "no\0good", .data_len = 7};
	static char large[JOURNAL_DATA + 1];
	char key[16];
	size_t len = 0;

	for (int i = 0; i < 1000; i++) {
		CHECK(
		    !journal_marked(j, key, (size_t)snprintf(key, sizeof(key), "k%d", i)));
		CHECK(journal_mark(j, key, strlen(key)) &&
		      journal_mark(j, key, strlen(key)));
		CHECK(journal_marked(j, key, strlen(key)) && !journal_marked(j, key, 0));
	}
	journal_add(j, &r);
	CHECK(memcmp(journal_failure(j, 0, &len), "no\0good", 8) == 0 && len == 7);
	r.data = large;
	r.data_len = sizeof(large);
	for (int i = 0; i < 100; i++)
		journal_add(j, &r);
	CHECK(journal_info(j).failures == 101);
	CHECK(journal_failure(j, 1, &len) && len == JOURNAL_DATA);
	CHECK(!journal_failure(j, 16, &len)); /* 1 MiB of them */
	journal_clear(j, JOURNAL_EVERYTHING);
	CHECK(!journal_failure(j, 0, &len) && journal_info(j).failures == 0);
	CHECK(!journal_marked(j, "k1", 2));
	journal_add(j, &r);
	CHECK(journal_failure(j, 0, &len));
	journal_free(j);
}

static void
kinds(void)
{
	for (int k = 0; k < JOURNAL_KINDS; k++) {
		const char *name = journal_kind_name((enum journal_kind)k);
		CHECK((int)journal_kind_of(name, strlen(name)) == k);
		CHECK(journal_kind_of(name, strlen(name) - 1) == JOURNAL_KINDS);
	}
	CHECK(journal_kind_of("sent\0", 5) == JOURNAL_KINDS);
	CHECK(journal_kind_of("", 0) == JOURNAL_KINDS);
}

static void
bounds(void)
{
	struct journal *j = journal_new();

	CHECK(journal_limit(j, JOURNAL_LEAST - 1) == -EINVAL);
	CHECK(journal_limit(j, SIZE_MAX) == -EINVAL);
	CHECK(journal_info(j).limit == JOURNAL_LIMIT);
	put(j, "s", "1");
	CHECK(journal_limit(j, JOURNAL_LEAST) == 0 && journal_info(j).records == 1);
	journal_free(j);
	journal_free(NULL);
}

void
test_journal(void)
{
	against_a_model();
	a_million();
	little_memory();
	listeners();
	connections();
	clears_a_part();
	marks_and_failures();
	kinds();
	bounds();
}
