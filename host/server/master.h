/* master.h - a process that has loaded and bound everything, and the workers that it forks
 * to serve it.
 *
 * The master accepts nothing and runs no request.  A worker that dies is replaced: at once
 * if it had lived for a second, else after a pause that doubles up to five seconds; but
 * while no other worker is there, after a tenth of a second.  Whoever is not needed any
 * more is told to drain, and killed when that takes too long.
 *
 * The caller owns the struct and the host, and keeps both in place.  Functions that can
 * return MASTER_FORKED return so in a new worker's process, which has to call member_run()
 * on `member`, and master_free().  The master's one thread. */
#ifndef HOST_SERVER_MASTER_H
#define HOST_SERVER_MASTER_H

#include "base/log.h"
#include "server/ballot.h"
#include "server/board.h"
#include "server/channel.h"
#include "server/member.h"
#include "server/watchdog.h"

#include <stdbool.h>
#include <sys/types.h>

enum { MASTER_FORKED = 1, MAX_WORKERS = 256 };

/* A worker, and its place while there is none. */
struct process {
	struct master *master;
	unsigned number; /* 1 and up */
	pid_t pid;       /* 0: none */
	struct channel channel;
	struct loop_fd fd; /* its pidfd; fd -1: none could be had */
	struct loop_op op;
	int64_t began;           /* when it was forked */
	int64_t backoff;         /* the last pause before it was replaced, 0: none */
	struct loop_timer retry; /* set: it is not replaced before */
	bool due;                /* to be forked now */
	bool accepts, killed;
	bool owes;                /* the ballot waits for its answer */
	struct log_gate gates[3]; /* started, died, cannot start */
};

struct master {
	struct host *host;
	struct boards boards;
	struct ballot ballot;
	struct stuck_report *reports; /* one for each worker, in shared memory */
	unsigned n;
	struct process *processes;
	struct loop_timer give_up; /* then what is left is killed */
	bool starting, draining;
	int failed; /* a worker could not start: -errno */
	char why[MESSAGE_TEXT];
	struct member member; /* in a worker: what it is */
};

/* For a host with all its servers, which have not begun.  Errors: -ENOMEM with why. */
int master_init(struct master *m, struct host *h, unsigned n, char *why, size_t size);

/* Forks the workers and waits until all accept, or the master drains.  MASTER_FORKED, 0, or
 * -errno with one sentence in why. */
int master_start(struct master *m, char *why, size_t size);

/* Replaces workers until all have ended for good.  MASTER_FORKED or 0. */
int master_run(struct master *m);

/* Has all workers stop accepting, let their requests end, and end. */
void master_drain(struct master *m);

/* The same at once. */
void master_stop(struct master *m);

void master_log_tasks(struct master *m);

/* In the master: kills and reaps what is left.  Frees. */
void master_free(struct master *m);

#endif
