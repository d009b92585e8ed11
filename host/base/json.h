/* json.h - JSON text, the little that the host itself writes.  Any thread. */
#ifndef HOST_BASE_JSON_H
#define HOST_BASE_JSON_H

#include <stddef.h>

struct line;

/* Appends n bytes as a JSON string.  Bytes that are not UTF-8 become U+0080 to
 * U+00FF, so that the text parses whatever it holds. */
void json_quote(struct line *t, const char *s, size_t n);

#endif
