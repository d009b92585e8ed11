#include "cli/options.h"

#include "base/clock.h"
#include "base/nearest.h"
#include "server/master.h"
#include "server/policy.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No --log-level yet. */
enum { UNSET = -1 };

enum {
	DRAIN_TIMEOUT = 300,
	READY_FILE = 256,
	EXIT_WITH_PARENT,
	LOG_FORMAT,
	LOG_LEVEL,
	SANDBOX,
	STRICT,
	WORKERS,
	ADMIN,
	ADMIN_TOKEN_FILE,
	ADMIN_HOST,
	ALLOW_SCRIPT_UPLOAD,
	JOURNAL,
	BUSY_POLL,
	LOOP
};

static const struct option long_options[] = {
    {"listen", required_argument, NULL, 'l'},
    {"mixin", required_argument, NULL, 'm'},
    {"option", required_argument, NULL, 'o'},
    {"watch", no_argument, NULL, 'w'},
    {"drain-timeout", required_argument, NULL, DRAIN_TIMEOUT},
    {"ready-file", required_argument, NULL, READY_FILE},
    {"exit-with-parent", no_argument, NULL, EXIT_WITH_PARENT},
    {"workers", required_argument, NULL, WORKERS},
    {"admin", required_argument, NULL, ADMIN},
    {"admin-token-file", required_argument, NULL, ADMIN_TOKEN_FILE},
    {"admin-host", required_argument, NULL, ADMIN_HOST},
    {"allow-script-upload", no_argument, NULL, ALLOW_SCRIPT_UPLOAD},
    {"journal", required_argument, NULL, JOURNAL},
    {"loop", required_argument, NULL, LOOP},
    {"busy-poll", required_argument, NULL, BUSY_POLL},
    {"log-format", required_argument, NULL, LOG_FORMAT},
    {"log-level", required_argument, NULL, LOG_LEVEL},
    {"sandbox", no_argument, NULL, SANDBOX},
    {"strict", no_argument, NULL, STRICT},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char *const commands[] = {"serve", "mock", "check", "try"};

static const char *
nearest_option(const char *word)
{
	const char *best = long_options[0].name;

	for (const struct option *p = long_options; p->name; p++)
		if (nearest_distance(word, p->name) < nearest_distance(word, best))
			best = p->name;
	return best;
}

static int
unknown_option(const char *word, char *why, size_t size)
{
	char name[128];

	snprintf(name, sizeof(name), "%s", word);
	name[strcspn(name, "=")] = 0;
	if (strncmp(name, "--", 2) == 0)
		snprintf(why, size, "unknown option %s; did you mean --%s?", name,
			 nearest_option(name + 2));
	else
		snprintf(why, size, "unknown option %s; see moonport --help", name);
	return -EINVAL;
}

static int
set_attribute(struct attrs *a, const char *text, char *why, size_t size)
{
	char name[128];
	const char *eq = strchr(text, '=');

	if (!eq || eq == text || (size_t)(eq - text) >= sizeof(name)) {
		snprintf(why, size,
			 "--option %s: it must be NAME=VALUE, such as timeout=30", text);
		return -EINVAL;
	}
	snprintf(name, sizeof(name), "%.*s", (int)(eq - text), text);
	return attrs_set_text(a, name, eq + 1, why, size);
}

static int
set_mixin(struct entry *e, const char *name, char *why, size_t size)
{
	const struct policy *p;
	size_t n;

	e->policy = policy_find(name);
	if (e->policy)
		return 0;
	n = (size_t)snprintf(why, size, "--mixin %s: there is no such mixin; there are",
			     name);
	for (size_t i = 0; (p = policy_at(i)) && n < size; i++)
		n += (size_t)snprintf(why + n, size - n, "%s %s", i ? "," : "", p->name);
	return -EINVAL;
}

static int
put_listen(struct listen_list *l, const struct url *url, char *why, size_t size)
{
	if (l->n == MAX_LISTENS) {
		snprintf(why, size, "more than %d --listen for one script", MAX_LISTENS);
		return -EINVAL;
	}
	l->urls[l->n++] = *url;
	return 0;
}

static int
add_listen(struct listen_list *l, const char *text, char *why, size_t size)
{
	struct url url;
	int rc = url_parse(text, strlen(text), &url, why, size);

	return rc < 0 ? rc : put_listen(l, &url, why, size);
}

static int
set_log(struct options *o, int option, const char *value, char *why, size_t size)
{
	int level = log_level_of(value);

	if (option == LOG_LEVEL && level >= 0)
		o->log_level = (enum log_level)level;
	else if (option == LOG_FORMAT &&
		 (strcmp(value, "text") == 0 || strcmp(value, "json") == 0))
		o->log_format = *value == 'j' ? LOG_JSON : LOG_TEXT;
	else {
		snprintf(why, size,
			 option == LOG_LEVEL
			     ? "--log-level %s: it must be debug, info, warn or error"
			     : "--log-format %s: it must be text or json",
			 value);
		return -EINVAL;
	}
	return 0;
}

static int
set_workers(struct options *o, const char *value, char *why, size_t size)
{
	char *end;
	long n = strtol(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < 1 || n > MAX_WORKERS) {
		snprintf(why, size, "--workers %s: it must be a number from 1 to %d", value,
			 MAX_WORKERS);
		return -EINVAL;
	}
	o->workers = (int)n;
	return 0;
}

static int
set_busy_poll(struct options *o, const char *value, char *why, size_t size)
{
	char *end;
	long us = strtol(value, &end, 10);

	if (strcmp(value, "auto") == 0)
		o->tuning.busy_poll = BUSY_AUTO;
	else if (strcmp(value, "off") == 0)
		o->tuning.busy_poll = 0;
	else if (*value < '0' || *value > '9' || *end || us > MAX_BUSY_POLL) {
		snprintf(why, size,
			 "--busy-poll %s: it must be auto, off, or at most %d microseconds",
			 value, MAX_BUSY_POLL);
		return -EINVAL;
	} else
		o->tuning.busy_poll = us * CLOCK_MS / 1000;
	return 0;
}

static int
set_loop(struct options *o, const char *value, char *why, size_t size)
{
	if (strcmp(value, "auto") == 0)
		o->tuning.kind = LOOP_AUTO;
	else if (strcmp(value, "epoll") == 0)
		o->tuning.kind = LOOP_EPOLL;
	else if (strcmp(value, "io_uring") == 0)
		o->tuning.kind = LOOP_URING;
	else {
		snprintf(why, size, "--loop %s: it must be auto, epoll or io_uring", value);
		return -EINVAL;
	}
	return 0;
}

static int
add_script(struct options *o, const char *path, char *why, size_t size)
{
	struct entry *e;

	if (o->nentries == MAX_SCRIPTS) {
		snprintf(why, size, "%s: more than %d scripts", path, MAX_SCRIPTS);
		return -EINVAL;
	}
	e = realloc(o->entries, ((size_t)o->nentries + 1) * sizeof(*e));
	if (!e) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	o->entries = e;
	e += o->nentries++;
	e->script = path;
	e->policy = o->common.policy;
	e->attrs = o->common.attrs;
	e->listens.n = 0;
	return 0;
}

/* Options that cannot be wrong.  False: it is not one of them. */
static bool
take_plain(struct options *o, int c)
{
	switch (c) {
	case 'w':
		o->watch = true;
		return true;
	case READY_FILE:
		o->ready_file = optarg;
		return true;
	case EXIT_WITH_PARENT:
		o->exit_with_parent = true;
		return true;
	case SANDBOX:
		o->sandbox = true;
		return true;
	case STRICT:
		o->strict = true;
		return true;
	case ADMIN_TOKEN_FILE:
		o->admin.token_file = optarg;
		return true;
	case ALLOW_SCRIPT_UPLOAD:
		o->admin.allow_script_upload = true;
		return true;
	case 'V':
	case 'h':
		o->command = c == 'V' ? COMMAND_VERSION : COMMAND_HELP;
		o->asked = true;
		return true;
	default:
		return false;
	}
}

/* What getopt_long() did not take; word: it stands there. */
static int
refuse_option(int c, const char *word, char *why, size_t size)
{
	if (c == ':') {
		snprintf(why, size, "%s needs a value; see moonport --help", word);
		return -EINVAL;
	}
	for (const struct option *p = long_options; p->name && optopt; p++)
		if (p->val == optopt && strncmp(word, "--", 2) == 0) {
			snprintf(why, size, "--%s takes no value", p->name);
			return -EINVAL;
		}
	if (optopt && optopt < 256) /* one letter of several, perhaps */
		return unknown_option((char[]){'-', (char)optopt, 0}, why, size);
	return unknown_option(word, why, size);
}

static int
take_option(struct options *o, int c, char **argv, char *why, size_t size)
{
	struct entry *e = o->nentries ? &o->entries[o->nentries - 1] : &o->common;

	if (take_plain(o, c))
		return 0;
	switch (c) {
	case 1:
		return add_script(o, optarg, why, size);
	case 'l':
		return add_listen(&e->listens, optarg, why, size);
	case 'm':
		return set_mixin(e, optarg, why, size);
	case 'o':
		return set_attribute(&e->attrs, optarg, why, size);
	case DRAIN_TIMEOUT:
		return attrs_set_text(&e->attrs, "drain_timeout", optarg, why, size);
	case WORKERS:
		return set_workers(o, optarg, why, size);
	case ADMIN:
		return admin_choose(&o->admin, optarg, why, size);
	case ADMIN_HOST:
		return admin_add_host(&o->admin, optarg, why, size);
	case LOOP:
		return set_loop(o, optarg, why, size);
	case BUSY_POLL:
		return set_busy_poll(o, optarg, why, size);
	case JOURNAL:
		return admin_journal(&o->journal, optarg, why, size);
	case LOG_FORMAT:
	case LOG_LEVEL:
		return set_log(o, c, optarg, why, size);
	default:
		return refuse_option(c, argv[optind - 1], why, size);
	}
}

/* --listen before the first script: one for each script in turn, or all for the only one.
 */
static int
share_listens(struct options *o, char *why, size_t size)
{
	struct listen_list *common = &o->common.listens;
	struct entry *e;

	if (common->n > 0 && common->n != o->nentries && o->nentries != 1) {
		snprintf(why, size,
			 "%d --listen before %d scripts: give one for each, or put each "
			 "behind its script",
			 common->n, o->nentries);
		return -EINVAL;
	}
	for (int i = 0; i < common->n; i++) {
		e = &o->entries[o->nentries == 1 ? 0 : i];
		if (put_listen(&e->listens, &common->urls[i], why, size) < 0)
			return -EINVAL;
	}
	for (int i = 0; i < o->nentries; i++) {
		e = &o->entries[i];
		if (e->listens.n == 0 && o->nentries > 1) {
			snprintf(
			    why, size,
			    "%s has no --listen: with several scripts each needs its own",
			    e->script);
			return -EINVAL;
		}
		if (e->listens.n == 0)
			return add_listen(&e->listens, "tcp://127.0.0.1:9999", why, size);
	}
	return 0;
}

static int
take_command(struct options *o, const char *word, char *why, size_t size)
{
	const char *best = commands[0];

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(word, commands[i]) == 0) {
			o->command = (enum command)(COMMAND_SERVE + i);
			return 0;
		}
		if (nearest_distance(word, commands[i]) < nearest_distance(word, best))
			best = commands[i];
	}
	snprintf(why, size, "unknown command %s; did you mean moonport %s?", word, best);
	return -EINVAL;
}

/* What a command starts from, where that is not what `serve` does. */
static void
set_defaults(struct options *o)
{
	if (o->command != COMMAND_MOCK)
		return;
	o->common.attrs.drain_timeout = 0; /* nobody waits for a mock */
	o->common.attrs.retire_timeout =
	    0;                       /* a conversation ends on the code it began with */
	o->tuning.kind = LOOP_EPOLL; /* few clients, that wait for each reply */
	o->ready_file = "-";
	(void)admin_choose(&o->admin, "127.0.0.1:0", NULL, 0);
}

/* Who tries a handler, or has mocks, wants to see what they say, and what fails. */
static enum log_level
usual_level(enum command command)
{
	return command == COMMAND_TRY || command == COMMAND_MOCK ? LOG_WARN : LOG_INFO;
}

static int
check_mocks(const struct options *o, char *why, size_t size)
{
	if (o->workers) {
		snprintf(why, size,
			 "--workers is not for moonport mock: stubs, state and the journal "
			 "are one process's");
		return -EINVAL;
	}
	for (int i = -1; i < o->nentries; i++) {
		const struct entry *e = i < 0 ? &o->common : &o->entries[i];
		if (e->listens.n > 0) {
			snprintf(
			    why, size,
			    "--listen is not for moonport mock: the script says where, "
			    "with mock.server{ \"tcp://127.0.0.1:0\" }");
			return -EINVAL;
		}
		if (strcmp(e->policy->name, "async") != 0) {
			snprintf(why, size,
				 "--mixin %s is not for moonport mock: stubs, state and "
				 "sequences are one Lua state's, so mocks are async",
				 e->policy->name);
			return -EINVAL;
		}
	}
	return 0;
}

/* Whether the options fit the command. */
static int
check_command_line(struct options *o, char *why, size_t size)
{
	if (o->command == COMMAND_HELP) {
		snprintf(why, size,
			 "the command comes first: moonport serve SCRIPT [options], or "
			 "moonport --help");
		return -EINVAL;
	}
	if (o->nentries == 0) {
		snprintf(why, size, "the script is missing: moonport %s SCRIPT",
			 commands[o->command - COMMAND_SERVE]);
		return -EINVAL;
	}
	if (o->command == COMMAND_TRY && o->nentries > 1) {
		snprintf(why, size, "moonport try takes one script, not %d", o->nentries);
		return -EINVAL;
	}
	if (o->command == COMMAND_MOCK && o->workers) {
		snprintf(why, size,
			 "--workers: moonport mock is one process; --workers is for serve");
		return -EINVAL;
	}
	if (!o->admin.on && admin_wants(&o->admin)) {
		snprintf(why, size,
			 "%s is for the control API, which is not there: give --admin "
			 "HOST:PORT",
			 admin_wants(&o->admin));
		return -EINVAL;
	}
	if (o->admin.on && o->workers) {
		snprintf(why, size,
			 "--admin and --workers: the control API is one process's; serve "
			 "without one of them");
		return -EINVAL;
	}
	if (o->command == COMMAND_MOCK)
		return check_mocks(o, why, size);
	return o->command == COMMAND_SERVE ? share_listens(o, why, size) : 0;
}

static int
take_all(struct options *o, int argc, char **argv, char *why, size_t size)
{
	int c, rc = 0;

	opterr = 0;
	optind = 1;
	while (rc == 0 &&
	       (c = getopt_long(argc, argv, "-:l:m:o:whV", long_options, NULL)) != -1)
		rc = take_option(o, c, argv, why, size);
	while (rc == 0 && optind < argc) /* behind "--" */
		rc = add_script(o, argv[optind++], why, size);
	return rc;
}

int
options_parse(struct options *o, int argc, char **argv, char *why, size_t size)
{
	int rc;

	*o = (struct options){.command = COMMAND_HELP, .log_level = (enum log_level)UNSET};
	o->tuning = (struct loop_tuning){LOOP_AUTO, BUSY_AUTO};
	o->common.policy = policy_find("async");
	attrs_init(&o->common.attrs);
	if (argc < 2) {
		snprintf(why, size,
			 "a command is missing: moonport serve SCRIPT, or moonport --help");
		return -EINVAL;
	}
	if (argv[1][0] != '-') {
		rc = take_command(o, argv[1], why, size);
		if (rc < 0)
			return rc;
		argc--;
		argv++;
	}
	set_defaults(o);
	rc = take_all(o, argc, argv, why, size);
	if ((int)o->log_level == UNSET)
		o->log_level = usual_level(o->command);
	return rc < 0 || o->asked ? rc : check_command_line(o, why, size);
}

void
options_free(struct options *o)
{
	free(o->entries);
}
