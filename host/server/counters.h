/* counters.h - what a server counts.
 *
 * Each place that runs requests (the server's own engine, a thread, a child) has a set of
 * its own, which it alone moves; a server's figures are their sum. */
#ifndef HOST_SERVER_COUNTERS_H
#define HOST_SERVER_COUNTERS_H

#include "base/count.h"

struct counters {
	counter requests;      /* begun */
	counter ended;         /* of these */
	counter errors;        /* ended by an error of the handler */
	counter peers_gone;    /* ended by a peer that went away */
	counter timeouts;      /* ended by a timeout */
	counter cancelled;     /* ended by the host */
	counter cpu_limit;     /* errors: ended for computing too long */
	counter out_of_memory; /* errors: for want of memory */
	counter preempted;     /* slices that were over before the handler waited */
	counter refused;       /* by verify_request */
	counter accept_errors; /* accept failed, or no thread or child could be had */
	counter truncated;     /* datagrams longer than max_packet_size */
	counter unanswered;    /* replies to senders without an address */
	counter send_errors;   /* replies that the kernel refused */
	counter died;          /* children that ended by a signal */
	counter stuck;         /* of these, in C code that nothing else could end */
	counter bytes_in, bytes_out;
};

/* Adds each of `from` to its like in `to`, which the calling thread owns. */
void counters_add(struct counters *to, const struct counters *from);

/* Makes each that of its like. */
void counters_copy(struct counters *to, const struct counters *from);

#endif
