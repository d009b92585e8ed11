/* listening.h - a server's listener: bound, watched by the loop, refusing for a while,
 * closed.
 *
 * The server owns the listener and its place in the loop; server_close() frees what is left
 * of both.  What comes in: accepting.h.  The loop's thread.  What fails leaves -errno and
 * one sentence in why. */
#ifndef HOST_SERVER_LISTENING_H
#define HOST_SERVER_LISTENING_H

#include <stdbool.h>
#include <stddef.h>

struct server;
struct url;

/* Binds the address; `listens`: and listens, if it is a stream's. */
int listening_bind(struct server *s, const struct url *url, bool listens, char *why,
		   size_t size);

/* Has the loop watch it, and accepts; in every process that does. */
int listening_watch(struct server *s, char *why, size_t size);

/* Stops accepting, for a while: the listener stays, listening_watch() goes on. */
void listening_rest(struct server *s);

/* Stops accepting for good.  A stream server's address is free; datagrams may still be
 * answered. */
void listening_stop(struct server *s);

/* The same, of a server that drains: the loop sends what replies are still to come. */
void listening_drain(struct server *s);

/* Sends what replies can be sent at once, and frees the address. */
void listening_leave(struct server *s);

/* false: the kernel refuses whoever comes, while the address stays the server's, until
 * true; requests go on.  -ENOTSUP (the policy runs them elsewhere), -EPIPE (it stops) and
 * listener_admit()'s errors; nothing has changed then. */
int listening_enable(struct server *s, bool up, char *why, size_t size);

#endif
