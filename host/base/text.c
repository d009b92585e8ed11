#include "base/text.h"

#include <string.h>

void
text_put_bytes(struct text *t, const char *p, size_t n)
{
	if (!t->lost && !buf_put(&t->buf, p, n))
		t->lost = true;
}

void
text_put(struct text *t, const char *s)
{
	text_put_bytes(t, s, strlen(s));
}

void
text_free(struct text *t)
{
	buf_free(&t->buf);
	t->lost = false;
}
