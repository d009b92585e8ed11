/* roster.h - units and servers that come and go while a host runs.
 *
 * The host owns both.  A server that goes is freed as soon as its requests have ended: a
 * pointer to one is good until the loop's turn is over, unless host_server() says that it
 * is still there.  The loop's thread; not in a host with workers. */
#ifndef HOST_SERVER_ROSTER_H
#define HOST_SERVER_ROSTER_H

#include <stddef.h>

struct attrs;
struct host;
struct policy;
struct server;
struct unit;
struct url;

/* The unit of that script; it is loaded now if there is none.  Not from within a task.
 * -errno with one sentence in why. */
int host_unit_load(struct host *h, const char *path, const struct attrs *a,
		   struct unit **out, char *why, size_t size);

/* A server of the unit's, by a name that no other has, which begins at once if the host
 * has; listening_enable() is for it.  Not from within a task.  -errno with one sentence in
 * why: -EEXIST (the name), -EADDRINUSE and what else listener_open() has, -EINVAL (the
 * script), -EPIPE (the host stops), -ENOTSUP (workers). */
int host_open(struct host *h, struct unit *u, const char *name, const struct url *url,
	      const struct policy *policy, const struct attrs *attrs, struct server **out,
	      char *why, size_t size);

/* listening_bind(), listening; if another server of the host listens there,
 * why names it. */
int host_bind(struct server *s, const struct url *url, char *why, size_t size);

/* Stops it: its address and its name are free on return.  Its requests are cancelled, and
 * have their cancel_grace; with their end the server goes.  Under threading and forking
 * they are ended and the server is gone at once, so it must not be called from within a
 * callback of such a server. */
void host_close(struct server *s);

/* The server of that name, but for those that are being closed and those of the control
 * API's own unit.  NULL: there is none. */
struct server *host_server(const struct host *h, const char *name);

/* The next one after s that is not being closed; NULL: the first.  NULL: no more. */
struct server *host_next(const struct host *h, const struct server *s);

#endif
