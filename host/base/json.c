#include "base/json.h"

#include "base/line.h"

#include <stdio.h>
#include <string.h>

/* The length of a well-formed UTF-8 sequence at p, 0 if there is none. */
static size_t
utf8_len(const unsigned char *p, size_t n)
{
	size_t want = p[0] >= 0xf0 && p[0] < 0xf5 ? 4
		      : p[0] >= 0xe0              ? 3
		      : p[0] >= 0xc2              ? 2
						  : 0;

	if (p[0] >= 0xf5 || want == 0 || want > n)
		return 0;
	for (size_t i = 1; i < want; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return want;
}

void
json_quote(struct line *t, const char *s, size_t n)
{
	char esc[8];

	line_put(t, "\"");
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		size_t u = c < 0x80 ? 1 : utf8_len((const unsigned char *)s + i, n - i);

		if (c == '"' || c == '\\')
			snprintf(esc, sizeof(esc), "\\%c", c);
		else if (c == '\n' || c == '\t')
			snprintf(esc, sizeof(esc), "\\%c", c == '\n' ? 'n' : 't');
		else if (c < 0x20 || c == 0x7f || u == 0)
			snprintf(esc, sizeof(esc), "\\u%04x", c);
		else {
			line_put_bytes(t, s + i, u);
			i += u;
			continue;
		}
		line_put(t, esc);
		i++;
	}
	line_put(t, "\"");
}
