/* datagrams.h - the requests of a datagram server, received many at a time; its replies:
 * replies.h.
 *
 * The server owns the struct and the batches in it.  The loop's thread.  Errors: as
 * accepting.h has it. */
#ifndef HOST_SERVER_DATAGRAMS_H
#define HOST_SERVER_DATAGRAMS_H

#include "loop/loop.h"
#include "net/dgram.h"

#include <stdbool.h>

struct server;

/* The part of a datagram server that a stream server does not need. */
struct datagrams {
	struct dgram_in *in;
	struct dgram_out *out;
	unsigned n, at; /* the batch: how many, and which is next */
	struct loop_op out_op;
	struct loop_timer retry; /* set: sending goes on then */
	unsigned stuck;          /* sends in a row that found no room */
	struct loop_task flush;  /* due at the end of this turn */
	bool flush_due;
};

/* Makes the batches, for a server that is bound; datagrams_free() undoes it, also where it
 * failed.  Errors: -ENOMEM. */
int datagrams_init(struct server *s);
void datagrams_free(struct datagrams *d);

/* Begins the requests that have come, as accepting.h has it for connections. */
void datagrams_receive(struct server *s);

/* The next one and who sent it, for a request that pulls; its data is valid until the next
 * batch. -EINPROGRESS: there is none; else -errno. */
int datagrams_next(struct server *s, struct dgram *d, struct addr *from);

#endif
