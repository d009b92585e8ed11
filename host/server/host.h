/* host.h - one engine: a loop, a scheduler, scripts and the servers they run behind.
 *
 * The caller owns the struct and the log.  The loop's thread. */
#ifndef HOST_SERVER_HOST_H
#define HOST_SERVER_HOST_H

#include "base/list.h"
#include "base/log.h"
#include "bind/stream.h"
#include "script/task.h"
#include "server/attrs.h"

struct policy;
struct server;
struct url;

struct host {
	struct loop *loop;
	struct sched sched;
	struct io io;
	struct log *log; /* borrowed */
	struct list servers, units;
	const char *lua_path; /* of the host's own modules; borrowed */
	int64_t drain_until;  /* CLOCK_NEVER: not draining */
	bool draining, cancelled;
	int64_t collected; /* when host_collect() last did */
	uint64_t reloads, failed_reloads;
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

/* Starts all servers accepting. */
int host_begin(struct host *h);

/* Runs until every server has stopped. */
void host_run(struct host *h);

/* Stops accepting everywhere; past the longest drain_timeout, requests are cancelled. */
void host_drain(struct host *h);

/* Ends everything now: host_run() returns. */
void host_stop(struct host *h);

/* Loads every script again; one that fails keeps its old generation.  Each outcome is
 * one event in the log.  Returns how many failed. */
int host_reload(struct host *h);

/* Has the collectors of all states close what scripts have forgotten; at most once a
 * second. */
void host_collect(struct host *h);

/* Logs every task with its client, age, state and traceback. */
void host_log_tasks(struct host *h);

/* Pushes the engine's own counters into the table on top of the stack. */
void host_push_stats(struct host *h, lua_State *L);

#endif
