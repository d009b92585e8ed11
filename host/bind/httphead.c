#include "bind/httphead.h"

#include <string.h>
#include <strings.h>

enum { TOKEN = 1, LETTER = 2, DIGIT = 4 };
enum { MARK = TOKEN, ALPHA = TOKEN | LETTER, NUM = TOKEN | DIGIT };

/* clang-format off */
static const unsigned char classes[256] = {
	['0' ... '9'] = NUM, ['A' ... 'Z'] = ALPHA, ['a' ... 'z'] = ALPHA,
	['!'] = MARK, ['#'] = MARK, ['$'] = MARK, ['%'] = MARK, ['&'] = MARK, ['\''] = MARK,
	['*'] = MARK, ['+'] = MARK, ['-'] = MARK, ['.'] = MARK, ['^'] = MARK, ['_'] = MARK,
	['`'] = MARK, ['|'] = MARK, ['~'] = MARK,
};
/* clang-format on */

static bool
is(char c, unsigned class)
{
	return classes[(unsigned char)c] & class;
}

static bool
is_value(unsigned char c)
{
	return (c >= ' ' && c != 0x7f) || c == '\t';
}

static char
lower(char c)
{
	return (char)(is(c, LETTER) ? c | 0x20 : c);
}

/* A line has been read from `from` on; false: it is too long. */
static bool
ends_line(struct httphead *h, const char *from, const char *p)
{
	double size = (double)(p + 2 - from);

	if (h->end - p < 2 || p[0] != '\r' || p[1] != '\n' || size > h->left.line ||
	    size > h->left.head)
		return false;
	if (size > h->used.line)
		h->used.line = size;
	h->left.head -= size;
	h->used.head += size;
	h->at = p + 2;
	return true;
}

static bool
request_line(struct httphead *h)
{
	static const char version[] = " HTTP/1.";
	const char *from = h->at, *p = from, *end = h->end;

	while (p < end && (is(*p, LETTER) || *p == '_' || *p == '-'))
		p++;
	h->method = (struct httphead_piece){from, (size_t)(p - from)};
	if (p == from || p == end || *p != ' ')
		return false;
	h->target.p = ++p;
	while (p < end && (unsigned char)*p > ' ' && (unsigned char)*p < 0x7f)
		p++;
	h->target.n = (size_t)(p - h->target.p);
	if (h->target.n == 0 || (size_t)(end - p) < sizeof(version) + 2 ||
	    memcmp(p, version, sizeof(version) - 1) != 0)
		return false;
	p += sizeof(version) - 1;
	if (*p != '0' && *p != '1')
		return false;
	h->minor = *p - '0';
	h->plain = *h->target.p == '/' && !memchr(h->target.p, '?', h->target.n) &&
		   !memchr(h->target.p, '#', h->target.n);
	return ends_line(h, from, p + 1);
}

static bool
header(struct httphead *h)
{
	const char *from = h->at, *p = from, *end = h->end;
	struct httphead_piece *name = &h->fields[h->n].name,
			      *value = &h->fields[h->n].value;

	while (p < end && is(*p, TOKEN))
		p++;
	*name = (struct httphead_piece){from, (size_t)(p - from)};
	if (name->n == 0 || name->n > HTTPHEAD_NAME || p == end || *p != ':')
		return false;
	for (p++; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	value->p = p;
	while (p < end && is_value((unsigned char)*p))
		p++;
	value->n = (size_t)(p - value->p);
	h->n++;
	return ends_line(h, from, p) && p[-1] != ' ' && p[-1] != '\t';
}

bool
httphead_scan(struct httphead *h)
{
	h->n = 0;
	h->used = (struct httphead_limits){0};
	if (!request_line(h))
		return false;
	while (h->end - h->at >= 2 && (h->at[0] != '\r' || h->at[1] != '\n'))
		if (h->n == HTTPHEAD_FIELDS || (double)h->n >= h->left.headers ||
		    !header(h))
			return false;
	if (h->end - h->at < 2)
		return false;
	h->used.headers = (double)h->n;
	h->at += 2;
	return true;
}

void
httphead_lower(char to[HTTPHEAD_NAME], const struct httphead_piece *name)
{
	for (size_t i = 0; i < name->n; i++)
		to[i] = lower(name->p[i]);
}

/* text: in lower case. */
static bool
is_text(const struct httphead_piece *s, const char *text)
{
	for (size_t i = 0; i < s->n; i++)
		if (lower(s->p[i]) != text[i]) /* also where it ends */
			return false;
	return !text[s->n];
}

/* What is between brackets is left to others. */
static bool
host_like(const struct httphead_piece *s)
{
	const char *p = s->p, *end = p + s->n;

	while (p < end &&
	       (is(*p, LETTER | DIGIT) || (*p && strchr(".-_~!$&'()*+,;=%", *p))))
		p++;
	if (p < end && *p == ':')
		for (p++; p < end && is(*p, DIGIT); p++)
			;
	return p == end;
}

/* -2: it is not just a number, or a long one. */
static int64_t
length_of(const struct httphead_piece *s)
{
	int64_t n = 0;

	if (s->n == 0 || s->n > 15)
		return -2;
	for (size_t i = 0; i < s->n; i++) {
		if (!is(s->p[i], DIGIT))
			return -2;
		n = n * 10 + (s->p[i] - '0');
	}
	return n;
}

static bool
locate(const struct httphead_piece *target, struct httphead_sense *out)
{
	const char *mark = memchr(target->p, '?', target->n);

	if (target->p[0] != '/' || memchr(target->p, '#', target->n))
		return false;
	out->path = *target;
	if (!mark)
		return true;
	out->path.n = (size_t)(mark - target->p);
	out->query = (struct httphead_piece){mark + 1, target->n - out->path.n - 1};
	return true;
}

/* Those headers that say how a request is to be read, by their names' lengths. */
static bool
heed(const struct httphead_piece *name, const struct httphead_piece *value,
     struct httphead_sense *out)
{
	switch (name->n) {
	case 4:
		if (!is_text(name, "host"))
			return true;
		if (out->host.p || !host_like(value))
			return false;
		out->host = *value;
		return true;
	case 6:
		return !is_text(name, "expect");
	case 10:
		if (!is_text(name, "connection"))
			return true;
		out->keep_alive = !is_text(value, "close");
		return !out->keep_alive || is_text(value, "keep-alive");
	case 14:
		if (!is_text(name, "content-length"))
			return true;
		out->length = length_of(value);
		return out->length >= 0;
	case 17:
		return !is_text(name, "transfer-encoding");
	default:
		return true;
	}
}

static bool
same_name(const struct httphead_piece *a, const struct httphead_piece *b)
{
	return a->n == b->n && ((*a->p ^ *b->p) & 0x1f) == 0 &&
	       strncasecmp(a->p, b->p, a->n) == 0;
}

bool
httphead_judge(const struct httphead *h, struct httphead_sense *out)
{
	*out = (struct httphead_sense){.length = -1, .keep_alive = h->minor == 1};
	if (!locate(&h->target, out))
		return false;
	for (size_t i = 0; i < h->n; i++) {
		if (!heed(&h->fields[i].name, &h->fields[i].value, out))
			return false;
		for (size_t k = 0; k < i; k++)
			if (same_name(&h->fields[k].name, &h->fields[i].name))
				return false;
	}
	return out->host.p || h->minor == 0;
}
