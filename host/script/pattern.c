#include "script/pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* What pattern_run() does next. */
enum next { START, ITEM, GROW, BALANCE, RETRY, MATCHED, FAILED, BROKEN };

enum { ESCAPE = '%' };

/* Of a choice's rest. */
enum { NOT_KNOWN = -2, ANY = -1 };

static enum next
broken(struct match *m, const char *why)
{
	snprintf(m->error, sizeof(m->error), "%s", why);
	return BROKEN;
}

/* Behind a single-byte item: a byte, a class or a set.  NULL: it does not end. */
static const char *
item_end(const char *p, const char *end)
{
	if (*p == ESCAPE)
		return p + 1 == end ? NULL : p + 2;
	if (*p++ != '[')
		return p;
	if (*p == '^')
		p++;
	do { /* what comes first is no end, be it a ']' */
		if (p == end)
			return NULL;
		if (*p++ == ESCAPE && p < end)
			p++;
	} while (*p != ']');
	return p + 1;
}

static enum next
unended(struct match *m, const char *p)
{
	return broken(m, *p == '[' ? "malformed pattern (missing ']')"
				   : "malformed pattern (ends with '%')");
}

static inline bool
in_class(int c, unsigned char class)
{
	bool upper = !(class & 0x20), in;

	switch (class | 0x20) {
	case 'a':
		in = isalpha(c);
		break;
	case 'c':
		in = iscntrl(c);
		break;
	case 'd':
		in = isdigit(c);
		break;
	case 'g':
		in = isgraph(c);
		break;
	case 'l':
		in = islower(c);
		break;
	case 'p':
		in = ispunct(c);
		break;
	case 's':
		in = isspace(c);
		break;
	case 'u':
		in = isupper(c);
		break;
	case 'w':
		in = isalnum(c);
		break;
	case 'x':
		in = isxdigit(c);
		break;
	case 'z': /* from before patterns could hold a NUL */
		in = c == 0;
		break;
	default:
		return c == class;
	}
	return in != upper;
}

/* p: the '['; last: its ']'. */
static bool
in_set(int c, const char *p, const char *last)
{
	bool found = true;

	if (*++p == '^') {
		found = false;
		p++;
	}
	for (; p < last; p++) {
		if (*p == ESCAPE) {
			if (in_class(c, (unsigned char)*++p))
				return found;
		} else if (p[1] == '-' && p + 2 < last) {
			if ((unsigned char)*p <= c && c <= (unsigned char)p[2])
				return found;
			p += 2;
		} else if ((unsigned char)*p == c)
			return found;
	}
	return !found;
}

/* The byte at s, of which there is one, is what the item stands for. */
static inline bool
fits(const char *s, const char *p, const char *end)
{
	switch (*p) {
	case '.':
		return true;
	case ESCAPE:
		return in_class((unsigned char)*s, (unsigned char)p[1]);
	case '[':
		return in_set((unsigned char)*s, p, end - 1);
	default:
		return *s == *p;
	}
}

/* The first byte from s on, before limit, that fits, or that does not. */
static const char *
span(const char *s, const char *limit, const char *p, const char *end, bool fitting)
{
	const char *found;

	switch (*p) {
	case '.':
		return fitting ? limit : s;
	case ESCAPE:
		while (s < limit &&
		       in_class((unsigned char)*s, (unsigned char)p[1]) == fitting)
			s++;
		return s;
	case '[':
		while (s < limit && in_set((unsigned char)*s, p, end - 1) == fitting)
			s++;
		return s;
	}
	if (fitting) {
		while (s < limit && *s == *p)
			s++;
		return s;
	}
	found = memchr(s, *p, (size_t)(limit - s));
	return found ? found : limit;
}

/* Goes on with span() as far as the steps allow; *done: that was far enough. */
static const char *
go_along(struct match *m, const char *s, const char *p, const char *end, bool fitting,
	 bool *done)
{
	long cost = *p == '[' ? end - p : 1; /* of a byte */
	long most = m->steps > 0 ? m->steps / cost + 1 : 1;
	const char *limit = m->subject_end - s > most ? s + most : m->subject_end;
	const char *to = span(s, limit, p, end, fitting);

	m->steps -= (to - s) * cost;
	*done = to < limit || limit == m->subject_end;
	return to;
}

static struct choice *
push(struct match *m, const char *p, const char *after)
{
	struct choice *c = &m->choices[m->nchoices++];

	c->item = p;
	c->after = after;
	c->open = m->open;
	c->ncaptures = m->ncaptures;
	c->at = c->least = m->at;
	c->lazy = false;
	c->next = NOT_KNOWN;
	return c;
}

static enum next
go_on(struct match *m, const char *at, const char *item)
{
	m->at = at;
	m->item = item;
	return ITEM;
}

/* A greedy item, on top of the choices, takes what it can. */
static enum next
grow(struct match *m)
{
	struct choice *c = &m->choices[m->nchoices - 1];
	bool done;

	c->at = go_along(m, c->at, c->item, c->after, true, &done);
	if (!done)
		return GROW;
	if (c->at == c->least)
		m->nchoices--;
	return go_on(m, c->at, c->after + 1);
}

/* An item for one byte, and its quantifier. */
static enum next
byte_item(struct match *m)
{
	const char *p = m->item;
	const char *end = p == m->first ? m->first_end : item_end(p, m->pattern_end);
	struct choice *c;
	bool fit;

	if (!end)
		return unended(m, p);
	if (*p == '[')
		m->steps -= end - p;
	if (*end == '*') {
		push(m, p, end);
		return grow(m);
	}
	if (*end == '-') {
		push(m, p, end)->lazy = true;
		return go_on(m, m->at, end + 1);
	}
	fit = m->at < m->subject_end && fits(m->at, p, end);
	if (*end == '?') {
		if (fit) {
			c = push(m, p, end);
			c->at = ++m->at;
		}
		return go_on(m, m->at, end + 1);
	}
	if (!fit)
		return RETRY;
	m->at++;
	if (*end != '+')
		return go_on(m, m->at, end);
	push(m, p, end);
	return grow(m);
}

static enum next
open_capture(struct match *m)
{
	struct capture *c = &m->captures[m->ncaptures];

	if (m->ncaptures == PATTERN_CAPTURES)
		return broken(m, "too many captures");
	c->at = m->at;
	c->len = PATTERN_POSITION;
	if (m->item[1] == ')')
		m->item++;
	else
		m->open |= 1U << m->ncaptures;
	m->ncaptures++;
	m->item++;
	return ITEM;
}

static enum next
close_capture(struct match *m)
{
	unsigned i;

	if (!m->open)
		return broken(m, "invalid pattern capture");
	i = 31 - (unsigned)__builtin_clz(m->open); /* the innermost */
	m->open &= ~(1U << i);
	m->captures[i].len = m->at - m->captures[i].at;
	m->item++;
	return ITEM;
}

/* %b(): from its first byte to the one that balances it. */
static enum next
begin_balance(struct match *m)
{
	if (m->pattern_end - m->item < 4)
		return broken(m, "malformed pattern (missing arguments to '%b')");
	if (m->at == m->subject_end || *m->at != m->item[2])
		return RETRY;
	m->at++;
	m->depth = 1;
	return BALANCE;
}

static enum next
balance(struct match *m)
{
	char open = m->item[2], close = m->item[3];

	while (m->at < m->subject_end) {
		char c = *m->at++;
		if (c == close) {
			if (--m->depth == 0)
				return go_on(m, m->at, m->item + 4);
		} else if (c == open)
			m->depth++;
		if (--m->steps <= 0)
			return BALANCE;
	}
	return RETRY;
}

/* %f[set]: between a byte that is not in the set and one that is; the subject has a NUL
 * before and behind it. */
static enum next
frontier(struct match *m)
{
	const char *p = m->item + 2, *end;
	int before = m->at == m->subject ? 0 : (unsigned char)m->at[-1];
	int here = m->at == m->subject_end ? 0 : (unsigned char)*m->at;

	if (*p != '[')
		return broken(m, "missing '[' after '%f' in pattern");
	end = item_end(p, m->pattern_end);
	if (!end)
		return unended(m, p);
	m->steps -= end - p;
	if (in_set(before, p, end - 1) || !in_set(here, p, end - 1))
		return RETRY;
	return go_on(m, m->at, end);
}

/* %1: what that capture has taken, again. */
static enum next
back_reference(struct match *m)
{
	int i = m->item[1] - '1';
	const struct capture *c;

	if (i < 0 || i >= m->ncaptures || pattern_is_open(m, (unsigned)i)) {
		snprintf(m->error, sizeof(m->error), "invalid capture index %%%d", i + 1);
		return BROKEN;
	}
	c = &m->captures[i];
	if (c->len == PATTERN_POSITION || c->len > m->subject_end - m->at)
		return RETRY;
	m->steps -= c->len / 16;
	if (memcmp(c->at, m->at, (size_t)c->len) != 0)
		return RETRY;
	return go_on(m, m->at + c->len, m->item + 2);
}

static enum next
escaped(struct match *m)
{
	switch (m->item[1]) {
	case 'b':
		return begin_balance(m);
	case 'f':
		return frontier(m);
	default:
		return isdigit((unsigned char)m->item[1]) ? back_reference(m)
							  : byte_item(m);
	}
}

/* What a byte of a pattern begins, if not an item that is this byte; or it is a quantifier,
 * which belongs to the item before it. */
enum { SPECIAL = 1, QUANTIFIER = 2 };

static const unsigned char meanings[256] = {
    ['('] = SPECIAL,    ['.'] = SPECIAL,    [')'] = SPECIAL,    ['['] = SPECIAL,
    ['$'] = SPECIAL,    [ESCAPE] = SPECIAL, ['*'] = QUANTIFIER, ['+'] = QUANTIFIER,
    ['?'] = QUANTIFIER, ['-'] = QUANTIFIER,
};

enum { RUN = 64 };

/* An item that is a byte, and more of that kind behind it: most patterns have such runs. */
static enum next
bytes(struct match *m)
{
	const char *p = m->item, *at = m->at;
	const char *end = m->pattern_end - p > RUN ? p + RUN : m->pattern_end;

	while (p < end && meanings[(unsigned char)*p] != SPECIAL &&
	       meanings[(unsigned char)p[1]] != QUANTIFIER) {
		if (at == m->subject_end || *at != *p)
			return RETRY;
		p++;
		at++;
	}
	if (p == m->item)
		return byte_item(m);
	m->steps -= p - m->item - 1;
	return go_on(m, at, p);
}

static inline enum next
look(struct match *m)
{
	if (m->item == m->pattern_end) {
		m->end = m->at;
		return MATCHED;
	}
	switch (*m->item) {
	case '(':
		return open_capture(m);
	case ')':
		return close_capture(m);
	case ESCAPE:
		return escaped(m);
	case '$':
		if (m->item + 1 != m->pattern_end)
			break;
		return m->at == m->subject_end ? go_on(m, m->at, m->pattern_end) : RETRY;
	}
	return bytes(m);
}

/* No way from this start: on to the next. */
static enum next
next_start(struct match *m)
{
	if (m->anchored || m->start == m->subject_end)
		return FAILED;
	m->start++;
	return START;
}

/* The byte that must follow a choice, if the rest begins with one, be it behind a
 * parenthesis; else ANY. */
static int
must_follow(const struct match *m, const struct choice *c)
{
	const char *p = c->after + 1;

	if (*p == ')' && c->open)
		p++;
	else if (*p == '(' && p[1] != ')' && c->ncaptures < PATTERN_CAPTURES)
		p++;
	if (p == m->pattern_end || memchr("().%[$", *p, 6))
		return ANY;
	return p[1] == '*' || p[1] == '?' || p[1] == '-' ? ANY : (unsigned char)*p;
}

/* A greedy item gives back a byte, or more. */
static enum next
give_back(struct match *m, struct choice *c)
{
	const char *at = c->at, *limit = c->least;

	at--;
	if (c->next != ANY) {
		if (m->steps < at - limit)
			limit = at - (m->steps > 0 ? m->steps : 0);
		while (at > limit && *at != (char)c->next)
			at--;
		m->steps -= c->at - at;
	}
	c->at = at;
	if (at == c->least)
		m->nchoices--;
	return go_on(m, at, c->after + 1);
}

/* A lazy item takes a byte, or more. */
static enum next
take_more(struct match *m, struct choice *c)
{
	long cost = *c->item == '[' ? c->after - c->item : 1;

	do {
		if (c->at == m->subject_end || !fits(c->at, c->item, c->after)) {
			m->nchoices--;
			return RETRY;
		}
		c->at++;
		m->steps -= cost;
	} while (c->next != ANY && m->steps > 0 && c->at < m->subject_end &&
		 *c->at != (char)c->next);
	return go_on(m, c->at, c->after + 1);
}

/* Back to the last choice. */
static enum next
retry(struct match *m)
{
	struct choice *c;

	if (m->nchoices == 0)
		return next_start(m);
	c = &m->choices[m->nchoices - 1];
	m->ncaptures = c->ncaptures;
	m->open = c->open;
	if (c->next == NOT_KNOWN)
		c->next = (int16_t)must_follow(m, c);
	return c->lazy ? take_more(m, c) : give_back(m, c);
}

static enum next
start(struct match *m)
{
	bool done;

	if (m->first) {
		m->start = go_along(m, m->start, m->first, m->first_end, false, &done);
		if (!done)
			return START;
		if (m->start == m->subject_end)
			return FAILED;
	}
	m->nchoices = 0;
	m->ncaptures = 0;
	m->open = 0;
	return go_on(m, m->start, m->pattern);
}

static enum next
matched(struct match *m)
{
	return m->end == m->refused ? next_start(m) : MATCHED;
}

enum pattern_result
pattern_run(struct match *m)
{
	enum next next = m->next;

	while (m->steps-- > 0) {
		switch (next) {
		case START:
			next = start(m);
			break;
		case ITEM:
			next = look(m);
			break;
		case GROW:
			next = grow(m);
			break;
		case BALANCE:
			next = balance(m);
			break;
		case RETRY:
			next = retry(m);
			break;
		case MATCHED:
			next = matched(m);
			if (next == MATCHED)
				return PATTERN_MATCHED;
			break;
		case FAILED:
			return PATTERN_FAILED;
		case BROKEN:
			return PATTERN_BROKEN;
		}
	}
	m->next = (uint8_t)next;
	return PATTERN_MORE;
}

/* Finds the item for exactly one byte, or more, that each match begins with: most starts
 * are passed over for its sake. */
static void
find_first(struct match *m)
{
	const char *p = m->pattern, *end;

	if (*p == '(' && p[1] != ')')
		p++;
	if (p == m->pattern_end || *p == '(' || *p == ')')
		return;
	if (*p == '$' && p + 1 == m->pattern_end)
		return;
	if (*p == ESCAPE && (p[1] == 'b' || p[1] == 'f' || isdigit((unsigned char)p[1])))
		return;
	end = item_end(p, m->pattern_end);
	if (!end || *end == '*' || *end == '?' || *end == '-')
		return;
	m->first = p;
	m->first_end = end;
}

size_t
pattern_room(const char *pattern, size_t len)
{
	size_t n = 0;

	if (len <= PATTERN_CHOICES)
		return 0;
	for (size_t i = 1; i < len; i++) /* each item has one choice at a time */
		switch (pattern[i]) {
		case '*':
		case '+':
		case '-':
		case '?':
			n++;
		}
	return n > PATTERN_CHOICES ? n * sizeof(struct choice) : 0;
}

void
pattern_init(struct match *m, const char *subject, size_t subject_len, const char *pattern,
	     size_t len, void *room, bool anchor)
{
	m->anchored = anchor && *pattern == '^';
	m->subject = subject;
	m->subject_end = subject + subject_len;
	m->pattern = pattern + m->anchored;
	m->pattern_end = pattern + len;
	m->choices = room ? room : m->own_choices;
	m->refused = NULL;
	m->steps = PATTERN_STEPS;
	m->first = NULL;
	if (!m->anchored)
		find_first(m);
	pattern_seek(m, subject);
}

void
pattern_seek(struct match *m, const char *from)
{
	m->start = from;
	m->next = START;
}

void
pattern_move(struct match *to, const struct match *from)
{
	*to = *from;
	if (from->choices == from->own_choices)
		to->choices = to->own_choices;
}

bool
pattern_is_open(const struct match *m, unsigned capture)
{
	return m->open >> capture & 1;
}

bool
pattern_is_plain(const char *pattern, size_t len)
{
	for (size_t i = 0; i < len; i++)
		switch (pattern[i]) {
		case '^':
		case '$':
		case '*':
		case '+':
		case '?':
		case '.':
		case '(':
		case '[':
		case '%':
		case '-':
			return false;
		}
	return true;
}
