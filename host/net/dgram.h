/* dgram.h - datagrams received and sent many at a time.
 *
 * A batch owns its buffers and is used by one socket.  One thread. */
#ifndef HOST_NET_DGRAM_H
#define HOST_NET_DGRAM_H

#include "net/addr.h"

#include <netinet/in.h>

enum { DGRAM_BATCH = 64 };

/* The local address that a datagram came to: its answer leaves from there. */
struct dgram_local {
	int family; /* 0: not known, the kernel chooses */
	union {
		struct in_pktinfo v4;
		struct in6_pktinfo v6;
	} u;
};

/* Whom to answer, and from where. */
struct dgram_from {
	struct addr addr;
	struct dgram_local local;
};

struct dgram {
	const char *data;
	size_t len;      /* bytes of data */
	size_t full_len; /* bytes that were sent; more than len if the datagram was cut */
	struct dgram_local local;
};

struct dgram_in;  /* a batch to receive into */
struct dgram_out; /* a batch to send from */

/* max: the longest datagram kept whole.  with_local: say which address each came to.
 * NULL: out of memory. */
struct dgram_in *dgram_in_new(size_t max, bool with_local);
void dgram_in_free(struct dgram_in *b);

/* Headers for recvmmsg(2), DGRAM_BATCH of them, ready for another batch; used: those that
 * the last one has filled. */
struct mmsghdr *dgram_in_headers(struct dgram_in *b, unsigned used);

/* Datagram i of a batch just received, and who sent it; its data, and that address, are
 * valid until the next batch. */
const struct addr *dgram_in_get(struct dgram_in *b, unsigned i, struct dgram *out);

struct dgram_out *dgram_out_new(void);
void dgram_out_free(struct dgram_out *b);

/* Copies a datagram into the batch.  False: the batch is full. */
bool dgram_out_put(struct dgram_out *b, const void *data, size_t n, const struct addr *to,
		   const struct dgram_local *local);

/* Those not sent yet, and how many. */
struct mmsghdr *dgram_out_headers(struct dgram_out *b, unsigned *n);

/* The first n have gone (or failed); an empty batch is ready to be filled again. */
void dgram_out_drop(struct dgram_out *b, unsigned n);

unsigned dgram_out_count(const struct dgram_out *b);

/* Sends one datagram at once.  Returns 0 or -errno: -EAGAIN, -EMSGSIZE, -EACCES,
 * -ECONNREFUSED... */
int dgram_send(int fd, const void *data, size_t n, const struct addr *to,
	       const struct dgram_local *local);

#endif
