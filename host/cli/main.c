/* moonport - the program. */
#include "base/stack.h"
#include "bind/lmoonport.h"
#include "cli/options.h"
#include "cli/serve.h"
#include "loop/signals.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Where the modules of lua/ are: beside the build folder, or below the prefix. */
static void
find_lua_path(char *out, size_t size)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *dir;

	*out = 0;
	if (n <= 0)
		return;
	exe[n] = 0;
	dir = dirname(exe);
	snprintf(out, size, "%s/../lua/?.lua;%s/../share/lua/5.4/?.lua;", dir, dir);
}

/* A collected state gives back a megabyte that the next requests need again: without
 * these the heap would shrink and grow, and its pages fault in anew, many times a second;
 * a line of a megabyte would be mapped by itself.  What has nothing to do trims the heap.
 * And a seat's states are made in one thread and freed in another, so with an arena for
 * each thread the room of one that was replaced would not be used for the next: after 500
 * reloads 110 seats would take three times as much.  Small blocks take no lock (alloc.h).
 */
static void
keep_heap(void)
{
	if (!getenv("MALLOC_ARENA_MAX"))
		mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, 16 << 20);
	mallopt(M_TOP_PAD, 512 << 10);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

/* A descriptor 0, 1 or 2 that was closed would be the next socket's number, and get its
 * share of the log. */
static void
fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

/* What the program was started with, and its exit code. */
struct start {
	int argc;
	char **argv;
	sigset_t mask;
	int code;
};

/* What a server is asked for by, and what ends other programs. */
static const int asking[] = {SIGHUP, SIGUSR1};

/* Such a signal waits until it is known which of the two this is. */
static void
hold_signals(struct start *st)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(asking) / sizeof(*asking); i++)
		sigaddset(&set, asking[i]);
	sigprocmask(SIG_BLOCK, &set, &st->mask);
}

/* A server keeps them while it loads its scripts; it has no loop to hear them by yet.  They
 * are not blocked any more, nor ignored: what a script starts gets them as usual. */
static void
let_signals(const struct start *st, bool serves)
{
	if (serves)
		signals_keep(asking, sizeof(asking) / sizeof(*asking));
	sigprocmask(SIG_SETMASK, &st->mask, NULL);
}

static int
command(const struct start *st, const struct options *o)
{
	struct log log = {
	    .fd = STDERR_FILENO, .level = o->log_level, .format = o->log_format};
	char lua_path[2 * PATH_MAX + 64];

	let_signals(st, o->command == COMMAND_SERVE || o->command == COMMAND_MOCK);
	log.multiline = isatty(STDERR_FILENO);
	find_lua_path(lua_path, sizeof(lua_path));
	switch (o->command) {
	case COMMAND_HELP:
		options_help();
		break;
	case COMMAND_VERSION:
		printf("moonport " MOONPORT_VERSION " (%s)\n", LUA_RELEASE);
		break;
	case COMMAND_SERVE:
	case COMMAND_MOCK:
		return serve_command(o, &log, lua_path);
	case COMMAND_CHECK:
		return check_command(o, &log, lua_path);
	case COMMAND_TRY:
		return try_command(o, &log, lua_path);
	}
	return EXIT_DONE;
}

static void
run(void *arg)
{
	struct start *st = arg;
	struct options o;
	char why[512];

	if (options_parse(&o, st->argc, st->argv, why, sizeof(why)) < 0) {
		fprintf(stderr, "moonport: %s\n", why);
		st->code = EXIT_USAGE;
	} else
		st->code = command(st, &o);
	options_free(&o);
}

int
main(int argc, char **argv)
{
	struct start st = {.argc = argc, .argv = argv, .code = EXIT_DONE};

	hold_signals(&st);
	keep_heap();
	fill_standard_descriptors();
	if (stack_call(run, &st) < 0) {
		fprintf(stderr, "moonport: cannot start: no memory for a stack\n");
		return EXIT_SYSTEM;
	}
	/* A full disk or a closed pipe must not look like success. */
	if (fflush(stdout) != 0 && st.code == EXIT_DONE)
		st.code = EXIT_SYSTEM;
	return st.code;
}
