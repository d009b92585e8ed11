#include "bind/take.h"

#include "bind/packsize.h"
#include "bind/stream.h"

#include <ctype.h>
#include <string.h>

static enum outcome
refuse(lua_State *L, const char *why)
{
	lua_pushnil(L);
	lua_pushstring(L, why);
	return REFUSED;
}

static enum outcome
take(lua_State *L, struct stream *s, const char *p, size_t n, size_t skip)
{
	lua_pushlstring(L, p, n);
	stream_consume(s, n + skip);
	return TAKEN;
}

enum outcome
take_line(lua_State *L, struct stream *s, bool keep_nl)
{
	const char *p, *nl;
	size_t n, len;

	stream_view(s, &p, &n);
	nl = n > s->scanned ? memchr(p + s->scanned, '\n', n - s->scanned) : NULL;
	len = nl ? (size_t)(nl - p) : n;
	if (len > s->limits->max_line)
		return refuse(L, "line too long");
	if (nl)
		return take(L, s, p, len + keep_nl, !keep_nl);
	s->scanned = (uint32_t)n;
	if (!s->eof)
		return MORE;
	return n > 0 ? take(L, s, p, n, 0) : refuse(L, "closed");
}

static enum outcome
take_until(lua_State *L, struct stream *s, const char *delimiter, size_t dn)
{
	const char *p, *at;
	size_t n, from;

	stream_view(s, &p, &n);
	from = s->scanned < n ? s->scanned : 0;
	at = n > from ? memmem(p + from, n - from, delimiter, dn) : NULL;
	if ((at ? (size_t)(at - p) : n) > s->limits->max_line)
		return refuse(L, "line too long");
	if (at)
		return take(L, s, p, (size_t)(at - p) + dn, 0);
	s->scanned =
	    n >= dn ? (uint32_t)(n - dn + 1) : 0; /* a part of the delimiter may be here */
	return s->eof ? refuse(L, "closed") : MORE;
}

static enum outcome
take_count(lua_State *L, struct stream *s, size_t count, bool exactly)
{
	const char *p;
	size_t n;

	stream_view(s, &p, &n);
	if (n >= count && (n > 0 || exactly))
		return take(L, s, p, count, 0);
	if (!s->eof)
		return MORE; /* of count 0, too: it asks whether the end is here */
	return n > 0 && !exactly ? take(L, s, p, n < count ? n : count, 0)
				 : refuse(L, "closed");
}

static enum outcome
take_all(lua_State *L, struct stream *s)
{
	const char *p;
	size_t n;

	if (!s->eof)
		return MORE;
	stream_view(s, &p, &n);
	return take(L, s, p, n, 0);
}

static enum outcome
take_unpacked(lua_State *L, struct stream *s, const char *format)
{
	const char *p;
	size_t n, need;
	bool enough;

	stream_view(s, &p, &n);
	enough = packsize(format, p, n, &need);
	if (enough && need > n) /* a format that is to be refused */
		need = n;
	/* A length that the peer chose, not the handler. */
	if (need > s->limits->max_line && strpbrk(format, "sz"))
		return refuse(L, "line too long");
	if (!enough)
		return s->eof ? refuse(L, "closed") : MORE;
	return take(L, s, p, need, 0);
}

/* The longest numeral that Lua's own io library reads. */
enum { NUMERAL = 200 };

struct numeral {
	const char *p, *end;
	char out[NUMERAL + 1];
	size_t len;
};

static bool
next_is(struct numeral *r, const char *set)
{
	if (r->p == r->end || !*r->p || !strchr(set, *r->p) || r->len == NUMERAL)
		return false;
	r->out[r->len++] = *r->p++;
	return true;
}

static size_t
digits(struct numeral *r, bool hex)
{
	size_t n = 0;

	for (; r->p < r->end && r->len < NUMERAL; n++) {
		if (!(hex ? isxdigit((unsigned char)*r->p) : isdigit((unsigned char)*r->p)))
			break;
		r->out[r->len++] = *r->p++;
	}
	return n;
}

/* As liolib's read("n"): takes the longest prefix that could be a numeral. */
static enum outcome
take_number(lua_State *L, struct stream *s)
{
	struct numeral r = {0};
	const char *p;
	size_t n, count;
	bool hex = false;

	stream_view(s, &p, &n);
	r.p = p;
	r.end = p + n;
	while (r.p < r.end && isspace((unsigned char)*r.p))
		r.p++;
	if (r.p > p) { /* spaces are gone for good, so that they cannot fill the buffer */
		stream_consume(s, (size_t)(r.p - p));
		stream_view(s, &p, &n);
		r.p = p;
		r.end = p + n;
	}
	next_is(&r, "+-");
	count = 0;
	if (next_is(&r, "0")) {
		if (next_is(&r, "xX"))
			hex = true;
		else
			count = 1;
	}
	count += digits(&r, hex);
	if (next_is(&r, "."))
		count += digits(&r, hex);
	if (count > 0 && next_is(&r, hex ? "pP" : "eE")) {
		next_is(&r, "+-");
		digits(&r, false);
	}
	if (r.p == r.end && !s->eof && r.len < NUMERAL)
		return MORE; /* the next byte may belong to it */
	stream_consume(s, r.len);
	if (r.len < NUMERAL && lua_stringtonumber(L, r.out))
		return TAKEN;
	return refuse(L, r.len == 0 && n == 0 ? "closed" : "not a number");
}

enum outcome
take_wanted(lua_State *L, struct stream *s, const struct want *w)
{
	switch (w->kind) {
	case LINE:
	case LINE_NL:
		return take_line(L, s, w->kind == LINE_NL);
	case ALL:
		return take_all(L, s);
	case NUMBER:
		return take_number(L, s);
	case UNTIL:
		return take_until(L, s, w->s, w->n);
	case UNPACK:
		return take_unpacked(L, s, w->s);
	default:
		return take_count(L, s, w->n, w->kind == EXACTLY);
	}
}
