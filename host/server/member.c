#include "server/member.h"

#include "script/script.h"
#include "script/sources.h"
#include "server/board.h"
#include "server/host.h"
#include "server/server.h"
#include "server/unit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- what a worker keeps of its master ---- */

static bool
is_listener(const struct host *h, int fd)
{
	for (const struct list *l = h->servers.next; l != &h->servers; l = l->next)
		if (LIST_ENTRY(l, struct server, link)->listener.fd == fd)
			return true;
	return false;
}

/* All that the host opens is closed on exec; what is not, such as a file that the script
 * has opened at its top level, is a worker's as much as its master's. */
static void
close_if_foreign(const struct member *m, int fd)
{
	int flags = fd > STDERR_FILENO ? fcntl(fd, F_GETFD) : -1;

	if (flags >= 0 && flags & FD_CLOEXEC && fd != m->fd && !is_listener(m->host, fd))
		close(fd);
}

static void
close_foreign(const struct member *m)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *e;
	long max = sysconf(_SC_OPEN_MAX);

	if (!d) {
		for (int fd = 0; fd < (max < 0 || max > 1 << 20 ? 1 << 20 : max); fd++)
			close_if_foreign(m, fd);
		return;
	}
	while ((e = readdir(d)))
		if (*e->d_name != '.' && atoi(e->d_name) != dirfd(d))
			close_if_foreign(m, atoi(e->d_name));
	closedir(d);
}

/* ---- what it is told ---- */

static void
drain_server(struct member *m, int number)
{
	struct server *s = NULL;

	if (number >= 0 && (unsigned)number < m->boards->nservers)
		s = m->boards->all[number].server;
	if (s)
		server_drain(s);
}

/* ---- reloads: see ballot.h ---- */

/* The host's vote(): what this worker's copy says of it.  What it wanted by itself, and
 * cannot do, concerns nobody else. */
static bool
vote(struct host *h, struct unit *u, const char *why)
{
	struct member *m = h->member;
	unsigned number = 0;
	uint64_t hash;

	while (host_unit(h, number) != u)
		number++;
	if (why && !(m->asked >> number & 1))
		return false;
	m->asked &= ~(UINT64_C(1) << number);
	hash = why ? 0 : sources_hash(u->reload.next->sources);
	return channel_write(m->channel.fd.fd, MESSAGE_VOTE, (int)number, hash, why) == 0;
}

/* One that is under way here will do, if it has not been voted on. */
static void
prepare(struct member *m, unsigned number)
{
	struct unit *u = host_unit(m->host, number);

	if (!u || u->reload.votes)
		return;
	m->asked |= UINT64_C(1) << number;
	if (!u->reload.runs)
		reload_ask(u, NULL);
}

static void
switch_or_not(struct member *m, unsigned number, const char *why)
{
	struct unit *u = host_unit(m->host, number);

	if (u)
		reload_verdict(u, *why ? why : NULL);
}

static void
heard(struct channel *c, const struct message *message)
{
	struct member *m = LIST_ENTRY(c, struct member, channel);

	switch (message->kind) {
	case MESSAGE_DRAIN:
		host_drain(m->host);
		break;
	case MESSAGE_STOP:
		host_stop(m->host);
		break;
	case MESSAGE_LOG_TASKS:
		host_log_tasks(m->host);
		break;
	case MESSAGE_PREPARE:
		prepare(m, (unsigned)message->number);
		break;
	case MESSAGE_VERDICT:
		switch_or_not(m, (unsigned)message->number, message->text);
		break;
	case MESSAGE_SHUTDOWN:
		drain_server(m, message->number);
		break;
	}
}

/* The master is gone. */
static void
ended(struct channel *c)
{
	host_drain(LIST_ENTRY(c, struct member, channel)->host);
}

/* TERM also comes from the kernel when the master is killed, HUP from a child whose script
 * wants a reload.  INT, which a terminal sends to the whole group, is for the master. */
static void
on_signal(void *arg, int signo)
{
	struct member *m = arg;

	if (signo == SIGTERM)
		host_drain(m->host);
	else if (signo == SIGHUP)
		host_reload(m->host);
	else if (signo == SIGUSR1)
		host_log_tasks(m->host);
}

/* A script's server:shutdown(): the master tells the others. */
static void
shut_down(struct server *s)
{
	struct member *m = s->host->member;
	int number = (int)(s->board - m->boards->all);
	if (!s->draining)
		(void)channel_send(&m->channel, MESSAGE_SHUTDOWN, number);
	server_drain(s);
}

/* ---- its life ---- */

/* A handler that blocks in C does not get to hear of TERM. */
static void
limit_life(const struct host *h)
{
	double drain = 0, grace = 0;

	for (const struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct attrs *a = &LIST_ENTRY(l, struct server, link)->site.attrs;
		drain = a->drain_timeout > drain ? a->drain_timeout : drain;
		grace = a->cancel_grace > grace ? a->cancel_grace : grace;
	}
	signals_last_word(SIGTERM, SIGTERM,
			  drain + grace < 1e6 ? (unsigned)(drain + grace) + 2 : 0);
}

static int
catch_signals(struct member *m)
{
	static const int signos[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
	int rc = signals_open(&m->signals, m->host->engine.loop, signos,
			      sizeof(signos) / sizeof(*signos), on_signal, m);

	if (rc < 0)
		return rc;
	limit_life(m->host);
	pthread_sigmask(SIG_SETMASK, &m->mask, NULL);
	return 0;
}

/* Errors: -errno. */
static int
settle(struct member *m)
{
	int rc;

	close_foreign(m);
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		return -errno;
	if (getppid() != m->master)
		_exit(0);         /* it has ended meanwhile */
	signal(SIGALRM, SIG_DFL); /* it may have been ignored since before exec(2) */
	rc = host_share(m->host);
	if (rc < 0)
		return rc;
	m->channel = (struct channel){.heard = heard, .ended = ended};
	rc = channel_open(&m->channel, m->host->engine.loop, m->fd);
	return rc < 0 ? rc : catch_signals(m);
}

/* A request that cannot be ended stands in the way of all others: the process ends, and
 * another takes its place.  Under threading it stands in nobody's way. */
static void
sacrifice(struct member *m)
{
	struct host *h = m->host;

	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		if (LIST_ENTRY(l, struct server, link)->policy->threads)
			return;
	watchdog_sacrifice(&h->watchdog,
			   &m->boards->stuck[(m->number - 1) * WATCHDOG_REPORTS]);
	watchdog_watch(&h->watchdog, &h->engine.sched);
}

static void
count_leftovers(struct member *m)
{
	struct leftovers *left = &m->boards->memory->left;
	const struct engine *e = &m->host->engine;

	left->tasks += e->sched.ntasks;
	left->streams += e->io.streams.taken;
	left->descriptors += loop_live_fds(e->loop);
	left->timers += loop_live_timers(e->loop);
	left->buffered += e->io.gathered;
}

/* The descriptor stays open to the last: its end tells the master that this process is
 * over. */
static void
leave(struct member *m)
{
	(void)loop_release_fd(&m->channel.fd);
	signals_close(&m->signals);
	boards_leave(m->boards);
	count_leftovers(m);
}

int
member_run(struct member *m)
{
	char why[MESSAGE_TEXT];
	struct host *h = m->host;
	int rc;

	h->member = m;
	h->vote = vote;
	boards_settle(m->boards);
	rc = settle(m);
	if (rc < 0)
		snprintf(why, sizeof(why), "cannot start: %s", strerror(-rc));
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		LIST_ENTRY(l, struct server, link)->shutdown = shut_down;
	if (rc == 0)
		rc = host_begin(h, why, sizeof(why));
	if (rc < 0) {
		(void)channel_write(m->fd, MESSAGE_FAILED, rc, 0, why);
		return rc;
	}
	boards_claim(m->boards, m->number - 1);
	(void)channel_send(&m->channel, MESSAGE_READY, 0);
	sacrifice(m);
	host_run(h);
	leave(m);
	return 0;
}
