#include "loop/stamp.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longer than any kernel's clock for file times stands still. */
static const int64_t STEP = 20 * CLOCK_MS;

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

/* Why the file cannot be read.  What is not a file is not touched.  Out of descriptors,
 * nothing can be said. */
static int
try_to_read(const char *path, mode_t mode)
{
	int fd, err;
	char c;

	if (!S_ISREG(mode))
		return S_ISDIR(mode) ? EISDIR : 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? 0 : errno;
	err = pread(fd, &c, 1, 0) < 0 ? errno : 0;
	close(fd);
	return err;
}

static bool
is_young(struct timespec changed)
{
	struct timespec now;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	age = (int64_t)(now.tv_sec - changed.tv_sec) * CLOCK_SECOND + now.tv_nsec -
	      changed.tv_nsec;
	return age >= 0 && age < STEP; /* another machine's clock may be ahead */
}

static struct stamp
make(const struct stat *st, int err)
{
	return (struct stamp){.err = err,
			      .young = is_young(st->st_ctim),
			      .dev = st->st_dev,
			      .ino = st->st_ino,
			      .size = st->st_size,
			      .mtime = st->st_mtim,
			      .ctime = st->st_ctim};
}

struct stamp
stamp_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return (struct stamp){.err = errno};
	return make(&st, try_to_read(path, st.st_mode));
}

struct stamp
stamp_of_fd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return (struct stamp){.err = errno};
	return make(&st, 0);
}
