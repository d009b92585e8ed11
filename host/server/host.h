/* host.h - scripts, the servers they run behind, and the engine that accepts for them.
 *
 * The caller owns the struct and the log.  The loop's thread. */
#ifndef HOST_SERVER_HOST_H
#define HOST_SERVER_HOST_H

#include "base/count.h"
#include "base/list.h"
#include "script/meter.h"
#include "server/attrs.h"
#include "server/engine.h"
#include "server/watchdog.h"

#include <sys/types.h>

struct ballot;
struct control;
struct member;
struct policy;
struct reload_ask;
struct script;
struct script_options;
struct sources;
struct stream;
struct server;
struct unit;
struct url;

struct host {
	struct engine engine;
	struct meter meter; /* of the thread that runs it */
	bool metered;       /* there are limits to computing */
	struct watchdog watchdog;
	struct list servers, units;
	const char *lua_path; /* of the host's own modules; borrowed */
	bool sandbox, strict; /* how scripts are loaded; to be set before the first one */
	struct loop_tuning tuning; /* of its loop, once it begins; likewise */
	int64_t drain_until;       /* CLOCK_NEVER: not draining */
	bool begun;                /* servers begin as they come */
	bool draining, cancelled;
	int64_t collected; /* when host_collect() last did */
	counter reloads, failed_reloads;
	/* Whether a reload that would do here is to be (why NULL), or why it would not:
	 * others have a say as well.  True: reload_verdict() comes later.  NULL: nobody
	 * has. */
	bool (*vote)(struct host *h, struct unit *u, const char *why);
	struct ballot *ballot; /* of a master */
	/* In a worker: asks its master.  NULL: a reload is this process's own business. */
	void (*ask)(struct host *h, struct unit *u, struct reload_ask *a);
	/* A reload is over; tried: what one that failed has read, as far as it came, or
	 * NULL. NULL: nobody wants to know. */
	void (*reloaded)(struct host *h, struct unit *u, const struct sources *tried);
	pid_t pid;  /* whose host this is: a forked child's copy is not to be freed */
	bool child; /* this is a forked copy: see host_reborn() */
	struct member *member;   /* of a worker: its line to the master; else NULL */
	struct control *control; /* control.h; NULL: no state has that */
	struct server *admin;    /* the control API's; NULL: there is none */
	bool left_behind;        /* threads still run that could not be ended */
};

/* Errors: -EMFILE, -ENFILE, -ENOMEM. */
int host_init(struct host *h, struct log *log, const char *lua_path);

/* Closes every server and frees everything. */
void host_free(struct host *h);

/* Loads the script unless another server has, reads its attributes over
 * `attrs` and binds.  -errno with one sentence in why. */
int host_add(struct host *h, const char *script, const struct url *url,
	     const struct policy *policy, const struct attrs *attrs, struct server **out,
	     char *why, size_t size);

/* Loads a script and reads its attributes, as host_add() would, and binds nothing. */
int host_check(struct host *h, const char *script, const struct attrs *attrs, char *why,
	       size_t size);

/* Loads a script: its first generation, for a unit; `open` adds the bindings to its state,
 * which is the host's own then, in no sandbox; NULL: those of all.  Errors:
 * script_load()'s.
 */
int host_load(struct host *h, const char *path, const struct attrs *a, lua_CFunction open,
	      struct script **out, char *why, size_t size);

/* Whether all servers' policies can be in one process: 0, or -EINVAL with why. */
int host_check_policies(const struct host *h, char *why, size_t size);

/* Starts all servers accepting.  -errno with one sentence in why. */
int host_begin(struct host *h, char *why, size_t size);

/* Runs until every server has stopped. */
void host_run(struct host *h);

/* In a forked child: nothing of the parent's goes on here but, if `keep` is not NULL, the
 * running task and that stream.  Errors: as engine_reborn(). */
int host_reborn(struct host *h, struct stream *keep);

/* In a forked copy of a host that has not begun: a worker, which may host_begin() and
 * accepts on the same listeners as the others.  Servers that had been stopped are closed.
 * Errors: as engine_reborn(). */
int host_share(struct host *h);

/* The child's own host_run(): returns when its servers are done, and tidies up nothing. */
void host_run_child(struct host *h);

/* Stops accepting everywhere but at the control API; past the longest drain_timeout,
 * requests are cancelled. */
void host_drain(struct host *h);

/* Ends everything now: host_run() returns. */
void host_stop(struct host *h);

/* Has every script loaded again (reload.h); each outcome is one event in the log. */
void host_reload(struct host *h);

/* There are no more: those under way end, and who asked is told.  host_run() does it. */
void host_end_reloads(struct host *h);

/* The unit with this number, from 0; NULL: there is none.  And its number. */
struct unit *host_unit(const struct host *h, int number);
int host_unit_number(const struct host *h, const struct unit *u);

/* What a script of this host is loaded with. */
struct script_options host_script_options(const struct host *h, size_t memory_limit,
					  unsigned number);

/* Has the collectors of all states close what scripts have forgotten; at most once a
 * second. */
void host_collect(struct host *h);

/* Logs every task with its client, age, state and traceback. */
void host_log_tasks(struct host *h);

#endif
