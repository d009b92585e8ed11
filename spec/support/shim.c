/* shim - makes the stream I/O of a program short, to prove that it does not matter.
 *
 * Preloaded (LD_PRELOAD=build/shim.so), it hands each receive and send of 1 byte or
 * more on a stream socket to the real function with a length of 1 to 7 bytes.  The
 * lengths are pseudo-random and repeat for the same SHIM_SEED.  At exit the number of
 * calls that were made short goes to the file SHIM_REPORT, as "receives sends", so
 * that a spec knows that the shim was at work.  Other descriptors are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static uint64_t seed = 1;
static unsigned long receives, sends;

static struct {
	ssize_t (*recv)(int, void *, size_t, int);
	ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*send)(int, const void *, size_t, int);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *,
			  socklen_t);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*writev)(int, const struct iovec *, int);
} real;

/* A function pointer does not fit a void pointer in ISO C; POSIX says that it does. */
static void
find(const char *name, void *slot)
{
	*(void **)slot = dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void
begin(void)
{
	const char *s = getenv("SHIM_SEED");

	if (s)
		seed = strtoull(s, NULL, 10) * 2 + 1;
	find("recv", &real.recv);
	find("recvfrom", &real.recvfrom);
	find("recvmsg", &real.recvmsg);
	find("read", &real.read);
	find("readv", &real.readv);
	find("send", &real.send);
	find("sendto", &real.sendto);
	find("sendmsg", &real.sendmsg);
	find("write", &real.write);
	find("writev", &real.writev);
}

__attribute__((destructor)) static void
end(void)
{
	const char *path = getenv("SHIM_REPORT");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!f)
		return;
	fprintf(f, "%lu %lu\n", receives, sends);
	fclose(f);
}

/* 1 to 7, never more than n. */
static size_t
cut(size_t n, unsigned long *count)
{
	size_t m;

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	m = (size_t)(seed >> 33) % 7 + 1;
	if (m >= n)
		return n;
	(*count)++;
	return m;
}

static int
is_stream(int fd)
{
	int type = 0, saved = errno;
	socklen_t len = sizeof(type);
	int ok =
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;

	errno = saved;
	return ok;
}

/* The first part of a vector that is not empty, cut. */
static struct iovec
first_cut(const struct iovec *v, size_t n, unsigned long *count)
{
	struct iovec one = {0};

	for (size_t i = 0; i < n && one.iov_len == 0; i++)
		one = v[i];
	one.iov_len = cut(one.iov_len, count);
	return one;
}

EXPORT ssize_t
recv(int fd, void *p, size_t n, int flags)
{
	return real.recv(fd, p, is_stream(fd) ? cut(n, &receives) : n, flags);
}

EXPORT ssize_t
recvfrom(int fd, void *p, size_t n, int flags, struct sockaddr *from, socklen_t *len)
{
	return real.recvfrom(fd, p, is_stream(fd) ? cut(n, &receives) : n, flags, from,
			     len);
}

EXPORT ssize_t
recvmsg(int fd, struct msghdr *h, int flags)
{
	struct msghdr copy = *h;
	struct iovec one;
	ssize_t n;

	if (!is_stream(fd))
		return real.recvmsg(fd, h, flags);
	one = first_cut(h->msg_iov, h->msg_iovlen, &receives);
	copy.msg_iov = &one;
	copy.msg_iovlen = 1;
	n = real.recvmsg(fd, &copy, flags);
	copy.msg_iov = h->msg_iov;
	copy.msg_iovlen = h->msg_iovlen;
	*h = copy;
	return n;
}

EXPORT ssize_t
read(int fd, void *p, size_t n)
{
	return real.read(fd, p, is_stream(fd) ? cut(n, &receives) : n);
}

EXPORT ssize_t
readv(int fd, const struct iovec *v, int n)
{
	struct iovec one;

	if (!is_stream(fd) || n < 1)
		return real.readv(fd, v, n);
	one = first_cut(v, (size_t)n, &receives);
	return real.readv(fd, &one, 1);
}

EXPORT ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	return real.send(fd, p, is_stream(fd) ? cut(n, &sends) : n, flags);
}

EXPORT ssize_t
sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	return real.sendto(fd, p, is_stream(fd) ? cut(n, &sends) : n, flags, to, len);
}

EXPORT ssize_t
sendmsg(int fd, const struct msghdr *h, int flags)
{
	struct msghdr copy = *h;
	struct iovec one;

	if (!is_stream(fd))
		return real.sendmsg(fd, h, flags);
	one = first_cut(h->msg_iov, h->msg_iovlen, &sends);
	copy.msg_iov = &one;
	copy.msg_iovlen = 1;
	return real.sendmsg(fd, &copy, flags);
}

EXPORT ssize_t
write(int fd, const void *p, size_t n)
{
	return real.write(fd, p, is_stream(fd) ? cut(n, &sends) : n);
}

EXPORT ssize_t
writev(int fd, const struct iovec *v, int n)
{
	struct iovec one;

	if (!is_stream(fd) || n < 1)
		return real.writev(fd, v, n);
	one = first_cut(v, (size_t)n, &sends);
	return real.writev(fd, &one, 1);
}
