/* server.h - one server: a listener, a policy, and a site for the requests of its own
 * engine.
 *
 * Life: server_new(), listening_bind(), server_begin() accepts, server_drain() stops
 * accepting and lets requests end, server_close() ends what is left and frees
 * the address.  The host (host.h) owns servers.  The loop's thread.
 *
 * Its listener is listening.h's, how requests come in accepting.h's, what it counts
 * stats.h's. */
#ifndef HOST_SERVER_SERVER_H
#define HOST_SERVER_SERVER_H

#include "base/list.h"
#include "base/log.h"
#include "loop/loop.h"
#include "net/listen.h"
#include "server/counters.h"
#include "server/datagrams.h"
#include "server/policy.h"
#include "server/site.h"

struct board;
struct engine;
struct host;
struct unit;

struct server {
	struct list link; /* in the host's servers */
	struct host *host;
	struct unit *unit; /* whose script it runs; NULL: a class's, in Lua */
	struct site site;  /* the server on its own engine */
	const struct policy *policy;
	void *mixin; /* the policy's own */
	struct listener listener;
	char *name;
	char class_name[40];
	struct loop_fd fd;
	struct loop_op accept_op;
	struct loop_task accept_task;
	bool accept_due;          /* accept_task is on its way */
	struct loop_timer paused; /* set: accepting failed for want of something */
	uint64_t budget;          /* requests that may still begin; UINT64_MAX: no limit */
	/* Of a server that its script has declared (see mocking.h): */
	char *declared; /* the URL as it stands there; NULL: of no such server */
	bool stays;     /* the generation on its way declares it, too */
	char *next_name, *next_declared; /* as that has them, if it says otherwise */
	struct unit *joins; /* it is that unit's once the generation on its way is */
	bool draining, closed;
	bool leaving;    /* it is freed when its requests have ended: see roster.h */
	bool switchable; /* set before listening_bind(): listening_enable() may come */
	bool down;       /* it refuses */
	bool planned;    /* a reload has prepared this plan for it */
	bool awaited;    /* and waits for its other engines */
	struct site_plan plan;
	struct loop_task reaper; /* frees it */
	bool elsewhere;          /* others accept on this listener, not this engine */
	bool shared;             /* others accept on it, too */
	void (*shutdown)(struct server *s); /* what a script's server:shutdown() does */
	/* Of a server whose methods are Lua's own: */
	bool drives;  /* each request begins on this engine, with a drive function */
	bool pulls;   /* which accepts, by accepting_pull() */
	bool pulling; /* one is about to */
	/* Takes the errors of requests that run elsewhere while `tells`, on this thread. */
	void (*handle_error)(struct server *s, const struct addr *client, const char *text);
	_Atomic bool tells;
	struct datagrams dgrams;
	struct counters counters; /* of its own engine, and of what has ended elsewhere */
	/* The same of other processes, in memory that all share: ntally of them; or NULL.
	 */
	struct counters *tally;
	unsigned ntally;
	struct board *board; /* what all workers count; NULL: this process is alone */
	const _Atomic unsigned *newest; /* of a pre-forked child: the parent's generation */
	bool defers; /* of a pre-forked child: others go first if they can run */
	struct log_gate accept_gate, trunc_gate;
};

/* A server without a socket.  The script's reference is taken over even on failure; NULL:
 * site_adopt() will come before server_begin().  -errno with one sentence in why. */
int server_new(struct host *host, const struct policy *policy, const struct attrs *attrs,
	       struct script *script, struct server **out, char *why, size_t size);

/* Starts to accept.  -errno with one sentence in why. */
int server_begin(struct server *s, char *why, size_t size);

/* Accepts what the kernel has queued, then no more.  May be called again. */
void server_drain(struct server *s);

/* Sends what replies can be sent at once; for a server that must stop now. */
void server_end_drain(struct server *s);

/* Nothing runs and nothing will; replies that are stuck do not count when `hurry`. */
bool server_is_done(const struct server *s, bool hurry);

/* Cancels every request that still runs. */
void server_cancel(struct server *s, const char *why);

/* Ends every request at once; no other will begin. */
void server_kill(struct server *s);

/* Stops accepting and frees the address, at once; cancels its requests, and frees the
 * server when they have ended.  For a policy that runs them on the server's engine. */
void server_leave(struct server *s);

/* Ends what still runs, closes the socket, removes a Unix path, frees the server. */
void server_close(struct server *s);

/* In a forked child: gives up the parent's listener and requests without a trace there. */
void server_forget(struct server *s);

/* In a forked copy of a server that has not begun: it will accept on the same listener as
 * its like in other processes. */
void server_share(struct server *s);

#endif
