#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Milliseconds between two tries to lock a folder, and how many of them at the start. */
enum { LOCK_WAIT = 10, LOCK_TRIES = 25 };

static void
set_int(int fd, int level, int name, int value)
{
	/* Only options that every kernel in question has: no failure to report. */
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

static int
fail(int rc, const char *url, char *why, size_t size)
{
	if (rc == -EADDRINUSE)
		snprintf(why, size, "cannot listen on %s: the address is already in use",
			 url);
	else
		snprintf(why, size, "cannot listen on %s: %s", url, strerror(-rc));
	return rc;
}

/* Does a process hold the socket at this address?  Connecting a datagram socket
 * tells without being noticed: a live stream socket answers EPROTOTYPE. */
static bool
is_live(const struct addr *a)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool live;

	if (fd < 0)
		return true; /* cannot tell: touch nothing */
	live = connect(fd, addr_sa(a), a->len) == 0 || errno != ECONNREFUSED;
	close(fd);
	return live;
}

/* Makes way for a new socket at path, or says why not.  The caller holds the lock. */
static int
clear_path(const struct addr *a, const char *path, char *why, size_t size)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, size,
			 "cannot listen on %s: it is there and is not a socket, so it is "
			 "left alone",
			 path);
		return -EADDRINUSE;
	}
	if (is_live(a)) {
		snprintf(why, size, "cannot listen on %s: another process serves it", path);
		return -EADDRINUSE;
	}
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* Locks the folder of a path until the descriptor is closed.  Anybody who can read the
 * folder can hold that lock: it is waited for a moment, and done without then.  -1: not
 * locked. */
static int
lock_folder(const char *path, int tries)
{
	char copy[ADDR_TEXT];
	int dir;

	snprintf(copy, sizeof(copy), "%s", path);
	dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (dir >= 0 && flock(dir, LOCK_EX | LOCK_NB) < 0 && --tries > 0)
		poll(NULL, 0, LOCK_WAIT);
	return dir;
}

/* Checking, removing and binding must be one step for all who start at once:
 * the folder is locked meanwhile.  A folder that cannot be locked is used all the same. */
static int
bind_path(int fd, struct listener *l, const char *path, const struct listen_options *o,
	  char *why, size_t size)
{
	struct stat st;
	int dir = lock_folder(path, LOCK_TRIES), rc = clear_path(&l->addr, path, why, size);

	/* The permissions of the socket's inode are those of the path, less the umask. */
	if (rc == 0 && fchmod(fd, o->mode) < 0)
		rc = -errno;
	if (rc == 0 && bind(fd, addr_sa(&l->addr), l->addr.len) < 0)
		rc = -errno;
	if (rc == 0 && lstat(path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
		/* Wider than the default was asked for in so many words: the umask does not
		 * narrow it. */
		if (o->mode != 0600 && (st.st_mode & 07777) != o->mode &&
		    chmod(path, o->mode) < 0)
			rc = -errno;
	}
	if (rc == 0 && l->transport == TRANSPORT_UNIX && o->backlog >= 0 &&
	    listen(fd, o->backlog) < 0)
		rc = -errno;
	if (dir >= 0)
		close(dir);
	return rc;
}

static void
set_options(int fd, const struct listener *l, const struct listen_options *o)
{
	if (transport_is_unix(l->transport))
		return;
	if (o->reuse_address && l->transport == TRANSPORT_TCP)
		set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (o->reuse_port)
		set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (l->addr.ss.ss_family == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->v6only);
	if (o->nodelay && l->transport == TRANSPORT_TCP)
		set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (l->transport == TRANSPORT_UDP && addr_is_any(&l->addr)) {
		set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
		if (l->addr.ss.ss_family == AF_INET6)
			set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	}
}

static int
open_socket(const struct listener *l, const struct listen_options *o)
{
	int type = transport_is_stream(l->transport) ? SOCK_STREAM : SOCK_DGRAM;
	int fd = socket(l->addr.ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	set_options(fd, l, o);
	return fd;
}

static void
learn_address(struct listener *l)
{
	l->addr.len = sizeof(l->addr.ss);
	getsockname(l->fd, addr_sa_out(&l->addr), &l->addr.len);
}

/* A socket keeps its port while it refuses only if it has asked for that very number: the
 * kernel picks one for a first socket, and a second one is bound to it beside. */
static int
bind_number(struct listener *l, const struct listen_options *o)
{
	int first = l->fd, rc;

	l->fd = open_socket(l, o);
	if (l->fd < 0) {
		rc = l->fd;
		l->fd = first;
		return rc;
	}
	if (bind(first, addr_sa(&l->addr), l->addr.len) < 0) {
		rc = -errno;
		close(first);
		return rc;
	}
	l->addr.len = sizeof(l->addr.ss);
	getsockname(first, addr_sa_out(&l->addr), &l->addr.len);
	set_int(first, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	rc = bind(l->fd, addr_sa(&l->addr), l->addr.len) < 0 ? -errno : 0;
	close(first);
	set_int(l->fd, SOL_SOCKET, SO_REUSEADDR,
		o->reuse_address && l->transport == TRANSPORT_TCP);
	return rc;
}

static int
bind_name(struct listener *l, const struct listen_options *o)
{
	int rc = 0;

	if (o->switchable && !transport_is_unix(l->transport) && addr_port(&l->addr) == 0)
		rc = bind_number(l, o);
	else if (bind(l->fd, addr_sa(&l->addr), l->addr.len) < 0)
		rc = -errno;
	if (rc == 0 && transport_is_stream(l->transport) && o->backlog >= 0 &&
	    listen(l->fd, o->backlog) < 0)
		rc = -errno;
	return rc;
}

/* At l->addr; on failure nothing is left. */
static int
open_at(struct listener *l, const struct listen_options *o, char *why, size_t size)
{
	char text[ADDR_TEXT], path[ADDR_TEXT] = "@";
	int rc;

	*why = 0;
	addr_url(&l->addr, l->transport, text, sizeof(text));
	l->fd = open_socket(l, o);
	if (l->fd < 0)
		return fail(l->fd, text, why, size);
	if (transport_is_unix(l->transport))
		addr_path(&l->addr, path, sizeof(path));
	rc = *path == '@' ? bind_name(l, o) : bind_path(l->fd, l, path, o, why, size);
	if (rc < 0) {
		listener_close(l);
		return *why ? rc : fail(rc, text, why, size);
	}
	learn_address(l);
	return 0;
}

int
listener_open(const struct url *url, const struct listen_options *o, struct listener *out,
	      char *why, size_t size)
{
	struct listener l = {.fd = -1, .transport = url->transport};
	int rc = url_resolve(url, true, &l.addr, why, size);

	if (rc == 0)
		rc = open_at(&l, o, why, size);
	if (rc == 0)
		*out = l;
	return rc;
}

/* ---- refusing ---- */

/* Whoever else wants the port would get it if both allowed that. */
static int
refuse_tcp(struct listener *l)
{
	if (shutdown(l->fd, SHUT_RDWR) < 0)
		return -errno;
	set_int(l->fd, SOL_SOCKET, SO_REUSEADDR, 0);
	return 0;
}

/* A socket that is connected to itself is nobody's peer: the kernel answers what others
 * send as if there were none.  What has come before is thrown away. */
static int
refuse_udp(struct listener *l)
{
	struct addr self = l->addr;
	int port = addr_port(&self);
	char c;

	if (addr_is_any(&self))
		addr_from_ip(self.ss.ss_family == AF_INET6 ? "::1" : "127.0.0.1", port,
			     &self);
	if (connect(l->fd, addr_sa(&self), self.len) < 0)
		return -errno;
	while (recv(l->fd, &c, 1, MSG_DONTWAIT) >= 0)
		;
	return 0;
}

/* The path stays, and leads to no socket any more.  Its inode is kept open, as the socket
 * kept it before: see listener_remove_path(). */
static int
refuse_unix(struct listener *l)
{
	char path[ADDR_TEXT];
	int pin = -1;

	if (l->ino) {
		addr_path(&l->addr, path, sizeof(path));
		pin = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (pin < 0 && errno != ENOENT)
			return -errno;
	}
	close(l->fd);
	l->fd = pin;
	return 0;
}

int
listener_refuse(struct listener *l)
{
	switch (l->transport) {
	case TRANSPORT_TCP:
		return refuse_tcp(l);
	case TRANSPORT_UDP:
		return refuse_udp(l);
	default:
		return refuse_unix(l);
	}
}

static int
admit_unix(struct listener *l, const struct listen_options *o, char *why, size_t size)
{
	struct listener next = {.fd = -1, .transport = l->transport, .addr = l->addr};
	int rc = open_at(&next, o, why, size);

	if (rc < 0)
		return rc;
	if (l->fd >= 0)
		close(l->fd); /* it has pinned what the new socket has replaced */
	*l = next;
	return 0;
}

int
listener_admit(struct listener *l, const struct listen_options *o, char *why, size_t size)
{
	static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	char text[ADDR_TEXT];
	int rc;

	if (transport_is_unix(l->transport))
		return admit_unix(l, o, why, size);
	if (l->transport == TRANSPORT_TCP) {
		/* Or the connections that are still there would be in the way. */
		set_int(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
		rc = listen(l->fd, o->backlog) < 0 ? -errno : 0;
		set_int(l->fd, SOL_SOCKET, SO_REUSEADDR, rc == 0 && o->reuse_address);
	} else
		rc = connect(l->fd, &nobody, sizeof(nobody)) < 0 ? -errno : 0;
	if (rc == 0)
		return 0;
	addr_url(&l->addr, l->transport, text, sizeof(text));
	return fail(rc, text, why, size);
}

int
listener_accept(const struct listener *l, struct addr *peer)
{
	int fd;

	peer->len = sizeof(peer->ss);
	fd = accept4(l->fd, addr_sa_out(peer), &peer->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int
listener_waiting(const struct listener *l, int backlog)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (l->transport != TRANSPORT_TCP ||
	    getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return backlog + 1; /* one more than it says */
	return (int)info.tcpi_unacked;
}

uint64_t
listener_drops(int fd)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 || len < sizeof(info))
		return 0;
	return info[SK_MEMINFO_DROPS];
}

/* The descriptor is still open here: it pins its inode, so that an equal number is
 * really this socket's and not that of a successor's. */
void
listener_remove_path(struct listener *l)
{
	char path[ADDR_TEXT];
	struct stat st;
	int dir;

	if (!l->ino || addr_path(&l->addr, path, sizeof(path)) == 0)
		return;
	dir = lock_folder(path, 1); /* other connections stand still meanwhile */
	if (lstat(path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(path);
	if (dir >= 0)
		close(dir);
	l->ino = 0;
}

void
listener_shut(struct listener *l)
{
	if (l->fd >= 0)
		(void)shutdown(l->fd, SHUT_RDWR);
}

void
listener_close(struct listener *l)
{
	if (l->fd < 0)
		return;
	listener_remove_path(l);
	close(l->fd);
	l->fd = -1;
}
