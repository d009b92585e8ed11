/* listen.h - listening sockets, and the care that Unix paths need.
 *
 * The caller owns the struct; listener_close() closes the descriptor and
 * removes a Unix path that is still this listener's.  Functions that fail
 * return -errno with one sentence in `why`, and leave nothing behind.
 * Main thread. */
#ifndef HOST_NET_LISTEN_H
#define HOST_NET_LISTEN_H

#include "net/addr.h"

#include <stdint.h>
#include <sys/types.h>

struct listen_options {
	int backlog;        /* request_queue_size; -1: bind only */
	bool reuse_address; /* IP: SO_REUSEADDR */
	bool reuse_port;    /* IP: SO_REUSEPORT */
	bool v6only;        /* IPv6: no IPv4 clients */
	bool nodelay;       /* TCP: TCP_NODELAY, inherited by what is accepted */
	mode_t mode;        /* Unix path: permissions, narrowed by the umask when 0600 */
	bool switchable;    /* IP: listener_refuse() will be called */
};

struct listener {
	int fd; /* non-blocking, CLOEXEC */
	enum transport transport;
	struct addr addr; /* as bound: port 0 has become a number */
	dev_t dev;        /* Unix path: what was created */
	ino_t ino;
};

/* Binds and, for streams, listens.  A stale Unix path (a socket that nobody
 * serves) is replaced; a live one and anything that is not a socket is refused.
 * Errors: -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOENT, -EINVAL, -EMFILE. */
int listener_open(const struct url *url, const struct listen_options *o,
		  struct listener *out, char *why, size_t size);

/* Has the kernel refuse whoever connects or sends a datagram, while the address stays this
 * listener's; accepted connections stay, what waits to be accepted is lost.  The caller has
 * stopped using the descriptor: that of a Unix socket is another one, and no socket, until
 * listener_admit().  Errors: -EMFILE, -ENOMEM, -ENETUNREACH; it admits then. */
int listener_refuse(struct listener *l);

/* Takes connections, or datagrams, again at the same address; for one that refuses.
 * Errors: as listener_open(); it refuses then. */
int listener_admit(struct listener *l, const struct listen_options *o, char *why,
		   size_t size);

/* A connection that waits, non-blocking and CLOEXEC, and who is behind it.  Errors:
 * accept(2)'s; -EAGAIN: none waits. */
int listener_accept(const struct listener *l, struct addr *peer);

/* How many connections wait; of a Unix socket, where the kernel does not tell, how many
 * there can be with such a backlog. */
int listener_waiting(const struct listener *l, int backlog);

/* Connections or datagrams that this socket has lost because its queue was full;
 * 0 where the kernel does not tell. */
uint64_t listener_drops(int fd);

/* Has the kernel refuse whoever connects, for good and also while other processes have the
 * socket: they get -EINVAL when they accept.  What waits to be accepted is lost. */
void listener_shut(struct listener *l);

/* Removes the path, if it is still this listener's: for a process that ends at once.  Any
 * thread. */
void listener_remove_path(struct listener *l);

/* The same, and closes the descriptor. */
void listener_close(struct listener *l);

#endif
