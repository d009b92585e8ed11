#include "server/member.h"

#include "base/clock.h"
#include "script/sources.h"
#include "server/board.h"
#include "server/host.h"
#include "server/server.h"
#include "server/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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

/* The master's word on a reload. */
static void
obey(struct member *m, struct unit *u, const struct message *message)
{
	bool go = !*message->text;

	reload_verdict(u, go ? NULL : message->text);
	if (go)
		(void)channel_send(&m->channel, MESSAGE_SWITCHED, message->number, NULL);
}

static void
take_answer(struct member *m, const struct message *message)
{
	const char *text = message->text;
	bool done = *text == '+';

	for (struct list *l = m->asks.next; l != &m->asks; l = l->next) {
		struct reload_ask *a = LIST_ENTRY(l, struct reload_ask, link);
		if (a->id != message->number)
			continue;
		list_remove(&a->link);
		a->told(a, done ? (unsigned)atoi(text + 1) : 0, done ? NULL : text + 1);
		return;
	}
}

/* The host's vote: this worker could go on with new code, or could not. */
static bool
vote(struct host *h, struct unit *u, const char *why)
{
	char text[MESSAGE_TEXT];

	if (why)
		snprintf(text, sizeof(text), "-%s", why);
	else
		snprintf(text, sizeof(text), "+%016" PRIx64,
			 sources_hash(u->reload.next->sources));
	/* Unsent, it is a vote that the master waits for in vain. */
	(void)channel_send(&h->member->channel, MESSAGE_VOTE, host_unit_number(h, u), text);
	return true;
}

/* The host's ask. */
static void
ask(struct host *h, struct unit *u, struct reload_ask *a)
{
	struct member *m = h->member;
	char text[16];

	snprintf(text, sizeof(text), "%d", host_unit_number(h, u));
	m->nasks = (m->nasks + 1) & INT32_MAX;
	if (a) {
		a->id = m->nasks;
		list_append(&m->asks, &a->link);
	}
	if (channel_send(&m->channel, MESSAGE_ASK, m->nasks, text) < 0 && a) {
		list_remove(&a->link);
		a->told(a, 0, "the master does not listen");
	}
}

/* A child's question, which waits in shared memory: see ask_parent(). */
struct hangup {
	struct reload_ask ask;
	struct unit *unit;
	int64_t at; /* clock_now() */
};

static void
pass_on(struct reload_ask *a, unsigned number, const char *why)
{
	struct hangup *g = LIST_ENTRY(a, struct hangup, ask);

	if (number == 0) /* else it was told when the code was switched */
		reload_tell(g->unit, g->at, number, why);
	free(g);
}

static bool
forks(const struct unit *u)
{
	for (struct server *s = NULL; (s = unit_server(u, s));)
		if (s->policy->forks)
			return true;
	return false;
}

static void
ask_for_children(struct host *h)
{
	for (struct list *l = h->units.next; l != &h->units; l = l->next) {
		struct unit *u = LIST_ENTRY(l, struct unit, link);
		struct hangup *g = forks(u) ? malloc(sizeof(*g)) : NULL;
		if (!g)
			continue;
		*g = (struct hangup){.ask.told = pass_on, .unit = u, .at = clock_now()};
		list_init(&g->ask.link);
		reload_ask(g->unit, &g->ask);
	}
}

/* Nobody answers any more. */
static void
drop_asks(struct member *m)
{
	while (!list_empty(&m->asks)) {
		struct reload_ask *a = LIST_ENTRY(m->asks.next, struct reload_ask, link);
		list_remove(&a->link);
		a->told(a, 0, "the server stops");
	}
}

static void
heard(struct channel *c, const struct message *message)
{
	struct member *m = LIST_ENTRY(c, struct member, channel);
	struct unit *u = host_unit(m->host, message->number);

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
	case MESSAGE_RELOAD:
		if (u)
			reload_here(u, NULL);
		break;
	case MESSAGE_VERDICT:
		if (u)
			obey(m, u, message);
		break;
	case MESSAGE_ANSWER:
		take_answer(m, message);
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

/* TERM also comes from the kernel when the master is killed.  What a terminal sends to the
 * whole group is for the master to act upon. */
static void
on_signal(void *arg, int signo)
{
	struct member *m = arg;

	if (signo == SIGTERM)
		host_drain(m->host);
	else if (signo == SIGUSR1)
		host_log_tasks(m->host);
	else if (signo == SIGHUP)
		ask_for_children(m->host);
}

/* A script's server:shutdown(): the master tells the others. */
static void
shut_down(struct server *s)
{
	struct member *m = s->host->member;
	int number = (int)(s->board - m->boards->all);

	if (!s->draining)
		(void)channel_send(&m->channel, MESSAGE_SHUTDOWN, number, NULL);
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
	signals_last_word(SIGTERM, 0,
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

static void
count_leftovers(struct member *m)
{
	struct leftovers *left = &m->boards->memory->left;
	const struct engine *e = &m->host->engine;

	left->tasks += e->sched.ntasks;
	left->streams += e->io.streams.taken;
	left->descriptors += loop_live_fds(e->loop);
	left->timers += engine_timers(e);
	left->buffered += e->io.gathered;
}

/* The descriptor stays open to the last: its end tells the master that this process is
 * over. */
static void
leave(struct member *m)
{
	drop_asks(m);
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
	h->ask = ask;
	list_init(&m->asks);
	rc = settle(m);
	if (rc < 0)
		snprintf(why, sizeof(why), "cannot start: %s", strerror(-rc));
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		LIST_ENTRY(l, struct server, link)->shutdown = shut_down;
	if (rc == 0)
		rc = host_begin(h, why, sizeof(why));
	if (rc < 0) {
		(void)channel_write(m->fd, MESSAGE_FAILED, rc, why);
		return rc;
	}
	boards_claim(m->boards, m->number - 1);
	(void)channel_send(&m->channel, MESSAGE_READY, 0, NULL);
	host_run(h);
	leave(m);
	return 0;
}
