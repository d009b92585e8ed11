/* options.h - the command line.
 *
 * An option before the first script is for all scripts, one behind a script for
 * that script alone.  The strings are argv's own. */
#ifndef HOST_CLI_OPTIONS_H
#define HOST_CLI_OPTIONS_H

#include "base/log.h"
#include "cli/admin.h"
#include "loop/loop.h"
#include "net/addr.h"
#include "server/attrs.h"

struct policy;

/* Exit codes. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 100, EXIT_SYSTEM = 111 };

enum { MAX_SCRIPTS = 64, MAX_LISTENS = 64, MAX_BUSY_POLL = 1000 };

enum command {
	COMMAND_HELP,
	COMMAND_VERSION,
	COMMAND_SERVE,
	COMMAND_MOCK,
	COMMAND_CHECK,
	COMMAND_TRY
};

struct listen_list {
	struct url urls[MAX_LISTENS];
	int n;
};

/* A script and how it is to be served. */
struct entry {
	const char *script;
	const struct policy *policy;
	struct attrs attrs;
	struct listen_list listens;
};

struct options {
	enum command command;
	bool asked;          /* for --help or --version: the rest does not matter */
	struct entry common; /* what stands before the first script */
	struct entry *entries;
	int nentries;
	const char *ready_file; /* NULL: none; "-": standard output */
	bool exit_with_parent;
	bool sandbox, strict; /* for all scripts */
	bool watch;           /* reload when a script or one of its modules changes */
	struct loop_tuning tuning;
	int workers; /* 0: the program serves by itself */
	struct admin_choice admin;
	int64_t journal; /* the most bytes that the journal takes; 0: its default */
	enum log_format log_format;
	enum log_level log_level;
};

/* Takes argv apart.  -EINVAL: why says in one sentence what is wrong. */
int options_parse(struct options *o, int argc, char **argv, char *why, size_t size);

void options_free(struct options *o);

/* Writes what --help says to standard output. */
void options_help(void);

#endif
