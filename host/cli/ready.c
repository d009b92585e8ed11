#include "cli/ready.h"

#include "base/buf.h"
#include "base/json.h"
#include "bind/lmoonport.h"
#include "server/host.h"
#include "server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
put(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

static void
put_string(struct buf *b, const char *name, const char *value)
{
	put(b, "\"");
	put(b, name);
	put(b, "\":");
	json_quote(b, value, strlen(value));
}

static void
put_server(struct buf *b, const struct server *s)
{
	char text[ADDR_TEXT], port[16];

	json_quote(b, s->site.view.name, strlen(s->site.view.name));
	put(b, ":{");
	put_string(b, "class", s->class_name);
	put(b, ",");
	addr_url(&s->site.view.addr, s->site.view.transport, text, sizeof(text));
	put_string(b, "url", text);
	put(b, ",");
	if (addr_is_unix(&s->site.view.addr)) {
		addr_path(&s->site.view.addr, text, sizeof(text));
		put_string(b, "path", text);
	} else {
		addr_host(&s->site.view.addr, text, sizeof(text));
		put_string(b, "host", text);
		snprintf(port, sizeof(port), "%d", addr_port(&s->site.view.addr));
		put(b, ",\"port\":");
		put(b, port);
	}
	put(b, "}");
}

static int
write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

static int
write_file(const char *path, const struct buf *b)
{
	char *tmp = NULL;
	int fd, rc;

	if (asprintf(&tmp, "%s.%ld", path, (long)getpid()) < 0)
		return -ENOMEM;
	unlink(tmp); /* of a process that had this pid and crashed */
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	rc = fd < 0 ? -errno : write_all(fd, buf_data(b), buf_len(b));
	if (fd >= 0) {
		close(fd);
		if (rc == 0 && rename(tmp, path) < 0)
			rc = -errno;
		if (rc < 0)
			unlink(tmp);
	}
	free(tmp);
	return rc;
}

int
ready_write(struct host *h, const char *path)
{
	struct buf b = {0};
	char pid[32];
	int rc;

	put(&b, "{\"event\":\"ready\",\"pid\":");
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	put(&b, pid);
	put(&b, ",\"servers\":{");
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		if (l != h->servers.next)
			put(&b, ",");
		put_server(&b, LIST_ENTRY(l, struct server, link));
	}
	put(&b, "}}\n");
	if (!b.base)
		return -ENOMEM;
	rc = strcmp(path, "-") == 0 ? write_all(STDOUT_FILENO, buf_data(&b), buf_len(&b))
				    : write_file(path, &b);
	buf_free(&b);
	return rc;
}

/* The command that talks to a server. */
static void
print_client(const struct server *s)
{
	char host[ADDR_TEXT], path[ADDR_TEXT];

	addr_host(&s->site.view.addr, host, sizeof(host));
	if (addr_is_any(&s->site.view.addr))
		strcpy(host, strchr(host, ':') ? "::1" : "127.0.0.1");
	addr_path(&s->site.view.addr, path, sizeof(path));
	switch (s->site.view.transport) {
	case TRANSPORT_TCP:
		printf("nc %s %d", host, addr_port(&s->site.view.addr));
		break;
	case TRANSPORT_UDP:
		printf("nc -u %s %d", host, addr_port(&s->site.view.addr));
		break;
	case TRANSPORT_UNIX:
		printf(*path == '@' ? "socat - ABSTRACT-CONNECT:%s" : "nc -U %s",
		       path + (*path == '@'));
		break;
	case TRANSPORT_UNIXGRAM:
		printf(*path == '@' ? "socat - ABSTRACT-SENDTO:%s" : "nc -uU %s",
		       path + (*path == '@'));
		break;
	}
}

void
ready_greet(struct host *h)
{
	char url[ADDR_TEXT];

	printf("moonport " MOONPORT_VERSION "\n");
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		addr_url(&s->site.view.addr, s->site.view.transport, url, sizeof(url));
		printf("  %s listens on %s (%s)\n    talk to it:  ", s->site.view.name, url,
		       s->class_name);
		print_client(s);
		printf("\n");
	}
	printf("  Ctrl-C stops it\n");
	fflush(stdout);
}
