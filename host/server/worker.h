/* worker.h - the threads of a crew.
 *
 * Each looks for a seat with something to do, claims it, runs it until it waits, and looks
 * again; see crew.h for how many do so at a time.  The crew owns the structs.  Functions
 * are for who holds the crew's mutex, unless they say otherwise. */
#ifndef HOST_SERVER_WORKER_H
#define HOST_SERVER_WORKER_H

#include "base/list.h"
#include "script/meter.h"
#include "server/engine.h"

#include <pthread.h>

struct crew;
struct seat;

struct worker {
	struct list link; /* in the crew's workers */
	struct crew *crew;
	pthread_t thread;
	struct buffers buffers; /* of the seats that it runs */
	struct meter meter;     /* of what it computes */
	unsigned number;        /* in the log */
	struct seat *seat;      /* that it runs now */
	uint64_t rounds;        /* begun so far */
	uint64_t seen;          /* of these, when progress was looked at last */
	bool stuck;             /* counted out */
	bool ended;             /* may be joined */
};

/* Brings the threads at work up to what is useful; for the server's thread.  Errors:
 * -EAGAIN, -ENOMEM: none could be started. */
int workers_reinforce(struct crew *c);

/* Has some thread run the seat: there is something in its inbox. */
void workers_enqueue(struct crew *c, struct seat *s);

/* Wakes a thread that waits (fd: the crew's bell), or the server's (its notice). */
void workers_ring(int fd);

/* Has the server's thread look at the crew. */
void workers_tell(struct crew *c);

/* Frees threads that have ended. */
void workers_join_ended(struct crew *c);

/* Ends all threads; none has anything to do. */
void workers_dismiss(struct crew *c);

/* When all were told to quit: gives them time to end, and joins those that have.  True:
 * all.  Without the mutex. */
bool workers_join(struct crew *c);

/* A thread that is not there. */
void worker_free(struct worker *w);

#endif
