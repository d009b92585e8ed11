#include "base/line.h"

#include <string.h>

void
line_put_bytes(struct line *t, const char *p, size_t n)
{
	if (!t->lost && !buf_put(&t->buf, p, n))
		t->lost = true;
}

void
line_put(struct line *t, const char *s)
{
	line_put_bytes(t, s, strlen(s));
}

void
line_free(struct line *t)
{
	buf_free(&t->buf);
	t->lost = false;
}
