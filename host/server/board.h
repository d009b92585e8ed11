/* board.h - what the workers of a master count, in memory that all of them share.
 *
 * Each server has a board, with a set of counters for each worker and one of all that have
 * ended.  A worker alone writes its own set: what its server has counted here, at a
 * request's begin and end where requests run on the loop, or every 50 ms where they run in
 * threads or children.  So the latter's figures may be that old, and a worker that is
 * killed loses that much of them.  The master makes the boards before it forks, and owns
 * them; each process frees its copy.  The loop's thread; reading: any thread. */
#ifndef HOST_SERVER_BOARD_H
#define HOST_SERVER_BOARD_H

#include "loop/loop.h"
#include "server/counters.h"

#include <stdbool.h>

struct host;
struct log;
struct policy;
struct server;
struct stuck_report;
/* What was still alive in a worker when it had ended: all zero, or something has leaked. */
struct leftovers {
	_Atomic uint64_t tasks, streams, descriptors, timers, buffered;
};

/* Behind it lie WATCHDOG_REPORTS for each worker, and for each server the counters of each
 * worker and those of the ended. */
struct board_memory {
	_Atomic unsigned accepting; /* workers */
	counter died;               /* workers; the master's */
	struct leftovers left;      /* of all that have ended in order */
};
struct board {
	struct boards *set;
	struct server *server;       /* NULL: it has been stopped */
	const struct policy *policy; /* the server's, where it runs */
	struct counters *slots;      /* set->nworkers + 1 of them */
	struct counters *mine;       /* NULL: of the master */
	bool mute;                   /* this process is a worker's child: it only reads */
	struct loop_timer tick;      /* set: publishes then */
};

struct boards {
	struct board_memory *memory;
	struct stuck_report *stuck;
	unsigned nworkers, nservers;
	struct board *all; /* in the order of the host's servers */
};

/* One for each server of the host, none of which runs in this process from now on.  Errors:
 * -ENOMEM. */
int boards_init(struct boards *b, struct host *h, unsigned nworkers);

void boards_free(struct boards *b);

/* In a worker: its servers run here. */
void boards_settle(struct boards *b);

/* In a worker, number 0 and up, whose servers have begun: it counts from now on. */
void boards_claim(struct boards *b, unsigned worker);

/* In a worker whose servers have ended: the last word. */
void boards_leave(struct boards *b);

/* In the master: what this worker has counted becomes that of one that has ended, and what
 * it was stuck in is told. */
void boards_fold(struct boards *b, unsigned worker, struct log *log);
/* Something may have been counted. */
void board_touch(struct board *b);

/* The server is closed. */
void board_forget(struct board *b);

/* Adds what other processes have counted. */
void board_add_others(const struct board *b, struct counters *sum);

#endif
