#include "net/dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Room for either kind of packet information, aligned as CMSG_ macros need it. */
union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

struct dgram_in {
	size_t max;
	bool with_local;
	char *bytes; /* DGRAM_BATCH times max */
	struct mmsghdr headers[DGRAM_BATCH];
	struct iovec iov[DGRAM_BATCH];
	struct addr from[DGRAM_BATCH];
	union control control[DGRAM_BATCH];
};

enum { ARENA = 256 * 1024 };

struct dgram_out {
	unsigned first, n;
	size_t used;
	struct mmsghdr headers[DGRAM_BATCH];
	struct iovec iov[DGRAM_BATCH];
	struct addr to[DGRAM_BATCH];
	union control control[DGRAM_BATCH];
	char arena[ARENA];
};

/* What the kernel changes in a header. */
static void
make_ready(struct dgram_in *b, unsigned i)
{
	struct msghdr *h = &b->headers[i].msg_hdr;

	h->msg_namelen = sizeof(b->from[i].ss);
	h->msg_controllen = b->with_local ? sizeof(b->control[i]) : 0;
}

/* Buffers one behind the other at a power of two would share a few sets of the cache. */
static size_t
stride(size_t max)
{
	return (max + 127) & ~(size_t)63;
}

struct dgram_in *
dgram_in_new(size_t max, bool with_local)
{
	struct dgram_in *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->max = max;
	b->with_local = with_local;
	b->bytes = malloc(stride(max) * DGRAM_BATCH);
	if (!b->bytes) {
		free(b);
		return NULL;
	}
	for (unsigned i = 0; i < DGRAM_BATCH; i++) {
		b->iov[i] = (struct iovec){b->bytes + stride(max) * i, max};
		b->headers[i].msg_hdr =
		    (struct msghdr){.msg_name = &b->from[i].ss,
				    .msg_iov = &b->iov[i],
				    .msg_iovlen = 1,
				    .msg_control = with_local ? &b->control[i] : NULL};
		make_ready(b, i);
	}
	return b;
}

void
dgram_in_free(struct dgram_in *b)
{
	if (!b)
		return;
	free(b->bytes);
	free(b);
}

struct mmsghdr *
dgram_in_headers(struct dgram_in *b, unsigned used)
{
	for (unsigned i = 0; i < used; i++)
		make_ready(b, i);
	return b->headers;
}

static void
read_local(const struct msghdr *h, struct dgram_local *out)
{
	struct cmsghdr *c;

	*out = (struct dgram_local){0};
	for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR((struct msghdr *)h, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			out->family = AF_INET;
			memcpy(&out->u.v4, CMSG_DATA(c), sizeof(out->u.v4));
			/* Answer from the address that was asked, by whatever way leads
			 * back. */
			out->u.v4.ipi_spec_dst = out->u.v4.ipi_addr;
			out->u.v4.ipi_ifindex = 0;
			return;
		}
		if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			out->family = AF_INET6;
			memcpy(&out->u.v6, CMSG_DATA(c), sizeof(out->u.v6));
			if (!IN6_IS_ADDR_LINKLOCAL(&out->u.v6.ipi6_addr))
				out->u.v6.ipi6_ifindex = 0;
			return;
		}
	}
}

const struct addr *
dgram_in_get(struct dgram_in *b, unsigned i, struct dgram *out)
{
	const struct mmsghdr *m = &b->headers[i];

	out->data = b->iov[i].iov_base;
	out->full_len = m->msg_len;
	out->len = m->msg_len < b->max ? m->msg_len : b->max;
	/* Unix sockets do not tell the full length; one byte more stands for "longer". */
	if (m->msg_hdr.msg_flags & MSG_TRUNC && out->full_len <= b->max)
		out->full_len = b->max + 1;
	if (b->with_local)
		read_local(&m->msg_hdr, &out->local);
	else
		out->local.family = 0;
	b->from[i].len = m->msg_hdr.msg_namelen;
	return &b->from[i];
}

/* Fills in a header and its control; iov and control must outlive it. */
static void
compose(struct msghdr *h, struct iovec *iov, union control *control, const struct addr *to,
	const struct dgram_local *local)
{
	struct cmsghdr *c;

	*h = (struct msghdr){.msg_name = (void *)&to->ss,
			     .msg_namelen = to->len,
			     .msg_iov = iov,
			     .msg_iovlen = 1};
	if (!local || !local->family)
		return;
	h->msg_control = control;
	h->msg_controllen = local->family == AF_INET ? CMSG_SPACE(sizeof(local->u.v4))
						     : CMSG_SPACE(sizeof(local->u.v6));
	memset(control, 0, sizeof(*control));
	c = CMSG_FIRSTHDR(h);
	if (local->family == AF_INET) {
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(local->u.v4));
		memcpy(CMSG_DATA(c), &local->u.v4, sizeof(local->u.v4));
	} else {
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(local->u.v6));
		memcpy(CMSG_DATA(c), &local->u.v6, sizeof(local->u.v6));
	}
}

struct dgram_out *
dgram_out_new(void)
{
	struct dgram_out *b = malloc(sizeof(*b));

	if (b)
		b->first = b->n = 0, b->used = 0;
	return b;
}

void
dgram_out_free(struct dgram_out *b)
{
	free(b);
}

bool
dgram_out_put(struct dgram_out *b, const void *data, size_t n, const struct addr *to,
	      const struct dgram_local *local)
{
	unsigned i = b->n;

	if (i == DGRAM_BATCH || n > ARENA - b->used)
		return false;
	if (n)
		memcpy(b->arena + b->used, data, n);
	b->iov[i] = (struct iovec){b->arena + b->used, n};
	addr_copy(&b->to[i], to);
	compose(&b->headers[i].msg_hdr, &b->iov[i], &b->control[i], &b->to[i], local);
	b->used += n;
	b->n++;
	return true;
}

struct mmsghdr *
dgram_out_headers(struct dgram_out *b, unsigned *n)
{
	*n = b->n - b->first;
	return b->headers + b->first;
}

void
dgram_out_drop(struct dgram_out *b, unsigned n)
{
	b->first += n;
	if (b->first == b->n)
		b->first = b->n = 0, b->used = 0;
}

unsigned
dgram_out_count(const struct dgram_out *b)
{
	return b->n - b->first;
}

int
dgram_send(int fd, const void *data, size_t n, const struct addr *to,
	   const struct dgram_local *local)
{
	struct iovec iov = {(void *)data, n};
	union control control;
	struct msghdr h;
	ssize_t sent;

	compose(&h, &iov, &control, to, local);
	do
		sent = sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}
