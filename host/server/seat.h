/* seat.h - where a threading server runs one request at a time: an engine with a Lua state
 * of its own, loaded from the same script.
 *
 * A seat is not tied to a thread.  Whoever has claimed it is its thread until the release,
 * and only then may touch what is not in the inbox; the inbox is guarded by the crew's
 * mutex.  The crew (crew.h) owns the struct, whose memory lives as long as the crew: a
 * late event for a seat that was emptied meanwhile does no harm. */
#ifndef HOST_SERVER_SEAT_H
#define HOST_SERVER_SEAT_H

#include "net/dgram.h"
#include "server/counters.h"
#include "server/engine.h"
#include "server/site.h"

#include <stdatomic.h>

struct arrival;
struct crew;
struct worker;

enum seat_turn { SEAT_FREE, SEAT_TAKEN, SEAT_AGAIN };

/* What others want of a seat. */
struct inbox {
	bool job; /* a request to begin: the fields below */
	int fd;   /* its connection, owned; -1: a datagram */
	struct addr client;
	struct dgram dgram; /* with data from malloc(), owned */
	const char *cancel; /* a literal; NULL: no */
	bool leave;         /* give the engine and the Lua state up */
	bool kill;
	unsigned retire; /* cancel requests of this generation; 0: none */
	const char *why; /* of that: a literal */
	bool prepare;    /* build the next generation */
	bool answered;   /* there are answers */
	bool settle;     /* go on with it, or drop it: what the crew has now */
};

struct seat {
	struct list link;  /* in the crew's seats */
	struct list queue; /* among those that have something in the inbox */
	struct list idle;  /* among those without a request */
	struct crew *crew;
	_Atomic int turn; /* enum seat_turn */
	struct inbox inbox;
	bool busy;                   /* from its job's arrival to its end; the mutex */
	struct addr client;          /* of that; the mutex */
	int64_t began;               /* when; the mutex */
	_Atomic unsigned generation; /* that it runs; 0: not begun yet */
	bool due;                    /* the crew waits for its next generation; the mutex */
	struct list answers;         /* to questions of its requests (ask.h); the mutex */
	int64_t idle_since;          /* the mutex */
	unsigned visit;              /* the last one; the mutex */
	size_t lingering;            /* connections of its that linger; the mutex */
	struct worker *runs;         /* who has claimed it; the mutex */
	_Atomic bool open;           /* the fields below are in use */
	struct engine engine;
	struct site site;
	struct counters counters;
	struct script *next; /* the generation that it could go on with; NULL: none */
	struct site_plan plan;
};

/* Gives the seat an engine, without a Lua state yet.  By the server's thread, for a seat
 * that nobody else has.  Errors: -EMFILE, -ENFILE, -ENOMEM, -ENOSPC. */
int seat_open(struct seat *s);

/* Claims the seat, or has the one who holds it go round once more. */
bool seat_claim(struct seat *s);

/* False: the caller still holds it, and must go round once more. */
bool seat_release(struct seat *s);

/* Does what the inbox says and all that is due, with the caller's buffers.  *more: and
 * there is more, for another round.  By who has
 * claimed it.  -errno: a job
 * could not begin, and its connection is closed; why says more. */
int seat_run(struct seat *s, struct inbox *in, struct buffers *b, bool *more, char *why,
	     size_t size);

/* Frees the engine and the Lua state; requests that still run are ended. */
void seat_empty(struct seat *s);

#endif
