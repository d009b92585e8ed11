/* request.h - one request: its stream, its task, and its end; what the task runs: course.h.
 *
 * The site's pool owns the struct; the request frees itself when its task has
 * ended, and tells the site. */
#ifndef HOST_SERVER_REQUEST_H
#define HOST_SERVER_REQUEST_H

#include "base/list.h"
#include "bind/stream.h"
#include "loop/loop.h"
#include "net/dgram.h"
#include "script/slice.h"
#include "script/task.h"

#include <lua.h>

struct arrival;
struct attrs;
struct script;
struct site;
struct task;

/* Registry references in a script's state, and what hooks it has; 0: none. */
struct generation {
	int self_ref;              /* self.server */
	int port_ref;              /* the datagram socket object */
	int course_ref;            /* what the tasks run: see instance_push_course() */
	int verify_ref, error_ref; /* verify_request, handle_error */
	int drive_ref;             /* a function that runs the whole request */
	bool bound;                /* hooks know their server: it is no argument */
};

/* What all requests have in common that begin under one generation of a site, whose pool
 * owns the struct: it goes when the site has the next one and the last request has ended.
 */
struct terms {
	struct site *site;
	unsigned refs; /* requests, and the site */
	struct generation generation;
	struct allowance allowance;
	struct task_kind kind;       /* of their tasks */
	struct stream_limits limits; /* of their connections */
};

/* Of an address: an IPv4 one, and that of most Unix clients; of an IPv6 one what counts. */
enum { REQUEST_ADDR = 22 };

/* What few requests need. */
struct extra {
	void *link; /* the pool's */
	struct request *request;
	struct loop_timer idle; /* in a site with an idle_timeout */
	struct dgram_from from; /* a client with a longer address; of datagrams, all */
	size_t full_len;        /* of a datagram that was cut: its true length, else 0 */
	unsigned tries;         /* to send the reply */
};

/* A cache line: there is one for each idle connection.  Its script is its task's. */
struct request {
	struct list link; /* in the site's requests */
	struct task *task;
	struct terms *terms; /* the site's, when it began */
	struct extra *extra; /* NULL: none */
	uint8_t stage : 3;   /* of its course: see course.c */
	bool failed : 1;
	bool passed_on : 1; /* a thread or child goes on with it */
	bool open : 1;  /* false: its connection is still to be accepted, see request_pull()
			 */
	bool dying : 1; /* the error that has ended its course is kept until it is told */
	/* The client: see request_client(). */
	uint8_t client_len; /* 0: unknown, or the extra's */
	unsigned char client[REQUEST_ADDR];
};

_Static_assert(sizeof(struct request) <= 64, "an idle connection is small");

static inline struct site *
request_site(const struct request *r)
{
	return r->terms->site;
}

static inline struct stream *
request_stream(const struct request *r)
{
	return r->task->stream;
}

/* Fills in what follows from the site's attributes. */
void terms_init(struct terms *t, const struct attrs *a);

/* The client's address, which is the request's or put in room; its length is 0 if it is not
 * known. */
const struct addr *request_client(const struct request *r, struct addr *room);

/* Runs a request that accepts its connection, or receives its datagram, itself; for a site
 * with a drive function.  Errors: as request_start(). */
int request_pull(struct site *s);

/* Gives such a request what it has accepted, which is taken over even on failure. */
int request_open(struct request *r, const struct arrival *a);

/* Has its reply, a datagram, sent.  0, or what the park returned: `return` that. */
int request_send_reply(lua_State *L, struct request *r, lua_KContext ctx, lua_KFunction k);

/* Runs a request.  A connection is taken over even on failure.  Errors: -ENOMEM, -ENOSPC.
 */
int request_start(struct site *s, const struct arrival *a);

#endif
