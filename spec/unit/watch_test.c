/* Each test has a folder of its own and a loop that turns until changed() was called as
 * often as it should, or has settled. */
#include "base/clock.h"
#include "loop/loop.h"
#include "loop/watch.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct loop *loop;
static struct watch *watch;
static char top[64];
static int calls, blinds, blind_err;
static int64_t called_at;

static void
changed(void *arg)
{
	CHECK(arg == &calls);
	calls++;
	called_at = clock_now();
}

static void
blind(void *arg, int err)
{
	CHECK(arg == &calls);
	blinds++;
	blind_err = err;
}

/* Turns the loop until changed() was called n times; false: not within 5 s. */
static bool
called(int n)
{
	int64_t end = clock_now() + 5 * CLOCK_SECOND;

	while (calls < n && clock_now() < end)
		loop_turn(loop, end);
	return calls == n;
}

static void
turn_for(int64_t time)
{
	int64_t end = clock_now() + time;

	while (clock_now() < end)
		loop_turn(loop, end);
}

/* Longer than anything that has happened needs to be noticed and settled. */
static bool
stays(int n)
{
	turn_for(150 * CLOCK_MS);
	return calls == n;
}

/* A path in the test's folder; one of a few that may be in use at a time. */
static const char *
in(const char *name)
{
	static char paths[8][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, PATH_MAX, "%s/%s", top, name);
	return path;
}

static void
put_from(const char *name, const char *text, int flags)
{
	int fd = open(in(name), O_WRONLY | O_CLOEXEC | flags, 0644);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void
put(const char *name, const char *text)
{
	put_from(name, text, O_CREAT | O_TRUNC);
}

/* As an editor saves. */
static void
put_over(const char *name, const char *text)
{
	put("saved.tmp", text);
	CHECK(rename(in("saved.tmp"), in(name)) == 0);
}

static void
folder(const char *name)
{
	CHECK(mkdir(in(name), 0755) == 0);
}

static void
point(const char *name, const char *target)
{
	CHECK(symlink(target, in(name)) == 0);
}

/* Has the link point elsewhere, at one stroke. */
static void
swap(const char *name, const char *target)
{
	point("swap.tmp", target);
	CHECK(rename(in("swap.tmp"), in(name)) == 0);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st, (void)type, (void)at;
	return remove(path);
}

static void
begin(void)
{
	strcpy(top, "/tmp/moonport-watch-XXXXXX");
	CHECK(mkdtemp(top) != NULL);
	calls = blinds = 0;
}

/* Watches these files of the test's folder; they were made long ago. */
static void
set(const char *a, const char *b)
{
	struct stamped files[2] = {{.path = in(a)}, {.path = b ? in(b) : NULL}};

	files[0].stamp = stamp_of(files[0].path);
	if (b)
		files[1].stamp = stamp_of(files[1].path);
	CHECK(watch_set(watch, files, b ? 2 : 1) == 0);
}

static void
begin_watch(const char *a, const char *b)
{
	CHECK(watch_open(&watch, loop, changed, blind, &calls) == 0);
	set(a, b);
	CHECK(stays(0));
}

static void
end(void)
{
	watch_close(watch);
	CHECK(nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static void
saving(void)
{
	begin();
	put("a.lua", "one");
	put("b.lua", "one");
	begin_watch("a.lua", "b.lua");
	put("a.lua", "two");
	CHECK(called(1));
	put_over("b.lua", "two");
	CHECK(called(2));
	put_from("a.lua", "!", O_APPEND);
	CHECK(called(3));
	CHECK(chmod(in("a.lua"), 0600) == 0);
	CHECK(called(4));
	put("a.lua", "three"); /* both at once: one call */
	put("b.lua", "three");
	CHECK(called(5) && stays(5) && blinds == 0);
	end();
}

static void
unrelated(void)
{
	begin();
	put("a.lua", "one");
	put("other.lua", "one");
	begin_watch("a.lua", NULL);
	put("notes.txt", "one");
	put("notes.txt", "two");
	put(".#a.lua", "an editor's");
	put("other.lua", "two");
	put_over("other.lua", "three");
	folder("sub");
	put("sub/c.lua", "one");
	put("passing.lua", "one"); /* gone before all is quiet */
	CHECK(unlink(in("passing.lua")) == 0 && unlink(in("notes.txt")) == 0);
	CHECK(stays(0));
	CHECK(unlink(in("other.lua")) == 0);
	CHECK(stays(0));
	put("new.lua", "one");
	CHECK(called(1) && stays(1));
	end();
}

/* Events, but the file is what it was. */
static void
same_again(void)
{
	begin();
	folder("one");
	put("one/a.lua", "one");
	point("current", "one");
	turn_for(30 * CLOCK_MS); /* so that it is not young when it is read */
	begin_watch("current/a.lua", NULL);
	put_from("one/a.lua", "", 0); /* opened for writing, and closed */
	swap("current", "../../../../../../../..");
	swap("current", top);
	swap("current", "./one");
	CHECK(stays(0));
	put("one/a.lua", "two");
	CHECK(called(1));
	end();
}

/* What a deployment does: the file's link, a folder's link, a link to a link. */
static void
links(void)
{
	begin();
	folder("releases");
	folder("releases/1");
	folder("releases/2");
	folder("releases/3");
	put("releases/1/a.lua", "one");
	put("releases/2/a.lua", "two");
	put("releases/3/a.lua", "three");
	point("current", "releases/1");
	point("stable", "current");
	point("a.lua", "stable/./a.lua");
	begin_watch("a.lua", NULL);
	swap("current", "releases/2");
	CHECK(called(1));
	put("releases/1/a.lua", "nobody's");
	CHECK(stays(1));
	put_over("releases/2/a.lua", "two and a half");
	CHECK(called(2));
	swap("stable", in("releases/3")); /* absolute */
	CHECK(called(3));
	swap("a.lua", "releases/1/../2/a.lua");
	CHECK(called(4));
	put("releases/2/a.lua", "twice");
	CHECK(called(5));
	swap("current", "releases/3");
	CHECK(stays(5));
	end();
}

/* As Kubernetes mounts a ConfigMap. */
static void
data_link(void)
{
	begin();
	folder("..1");
	put("..1/a.lua", "one");
	put("..1/b.lua", "one");
	point("..data", "..1");
	point("a.lua", "..data/a.lua");
	point("b.lua", "..data/b.lua");
	begin_watch("a.lua", "b.lua");
	folder("..2");
	put("..2/a.lua", "two");
	put("..2/b.lua", "two");
	CHECK(stays(0));
	point("..data_tmp", "..2");
	CHECK(rename(in("..data_tmp"), in("..data")) == 0);
	CHECK(unlink(in("..1/a.lua")) == 0 && unlink(in("..1/b.lua")) == 0 &&
	      rmdir(in("..1")) == 0);
	CHECK(called(1) && stays(1));
	end();
}

static void
comes_and_goes(void)
{
	begin();
	put("a.lua", "one");
	begin_watch("a.lua", NULL);
	CHECK(unlink(in("a.lua")) == 0);
	CHECK(called(1));
	put("a.lua", "two");
	CHECK(called(2));
	CHECK(unlink(in("a.lua")) == 0);
	folder("a.lua");
	CHECK(called(3));
	CHECK(rmdir(in("a.lua")) == 0);
	put("a.lua", "three");
	CHECK(called(4));
	end();
}

/* A module that was looked for and not found, in a folder that is not there either. */
static void
missing(void)
{
	begin();
	put("a.lua", "one");
	begin_watch("a.lua", "lib/deep/b.lua");
	folder("lib");
	folder("lib/deep");
	CHECK(stays(0));
	put("lib/deep/b.lua", "one");
	CHECK(called(1));
	point("c", "nowhere/c.lua"); /* dangles */
	set("a.lua", "c");
	CHECK(stays(1));
	folder("nowhere");
	put("nowhere/c.lua", "one");
	CHECK(called(2));
	end();
}

/* The folder goes and comes back, moved or made anew, also while somebody stands in it. */
static void
folders(void)
{
	int inside;

	begin();
	folder("app");
	folder("app/lib");
	put("app/lib/a.lua", "one");
	begin_watch("app/lib/a.lua", NULL);
	folder("app2");
	folder("app2/lib");
	put("app2/lib/a.lua", "two");
	CHECK(rename(in("app"), in("app1")) == 0 && rename(in("app2"), in("app")) == 0);
	CHECK(called(1));
	put("app/lib/a.lua", "three");
	CHECK(called(2));
	inside = open(in("app/lib"), O_PATH | O_CLOEXEC);
	CHECK(unlink(in("app/lib/a.lua")) == 0 && rmdir(in("app/lib")) == 0);
	CHECK(called(3));
	folder("app/lib");
	put("app/lib/a.lua", "four");
	CHECK(called(4));
	put_over("app/lib/a.lua", "five");
	CHECK(called(5));
	close(inside);
	end();
}

/* Half a file is no reason for a call as long as its writer has it open. */
static void
halves(void)
{
	int fd;

	begin();
	put("a.lua", "one");
	begin_watch("a.lua", NULL);
	fd = open(in("a.lua"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	CHECK(fd >= 0 && write(fd, "half", 4) == 4);
	turn_for(700 * CLOCK_MS);
	CHECK(calls == 0);
	CHECK(write(fd, "half", 4) == 4);
	CHECK(stays(0));
	close(fd);
	CHECK(called(1) && stays(1));
	CHECK(unlink(in("a.lua")) == 0);
	CHECK(called(2));
	fd = open(in("a.lua"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	CHECK(stays(2)); /* it is there, and empty: somebody is about to write */
	CHECK(write(fd, "whole", 5) == 5);
	CHECK(stays(2));
	close(fd);
	CHECK(called(3));
	fd = open(in("a.lua"),
		  O_WRONLY | O_CLOEXEC); /* a writer of a file that is replaced */
	CHECK(write(fd, "x", 1) == 1);
	CHECK(stays(3));
	put_over("a.lua", "better");
	CHECK(called(4));
	CHECK(write(fd, "x", 1) == 1);
	CHECK(stays(4));
	close(fd);
	CHECK(stays(4));
	end();
}

/* A writer that never closes is waited for, but not for ever: while the other tests run. */
static struct {
	struct watch *watch;
	char path[64];
	int fd;
	int64_t began, called;
} endless;

static void
endless_changed(void *arg)
{
	(void)arg;
	endless.called = clock_now();
}

static void
endless_begin(void)
{
	struct stamped file = {.path = endless.path};

	strcpy(endless.path, "/tmp/moonport-watch-XXXXXX");
	endless.fd = mkostemp(endless.path, O_CLOEXEC);
	CHECK(endless.fd >= 0);
	file.stamp = stamp_of(file.path);
	CHECK(watch_open(&endless.watch, loop, endless_changed, NULL, NULL) == 0);
	CHECK(watch_set(endless.watch, &file, 1) == 0);
	endless.called = 0;
	endless.began = clock_now();
	CHECK(write(endless.fd, "half", 4) == 4);
}

static void
endless_end(void)
{
	int64_t until = endless.began + 15 * CLOCK_SECOND;

	while (!endless.called && clock_now() < until)
		loop_turn(loop, until);
	CHECK(endless.called - endless.began > 9 * CLOCK_SECOND);
	watch_close(endless.watch);
	close(endless.fd);
	unlink(endless.path);
}

/* Quiet never comes; calls do, and the last one is for what is there in the end. */
static void
storm(void)
{
	int64_t until, began;

	begin();
	put("a.lua", "one");
	begin_watch("a.lua", NULL);
	began = clock_now();
	until = began + 1200 * CLOCK_MS;
	while (clock_now() < until) {
		put("a.lua", "again");
		loop_turn(loop, 0);
	}
	CHECK(calls >= 1 && calls <= 10);
	until = clock_now();
	put("a.lua", "at last");
	turn_for(800 * CLOCK_MS);
	CHECK(called_at > until);
	calls = 0;
	CHECK(stays(0));
	end();
}

/* More events than the kernel keeps. */
static void
overflow(void)
{
	FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	int most = 0;

	CHECK(f && fscanf(f, "%d", &most) == 1);
	fclose(f);
	begin();
	put("a.lua", "one");
	begin_watch("a.lua", NULL);
	for (int i = 0; i <= most / 2; i++) {
		int fd = open(in("noise"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		close(fd);
		CHECK(unlink(in("noise")) == 0);
	}
	CHECK(stays(0));
	for (int i = 0; i <= most / 2; i++) {
		int fd = open(in("noise"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		close(fd);
		CHECK(unlink(in("noise")) == 0);
	}
	put("a.lua", "two"); /* nobody says so */
	CHECK(called(1));
	put("a.lua", "three");
	CHECK(called(2));
	end();
}

/* No inotify: the files are looked at. */
static void
looking(void)
{
	size_t before = loop_live_fds(loop);
	struct rlimit was, low;
	int fd;

	begin();
	put("a.lua", "one");
	fd = open(in("a.lua"), O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && getrlimit(RLIMIT_NOFILE, &was) == 0);
	low = was;
	low.rlim_cur = 0;
	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	begin_watch("a.lua", NULL);
	CHECK(blinds == 1 && blind_err == -EMFILE);
	CHECK(write(fd, "two", 3) == 3);
	CHECK(called(1));
	CHECK(unlink(in("a.lua")) == 0);
	CHECK(called(2));
	CHECK(setrlimit(RLIMIT_NOFILE, &was) == 0);
	turn_for(700 * CLOCK_MS); /* and from here on with inotify */
	put("a.lua", "three");
	CHECK(called(3));
	CHECK(loop_live_fds(loop) == before + 1 && blinds == 1);
	close(fd);
	end();
}

/* The set changes while a change is under way, and is learnt by loading. */
static void
new_set(void)
{
	struct stamped loaded[1];

	begin();
	put("a.lua", "one");
	put("b.lua", "one");
	begin_watch("a.lua", NULL);
	put("a.lua", "two");
	set("a.lua", "b.lua");
	CHECK(called(1)); /* not forgotten by the new set */
	set("a.lua", NULL);
	loaded[0] = (struct stamped){in("b.lua"), stamp_of(in("b.lua"))};
	put("b.lua", "two"); /* after it was loaded, before the set says so */
	turn_for(30 * CLOCK_MS); /* the events are gone, too */
	CHECK(watch_set(watch, loaded, 1) == 0);
	CHECK(called(2));
	set("b.lua", NULL);
	put("a.lua", "three");
	CHECK(stays(2));
	watch_again(watch);
	CHECK(called(3) && stays(3));
	CHECK(watch_set(watch, NULL, 0) == 0);
	put("b.lua", "three");
	CHECK(stays(3));
	end();
}

static void
close_inside(void *arg)
{
	watch_close(watch);
	watch = NULL;
	changed(arg);
}

static void
closing(void)
{
	size_t before = loop_live_timers(loop);
	struct stamped file;

	begin();
	put("a.lua", "one");
	CHECK(watch_open(&watch, loop, close_inside, NULL, &calls) == 0);
	file.path = in("a.lua");
	file.stamp = stamp_of(file.path);
	CHECK(watch_set(watch, &file, 1) == 0);
	put("a.lua", "two");
	CHECK(called(1));
	CHECK(!watch && loop_live_timers(loop) == before);
	watch_close(NULL);
	end();
}

/* A path from where the process stands. */
static void
relative(void)
{
	char was[PATH_MAX];
	struct stamped file = {.path = "a.lua"};

	begin();
	put("a.lua", "one");
	CHECK(getcwd(was, sizeof(was)) && chdir(top) == 0);
	CHECK(watch_open(&watch, loop, changed, NULL, &calls) == 0);
	file.stamp = stamp_of(file.path);
	CHECK(watch_set(watch, &file, 1) == 0);
	CHECK(stays(0));
	put_over("a.lua", "two");
	CHECK(called(1));
	put("b.lua", "new");
	CHECK(called(2));
	CHECK(chdir(was) == 0);
	end();
}

void
test_watch(void)
{
	CHECK(loop_new(&loop) == 0);
	endless_begin();
	saving();
	unrelated();
	same_again();
	links();
	data_link();
	comes_and_goes();
	missing();
	folders();
	halves();
	storm();
	overflow();
	looking();
	new_set();
	closing();
	relative();
	endless_end();
	CHECK(loop_live_timers(loop) == 0);
	loop_free(loop);
}
