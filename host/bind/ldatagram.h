/* ldatagram.h - the server's own datagram socket, as handlers see it.
 *
 * The server floor owns the struct.  Objects that outlive it raise: see
 * datagram_vanish(). */
#ifndef HOST_BIND_LDATAGRAM_H
#define HOST_BIND_LDATAGRAM_H

#include "base/list.h"
#include "net/addr.h"
#include "net/dgram.h"

#include <lua.h>

struct datagram_port {
	struct list objects; /* that stand for it; to be set up by list_init() */
	int fd;
	enum transport transport;
};

/* Pushes the socket object; its one user value is the caller's, to keep the owner alive. */
void datagram_push(lua_State *L, struct datagram_port *port);

/* The socket is about to go. */
void datagram_vanish(struct datagram_port *port);

/* Tries to send one datagram, for the tries-th time.  Returns 0 when it is sent,
 * -EINPROGRESS when the receiver's queue is full: the caller parks until *deadline (1, 2,
 * 4 ... 50 ms from now) and tries again; else -errno. */
int datagram_try(struct datagram_port *port, const char *data, size_t n,
		 const struct addr *to, const struct dgram_local *local, unsigned tries,
		 int64_t *deadline);

#endif
