#include "net/listen.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/moonport-unit-XXXXXX";
static char why[512];

static int
open_at(const char *format, struct listener *out, mode_t mode)
{
	struct listen_options o = {
	    .backlog = 4, .reuse_address = true, .nodelay = true, .mode = mode};
	struct url u;
	char text[256];

	snprintf(text, sizeof(text), format, folder);
	*why = 0;
	return url_parse(text, strlen(text), &u, why, sizeof(why)) < 0
		   ? -1
		   : listener_open(&u, &o, out, why, sizeof(why));
}

static mode_t
mode_of(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &st) < 0 ? (mode_t)-1 : st.st_mode & 07777;
}

static void
ip(void)
{
	struct listener a, b;
	struct listen_options o = {.backlog = 1};
	struct url u = {.transport = TRANSPORT_TCP, .host = "127.0.0.1"};
	int on = 0;
	socklen_t len = sizeof(on);

	CHECK(open_at("tcp://127.0.0.1:0", &a, 0600) == 0 && a.fd >= 0 &&
	      addr_port(&a.addr) > 0);
	CHECK(getsockopt(a.fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on == 1);
	u.port = addr_port(&a.addr);
	CHECK(listener_open(&u, &o, &b, why, sizeof(why)) == -EADDRINUSE &&
	      strstr(why, "already in use"));
	CHECK(listener_drops(a.fd) == 0);
	listener_close(&a);
	CHECK(a.fd == -1);
	listener_close(&a);
	CHECK(open_at("udp://[::1]:0", &a, 0600) == 0 && a.transport == TRANSPORT_UDP);
	listener_close(&a);
	CHECK(open_at("tcp://192.0.2.1:0", &a, 0600) == -EADDRNOTAVAIL &&
	      strstr(why, "tcp://192.0.2.1:0"));
}

static void
paths(void)
{
	struct listener a, b, c;
	char path[128], other[128];

	umask(0);
	CHECK(open_at("unix://%s/s", &a, 0600) == 0 && mode_of("s") == 0600);
	CHECK(open_at("unix://%s/s", &b, 0600) == -EADDRINUSE &&
	      strstr(why, "another process serves it"));
	CHECK(open_at("unixgram://%s/s", &b, 0600) ==
	      -EADDRINUSE); /* of another kind, and alive all the same */
	CHECK(mode_of("s") == 0600);
	close(a.fd); /* died without tidying up: stale */
	CHECK(open_at("unix://%s/s", &b, 0660) == 0 && mode_of("s") == 0660);
	snprintf(path, sizeof(path), "%s/s", folder);
	unlink(path); /* somebody else's hand, and then a successor */
	CHECK(open_at("unix://%s/s", &a, 0600) == 0 && mode_of("s") == 0600);
	listener_close(&b); /* not its own any more */
	CHECK(mode_of("s") == 0600);
	listener_close(&a);
	CHECK(mode_of("s") == (mode_t)-1);
	umask(0277);
	CHECK(open_at("unixgram://%s/narrow", &a, 0600) == 0 && mode_of("narrow") == 0400);
	CHECK(open_at("unix://%s/wide", &b, 0666) == 0 && mode_of("wide") == 0666);
	umask(022);
	listener_close(&a);
	listener_close(&b);
	snprintf(path, sizeof(path), "%s/file", folder);
	fclose(fopen(path, "w"));
	CHECK(open_at("unix://%s/file", &a, 0600) == -EADDRINUSE &&
	      strstr(why, "not a socket"));
	CHECK(mode_of("file") == 0644);
	snprintf(other, sizeof(other), "%s/link", folder);
	CHECK(symlink(path, other) == 0);
	CHECK(open_at("unix://%s/link", &a, 0600) == -EADDRINUSE);
	CHECK(mode_of("link") != (mode_t)-1);
	unlink(other);
	unlink(path);
	CHECK(open_at("unix://%s/none/s", &a, 0600) == -ENOENT);
	CHECK(open_at("unix://@%s", &a, 0600) == 0 &&
	      open_at("unix://@%s", &c, 0600) == -EADDRINUSE);
	listener_close(&a);
	CHECK(open_at("unix://@%s", &a, 0600) == 0);
	listener_close(&a);
}

/* What a client gets: 0, or the errno of its connect() or its second send(). */
static int
knock(const struct listener *l)
{
	bool stream = transport_is_stream(l->transport);
	int fd = socket(l->addr.ss.ss_family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
	int err = connect(fd, addr_sa(&l->addr), l->addr.len) < 0 ? errno : 0;

	for (int i = 0; err == 0 && !stream && i < 2; i++)
		err = send(fd, "x", 1, 0) < 0 ? errno : 0;
	close(fd);
	return err;
}

/* Refuses, twice over, and admits again; nobody else gets the address meanwhile. */
static void
refuses(const char *format)
{
	struct listen_options o = {
	    .backlog = 4, .reuse_address = true, .switchable = true, .mode = 0600};
	struct url u;
	struct listener l, other;
	struct addr was;
	char text[256];

	snprintf(text, sizeof(text), format, folder);
	CHECK(url_parse(text, strlen(text), &u, why, sizeof(why)) == 0);
	CHECK(listener_open(&u, &o, &l, why, sizeof(why)) == 0);
	was = l.addr;
	for (int i = 0; i < 2; i++) {
		CHECK(knock(&l) == 0);
		CHECK(listener_refuse(&l) == 0);
		CHECK(knock(&l) == ECONNREFUSED);
		if (!transport_is_unix(l.transport)) {
			u.port = addr_port(&l.addr);
			CHECK(listener_open(&u, &o, &other, why, sizeof(why)) ==
			      -EADDRINUSE);
		}
		CHECK(listener_admit(&l, &o, why, sizeof(why)) == 0);
		CHECK(l.addr.len == was.len && memcmp(&l.addr.ss, &was.ss, was.len) == 0);
	}
	CHECK(knock(&l) == 0);
	CHECK(listener_refuse(&l) == 0);
	listener_close(&l); /* a path goes, too */
	CHECK(listener_open(&u, &o, &l, why, sizeof(why)) == 0);
	listener_close(&l);
}

static void
switched(void)
{
	refuses("tcp://127.0.0.1:0");
	refuses("tcp://[::1]:0");
	refuses("tcp://0.0.0.0:0");
	refuses("udp://127.0.0.1:0");
	refuses("udp://[::1]:0");
	refuses("udp://0.0.0.0:0");
	refuses("unix://%s/s");
	refuses("unixgram://%s/s");
	refuses("unix://@%s/s");
	refuses("unixgram://@%s/s");
}

void
test_listen(void)
{
	mode_t before = umask(022);

	if (!mkdtemp(folder)) {
		CHECK(!"a folder");
		return;
	}
	ip();
	paths();
	switched();
	CHECK(rmdir(folder) == 0); /* nothing was left behind */
	umask(before);
}
