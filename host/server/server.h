/* server.h - one server: a listener, a script, a policy and the requests under way.
 *
 * Life: server_open() binds, server_begin() accepts, server_drain() stops
 * accepting and lets requests end, server_close() ends what is left and frees
 * the address.  The host (host.h) owns servers.  The loop's thread. */
#ifndef HOST_SERVER_SERVER_H
#define HOST_SERVER_SERVER_H

#include "base/list.h"
#include "base/log.h"
#include "base/pool.h"
#include "bind/ldatagram.h"
#include "bind/lserver.h"
#include "loop/loop.h"
#include "net/listen.h"
#include "server/attrs.h"
#include "server/policy.h"
#include "server/request.h"

struct host;
struct script;
struct server;

struct counters {
	uint64_t requests;      /* begun */
	uint64_t ended;         /* of these */
	uint64_t errors;        /* ended by an error of the handler */
	uint64_t peers_gone;    /* ended by a peer that went away */
	uint64_t timeouts;      /* ended by a timeout */
	uint64_t cancelled;     /* ended by the host */
	uint64_t refused;       /* by verify_request */
	uint64_t accept_errors; /* accept failed */
	uint64_t truncated;     /* datagrams longer than max_packet_size */
	uint64_t unanswered;    /* replies to senders without an address */
	uint64_t send_errors;   /* replies that the kernel refused */
};

/* The part of a datagram server that a stream server does not need. */
struct datagrams {
	struct datagram_port port;
	struct dgram_in *in;
	struct dgram_out *out;
	unsigned n, at; /* the batch: how many, and which is next */
	struct loop_op out_op;
	struct loop_timer retry; /* set: sending goes on then */
	unsigned stuck;          /* sends in a row that found no room */
	struct loop_task flush;  /* due at the end of this turn */
	bool flush_due;
};

struct server {
	struct list link; /* in the host's servers */
	struct host *host;
	struct server_view view;
	struct attrs given; /* defaults and the command line */
	struct attrs attrs; /* and what the script says */
	const struct policy *policy;
	struct script *script;        /* the current generation; holds a reference */
	struct generation generation; /* what that holds for this server */
	struct listener listener;
	char *name;
	char class_name[40];
	struct loop_fd fd;
	struct loop_op accept_op;
	struct loop_task accept_task;
	bool accept_due;          /* accept_task is on its way */
	struct loop_timer paused; /* set: accepting failed for want of something */
	bool draining, closed;
	struct list requests;
	uint64_t nrequests;
	struct pool pool; /* of requests */
	struct datagrams dgrams;
	struct counters counters;
	struct log_gate accept_gate, trunc_gate, reply_gate;
};

/* Binds the address.  The script's reference is taken over even on failure.
 * -errno with one sentence in why. */
int server_open(struct host *host, const struct url *url, const struct policy *policy,
		const struct attrs *attrs, struct script *script, struct server **out,
		char *why, size_t size);

/* Starts to accept.  Errors: -ENOMEM, -ENOSPC. */
int server_begin(struct server *s);

/* Accepts what the kernel has queued, then no more.  May be called again. */
void server_drain(struct server *s);

/* Sends what replies can be sent at once; for a server that must stop now. */
void server_end_drain(struct server *s);

/* Nothing runs and nothing will; replies that are stuck do not count when `hurry`. */
bool server_is_done(const struct server *s, bool hurry);

/* Cancels every request that still runs. */
void server_cancel(struct server *s, const char *why);

/* Kills what still runs, closes the socket, removes a Unix path, frees the server. */
void server_close(struct server *s);

/* New requests run this generation from now on; its reference is taken over.
 * -ENOMEM, or -EINVAL with why: the old one stays. */
int server_adopt(struct server *s, struct script *script, char *why, size_t size);

/* Reads what a script says of its server's attributes.  -EINVAL with why. */
int server_read_attrs(struct script *script, struct attrs *attrs, char *why, size_t size);

/* Accepts again as soon as it may: a request has ended, or a descriptor is free. */
void server_resume(struct server *s);

#endif
