#include "loop/stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool
stamp_same(const struct stamp *a, const struct stamp *b)
{
	return a->err == b->err && a->dev == b->dev && a->ino == b->ino &&
	       a->size == b->size && same_time(a->mtime, b->mtime) &&
	       same_time(a->ctime, b->ctime);
}

/* Out of descriptors, nothing can be said of the file. */
static int
try_to_read(const char *path)
{
	char c;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? 0 : errno;
	err = pread(fd, &c, 1, 0) < 0 ? errno : 0;
	close(fd);
	return err;
}

struct stamp
stamp_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return (struct stamp){.err = errno};
	return (struct stamp){.err = try_to_read(path),
			      .dev = st.st_dev,
			      .ino = st.st_ino,
			      .size = st.st_size,
			      .mtime = st.st_mtim,
			      .ctime = st.st_ctim};
}
