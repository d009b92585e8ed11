#include "net/sockopt.h"

#include "base/nearest.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

static const struct sockopt table[] = {
    {"so_acceptconn", SOL_SOCKET, SO_ACCEPTCONN, SOCKOPT_BOOL},
    {"so_broadcast", SOL_SOCKET, SO_BROADCAST, SOCKOPT_BOOL},
    {"so_busy_poll", SOL_SOCKET, SO_BUSY_POLL, SOCKOPT_INT},
    {"so_domain", SOL_SOCKET, SO_DOMAIN, SOCKOPT_INT},
    {"so_dontroute", SOL_SOCKET, SO_DONTROUTE, SOCKOPT_BOOL},
    {"so_error", SOL_SOCKET, SO_ERROR, SOCKOPT_INT},
    {"so_incoming_cpu", SOL_SOCKET, SO_INCOMING_CPU, SOCKOPT_INT},
    {"so_keepalive", SOL_SOCKET, SO_KEEPALIVE, SOCKOPT_BOOL},
    {"so_linger", SOL_SOCKET, SO_LINGER, SOCKOPT_LINGER},
    {"so_mark", SOL_SOCKET, SO_MARK, SOCKOPT_INT},
    {"so_oobinline", SOL_SOCKET, SO_OOBINLINE, SOCKOPT_BOOL},
    {"so_peercred", SOL_SOCKET, SO_PEERCRED, SOCKOPT_CRED},
    {"so_priority", SOL_SOCKET, SO_PRIORITY, SOCKOPT_INT},
    {"so_protocol", SOL_SOCKET, SO_PROTOCOL, SOCKOPT_INT},
    {"so_rcvbuf", SOL_SOCKET, SO_RCVBUF, SOCKOPT_INT},
    {"so_rcvlowat", SOL_SOCKET, SO_RCVLOWAT, SOCKOPT_INT},
    {"so_reuseaddr", SOL_SOCKET, SO_REUSEADDR, SOCKOPT_BOOL},
    {"so_reuseport", SOL_SOCKET, SO_REUSEPORT, SOCKOPT_BOOL},
    {"so_sndbuf", SOL_SOCKET, SO_SNDBUF, SOCKOPT_INT},
    {"so_type", SOL_SOCKET, SO_TYPE, SOCKOPT_INT},
    {"ip_tos", IPPROTO_IP, IP_TOS, SOCKOPT_INT},
    {"ip_ttl", IPPROTO_IP, IP_TTL, SOCKOPT_INT},
    {"ip_multicast_ttl", IPPROTO_IP, IP_MULTICAST_TTL, SOCKOPT_INT},
    {"ip_multicast_loop", IPPROTO_IP, IP_MULTICAST_LOOP, SOCKOPT_BOOL},
    {"ipv6_tclass", IPPROTO_IPV6, IPV6_TCLASS, SOCKOPT_INT},
    {"ipv6_unicast_hops", IPPROTO_IPV6, IPV6_UNICAST_HOPS, SOCKOPT_INT},
    {"ipv6_v6only", IPPROTO_IPV6, IPV6_V6ONLY, SOCKOPT_BOOL},
    {"tcp_congestion", IPPROTO_TCP, TCP_CONGESTION, SOCKOPT_STRING},
    {"tcp_cork", IPPROTO_TCP, TCP_CORK, SOCKOPT_BOOL},
    {"tcp_defer_accept", IPPROTO_TCP, TCP_DEFER_ACCEPT, SOCKOPT_INT},
    {"tcp_keepcnt", IPPROTO_TCP, TCP_KEEPCNT, SOCKOPT_INT},
    {"tcp_keepidle", IPPROTO_TCP, TCP_KEEPIDLE, SOCKOPT_INT},
    {"tcp_keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, SOCKOPT_INT},
    {"tcp_linger2", IPPROTO_TCP, TCP_LINGER2, SOCKOPT_INT},
    {"tcp_maxseg", IPPROTO_TCP, TCP_MAXSEG, SOCKOPT_INT},
    {"tcp_nodelay", IPPROTO_TCP, TCP_NODELAY, SOCKOPT_BOOL},
    {"tcp_notsent_lowat", IPPROTO_TCP, TCP_NOTSENT_LOWAT, SOCKOPT_INT},
    {"tcp_quickack", IPPROTO_TCP, TCP_QUICKACK, SOCKOPT_BOOL},
    {"tcp_syncnt", IPPROTO_TCP, TCP_SYNCNT, SOCKOPT_INT},
    {"tcp_user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT, SOCKOPT_INT},
    {"tcp_window_clamp", IPPROTO_TCP, TCP_WINDOW_CLAMP, SOCKOPT_INT},
};

enum { COUNT = sizeof(table) / sizeof(*table) };

const struct sockopt *
sockopt_find(const char *name)
{
	for (int i = 0; i < COUNT; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

const char *
sockopt_nearest(const char *name)
{
	int best = 0;

	for (int i = 1; i < COUNT; i++)
		if (nearest_distance(name, table[i].name) <
		    nearest_distance(name, table[best].name))
			best = i;
	return table[best].name;
}

int
sockopt_set(int fd, const struct sockopt *o, double value)
{
	struct linger l = {.l_onoff = value >= 0, .l_linger = value >= 0 ? (int)value : 0};
	int n = o->kind == SOCKOPT_BOOL ? value != 0 : (int)value, rc;

	if (o->kind == SOCKOPT_CRED || o->kind == SOCKOPT_STRING)
		return -ENOPROTOOPT;
	if (o->kind == SOCKOPT_LINGER)
		rc = setsockopt(fd, o->level, o->option, &l, sizeof(l));
	else
		rc = setsockopt(fd, o->level, o->option, &n, sizeof(n));
	return rc < 0 ? -errno : 0;
}

int
sockopt_set_string(int fd, const struct sockopt *o, const char *value, size_t n)
{
	return setsockopt(fd, o->level, o->option, value, (socklen_t)n) < 0 ? -errno : 0;
}

int
sockopt_get(int fd, const struct sockopt *o, double *value)
{
	union {
		int n;
		struct linger l;
	} u = {0};
	socklen_t len = sizeof(u);

	if (getsockopt(fd, o->level, o->option, &u, &len) < 0)
		return -errno;
	if (o->kind == SOCKOPT_LINGER)
		*value = u.l.l_onoff ? u.l.l_linger : -1;
	else
		*value = u.n;
	return 0;
}

int
sockopt_get_string(int fd, const struct sockopt *o, char *out, size_t size)
{
	socklen_t len = (socklen_t)size - 1;

	memset(out, 0, size);
	return getsockopt(fd, o->level, o->option, out, &len) < 0 ? -errno : 0;
}

int
sockopt_get_cred(int fd, const struct sockopt *o, long out[3])
{
	struct ucred c;
	socklen_t len = sizeof(c);

	if (getsockopt(fd, o->level, o->option, &c, &len) < 0)
		return -errno;
	out[0] = c.pid;
	out[1] = c.uid;
	out[2] = c.gid;
	return 0;
}
