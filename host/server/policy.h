/* policy.h - how a server runs its requests: what `--mixin` chooses.
 *
 * A policy is only which engine runs a request's task, and whether accepting goes on
 * meanwhile; it knows no transport.  Functions run on the thread of the server's own
 * engine.  `mixin` in struct server is the policy's own. */
#ifndef HOST_SERVER_POLICY_H
#define HOST_SERVER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;
struct attrs;
struct counters;
struct dgram;
struct script;
struct server;

/* What a request begins with. */
struct arrival {
	int fd; /* a connection; -1: a datagram */
	const struct addr *client;
	const struct dgram *dgram; /* NULL: a connection */
};

struct policy {
	const char *name;   /* of --mixin */
	const char *prefix; /* of the class: "Async" in AsyncTCPServer */
	bool threads, forks;
	/* How many requests may run at once; at the ceiling accepting stops. */
	uint64_t (*ceiling)(const struct attrs *a);
	/* Before the server begins.  -errno with one sentence in why.  NULL: nothing to do.
	 */
	int (*open)(struct server *s, char *why, size_t size);
	/* Before a request is accepted: 0 if it could run, else -errno.  NULL: always. */
	int (*ready)(struct server *s);
	/* Runs a request.  The connection is taken over even on failure: -errno. */
	int (*begin)(struct server *s, const struct arrival *a);
	/* How many run. */
	uint64_t (*active)(const struct server *s);
	/* Connections that are closed here, and not yet by the peer, elsewhere than on the
	 * server's own engine.  NULL: none. */
	size_t (*lingering)(const struct server *s);
	/* How many requests run the generation of this number, and cancelling these. */
	uint64_t (*running)(const struct server *s, unsigned number);
	void (*retire)(struct server *s, unsigned number, const char *why);
	/* Has engines other than the server's own build the next generation: 1,
	 * reload_prepared() says later how that went; 0, there is nothing to wait for.
	 * NULL: there are none. */
	int (*prepare)(struct server *s, struct script *next);
	/* It will not come after all.  NULL: nothing to do. */
	void (*abandon)(struct server *s);
	/* The server has a new generation.  NULL: nothing to do. */
	void (*adopted)(struct server *s);
	/* What became of a reload (see reload_ask), for those who asked elsewhere.  NULL:
	 * nobody does. */
	void (*told)(struct server *s, int64_t began, unsigned number, const char *why);
	/* The server is to stop, and others accept for it: takes what waits in the
	 * kernel's queue, as far as the ceiling allows.  NULL: they never do. */
	void (*gather)(struct server *s);
	/* The server has stopped accepting.  NULL: nothing to do. */
	void (*drained)(struct server *s);
	/* Cancels what runs; `why` is a literal. */
	void (*cancel)(struct server *s, const char *why);
	/* Ends what runs, at once. */
	void (*kill)(struct server *s);
	/* Adds what was counted elsewhere than on the server's own engine.  NULL: nothing.
	 */
	void (*count)(const struct server *s, struct counters *sum);
	/* One event of the log for each request that runs elsewhere.  NULL: nothing. */
	void (*log_requests)(const struct server *s, const char *event);
	/* Frees what the policy holds; what runs is ended.  NULL: nothing to do. */
	void (*close)(struct server *s);
};

/* One request at a time, on the server's own engine: also what a forked child does. */
extern const struct policy policy_sync;

/* NULL: no such policy. */
const struct policy *policy_find(const char *name);

/* The i-th, NULL past the last. */
const struct policy *policy_at(size_t i);

#endif
