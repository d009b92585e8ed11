/* crew.h - the threads of a threading server, and the seats that they take turns at.
 *
 * Each request has a seat, with a Lua state of its own, until it ends.  Threads wait
 * together, on one epoll set, for any seat that has something to do, and run it until it
 * waits again: as many at a time as there are processors, for more would only take turns.
 * A thread that does not come back soon (its handler computes, or blocks in C) is counted
 * out, and another takes its place.  So a blocking handler holds up nobody else, and a
 * thousand that merely wait cost no thread.
 *
 * The server's thread makes the crew, starts threads, hands requests over and looks at
 * progress.  Functions are for that thread, unless they say otherwise. */
#ifndef HOST_SERVER_CREW_H
#define HOST_SERVER_CREW_H

#include "base/list.h"
#include "base/log.h"
#include "bind/ldatagram.h"
#include "bind/lserver.h"
#include "loop/loop.h"
#include "script/script.h"
#include "server/attrs.h"
#include "server/engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct arrival;
struct counters;
struct seat;
struct sources;
struct server;
struct stats;
struct watchdog;

/* What a seat loads. */
struct crew_script {
	struct sources *sources; /* holds a reference; NULL: the file */
	char *path;
	const char *lua_path; /* of the host's own modules; borrowed */
	size_t memory_limit;
	unsigned number; /* of the generation */
	bool sandbox;
};

struct crew {
	pthread_mutex_t mutex; /* guards all that is not constant */
	pthread_cond_t parked; /* threads that are not needed now */
	pthread_cond_t left;   /* a thread has ended */
	/* Constant. */
	int ep, bell;
	struct log *log;
	struct watchdog *watchdog;
	struct attrs given;
	struct datagram_port port;
	struct server_view view;
	char *name, *class_name; /* the view's: threads may outlive the server */

	struct server *server; /* NULL: it is gone */
	struct list workers, seats, queue, idle;
	unsigned nworkers, nstuck, nparked, npolling, nseats, started;
	unsigned at_once;      /* how many threads may run */
	unsigned max;          /* threads, and seats */
	unsigned nopen;        /* seats that have an engine */
	size_t lingering;      /* connections that are closed here, not yet by the peer */
	_Atomic unsigned busy; /* seats with a request */
	struct crew_script script;
	struct crew_script next; /* number 0: no other generation is being built */
	unsigned preparing;      /* seats that have yet to build it */
	bool prepared;           /* none has any more: the server is to know */
	char why[SCRIPT_ERROR];  /* one could not */
	struct list questions;   /* of seats' requests, for the server */
	bool quit, watching;
	bool lacking;     /* descriptors or memory: no seat could be opened */
	bool draining;    /* the server wants to know whenever a seat becomes idle */
	bool tell;        /* the next time */
	bool shutdown;    /* a script has asked for it */
	int failed;       /* a request could not begin: -errno */
	struct list told; /* handlers' errors for the server */
	struct log_gate fail_gate, reload_gate, start_gate;
	/* The server's own. */
	struct loop_fd notice; /* an eventfd: threads have something to say */
	struct loop_op notice_op;
	struct loop_timer watch; /* looks at progress */
	struct loop_timer sweep; /* ends what has been idle for long */
	struct loop_timer give_up;
	struct loop_timer
	    late;        /* then seats that are still to prepare are not waited for */
	bool abandoned;  /* some did not end in time */
	bool orphan;     /* and outlive the server; the mutex */
	unsigned visits; /* of all seats, for the log */
	unsigned quiet;  /* looks in a row that saw nobody run */
};

/* Errors: -errno with one sentence in why. */
int crew_new(struct server *server, struct crew **out, char *why, size_t size);

/* Makes sure that there is a seat for the next request, before it is accepted: nothing that
 * it needs of the system can be missing then.  Errors: -EMFILE, -ENFILE, -ENOMEM. */
int crew_ready(struct crew *c);

/* Has a seat run the request, which is taken over even on failure.  Errors: -EAGAIN (no
 * thread can be started), -ENOMEM. */
int crew_hand_over(struct crew *c, const struct arrival *a);

unsigned crew_busy(const struct crew *c);

/* Connections that requests have closed, and whose peers have not. */
size_t crew_lingering(struct crew *c);

/* A message to every seat with a request; what has not ended `patience` ns later is left
 * behind. */
void crew_cancel(struct crew *c, const char *why, int64_t patience);
void crew_kill(struct crew *c, int64_t patience);

/* From now on the server is told whenever a request ends. */
void crew_drained(struct crew *c);

/* New requests run what the server's site has now.  Errors: -ENOMEM. */
int crew_adopt(struct crew *c);

/* Has all open seats build the next generation: 1, reload_prepared() comes later; 0: there
 * are none.  One whose thread does not come back in time builds it for its next request.
 */
int crew_prepare(struct crew *c, const struct script *next);

/* They are to drop it. */
void crew_abandon(struct crew *c);

/* Requests of a generation. */
unsigned crew_running(struct crew *c, unsigned number);
void crew_retire(struct crew *c, unsigned number, const char *why);

void crew_count(struct crew *c, struct counters *sum);

/* One event for each request that runs. */
void crew_log_requests(struct crew *c, const char *event);

/* Frees a crew without threads, and without the mutex. */
void crew_free(struct crew *c);

/* Ends the threads.  Those that cannot be ended keep what they need. */
void crew_close(struct crew *c);

/* ---- for seats, on any thread ---- */

/* What to load when one has generation `number`; false: nothing newer.  The path and the
 * sources are the caller's; a NULL path: memory is short. */
bool crew_script(struct crew *c, unsigned number, struct crew_script *out);

/* The same of the generation that comes next; false: there is none any more. */
bool crew_next(struct crew *c, struct crew_script *out);

/* Whether this is the generation that there is now, by its texts: the number of one that
 * has failed is used again. */
bool crew_runs(struct crew *c, const struct script *sc);

/* The seat has built it, or (rc < 0) why not. */
void crew_prepared(struct crew *c, struct seat *s, int rc, const char *why);

/* Passes a handler's error on to the server; false: it does not want it. */
bool crew_tell_error(struct crew *c, const struct addr *client, const char *text);

void crew_log_reload(struct crew *c, const char *why);
void crew_shutdown(struct crew *c);

/* False: the server is gone. */
bool crew_stats(struct crew *c, struct stats *out);

#endif
