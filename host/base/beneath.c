#include "base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef SYS_openat2
#include <linux/openat2.h>
#endif

/* A link that leads outside by "..", or is changed meanwhile, is looked at again. */
enum { TRIES = 8 };

/* Appends the parts of path to out, which holds an absolute path of length *n; "" is the
 * root folder. */
static int
append_parts(const char *path, char *out, size_t size, size_t *n)
{
	size_t len;

	for (const char *p = path; *p; p += len) {
		p += strspn(p, "/");
		len = strcspn(p, "/");
		if (len == 0 || (len == 1 && *p == '.'))
			continue;
		if (len == 2 && memcmp(p, "..", 2) == 0) {
			while (*n > 0 && out[--*n] != '/')
				;
			continue;
		}
		if (*n + len + 2 > size)
			return -ENAMETOOLONG;
		out[(*n)++] = '/';
		memcpy(out + *n, p, len);
		*n += len;
	}
	return 0;
}

int
beneath_absolute(const char *path, char *out, size_t size)
{
	char cwd[PATH_MAX];
	size_t n = 0;
	int rc = 0;

	if (!*path)
		return -ENOENT;
	if (*path != '/') {
		if (!getcwd(cwd, sizeof(cwd)))
			return -errno;
		rc = append_parts(cwd, out, size, &n);
	}
	if (rc == 0)
		rc = append_parts(path, out, size, &n);
	if (rc < 0)
		return rc;
	if (n == 0)
		out[n++] = '/';
	out[n] = 0;
	return 0;
}

const char *
beneath_rest(const char *root, const char *absolute)
{
	size_t n = strlen(root);

	if (n == 1) /* "/" */
		n = 0;
	if (strncmp(root, absolute, n) != 0)
		return NULL;
	absolute += n;
	if (*absolute && *absolute++ != '/')
		return NULL;
	return *absolute ? absolute : ".";
}

/* Folder by folder, none of which may be a link. */
static int
walk(int dir, const char *rest, int flags, mode_t mode)
{
	char part[NAME_MAX + 1];
	int fd = dir, next, rc;
	size_t len;

	for (;; rest += len + 1) {
		len = strcspn(rest, "/");
		if (!rest[len])
			break;
		if (len > NAME_MAX) {
			rc = -ENAMETOOLONG;
			goto out;
		}
		memcpy(part, rest, len);
		part[len] = 0;
		next = openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		rc = -errno;
		if (next < 0)
			goto out;
		if (fd != dir)
			close(fd);
		fd = next;
	}
	rc = openat(fd, rest, flags | O_NOFOLLOW | O_CLOEXEC, mode);
	if (rc < 0)
		rc = errno == ELOOP ? -EXDEV : -errno;
out:
	if (fd != dir)
		close(fd);
	return rc;
}

static int
open_below(int dir, const char *rest, int flags, mode_t mode)
{
#ifdef SYS_openat2
	struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC),
			       .mode = flags & O_CREAT ? mode : 0,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd = -1;

	errno = EAGAIN;
	for (int i = 0; fd < 0 && errno == EAGAIN && i < TRIES; i++)
		fd = syscall(SYS_openat2, dir, rest, &how, sizeof(how));
	if (fd >= 0)
		return (int)fd;
	if (errno != ENOSYS && errno != EPERM) /* EPERM: by a filter of system calls */
		return -errno;
#endif
	return walk(dir, rest, flags, mode);
}

int
beneath_open(const char *root, const char *rest, int flags, mode_t mode)
{
	int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

	if (dir < 0)
		return -errno;
	fd = open_below(dir, rest, flags, mode);
	close(dir);
	return fd;
}
