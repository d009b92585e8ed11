/* linger.h - connections that are closed here and not yet by the peer.
 *
 * Closing a socket with unread data makes the kernel send a reset, which can
 * destroy a reply that the peer has not read yet.  So the sending side is shut
 * and what still comes is read and thrown away until the peer closes, at most
 * for LINGER_TIME.  Lingering descriptors belong to the set.  The loop's thread. */
#ifndef HOST_LOOP_LINGER_H
#define HOST_LOOP_LINGER_H

#include "base/list.h"

#include <stddef.h>
#include <stdint.h>

struct loop;

#define LINGER_TIME INT64_C(2000000000)

/* More than this at once, and the next are simply closed. */
enum { LINGER_MAX = 1024 };

struct lingers {
	struct loop *loop;
	struct list list;
	size_t n;
};

void lingers_init(struct lingers *l, struct loop *loop);

/* Takes a connected stream descriptor over and closes it in good time. */
void linger_start(struct lingers *l, int fd);

/* Closes all at once: descriptors are needed, or the host ends. */
void lingers_drop(struct lingers *l);

#endif
