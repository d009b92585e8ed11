/* ldatagram.h - the server's own datagram socket, as handlers see it.
 *
 * The server floor owns the struct; it outlives the state. */
#ifndef HOST_BIND_LDATAGRAM_H
#define HOST_BIND_LDATAGRAM_H

#include "net/addr.h"
#include "net/dgram.h"

#include <lua.h>

struct datagram_port {
	int fd;
	enum transport transport;
};

/* Pushes the socket object. */
void datagram_push(lua_State *L, struct datagram_port *port);

/* Sends one datagram from the running task; while the receiver's queue is full it
 * waits, trying again after 1, 2, 4 ... 50 ms.  Must be returned from a C function
 * whose stack holds `index` of a string to send; k(ctx) follows a wait, and calls
 * this again with tries + 1.
 * Returns 0 when sent, -EINPROGRESS when the caller must park until *deadline,
 * else -errno. */
int datagram_try(struct datagram_port *port, const char *data, size_t n,
		 const struct addr *to, const struct dgram_local *local, unsigned tries,
		 int64_t *deadline);

#endif
