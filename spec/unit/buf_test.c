#include "base/buf.h"
#include "unit.h"

#include <string.h>

/* Which the compiler is not to know. */
static volatile const size_t too_much = (size_t)-1 / 2;

static bool
holds(const struct buf *b, const char *text)
{
	return buf_len(b) == strlen(text) && memcmp(buf_data(b), text, strlen(text)) == 0;
}

/* A long random-looking walk against a plain copy. */
static void
walk(void)
{
	static char copy[1 << 16];
	struct buf b = {0};
	size_t from = 0, to = 0;
	unsigned seed = 7;
	bool same = true;

	while (to < sizeof(copy) - 600) {
		size_t n = (seed = seed * 1103515245 + 12345) >> 16 & 511, have = to - from;
		for (size_t i = 0; i < n; i++)
			copy[to + i] = (char)(seed >> 8 ^ i);
		same = same && buf_put(&b, copy + to, n);
		to += n;
		n = seed >> 7 & 511;
		if (n > have)
			n = have;
		buf_drop(&b, n);
		from += n;
		same = same && buf_len(&b) == to - from &&
		       (to == from || !memcmp(buf_data(&b), copy + from, to - from));
	}
	CHECK(same);
	buf_free(&b);
}

/* Room that is filled by somebody else, with and without something dropped before it. */
static void
room(void)
{
	struct buf b = {0};
	char *at;

	CHECK((at = buf_room(&b, 1000)) && buf_len(&b) == 0);
	memcpy(at, "hello", 5);
	buf_filled(&b, 5);
	CHECK(holds(&b, "hello"));
	CHECK((at = buf_room(&b, 100000)) && holds(&b, "hello"));
	memset(at, 'x', 100000);
	memcpy(at, " world", 6);
	buf_filled(&b, 6);
	CHECK(holds(&b, "hello world"));
	buf_drop(&b, 6);
	CHECK((at = buf_room(&b, 300000)) && holds(&b, "world"));
	memset(at, 'x', 300000);
	buf_filled(&b, 0);
	CHECK(holds(&b, "world"));
	CHECK(!buf_room(&b, too_much) && holds(&b, "world"));
	buf_free(&b);
}

void
test_buf(void)
{
	struct buf b = {0};
	char big[5000];

	memset(big, 'x', sizeof(big));
	CHECK(buf_len(&b) == 0);
	CHECK(buf_put(&b, "", 0) && !b.at);
	CHECK(buf_put(&b, "hello ", 6) && buf_put(&b, "world", 5) &&
	      holds(&b, "hello world"));
	buf_drop(&b, 6);
	CHECK(holds(&b, "world"));
	CHECK(buf_put(&b, "!", 1) && holds(&b, "world!"));
	buf_drop(&b, 0);
	CHECK(holds(&b, "world!"));
	buf_drop(&b, 6);
	CHECK(buf_len(&b) == 0 && !b.at &&
	      buf_cap(&b) == 0); /* an empty one owns nothing */
	CHECK(buf_put(&b, big, sizeof(big)) && buf_len(&b) == sizeof(big));
	CHECK(!buf_put(&b, big, too_much)); /* too much: and nothing has changed */
	CHECK(buf_len(&b) == sizeof(big) && buf_data(&b)[sizeof(big) - 1] == 'x');
	buf_free(&b);
	CHECK(buf_len(&b) == 0 && !b.at);
	buf_free(&b);
	walk();
	room();
}
