/* packsize.h - how many bytes a string.unpack format takes.  Any thread. */
#ifndef HOST_BIND_PACKSIZE_H
#define HOST_BIND_PACKSIZE_H

#include <stdbool.h>
#include <stddef.h>

/* Looks at the n bytes at p.  True: the format takes exactly *need bytes of them.
 * False: it takes at least *need, more than n.  A format that string.unpack would
 * refuse counts as satisfied, so that it gets to say why. */
bool packsize(const char *format, const char *p, size_t n, size_t *need);

#endif
