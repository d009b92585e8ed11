/* watchdog.h - says what is stuck: a request in a C function that no hook can interrupt and
 * that has used up its limit of CPU time.
 *
 * The engine's own thread notices (a signal handler of its meter), a thread of the watchdog
 * writes the event.  Where the process may be replaced (a forked child, a worker) it ends
 * at once instead, and its parent says why.
 *
 * The host owns the struct and keeps it in place.  Any number of schedulers share one. */
#ifndef HOST_SERVER_WATCHDOG_H
#define HOST_SERVER_WATCHDOG_H

#include "net/addr.h"
#include "script/meter.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

struct log;
struct sched;

enum { WATCHDOG_REPORTS = 4 };

/* What is told of a stuck request; plain data, also in shared memory. */
struct stuck_report {
	_Atomic int state; /* 0 free, 1 being written, 2 complete */
	char server[64];
	struct addr client;
	unsigned generation;
	struct stuck what;
};

struct watchdog {
	struct log *log;
	pthread_t thread;
	bool runs, quit;
	sem_t told;
	struct stuck_report reports[WATCHDOG_REPORTS]; /* more at once are not told */
	struct stuck_report *shared; /* not NULL: report there, and end the process */
};

/* Starts its thread.  Errors: -EAGAIN, -ENOMEM: nobody watches. */
int watchdog_open(struct watchdog *w, struct log *log);

/* Ends the thread; harmless when there is none. */
void watchdog_close(struct watchdog *w);

/* In a process that is to be ended when it is stuck: no thread; WATCHDOG_REPORTS reports
 * lie in memory that its parent sees. */
void watchdog_sacrifice(struct watchdog *w, struct stuck_report *shared);

/* What the scheduler runs is watched from now on; its tasks are requests. */
void watchdog_watch(struct watchdog *w, struct sched *s);

/* Logs the reports that are complete, and frees their places: for the parent.  False: there
 * are none. */
bool watchdog_log(struct stuck_report *reports, struct log *log);

#endif
