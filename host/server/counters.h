/* counters.h - what a server counts.
 *
 * Each place that runs requests (the server's own engine, a thread, a child) has a set of
 * its own, which it alone moves; a server's figures are their sum. */
#ifndef HOST_SERVER_COUNTERS_H
#define HOST_SERVER_COUNTERS_H

#include "base/count.h"

struct counters {
	count requests;      /* begun */
	count ended;         /* of these */
	count errors;        /* ended by an error of the handler */
	count peers_gone;    /* ended by a peer that went away */
	count timeouts;      /* ended by a timeout */
	count cancelled;     /* ended by the host */
	count refused;       /* by verify_request */
	count accept_errors; /* accept failed, or no thread or child could be had */
	count truncated;     /* datagrams longer than max_packet_size */
	count unanswered;    /* replies to senders without an address */
	count send_errors;   /* replies that the kernel refused */
	count died;          /* children that ended by a signal */
	count bytes_in, bytes_out;
};

/* Adds each of `from` to its like in `to`, which the calling thread owns. */
void counters_add(struct counters *to, const struct counters *from);

#endif
