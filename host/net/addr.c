#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static const char *const schemes[] = {"tcp", "udp", "unix", "unixgram"};

bool
transport_is_stream(enum transport t)
{
	return t == TRANSPORT_TCP || t == TRANSPORT_UNIX;
}

bool
transport_is_unix(enum transport t)
{
	return t == TRANSPORT_UNIX || t == TRANSPORT_UNIXGRAM;
}

static int
parse_port(const char *s)
{
	int port = 0;

	if (!*s || strlen(s) > 5)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -1;
		port = port * 10 + (*s - '0');
	}
	return port <= 65535 ? port : -1;
}

/* rest: what follows "tcp://", a copy that may be changed. */
static int
parse_ip(char *rest, const char *text, struct url *out, char *why, size_t size)
{
	char *host = rest, *end, *colon = strrchr(rest, ':');

	if (*rest == '[' && (end = strchr(rest, ']')) && end[1] == ':') {
		host = rest + 1;
		*end = 0;
		colon = end + 1;
	} else if (!colon || strchr(rest, ':') != colon) {
		snprintf(why, size, "%s: %s, as in %s://127.0.0.1:9999 or %s://[::1]:9999",
			 text,
			 colon ? "an IPv6 address needs brackets" : "the port is missing",
			 schemes[out->transport], schemes[out->transport]);
		return -EINVAL;
	}
	*colon = 0;
	out->port = parse_port(colon + 1);
	if (out->port < 0) {
		snprintf(why, size, "%s: the port must be a number from 0 to 65535", text);
		return -EINVAL;
	}
	if (!*host || strlen(host) >= URL_HOST) {
		snprintf(
		    why, size,
		    "%s: the host is missing; 0.0.0.0 is every IPv4 address of the machine",
		    text);
		return -EINVAL;
	}
	strcpy(out->host, host);
	return 0;
}

int
url_parse(const char *text, size_t n, struct url *out, char *why, size_t size)
{
	char copy[512];
	char *rest;
	struct addr probe;
	char reason[160];

	*out = (struct url){0};
	if (n >= sizeof(copy) || memchr(text, 0, n)) {
		snprintf(why, size, "the URL %s",
			 n >= sizeof(copy) ? "is too long" : "has a NUL byte in it");
		return -EINVAL;
	}
	memcpy(copy, text, n);
	copy[n] = 0;
	rest = strstr(copy, "://");
	for (size_t i = 0; rest && i < sizeof(schemes) / sizeof(*schemes); i++) {
		if (strlen(schemes[i]) != (size_t)(rest - copy) ||
		    strncmp(copy, schemes[i], (size_t)(rest - copy)))
			continue;
		out->transport = (enum transport)i;
		rest += 3;
		char whole[sizeof(copy)];
		memcpy(whole, text, n);
		whole[n] = 0;
		if (!transport_is_unix(out->transport))
			return parse_ip(rest, whole, out, why, size);
		if (addr_from_path(rest, strlen(rest), &probe, reason, sizeof(reason)) <
		    0) {
			snprintf(why, size, "%s: %s", whole, reason);
			return -EINVAL;
		}
		strcpy(out->path, rest);
		return 0;
	}
	snprintf(why, size,
		 "%s: not a URL; it must begin with tcp://, udp://, unix:// or unixgram://",
		 copy);
	return -EINVAL;
}

int
addr_from_ip(const char *host, int port, struct addr *out)
{
	struct sockaddr_in *in = (void *)&out->ss;
	struct sockaddr_in6 *in6 = (void *)&out->ss;

	*out = (struct addr){0};
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		out->len = sizeof(*in);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		out->len = sizeof(*in6);
		return 0;
	}
	return -EINVAL;
}

int
addr_from_path(const char *path, size_t n, struct addr *out, char *why, size_t size)
{
	struct sockaddr_un *un = (void *)&out->ss;

	*out = (struct addr){0};
	if (n == 0 || (n == 1 && *path == '@')) {
		snprintf(why, size, "the path of the socket is missing");
		return -EINVAL;
	}
	if (n > UNIX_PATH_MAX) {
		snprintf(why, size, "the path of the socket has %zu bytes, the most is %d",
			 n, UNIX_PATH_MAX);
		return -EINVAL;
	}
	if (memchr(path, 0, n)) {
		snprintf(why, size, "the path of the socket has a NUL byte in it");
		return -EINVAL;
	}
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, n);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	if (*path == '@')
		un->sun_path[0] = 0;
	else
		out->len++; /* the NUL that ends a path */
	return 0;
}

static int
look_up(const struct url *u, struct addr *out, char *why, size_t size)
{
	struct addrinfo hints = {
	    .ai_socktype = transport_is_stream(u->transport) ? SOCK_STREAM : SOCK_DGRAM};
	struct addrinfo *found;
	char port[16];
	int rc;

	snprintf(port, sizeof(port), "%d", u->port);
	rc = getaddrinfo(u->host, port, &hints, &found);
	if (rc != 0) {
		snprintf(why, size, "%s://%s:%d: no address for that host name (%s)",
			 schemes[u->transport], u->host, u->port, gai_strerror(rc));
		return -ENOENT;
	}
	*out = (struct addr){.len = found->ai_addrlen};
	memcpy(&out->ss, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

int
url_resolve(const struct url *u, bool lookup, struct addr *out, char *why, size_t size)
{
	const char *host =
	    strcmp(u->host, "localhost") == 0 && !lookup ? "127.0.0.1" : u->host;

	if (transport_is_unix(u->transport))
		return addr_from_path(u->path, strlen(u->path), out, why, size);
	if (addr_from_ip(host, u->port, out) == 0)
		return 0;
	if (lookup)
		return look_up(u, out, why, size);
	snprintf(why, size,
		 "%s: the host must be an IP address; names are not looked up here",
		 u->host);
	return -EINVAL;
}

bool
addr_is_unix(const struct addr *a)
{
	return a->ss.ss_family == AF_UNIX;
}

bool
addr_is_any(const struct addr *a)
{
	if (a->ss.ss_family == AF_INET)
		return ((const struct sockaddr_in *)(const void *)&a->ss)
			   ->sin_addr.s_addr == INADDR_ANY;
	if (a->ss.ss_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(
		    &((const struct sockaddr_in6 *)(const void *)&a->ss)->sin6_addr);
	return false;
}

/* inet_ntop() goes through printf; this is on the way of every request. */
static void
put_ipv4(const unsigned char *ip, char *out)
{
	for (int i = 0; i < 4; i++) {
		unsigned n = ip[i];
		if (n >= 100)
			*out++ = (char)('0' + n / 100);
		if (n >= 10)
			*out++ = (char)('0' + n / 10 % 10);
		*out++ = (char)('0' + n % 10);
		*out++ = i < 3 ? '.' : 0;
	}
}

void
addr_host(const struct addr *a, char *out, size_t size)
{
	const struct sockaddr_in *in = (const void *)&a->ss;
	const struct sockaddr_in6 *in6 = (const void *)&a->ss;

	*out = 0;
	if (size < INET6_ADDRSTRLEN)
		return;
	if (a->ss.ss_family == AF_INET)
		put_ipv4((const unsigned char *)&in->sin_addr, out);
	else if (a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		put_ipv4(&in6->sin6_addr.s6_addr[12], out);
	else if (a->ss.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &in6->sin6_addr, out, (socklen_t)size);
}

int
addr_port(const struct addr *a)
{
	if (a->ss.ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)(const void *)&a->ss)->sin_port);
	if (a->ss.ss_family == AF_INET6)
		return ntohs(
		    ((const struct sockaddr_in6 *)(const void *)&a->ss)->sin6_port);
	return 0;
}

bool
addr_same(const struct addr *a, const struct addr *b)
{
	char one[ADDR_TEXT], other[ADDR_TEXT];

	if (a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0)
		return true; /* nearly always */
	addr_text(a, one, sizeof(one));
	addr_text(b, other, sizeof(other));
	return strcmp(one, other) == 0;
}

bool
addr_overlap(const struct addr *a, const struct addr *b)
{
	if (addr_is_unix(a) || addr_is_unix(b))
		return addr_same(a, b);
	return addr_port(a) == addr_port(b) &&
	       (addr_is_any(a) || addr_is_any(b) || addr_same(a, b));
}

size_t
addr_path(const struct addr *a, char *out, size_t size)
{
	const struct sockaddr_un *un = (const void *)&a->ss;
	size_t head = offsetof(struct sockaddr_un, sun_path), n;

	*out = 0;
	if (!addr_is_unix(a) || a->len <= head || size == 0)
		return 0;
	n = a->len - head;
	if (un->sun_path[0] != 0)
		n = strnlen(un->sun_path, n);
	if (n > size - 1)
		n = size - 1;
	memcpy(out, un->sun_path, n);
	if (n > 0 && out[0] == 0)
		out[0] = '@';
	out[n] = 0;
	return n;
}

void
addr_text(const struct addr *a, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN];

	if (addr_is_unix(a) || a->len == 0) {
		addr_path(a, out, size);
		return;
	}
	addr_host(a, host, sizeof(host));
	snprintf(out, size, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, addr_port(a));
}

void
addr_url(const struct addr *a, enum transport t, char *out, size_t size)
{
	char text[ADDR_TEXT];

	addr_text(a, text, sizeof(text));
	snprintf(out, size, "%s://%s", schemes[t], text);
}
