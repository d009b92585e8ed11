/* text.h - reading a program's text: whole, once, and from files that may be trusted.
 *
 * Strict: a file is refused that somebody else could have changed.  Its owner must be root
 * or this process's effective user; neither everybody may write to it nor a group, but for
 * the process's own effective group.  The same holds for the folder that it is in and,
 * where the name is a link, for the one that the link leads to; a folder with the sticky
 * bit may be written to.  What is looked at is the open file, not what the name means
 * later.
 *
 * Any thread. */
#ifndef HOST_SCRIPT_TEXT_H
#define HOST_SCRIPT_TEXT_H

#include "loop/stamp.h"

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *p; /* the caller's, to be freed */
	size_t len;
	struct stamp stamp; /* of the file, before it was read */
};

/* Reads what fd, opened by the name `file`, holds, and closes it.  -errno: it cannot be
 * read, and why is "".  -EINVAL with a sentence in why: it is not to be trusted. */
int text_read(int fd, const char *file, bool strict, struct text *out, char *why,
	      size_t size);

/* The same question about a file that somebody else is going to load, such as a C library:
 * 0, or -EINVAL with a sentence.  Who could change it after that is refused now. */
int text_trust(int fd, const char *file, char *why, size_t size);

#endif
