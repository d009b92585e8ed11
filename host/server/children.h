/* children.h - the child processes of a forking server: started, watched, reaped.
 *
 * Each child has a slot in memory that it shares with the parent, for its counters.  A
 * child's end shows on its pidfd; where there is none, it is asked for now and then.  Only
 * children of this set are ever waited for: whatever else the process has started keeps
 * its status.  The server's thread. */
#ifndef HOST_SERVER_CHILDREN_H
#define HOST_SERVER_CHILDREN_H

#include "base/list.h"
#include "loop/loop.h"
#include "net/addr.h"
#include "script/script.h"
#include "server/counters.h"
#include "server/watchdog.h"

#include <stdbool.h>
#include <sys/types.h>

struct server;

struct child {
	struct list link;
	struct children *set;
	pid_t pid;
	struct loop_fd fd; /* its pidfd; fd -1: none could be had */
	struct loop_op op;
	struct addr client; /* len 0: it accepts for itself */
	unsigned generation;
	int64_t began;
	bool killed; /* by the host, at once */
	unsigned slot;
};

struct children {
	struct server *server;
	struct list list;
	unsigned n, max;
	/* Shared with the children: a set of counters for each, and one of all that is
	 * over. */
	struct shared {
		_Atomic unsigned newest; /* generation */
		_Atomic bool shutdown;   /* a child's script has asked for it */
		/* What became of the last reload; odd: it is being written. */
		_Atomic unsigned reloads;
		int64_t began;   /* clock_now() */
		unsigned number; /* of the generation; 0: see why */
		char why[SCRIPT_ERROR];
		struct stuck_report stuck;
		struct counters slots[];
	} * shared;
	unsigned *spare; /* slots that are free: nspare of them */
	unsigned nspare;
	struct loop_timer look;    /* set while there are children without a pidfd */
	struct loop_timer give_up; /* then what is left is killed */
	/* A child is over; what it has counted. */
	void (*gone)(struct children *c, const struct child *child,
		     const struct counters *counted);
};

/* Errors: -ENOMEM. */
int children_init(struct children *c, struct server *s, unsigned max,
		  void (*gone)(struct children *c, const struct child *child,
			       const struct counters *counted));

/* Forks, with every signal blocked in both until children_unblock().  Returns 0 in the
 * child, with *slot; in the parent the pid.  client: NULL for a child that accepts for
 * itself. Errors: fork(2)'s, -ENOMEM. */
pid_t children_fork(struct children *c, const struct addr *client, struct counters **slot);

/* In the child, once it handles signals itself. */
void children_unblock(void);

/* Reaps those that have ended, without waiting. */
void children_reap(struct children *c);

/* Waits for all. */
void children_wait(struct children *c);

/* Sends all of them a signal. */
void children_signal(const struct children *c, int signo);

/* How many run the generation of this number. */
unsigned children_running(const struct children *c, unsigned generation);

/* Sends these a signal that they will end by, which is no death to be told of. */
void children_retire(struct children *c, unsigned generation, int signo);

/* Ends all of them, which is no death to be told of. */
void children_kill(struct children *c);

/* Kills what is left after so many ns. */
void children_give_up(struct children *c, int64_t after);

/* Adds what the living have counted so far. */
void children_count(const struct children *c, struct counters *sum);

/* One event for each. */
void children_log(const struct children *c, const char *event);

/* Kills and reaps what is left, and frees. */
void children_close(struct children *c);

#endif
