/* moonport try: one request, with standard input and output as its connection.
 *
 * The script is served, sync, behind an abstract Unix socket that only this process
 * uses; this file is the client that carries the bytes. */
#include "base/clock.h"
#include "cli/options.h"
#include "cli/serve.h"
#include "loop/signals.h"
#include "script/script.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };

struct trial {
	struct host host;
	struct server *server;
	struct signals signals;
	struct loop_fd input; /* standard input, unless it is a file */
	struct loop_op input_op;
	bool plain_input; /* a file: reading it never waits */
	struct loop_fd client;
	struct loop_op send_op, recv_op;
	char *chunk; /* read and not yet sent: at .. n */
	size_t at, n;
	bool ended, interrupted;
	int failed; /* standard input or output failed with this errno */
};

/* The request is over, or nobody wants what it says any more. */
static void
finish(struct trial *t)
{
	if (t->ended)
		return;
	t->ended = true;
	loop_release_fd(&t->input);
	loop_close_fd(&t->client);
	host_drain(&t->host);
}

static bool
write_out(struct trial *t, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(STDOUT_FILENO, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			t->failed = errno;
			return false;
		}
		p += w;
		n -= (size_t)w;
	}
	return true;
}

static void
on_reply(struct loop_op *op)
{
	struct trial *t = LIST_ENTRY(op, struct trial, recv_op);
	const char *p;
	ssize_t n;

	while ((n = loop_recv(&t->client, op, CHUNK, &p)) > 0)
		if (!write_out(t, p, (size_t)n)) {
			finish(t);
			return;
		}
	if (n != -EINPROGRESS)
		finish(t);
}

/* Fills the chunk.  -EINPROGRESS: on_input() will be called. */
static ssize_t
read_input(struct trial *t)
{
	ssize_t n;

	if (!t->plain_input && loop_poll(&t->input, &t->input_op, false) < 0)
		return -EINPROGRESS;
	n = read(STDIN_FILENO, t->chunk, CHUNK);
	t->input.readable = false;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EINPROGRESS;
	if (n < 0)
		t->failed = errno;
	return n < 0 ? 0 : n;
}

/* Carries input to the handler until one side waits. */
static void
pump(struct trial *t)
{
	ssize_t n;

	while (!t->ended) {
		if (t->at == t->n) {
			n = read_input(t);
			if (n == -EINPROGRESS)
				return;
			if (n == 0) {
				shutdown(t->client.fd, SHUT_WR);
				return;
			}
			t->at = 0;
			t->n = (size_t)n;
		}
		n = loop_send(&t->client, &t->send_op, t->chunk + t->at, t->n - t->at);
		if (n == -EINPROGRESS)
			return;
		if (n < 0) /* the handler has closed: what it said is still to be read */
			return;
		t->at += (size_t)n;
	}
}

static void
on_input(struct loop_op *op)
{
	pump(LIST_ENTRY(op, struct trial, input_op));
}

static void
on_room(struct loop_op *op)
{
	pump(LIST_ENTRY(op, struct trial, send_op));
}

static void
on_signal(void *arg, int signo)
{
	struct trial *t = arg;

	(void)signo;
	t->interrupted = true;
	finish(t);
	host_stop(&t->host);
}

static int
connect_client(struct trial *t)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	if (connect(fd, addr_sa(&t->server->site.view.addr),
		    t->server->site.view.addr.len) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	rc = loop_add(t->host.engine.loop, &t->client, fd, LOOP_STREAM);
	if (rc < 0)
		close(fd);
	return rc;
}

static int
begin(struct trial *t, const struct options *o, char *why, size_t size)
{
	static const int signos[] = {SIGTERM, SIGINT};
	const struct entry *e = &o->entries[0];
	struct url url = {.transport = TRANSPORT_UNIX};
	int rc;

	snprintf(url.path, sizeof(url.path), "@moonport-try-%ld-%llx", (long)getpid(),
		 (unsigned long long)clock_now());
	rc = host_add(&t->host, e->script, &url, policy_find("sync"), &e->attrs, &t->server,
		      why, size);
	if (rc < 0)
		return rc;
	rc = connect_client(t);
	if (rc == 0) {
		rc = host_begin(&t->host, why, size);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		rc =
		    signals_open(&t->signals, t->host.engine.loop, signos, 2, on_signal, t);
	if (rc < 0) {
		snprintf(why, size, "cannot start: %s", strerror(-rc));
		return rc;
	}
	t->input_op.done = on_input;
	t->send_op.done = on_room;
	t->recv_op.done = on_reply;
	rc = loop_add(t->host.engine.loop, &t->input, STDIN_FILENO, LOOP_LIKELY);
	if (rc < 0 && rc != -EPERM) {
		signals_close(&t->signals);
		snprintf(why, size, "cannot read standard input: %s", strerror(-rc));
		return rc;
	}
	t->plain_input = rc == -EPERM; /* a file */
	t->input.readable = false;
	on_reply(&t->recv_op);
	pump(t);
	return 0;
}

/* The exit code; what the log has not said is said here. */
static int
verdict(const struct trial *t)
{
	const struct counters *c = &t->server->counters;

	if (t->interrupted)
		return EXIT_DONE;
	if (t->failed) {
		fprintf(stderr, "moonport: standard input or output failed: %s\n",
			strerror(t->failed));
		return EXIT_SYSTEM;
	}
	if (count_get(&c->accept_errors) > 0) {
		fprintf(stderr, "moonport: the request could not begin: out of memory or "
				"descriptors\n");
		return EXIT_SYSTEM;
	}
	if (log_dropped(t->host.engine.log) > 0)
		fprintf(stderr, "moonport: a log event was lost: out of memory, or nobody "
				"reads standard error\n");
	if (count_get(&c->timeouts) > 0 || count_get(&c->cancelled) > 0)
		fprintf(stderr, "moonport: the request was %s\n",
			count_get(&c->timeouts) > 0 ? "ended by a timeout" : "cancelled");
	return count_get(&c->errors) + count_get(&c->timeouts) + count_get(&c->cancelled) +
			   count_get(&c->peers_gone) >
		       0
		   ? EXIT_FAILED
		   : EXIT_DONE;
}

int
try_command(const struct options *o, struct log *log, const char *lua_path)
{
	struct trial t = {.input = {.fd = -1}, .client = {.fd = -1}};
	char why[SCRIPT_ERROR];
	int code = EXIT_DONE, rc = host_init(&t.host, log, lua_path);

	if (rc < 0)
		return cannot_start(rc);
	t.host.sandbox = o->sandbox;
	t.host.strict = o->strict;
	snprintf(why, sizeof(why), "out of memory");
	t.chunk = malloc(CHUNK);
	rc = t.chunk ? begin(&t, o, why, sizeof(why)) : -ENOMEM;
	if (rc == 0) {
		host_run(&t.host);
		signals_close(&t.signals);
		code = verdict(&t);
	}
	loop_release_fd(&t.input);
	loop_close_fd(&t.client);
	host_free(&t.host);
	free(t.chunk);
	return rc < 0 ? complain(rc, why) : code;
}
