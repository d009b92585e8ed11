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
	/* It changed so shortly before that it may change again without a trace: the clock
	 * of its times moves in steps. */
	bool young;
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct stamp stamp_of(const char *path);

/* Of an open file that can be read. */
struct stamp stamp_of_fd(int fd);

/* A file, as it was when it was read. */
struct stamped {
	const char *path; /* borrowed */
	struct stamp stamp;
};

/* Whether they differ in nothing but their age. */
bool stamp_same(const struct stamp *a, const struct stamp *b);

#endif
