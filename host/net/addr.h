/* addr.h - socket addresses, and the URLs that name them.
 *
 * Values: nothing here allocates.  Any thread. */
#ifndef HOST_NET_ADDR_H
#define HOST_NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

enum transport { TRANSPORT_TCP, TRANSPORT_UDP, TRANSPORT_UNIX, TRANSPORT_UNIXGRAM };

/* The longest text form of any address, URL scheme and NUL included. */
enum { ADDR_TEXT = 160, URL_HOST = 256, UNIX_PATH_MAX = 107 };

struct addr {
	struct sockaddr_storage ss;
	socklen_t len; /* 0: unknown */
};

/* A listen or connect URL, taken apart but not yet resolved. */
struct url {
	enum transport transport;
	char host[URL_HOST]; /* IP: a name or number, without brackets */
	int port;            /* IP */
	char
	    path[UNIX_PATH_MAX + 1]; /* Unix: a path, or @name for the abstract namespace */
};

static inline const struct sockaddr *
addr_sa(const struct addr *a)
{
	return (const struct sockaddr *)(const void *)&a->ss;
}

static inline struct sockaddr *
addr_sa_out(struct addr *a)
{
	return (struct sockaddr *)(void *)&a->ss;
}

/* What is behind the address itself is left as it was. */
static inline void
addr_copy(struct addr *to, const struct addr *from)
{
	to->len = from->len;
	if (from->len == sizeof(struct sockaddr))
		memcpy(&to->ss, &from->ss, sizeof(struct sockaddr)); /* IPv4: no call */
	else {
		to->ss.ss_family = AF_UNSPEC; /* of none */
		memcpy(&to->ss, &from->ss, from->len);
	}
}

bool transport_is_stream(enum transport t);
bool transport_is_unix(enum transport t);

/* Takes `text` (n bytes) apart.  -EINVAL: `why` says in one sentence what is wrong. */
int url_parse(const char *text, size_t n, struct url *out, char *why, size_t size);

/* Resolves a URL; host names are looked up (which may block) only if `lookup`.
 * -EINVAL or -ENOENT: `why` says what is wrong. */
int url_resolve(const struct url *u, bool lookup, struct addr *out, char *why, size_t size);

/* The URL of an address: "tcp://127.0.0.1:9999", "unix:///run/x.sock". */
void addr_url(const struct addr *a, enum transport t, char *out, size_t size);

/* "127.0.0.1:51812", "[::1]:80", a path, "@name", or "" for an unnamed Unix socket. */
void addr_text(const struct addr *a, char *out, size_t size);

/* Host in numbers; an IPv4 address mapped into IPv6 comes out as IPv4.  "" for Unix.
 * size: at least INET6_ADDRSTRLEN, 46. */
void addr_host(const struct addr *a, char *out, size_t size);
int addr_port(const struct addr *a);
bool addr_is_unix(const struct addr *a);

/* 0.0.0.0 or [::]: every address of the machine. */
bool addr_is_any(const struct addr *a);

/* Whether both name one place; whether a socket at one is in the way of one at the other.
 */
bool addr_same(const struct addr *a, const struct addr *b);
bool addr_overlap(const struct addr *a, const struct addr *b);

/* The path of a Unix address, with @ for a leading NUL; its length may be 0. */
size_t addr_path(const struct addr *a, char *out, size_t size);

/* A numeric host and port.  -EINVAL: not a number. */
int addr_from_ip(const char *host, int port, struct addr *out);

/* A Unix address from a path or @name.  -EINVAL with `why`: too long, empty, NUL inside. */
int addr_from_path(const char *path, size_t n, struct addr *out, char *why, size_t size);

#endif
