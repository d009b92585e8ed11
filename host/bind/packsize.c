#include "bind/packsize.h"

#include <ctype.h>
#include <lua.h>
#include <stdint.h>
#include <string.h>

struct scan {
	const char *f; /* the rest of the format */
	bool little;
	size_t align; /* the most, by "!" */
	size_t at;    /* bytes taken so far */
};

/* A size after an option, or its default. */
static size_t
number(struct scan *s, size_t otherwise)
{
	size_t n = 0;

	if (!isdigit((unsigned char)*s->f))
		return otherwise;
	while (isdigit((unsigned char)*s->f) && n < 1000000000)
		n = n * 10 + (size_t)(*s->f++ - '0');
	return n;
}

/* The length of a "c" option; one that no string can have ends the scan. */
static size_t
count(struct scan *s)
{
	size_t n = number(s, 0);

	if (n < 1000000000 && !isdigit((unsigned char)*s->f))
		return n;
	s->f = "";
	return 0;
}

/* An integer's size that string.unpack refuses ends the scan: nothing more is needed. */
static size_t
refusable(struct scan *s, size_t size)
{
	if (size >= 1 && size <= 16)
		return size;
	s->f = "";
	return 0;
}

/* The size of a number option; 0 if c is none. */
static size_t
fixed_size(struct scan *s, char c)
{
	switch (c) {
	case 'b':
	case 'B':
		return 1;
	case 'h':
	case 'H':
		return sizeof(short);
	case 'i':
	case 'I':
		return refusable(s, number(s, sizeof(int)));
	case 'l':
	case 'L':
		return sizeof(long);
	case 'j':
	case 'J':
		return sizeof(lua_Integer);
	case 'T':
		return sizeof(size_t);
	case 'f':
		return sizeof(float);
	case 'd':
		return sizeof(double);
	case 'n':
		return sizeof(lua_Number);
	default:
		return 0;
	}
}

/* Padding before an item of this size.  False: string.unpack refuses it. */
static bool
pad(struct scan *s, size_t size)
{
	size_t a = size < s->align ? size : s->align;

	if ((a & (a - 1)) != 0 || s->align > 16 || s->align == 0) {
		s->f = "";
		return false;
	}
	if (a > 1)
		s->at = (s->at + a - 1) & ~(a - 1);
	return true;
}

static uint64_t
length(const struct scan *s, const char *p, size_t size)
{
	uint64_t v = 0;

	for (size_t i = 0; i < size && i < 8; i++)
		v = v << 8 | (unsigned char)p[s->little ? (size < 8 ? size : 8) - 1 - i
							: size - (size < 8 ? size : 8) + i];
	return v;
}

/* One option.  False: more than the n bytes at hand are needed, s->at says how many at
 * least. */
static bool
step(struct scan *s, const char *p, size_t n)
{
	char c = *s->f++;
	size_t size = fixed_size(s, c);
	const char *nul;

	if (size > 0) {
		s->at += pad(s, size) ? size : 0;
	} else if (c == '<' || c == '=' || c == '>')
		s->little = c != '>';
	else if (c == '!')
		s->align = number(s, 8);
	else if (c == 'x')
		s->at++;
	else if (c == 'X') {
		c = *s->f ? *s->f++ : ' ';
		size =
		    c == 's' ? refusable(s, number(s, sizeof(size_t))) : fixed_size(s, c);
		pad(s, size ? size : 1);
	} else if (c == 'c')
		s->at += count(s);
	else if (c == 's') {
		size = refusable(s, number(s, sizeof(size_t)));
		if (!pad(s, size))
			return true;
		if (s->at + size > n || size == 0) {
			s->at += size;
			return s->at <= n;
		}
		uint64_t more = length(s, p + s->at, size);
		s->at += size;
		s->at = more < SIZE_MAX - s->at ? s->at + (size_t)more : SIZE_MAX;
	} else if (c == 'z') {
		nul = s->at < n ? memchr(p + s->at, 0, n - s->at) : NULL;
		if (!nul) {
			s->at = (s->at > n ? s->at : n) + 1;
			return false;
		}
		s->at = (size_t)(nul - p) + 1;
	}
	return s->at <= n;
}

bool
packsize(const char *format, const char *p, size_t n, size_t *need)
{
	struct scan s = {.f = format, .little = true, .align = 1};
	bool enough = true;

	while (*s.f && enough)
		enough = step(&s, p, n);
	*need = s.at;
	return enough;
}
