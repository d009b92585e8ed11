/* watchdog.h - says what is stuck: a request in a C function that no hook can interrupt and
 * that has used up its limit of CPU time.
 *
 * The engine's own thread notices, in the signal handler of its meter, and writes the event
 * there and then: a thread for that would make every system call and allocation of the
 * process dearer.  Where the process may be replaced (a forked child, a worker) it leaves a
 * report and ends at once instead, and its parent says why.
 *
 * The host owns the struct and keeps it in place.  Any number of schedulers share one. */
#ifndef HOST_SERVER_WATCHDOG_H
#define HOST_SERVER_WATCHDOG_H

#include "net/addr.h"
#include "script/meter.h"

#include <stdbool.h>

struct log;
struct sched;

/* Plain data, in memory shared with the parent. */
struct stuck_report {
	_Atomic int complete;
	char server[64]; /* "": no request, a script that is being loaded */
	struct addr client;
	unsigned generation;
	struct stuck what;
};

struct watchdog {
	struct log *log;
	struct stuck_report *report; /* not NULL: leave it there, and end the process */
};

/* What the scheduler runs is watched from now on; its tasks are requests. */
void watchdog_watch(struct watchdog *w, struct sched *s);

/* For the parent: logs the report if it is complete, and makes room for the next.  worker:
 * whose, 0 for a child of this process.  False: there is none. */
bool watchdog_log(struct stuck_report *r, struct log *log, unsigned worker);

#endif
