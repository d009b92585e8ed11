#include "script/pattern.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Searches with so many steps at a time; the match moves to another place each time. */
static enum pattern_result
search(struct match *m, const char *subject, const char *pattern, void *room, long steps)
{
	static struct match places[2];
	enum pattern_result r;
	int i = 0;

	pattern_init(&places[0], subject, strlen(subject), pattern, strlen(pattern), room,
		     true);
	places[0].steps = steps;
	while ((r = pattern_run(&places[i])) == PATTERN_MORE) {
		pattern_move(&places[!i], &places[i]);
		memset(&places[i], 0xAA, sizeof(places[i]));
		i = !i;
		places[i].steps = steps;
	}
	pattern_move(m, &places[i]);
	return r;
}

/* "from-to", and each capture: "at+length", "at" of a position, "?" of one without an end.
 */
static void
describe(const struct match *m, char *out, size_t size)
{
	size_t n = (size_t)snprintf(out, size, "%td-%td", m->start - m->subject,
				    m->end - m->subject);

	for (unsigned i = 0; i < m->ncaptures; i++) {
		const struct capture *c = &m->captures[i];
		ptrdiff_t at = c->at - m->subject;
		if (pattern_is_open(m, i))
			n += (size_t)snprintf(out + n, size - n, " ?");
		else if (c->len == PATTERN_POSITION)
			n += (size_t)snprintf(out + n, size - n, " %td", at);
		else
			n += (size_t)snprintf(out + n, size - n, " %td+%td", at, c->len);
	}
}

/* What a search gives, however often it is suspended. */
static bool
gives(const char *subject, const char *pattern, const char *expected)
{
	char got[256];

	for (long steps = 1; steps <= 4096; steps *= 4) {
		struct match m;
		enum pattern_result r = search(&m, subject, pattern, NULL, steps);
		if (r == PATTERN_MATCHED)
			describe(&m, got, sizeof(got));
		else
			snprintf(got, sizeof(got), "%s",
				 r == PATTERN_BROKEN ? m.error : "-");
		if (strcmp(got, expected) != 0) {
			printf("  %s in %s, %ld steps at a time: %s\n", pattern, subject,
			       steps, got);
			return false;
		}
	}
	return true;
}

static void
items(void)
{
	CHECK(gives("hello world", "wor", "6-9"));
	CHECK(gives("hello world", "", "0-0"));
	CHECK(gives("hello", "^hello$", "0-5"));
	CHECK(gives("hello", "^ello", "-"));
	CHECK(gives("a$b", "a$b", "0-3"));
	CHECK(gives("key = value", "^(%w+)%s*=%s*(%w+)$", "0-11 0+3 6+5"));
	CHECK(gives("aaa", "a-$", "0-3"));
	CHECK(gives("aaab", "a*ab", "0-4"));
	CHECK(gives("ab", "a?a?b", "0-2"));
	CHECK(gives("x[]-y", "[]%-[]+", "1-4"));
	CHECK(gives("a-z5", "[^a-z]+", "1-2"));
	CHECK(gives("THE (quick) fox", "%((%a+)%)", "4-11 5+5"));
	CHECK(gives("f(a(b)c)d)", "%b()", "1-8"));
	CHECK(gives("THE (quick) fox", "%f[%a]%a+%f[%A]", "0-3"));
	CHECK(gives("say \"it's\"", "([\"'])(.-)%1", "4-10 4+1 5+4"));
	CHECK(gives("ab", "()b()", "1-2 1 2"));
	CHECK(gives("abc", "a(b(c", "0-3 ? ?"));
	CHECK(gives("aXbXc", "(.*)X(.*)", "0-5 0+3 4+1"));
	CHECK(gives("aXbXc", "(.-)X(.-)$", "0-5 0+1 2+3"));
}

static void
errors(void)
{
	CHECK(gives("a", "a%", "malformed pattern (ends with '%')"));
	CHECK(gives("a", "[a", "malformed pattern (missing ']')"));
	CHECK(gives("a", "[a%", "malformed pattern (missing ']')"));
	CHECK(gives("a", "%f", "missing '[' after '%f' in pattern"));
	CHECK(gives("a", "%b(", "malformed pattern (missing arguments to '%b')"));
	CHECK(gives("a", "a)", "invalid pattern capture"));
	CHECK(gives("a", "%1", "invalid capture index %1"));
	CHECK(gives("aa", "(a%1)", "invalid capture index %1"));
	CHECK(gives("a", "%0", "invalid capture index %0"));
	CHECK(gives("a",
		    "()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()",
		    "too many captures"));
	CHECK(gives("b", "a[", "-")); /* what is not come to is not looked at */
}

/* What exhausts Lua's C stack, or its patience. */
static void
extremes(void)
{
	enum { N = 100000 };
	char *subject = malloc(N + 1), *pattern = malloc(2 * N + 1);
	void *room;
	struct match m;
	bool more = true;

	memset(subject, 'a', N);
	subject[N] = 0;
	for (int i = 0; i < N; i++)
		memcpy(pattern + 2 * i, i % 2 ? "a?" : "b*", 2);
	pattern[2 * N] = 0;
	CHECK(pattern_room("a*", 2) == 0);
	room = malloc(pattern_room(pattern, 2 * N));
	CHECK(search(&m, subject, pattern, room, PATTERN_STEPS) == PATTERN_MATCHED);
	CHECK(m.end - m.start == N / 2);
	free(room);

	pattern_init(&m, subject, N, ".-.-.-.-.-b", 11, NULL, true);
	for (int i = 0; i < 1000 && more; i++) {
		more = pattern_run(&m) == PATTERN_MORE;
		m.steps = PATTERN_STEPS;
	}
	CHECK(more);
	free(subject);
	free(pattern);
}

void
test_pattern(void)
{
	CHECK(pattern_is_plain("a b)]", 5) && !pattern_is_plain("a.", 2));
	items();
	errors();
	extremes();
}
