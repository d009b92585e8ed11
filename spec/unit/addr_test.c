#include "net/addr.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

static bool
parses(const char *text, enum transport t, const char *host, int port)
{
	struct url u;
	char why[320];

	return url_parse(text, strlen(text), &u, why, sizeof(why)) == 0 &&
	       u.transport == t && u.port == port && strcmp(u.host, host) == 0;
}

static bool
is_path(const char *text, enum transport t, const char *path)
{
	struct url u;
	char why[320];

	return url_parse(text, strlen(text), &u, why, sizeof(why)) == 0 &&
	       u.transport == t && strcmp(u.path, path) == 0;
}

static bool
refuses(const char *text, size_t n, const char *reason)
{
	struct url u;
	char why[320] = "";

	return url_parse(text, n, &u, why, sizeof(why)) == -EINVAL && strstr(why, reason) &&
	       !strchr(why, '\n');
}

#define REFUSES(text, reason) CHECK(refuses(text, sizeof(text) - 1, reason))

static void
urls(void)
{
	CHECK(parses("tcp://127.0.0.1:9999", TRANSPORT_TCP, "127.0.0.1", 9999));
	CHECK(parses("udp://0.0.0.0:0", TRANSPORT_UDP, "0.0.0.0", 0));
	CHECK(parses("tcp://[::1]:65535", TRANSPORT_TCP, "::1", 65535));
	CHECK(parses("tcp://localhost:080", TRANSPORT_TCP, "localhost", 80));
	CHECK(is_path("unix:///run/x.sock", TRANSPORT_UNIX, "/run/x.sock"));
	CHECK(is_path("unix://relative/x", TRANSPORT_UNIX, "relative/x"));
	CHECK(is_path("unix://@name", TRANSPORT_UNIX, "@name"));
	CHECK(is_path("unixgram:///x://y", TRANSPORT_UNIXGRAM, "/x://y"));
	REFUSES("", "must begin with");
	REFUSES("tcp", "must begin with");
	REFUSES("tcpx://1:1", "must begin with");
	REFUSES("uni://x", "must begin with");
	REFUSES("tcp://127.0.0.1", "port is missing");
	REFUSES("tcp://127.0.0.1:70000", "0 to 65535");
	REFUSES("tcp://127.0.0.1:000001", "0 to 65535");
	REFUSES("tcp://::1:80", "brackets");
	REFUSES("tcp://[::1]", "::1]:9999");
	REFUSES("unix://", "missing");
	REFUSES("unix://@", "missing");
	REFUSES("unix://a\0b", "NUL");
}

static void
paths(void)
{
	char path[UNIX_PATH_MAX + 2], out[ADDR_TEXT], why[160];
	struct addr a;

	memset(path, 'p', sizeof(path));
	CHECK(addr_from_path(path, UNIX_PATH_MAX, &a, why, sizeof(why)) == 0);
	CHECK(addr_path(&a, out, sizeof(out)) == UNIX_PATH_MAX &&
	      memcmp(out, path, UNIX_PATH_MAX) == 0);
	CHECK(addr_from_path(path, UNIX_PATH_MAX + 1, &a, why, sizeof(why)) == -EINVAL &&
	      strstr(why, "108"));
	CHECK(addr_from_path("@name", 5, &a, why, sizeof(why)) == 0 && addr_is_unix(&a));
	CHECK(((struct sockaddr_un *)(void *)&a.ss)->sun_path[0] == 0);
	CHECK(addr_path(&a, out, sizeof(out)) == 5 && strcmp(out, "@name") == 0);
	addr_url(&a, TRANSPORT_UNIXGRAM, out, sizeof(out));
	CHECK(strcmp(out, "unixgram://@name") == 0);
	a = (struct addr){.len = sizeof(sa_family_t)};
	a.ss.ss_family = AF_UNIX;
	addr_text(&a, out, sizeof(out));
	CHECK(*out == 0 && addr_path(&a, out, sizeof(out)) == 0);
}

static bool
says(const char *host, int port, const char *text, const char *url)
{
	char out[ADDR_TEXT];
	struct addr a;
	bool ok = addr_from_ip(host, port, &a) == 0;

	addr_text(&a, out, sizeof(out));
	ok = ok && strcmp(out, text) == 0 && addr_port(&a) == port && !addr_is_unix(&a);
	addr_url(&a, TRANSPORT_TCP, out, sizeof(out));
	return ok && strcmp(out, url) == 0;
}

static void
ips(void)
{
	struct addr a;
	struct url u;
	char why[320];

	CHECK(says("127.0.0.1", 80, "127.0.0.1:80", "tcp://127.0.0.1:80"));
	CHECK(
	    says("255.9.10.100", 65535, "255.9.10.100:65535", "tcp://255.9.10.100:65535"));
	CHECK(says("::1", 80, "[::1]:80", "tcp://[::1]:80"));
	CHECK(says("::ffff:10.0.0.1", 80, "10.0.0.1:80", "tcp://10.0.0.1:80")); /* mapped */
	CHECK(says("2001:db8::5", 1, "[2001:db8::5]:1", "tcp://[2001:db8::5]:1"));
	CHECK(addr_from_ip("localhost", 1, &a) == -EINVAL);
	CHECK(addr_from_ip("1.2.3", 1, &a) == -EINVAL);
	CHECK(addr_from_ip("", 1, &a) == -EINVAL);
	CHECK(addr_from_ip("0.0.0.0", 1, &a) == 0 && addr_is_any(&a));
	CHECK(addr_from_ip("::", 1, &a) == 0 && addr_is_any(&a));
	CHECK(addr_from_ip("::1", 1, &a) == 0 && !addr_is_any(&a));
	CHECK(url_parse("tcp://localhost:7", 17, &u, why, sizeof(why)) == 0);
	CHECK(url_resolve(&u, false, &a, why, sizeof(why)) == 0 && addr_port(&a) == 7);
	CHECK(url_parse("tcp://some.host:7", 17, &u, why, sizeof(why)) == 0);
	CHECK(url_resolve(&u, false, &a, why, sizeof(why)) == -EINVAL &&
	      strstr(why, "some.host"));
}

void
test_addr(void)
{
	urls();
	paths();
	ips();
	CHECK(transport_is_stream(TRANSPORT_TCP) && transport_is_stream(TRANSPORT_UNIX));
	CHECK(!transport_is_stream(TRANSPORT_UDP) &&
	      !transport_is_stream(TRANSPORT_UNIXGRAM));
	CHECK(transport_is_unix(TRANSPORT_UNIXGRAM) && !transport_is_unix(TRANSPORT_TCP));
}
