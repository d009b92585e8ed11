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
struct server;

/* What was still alive in a worker when it had ended: all zero, or something has leaked. */
struct leftovers {
	_Atomic uint64_t tasks, streams, descriptors, timers, buffered;
};

struct board_memory {
	_Atomic unsigned accepting; /* workers */
	counter died, stuck;        /* workers; the master's */
	struct leftovers left;      /* of all that have ended in order */
	struct counters slots[]; /* for each server one of each worker, one of the ended */
};

struct board {
	struct boards *set;
	struct server *server;  /* NULL: it has been stopped */
	struct counters *slots; /* set->nworkers + 1 of them */
	struct counters *mine;  /* NULL: of the master */
	bool mute;              /* this process is a worker's child: it only reads */
	struct loop_timer tick; /* set: publishes then */
};

struct boards {
	struct board_memory *memory;
	unsigned nworkers, nservers;
	struct board *all; /* in the order of the host's servers */
};

/* One for each server of the host.  Errors: -ENOMEM. */
int boards_init(struct boards *b, struct host *h, unsigned nworkers);

void boards_free(struct boards *b);

/* In a worker, number 0 and up, whose servers have begun: it counts from now on. */
void boards_claim(struct boards *b, unsigned worker);

/* In a worker whose servers have ended: the last word. */
void boards_leave(struct boards *b);

/* In the master: what this worker has counted becomes that of one that has ended. */
void boards_fold(struct boards *b, unsigned worker);

/* Something may have been counted. */
void board_touch(struct board *b);

/* The server is closed. */
void board_forget(struct board *b);

/* Adds what other processes have counted. */
void board_add_others(const struct board *b, struct counters *sum);

#endif
