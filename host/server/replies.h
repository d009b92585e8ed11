/* replies.h - the datagrams that a server answers with, sent many at a time.
 *
 * They are collected for one turn of the loop; when the socket has no room they wait,
 * and so do the next requests.  The loop's thread. */
#ifndef HOST_SERVER_REPLIES_H
#define HOST_SERVER_REPLIES_H

#include <stdbool.h>
#include <stddef.h>

struct addr;
struct dgram_local;
struct server;
struct site;

/* Errors: -ENOMEM. */
int replies_init(struct server *s);

/* Has a copy sent at the end of this turn, or before; for the site of a server.
 * False: there is no room now. */
bool replies_put(struct site *site, const char *p, size_t n, const struct addr *to,
		 const struct dgram_local *local);

/* Sends what was collected, as far as the socket takes it. */
void replies_flush(struct server *s);

/* A draining server's socket leaves the loop once its last reply is out. */
void replies_leave_loop(struct server *s);

#endif
