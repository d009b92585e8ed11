/* request.h - one request: its stream, its task, and its end; what the task runs: course.h.
 *
 * The site's pool owns the struct; the request frees itself when its task has
 * ended, and tells the site. */
#ifndef HOST_SERVER_REQUEST_H
#define HOST_SERVER_REQUEST_H

#include "base/list.h"
#include "loop/loop.h"
#include "net/dgram.h"
#include "script/slice.h"

#include <lua.h>

struct arrival;
struct script;
struct site;
struct stream;
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

struct request {
	struct list link; /* in the site's requests */
	struct site *site;
	struct stream *stream;
	struct task *task;
	struct script *script; /* borrowed from the task */
	struct addr client;
	struct dgram_local local; /* datagrams */
	size_t full_len;          /* a datagram that was cut: its true length, else 0 */
	struct loop_timer idle;
	unsigned tries; /* to send the reply */
	bool failed;
	uint8_t stage;   /* of its course: see course.c */
	int failure_ref; /* in the registry: the error that has ended its course, until it
			    is told */
	bool passed_on;  /* a thread or child goes on with it */
	bool open; /* false: its connection is still to be accepted, see request_pull() */
	/* The site's, when it began. */
	struct generation generation;
	struct allowance allowance;
};

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
