/* connection.h - a connection that somebody other than its handler takes hold of, by its
 * number in the journal.
 *
 * Only those of servers whose requests run on the host's own engine.  The request is good
 * until Lua runs.  The loop's thread. */
#ifndef HOST_SERVER_CONNECTION_H
#define HOST_SERVER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host;
struct request;

/* The next open connection with a number after r; NULL: the first.  NULL: no more. */
struct request *connection_next(const struct host *h, const struct request *r);

/* NULL: there is none of that number, or no more. */
struct request *host_connection(const struct host *h, uint64_t id);

/* stream_push(), with one sentence in why. */
int connection_push(struct request *r, const char *p, size_t n, char *why, size_t size);

/* Ends it: by a reset, whatever is unread or unsent; or in order, when what was written has
 * gone.  Its task is cancelled. */
void connection_kill(struct request *r, bool reset);

#endif
