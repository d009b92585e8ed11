#include "cli/ready.h"

#include "base/json.h"
#include "base/line.h"
#include "bind/lmoonport.h"
#include "server/host.h"
#include "server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
put_string(struct line *t, const char *name, const char *value)
{
	line_put(t, "\"");
	line_put(t, name);
	line_put(t, "\":");
	json_quote(t, value, strlen(value));
}

static void
put_server(struct line *t, const struct server *s)
{
	char text[ADDR_TEXT], port[16];

	json_quote(t, s->site.view.name, strlen(s->site.view.name));
	line_put(t, ":{");
	put_string(t, "class", s->class_name);
	line_put(t, ",");
	addr_url(&s->site.view.addr, s->site.view.transport, text, sizeof(text));
	put_string(t, "url", text);
	line_put(t, ",");
	if (addr_is_unix(&s->site.view.addr)) {
		addr_path(&s->site.view.addr, text, sizeof(text));
		put_string(t, "path", text);
	} else {
		addr_host(&s->site.view.addr, text, sizeof(text));
		put_string(t, "host", text);
		snprintf(port, sizeof(port), "%d", addr_port(&s->site.view.addr));
		line_put(t, ",\"port\":");
		line_put(t, port);
	}
	line_put(t, "}");
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

/* A file is there with all that is in it, or not at all. */
static int
replace_file(const char *path, const struct buf *b)
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

/* A FIFO that nobody reads is an error: there would be no end to the wait. */
static int
write_into(const char *path, const struct buf *b)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = write_all(fd, buf_data(b), buf_len(b));
	close(fd);
	return rc;
}

/* What a link leads to is replaced, not the link, and a FIFO or a device is never. */
static int
write_file(const char *path, const struct buf *b)
{
	struct stat st;
	char *real;
	int rc;

	if (stat(path, &st) < 0)
		return replace_file(path, b);
	if (!S_ISREG(st.st_mode))
		return write_into(path, b);
	real = realpath(path, NULL);
	rc = real ? replace_file(real, b) : -errno;
	free(real);
	return rc;
}

static void
put_admin(struct line *t, const struct server *s)
{
	char text[ADDR_TEXT];

	addr_text(&s->site.view.addr, text, sizeof(text));
	line_put(t, ",\"admin\":\"http://");
	line_put(t, text);
	line_put(t, "\"");
}

static void
put_servers(struct line *t, const struct host *h)
{
	const char *comma = "";

	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		if (s == h->admin)
			continue;
		line_put(t, comma);
		put_server(t, s);
		comma = ",";
	}
}

int
ready_write(struct host *h, const char *path)
{
	struct line t = {0};
	char pid[32];
	int rc;

	line_put(&t, "{\"event\":\"ready\",\"pid\":");
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	line_put(&t, pid);
	if (h->admin)
		put_admin(&t, h->admin);
	line_put(&t, ",\"servers\":{");
	put_servers(&t, h);
	line_put(&t, "}}\n");
	if (t.lost)
		rc = -ENOMEM;
	else if (strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0)
		rc = write_all(STDOUT_FILENO, buf_data(&t.buf), buf_len(&t.buf));
	else
		rc = write_file(path, &t.buf);
	line_free(&t);
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
		if (s == h->admin)
			continue;
		addr_url(&s->site.view.addr, s->site.view.transport, url, sizeof(url));
		printf("  %s listens on %s (%s)\n    talk to it:  ", s->site.view.name, url,
		       s->class_name);
		print_client(s);
		printf("\n");
	}
	printf("  Ctrl-C stops it\n");
	fflush(stdout);
}
