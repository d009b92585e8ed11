#include "base/beneath.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
becomes(const char *path, const char *want)
{
	char out[PATH_MAX];

	return beneath_absolute(path, out, sizeof(out)) == 0 && strcmp(out, want) == 0;
}

static bool
leaves(const char *root, const char *path, const char *want)
{
	const char *rest = beneath_rest(root, path);

	return want ? rest && strcmp(rest, want) == 0 : !rest;
}

static void
names(void)
{
	char cwd[PATH_MAX], out[PATH_MAX], tiny[4];
	bool here = getcwd(cwd, sizeof(cwd));

	CHECK(becomes("/", "/") && becomes("//", "/") && becomes("/..", "/"));
	CHECK(becomes("/a/b", "/a/b") && becomes("//a///b/", "/a/b"));
	CHECK(becomes("/a/./b/../c", "/a/c") && becomes("/a/../../b", "/b"));
	CHECK(becomes("/a/..b/.c/...", "/a/..b/.c/..."));
	CHECK(here && becomes(".", cwd) && becomes("x/..", cwd));
	CHECK(beneath_absolute("", out, sizeof(out)) == -ENOENT);
	CHECK(beneath_absolute("/a", tiny, sizeof(tiny)) == 0 && strcmp(tiny, "/a") == 0);
	CHECK(beneath_absolute("/abc", tiny, sizeof(tiny)) == -ENAMETOOLONG);

	CHECK(leaves("/a", "/a/b", "b") && leaves("/a", "/a", "."));
	CHECK(leaves("/a", "/ab", NULL) && leaves("/a", "/ab/c", NULL));
	CHECK(leaves("/a/b", "/a", NULL) && leaves("/a/b", "/", NULL));
	CHECK(leaves("/", "/a/b", "a/b") && leaves("/", "/", ".") &&
	      leaves("/", "/a", "a"));
}

static int
opened(const char *folder, const char *rest, int flags)
{
	int fd = beneath_open(folder, rest, flags, 0600);

	if (fd < 0)
		return fd;
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	return 0;
}

static void
files(void)
{
	char folder[] = "/tmp/moonport-unit-XXXXXX", command[64];
	bool made = mkdtemp(folder);
	int at = open(folder, O_DIRECTORY | O_CLOEXEC);

	CHECK(made && at >= 0 && mkdirat(at, "sub", 0700) == 0);
	CHECK(symlinkat("/etc", at, "away") == 0 && symlinkat("..", at, "up") == 0);
	CHECK(symlinkat("sub/file", at, "link") == 0 && symlinkat("loop", at, "loop") == 0);
	CHECK(opened(folder, "sub/file", O_WRONLY | O_CREAT) == 0);
	CHECK(opened(folder, "sub/file", O_RDONLY) == 0);
	CHECK(opened(folder, ".", O_PATH | O_DIRECTORY) == 0);
	CHECK(opened(folder, "link", O_RDONLY) <= 0); /* by kernel: see the spec */
	CHECK(opened(folder, "none", O_RDONLY) == -ENOENT);
	CHECK(opened(folder, "away/passwd", O_RDONLY) < 0);
	CHECK(opened(folder, "up", O_RDONLY) == -EXDEV);
	CHECK(opened(folder, "loop", O_RDONLY) < 0);
	CHECK(opened("/nowhere/at/all", "x", O_RDONLY) == -ENOENT);
	close(at);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	CHECK(system(command) == 0);
}

void
test_beneath(void)
{
	names();
	files();
}
