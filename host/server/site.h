/* site.h - a server as one engine sees it: the generation that its requests run, their
 * attributes, and those under way.
 *
 * The owner (a server, a thread's seat) owns the struct and keeps it in place; it fills in
 * the fields of the first block before site_init().  The engine's thread. */
#ifndef HOST_SERVER_SITE_H
#define HOST_SERVER_SITE_H

#include "base/list.h"
#include "base/log.h"
#include "base/pool.h"
#include "bind/ldatagram.h"
#include "bind/lserver.h"
#include "script/slice.h"
#include "server/attrs.h"
#include "server/request.h"

struct counters;
struct engine;
struct script;

struct site {
	struct engine *engine;
	struct counters *counters; /* borrowed */
	struct server_view view;
	struct datagram_port port; /* the datagram socket */
	struct attrs given;        /* defaults and the command line */
	/* Has a datagram's reply sent soon; false: no room.  NULL: each is sent at once. */
	bool (*reply)(struct site *site, const char *p, size_t n, const struct addr *to,
		      const struct dgram_local *local);
	void (*ended)(struct site *site); /* a request has ended */
	/* Takes a handler's error, as text, in place of the log; false: not now.  NULL:
	 * never. */
	bool (*tell)(struct site *site, const struct addr *client, const char *text);
	/* Registry references that stand in for what the script says; 0: none. */
	int hooks_ref; /* a table of bound hooks */
	int self_ref;  /* self.server */

	struct attrs attrs;           /* and what the script says */
	struct allowance allowance;   /* of that, what limits computing */
	struct script *script;        /* the current generation; holds a reference */
	struct generation generation; /* what that holds for this site */
	struct terms *terms;          /* both, for requests; NULL: no generation yet */
	struct list requests;
	uint64_t nrequests;
	struct pool pool; /* of requests */
	struct pool extras, all_terms;
	struct log_gate reply_gate;
};

void site_init(struct site *s);

/* Has it count there from now on. */
void site_count_in(struct site *s, struct counters *counters);

/* The limits of computing that these attributes set. */
struct allowance site_allowance(const struct attrs *a);

/* What a request begins under, and gives back at its end. */
static inline struct terms *
terms_hold(struct terms *t)
{
	t->refs++;
	return t;
}

void terms_release(struct site *s, struct terms *t);

/* No request may be left. */
void site_free(struct site *s);

/* A generation that a site could go on with. */
struct site_plan {
	struct script *script; /* borrowed */
	struct attrs attrs;
	struct generation generation;
};

/* Fits a generation to the site, which goes on with its old one until site_commit().
 * -EINVAL with why: it does not fit. */
int site_prepare(struct site *s, struct script *script, struct site_plan *plan, char *why,
		 size_t size);

/* New requests run it from now on; the site takes a reference. */
void site_commit(struct site *s, const struct site_plan *plan);

/* It will not, although its generation will be used by others. */
void site_drop(const struct site_plan *plan);

/* Both; the caller's reference is taken over, whatever happens. */
int site_adopt(struct site *s, struct script *script, char *why, size_t size);

/* How many requests run the generation of this number. */
uint64_t site_running(const struct site *s, unsigned number);

/* Cancels these. */
void site_retire(struct site *s, unsigned number, const char *why);

/* In a process that will fork: makes what a request needs, once, so that no child has to.
 * False: out of memory. */
bool site_warm(struct site *s);

/* Gives its generation up, and the state's references to it; no request may be left. */
void site_leave(struct site *s);

/* Cancels every request that still runs. */
void site_cancel(struct site *s, const char *why);

/* Ends every request at once. */
void site_kill(struct site *s);

/* Reads what a script says of its server's attributes.  -EINVAL with why. */
int site_read_attrs(struct script *script, struct attrs *attrs, char *why, size_t size);

#endif
