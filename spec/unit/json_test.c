#include "base/json.h"
#include "base/line.h"
#include "unit.h"

#include <string.h>

static bool
quotes(const char *s, size_t n, const char *expected)
{
	struct line t = {0};
	bool ok;

	json_quote(&t, s, n);
	ok = buf_len(&t.buf) == strlen(expected) &&
	     memcmp(buf_data(&t.buf), expected, buf_len(&t.buf)) == 0;
	line_free(&t);
	return ok;
}

#define QUOTES(s, expected) CHECK(quotes(s, sizeof(s) - 1, expected))

void
test_json(void)
{
	QUOTES("", "\"\"");
	QUOTES("plain", "\"plain\"");
	QUOTES("a\"b\\c/d", "\"a\\\"b\\\\c/d\"");
	QUOTES("\n\t\r\b\f\0\x1f\x7f",
	       "\"\\n\\t\\u000d\\u0008\\u000c\\u0000\\u001f\\u007f\"");
	QUOTES("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x99",
	       "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x99\"");
	QUOTES("\xff\x80", "\"\\u00ff\\u0080\"");
	QUOTES("\xc3", "\"\\u00c3\""); /* cut */
	QUOTES("\xe2\x82", "\"\\u00e2\\u0082\"");
	QUOTES("\xc0\xaf", "\"\\u00c0\\u00af\""); /* too long a form */
	QUOTES("\xe0\x80\xaf", "\"\\u00e0\\u0080\\u00af\"");
	QUOTES("\xf0\x80\x80\x80", "\"\\u00f0\\u0080\\u0080\\u0080\"");
	QUOTES("\xed\xa0\x80", "\"\\u00ed\\u00a0\\u0080\"");            /* a surrogate */
	QUOTES("\xf4\x90\x80\x80", "\"\\u00f4\\u0090\\u0080\\u0080\""); /* past the last */
	QUOTES("\xf5\x80\x80\x80", "\"\\u00f5\\u0080\\u0080\\u0080\"");
	QUOTES("\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\"");
	QUOTES("a\xc3\x28", "\"a\\u00c3(\"");
}
