#include "script/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST = 8192, LONGEST = 64 << 20 };

/* Who else could change it; folder: "", or of what it is the folder. */
static int
judge(const struct stat *st, const char *file, const char *what, const char *folder,
      char *why, size_t size)
{
	bool sticky = S_ISDIR(st->st_mode) && st->st_mode & S_ISVTX;
	unsigned mode = st->st_mode & 07777;
	int n = snprintf(why, size, "cannot load %s: %s%s is ", file, what, folder);
	size_t at = n < 0 || (size_t)n > size ? size : (size_t)n;

	if (st->st_uid != 0 && st->st_uid != geteuid())
		snprintf(why + at, size - at,
			 "owned by user %u, who is neither root nor this process's, and "
			 "--strict is on; chown it",
			 (unsigned)st->st_uid);
	else if (st->st_mode & S_IWOTH && !sticky)
		snprintf(
		    why + at, size - at,
		    "writable by everybody (mode %04o), and --strict is on; chmod o-w it",
		    mode);
	else if (st->st_mode & S_IWGRP && !sticky && st->st_gid != getegid())
		snprintf(why + at, size - at,
			 "writable by group %u (mode %04o), which is not this process's, "
			 "and --strict is on; chmod g-w it",
			 (unsigned)st->st_gid, mode);
	else {
		*why = 0;
		return 0;
	}
	return -EINVAL;
}

static int
judge_folder(const char *path, const char *file, char *why, size_t size)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	struct stat st;

	if (!slash)
		snprintf(folder, sizeof(folder), ".");
	else
		snprintf(folder, sizeof(folder), "%.*s",
			 slash == path ? 1 : (int)(slash - path), path);
	if (stat(folder, &st) < 0) {
		snprintf(why, size,
			 "cannot load %s: its folder %s cannot be looked at, "
			 "and --strict is on: %s",
			 file, folder, strerror(errno));
		return -EINVAL;
	}
	return judge(&st, file, "its folder ", folder, why, size);
}

int
text_trust(int fd, const char *file, char *why, size_t size)
{
	char real[PATH_MAX];
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return -errno;
	rc = judge(&st, file, "it", "", why, size);
	if (rc == 0 && !S_ISFIFO(st.st_mode)) { /* a pipe has no name to be replaced */
		rc = judge_folder(file, file, why, size);
		if (rc == 0 && realpath(file, real))
			rc = judge_folder(real, file, why, size);
	}
	return rc;
}

static int
read_all(int fd, struct text *out)
{
	size_t room = 0;
	ssize_t n;
	char *more;

	for (;;) {
		if (out->len > LONGEST) /* such as a device that has no end */
			return -EFBIG;
		if (out->len == room) {
			room = room ? room * 2 : FIRST;
			more = realloc(out->p, room);
			if (!more)
				return -ENOMEM;
			out->p = more;
		}
		n = read(fd, out->p + out->len, room - out->len);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			out->len += (size_t)n;
	}
}

int
text_read(int fd, const char *file, bool strict, struct text *out, char *why, size_t size)
{
	int rc = 0;

	*why = 0;
	*out = (struct text){.stamp = stamp_of_fd(fd)};
	if (strict)
		rc = text_trust(fd, file, why, size);
	if (rc == 0)
		rc = read_all(fd, out);
	close(fd);
	if (rc < 0) {
		free(out->p);
		*out = (struct text){0};
	}
	return rc;
}
