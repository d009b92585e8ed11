/* Runs the tests of what needs no server: all of them, or those that are named.
 * One line a test: "ok NAME CHECKS" or "FAILED NAME ..."; exit code 1 if any has failed. */
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
    {"addr", test_addr},
    {"beneath", test_beneath},
    {"buf", test_buf},
    {"busy", test_busy},
    {"heap", test_heap},
    {"journal", test_journal},
    {"json", test_json},
    {"list", test_list},
    {"listen", test_listen},
    {"log", test_log},
    {"loop", test_loop},
    {"nearest", test_nearest},
    {"packsize", test_packsize},
    {"pattern", test_pattern},
    {"plain", test_plain},
    {"pool", test_pool},
    {"roster", test_roster},
    {"script", test_script},
    {"signals", test_signals},
    {"uring", test_uring},
    {"watch", test_watch},
};

static unsigned checks, failures;

void
unit_check(bool ok, const char *text, const char *file, int line)
{
	checks++;
	if (ok)
		return;
	failures++;
	printf("  %s:%d: %s\n", file, line, text);
}

static bool
wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

int
main(int argc, char **argv)
{
	unsigned failed = 0;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		if (!wanted(tests[i].name, argc, argv))
			continue;
		checks = failures = 0;
		alarm(30); /* a test that hangs ends here */
		tests[i].run();
		printf("%s %s %u\n", failures ? "FAILED" : "ok", tests[i].name,
		       failures ? failures : checks);
		fflush(stdout);
		failed += failures;
	}
	return failed > 0;
}
