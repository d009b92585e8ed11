/* stamp.h - which file, in which state, a path leads to: all that can be seen of it
 * without comparing the contents.
 *
 * A value; owns nothing.  Any thread. */
#ifndef HOST_LOOP_STAMP_H
#define HOST_LOOP_STAMP_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/* Zeroed: like no file. */
struct stamp {
	int err; /* why it cannot be read, as errno has it; 0: it can */
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct stamp stamp_of(const char *path);

bool stamp_same(const struct stamp *a, const struct stamp *b);

#endif
