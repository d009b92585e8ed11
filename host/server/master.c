#include "server/master.h"

#include "base/clock.h"
#include "server/host.h"
#include "server/listening.h"
#include "server/server.h"
#include "server/stats.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Who has lived so long is replaced at once. */
static const int64_t STEADY = CLOCK_SECOND;

static const int64_t FIRST_PAUSE = 100 * CLOCK_MS, LONGEST_PAUSE = 5 * CLOCK_SECOND;

/* How long a worker may take to end beyond what its requests may. */
static const int64_t MOMENT = 2 * CLOCK_SECOND;

enum { GATE_STARTED, GATE_DIED, GATE_FAILED };

static struct loop *
loop_of(const struct master *m)
{
	return m->host->engine.loop;
}

static bool
is_alone(const struct process *p)
{
	const struct master *m = p->master;

	for (unsigned i = 0; i < m->n; i++)
		if (&m->processes[i] != p && m->processes[i].pid)
			return false;
	return true;
}

static void
tell(struct process *p, enum message_kind kind, int number)
{
	if (p->pid && channel_send(&p->channel, kind, number, NULL) < 0 &&
	    kind != MESSAGE_LOG_TASKS)
		kill(p->pid, kind == MESSAGE_STOP ? SIGKILL : SIGTERM); /* it drains */
}

static void
tell_all(struct master *m, enum message_kind kind, int number)
{
	for (unsigned i = 0; i < m->n; i++)
		tell(&m->processes[i], kind, number);
}

static void
kill_all(struct master *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct process *p = &m->processes[i];
		p->killed = true;
		if (p->pid)
			kill(p->pid, SIGKILL);
	}
}

/* ---- the end of a worker ---- */

/* One that dies again and again is worth an event a second. */
static void
log_worker(struct process *p, int gate, enum log_level level, const char *event,
	   const struct log_field *more)
{
	struct log_field f[6] = {log_int("worker", p->number), log_int("pid", p->pid)};

	for (int n = 2; more && more->name && n < 5; n++)
		f[n] = *more++;
	if (p->backoff <= FIRST_PAUSE)
		log_event(p->master->host->engine.log, level, event, f);
	else
		log_gated(p->master->host->engine.log, &p->gates[gate], level, event, f);
}

/* status: of waitpid(2), or -1 when somebody else has taken it. */
static void
log_end(struct process *p, int status)
{
	int signo = status >= 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int64_t age = (clock_now() - p->began) / CLOCK_MS;
	const char *name = sigabbrev_np(signo);
	char text[32];

	snprintf(text, sizeof(text), name ? "SIG%s" : "%s%d", name ? name : "signal ",
		 signo);
	struct log_field f[] = {
	    signo ? log_str("signal", text)
		  : log_int("status", status < 0 ? -1 : WEXITSTATUS(status)),
	    log_int("age_ms", age),
	    {0}};
	log_worker(p, GATE_DIED, LOG_ERROR, "worker died", f);
}

/* The first failure ends a start. */
static void
note_failure(struct process *p, int rc, const char *why)
{
	struct master *m = p->master;

	if (!m->starting || m->failed)
		return;
	m->failed = rc;
	if (why)
		snprintf(m->why, sizeof(m->why), "%s", why);
	else
		snprintf(m->why, sizeof(m->why),
			 "worker %u (process %d) died before it accepted", p->number,
			 (int)p->pid);
}

static void
replace(struct process *p)
{
	int64_t now = clock_now(), pause;

	if (now - p->began > STEADY)
		p->backoff = 0;
	else if (p->backoff == 0)
		p->backoff = FIRST_PAUSE;
	else
		p->backoff =
		    p->backoff * 2 < LONGEST_PAUSE ? p->backoff * 2 : LONGEST_PAUSE;
	pause = p->backoff > FIRST_PAUSE && is_alone(p) ? FIRST_PAUSE : p->backoff;
	p->due = pause == 0;
	if (pause)
		loop_timer_set(loop_of(p->master), &p->retry, now + pause);
}

static void
on_retry(struct loop_timer *t)
{
	LIST_ENTRY(t, struct process, retry)->due = true;
}

static void
gone(struct process *p, int status)
{
	struct master *m = p->master;
	bool died = status != 0 && !p->killed;

	loop_close_fd(&p->fd);
	channel_close(&p->channel);
	if (p->accepts)
		m->boards.memory->accepting--;
	boards_fold(&m->boards, p->number - 1);
	if (watchdog_log(&m->reports[p->number - 1], m->host->engine.log, p->number))
		count_add(&m->boards.memory->stuck, 1);
	if (died) {
		note_failure(p, -EIO, NULL);
		count_add(&m->boards.memory->died, 1);
		log_end(p, status);
	}
	p->pid = 0;
	p->accepts = p->killed = false;
	if (!m->draining)
		replace(p);
	ballot_gone(p);
}

static void
reap(struct process *p, int flags)
{
	int status = -1;
	pid_t pid;

	do
		pid = waitpid(p->pid, &status, flags);
	while (pid < 0 && errno == EINTR);
	if (pid != 0)
		gone(p, pid > 0 ? status : -1);
}

static void
on_exit_of_process(struct loop_op *op)
{
	struct process *p = LIST_ENTRY(op, struct process, op);

	reap(p, WNOHANG);
	if (p->fd.fd >= 0)
		loop_poll(&p->fd, op, false);
}

/* Either it is about to end, and nothing can change how, or it is out of reach. */
static void
on_channel_end(struct channel *c)
{
	struct process *p = LIST_ENTRY(c, struct process, channel);

	kill(p->pid, SIGKILL);
	if (p->fd.fd < 0)
		reap(p, 0);
}

/* ---- what workers say ---- */

static void
set_give_up(struct master *m, int64_t after)
{
	int64_t now = clock_now();

	loop_timer_set(loop_of(m), &m->give_up,
		       after < CLOCK_NEVER - now ? now + after : CLOCK_NEVER);
}

/* No replacement comes any more, and those that are left have so long. */
static void
begin_end(struct master *m, bool at_once)
{
	double drain = 0, grace = 0;

	for (struct list *l = m->host->servers.next; l != &m->host->servers; l = l->next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		const struct attrs *a = &s->site.attrs;
		drain = a->drain_timeout > drain ? a->drain_timeout : drain;
		grace = a->cancel_grace > grace ? a->cancel_grace : grace;
		if (!s->draining)
			listening_stop(s);
	}
	m->draining = true;
	for (unsigned i = 0; i < m->n; i++) {
		m->processes[i].due = false;
		loop_timer_set(loop_of(m), &m->processes[i].retry, CLOCK_NEVER);
	}
	set_give_up(m, at_once ? MOMENT / 2 : clock_after(MOMENT, drain + grace));
}

/* A script has stopped a server; replacements will not have it any more. */
static void
shut_down(struct master *m, int number)
{
	struct server *s;

	if (number < 0 || (unsigned)number >= m->boards.nservers)
		return;
	s = m->boards.all[number].server;
	if (s->draining)
		return;
	listening_stop(s);
	tell_all(m, MESSAGE_SHUTDOWN, number);
	for (struct list *l = m->host->servers.next; l != &m->host->servers; l = l->next)
		if (!LIST_ENTRY(l, struct server, link)->draining)
			return;
	begin_end(m, false);
}

static void
accepts(struct process *p)
{
	p->accepts = true;
	p->master->boards.memory->accepting++;
	log_worker(p, GATE_STARTED, LOG_INFO, "worker started", NULL);
}

static void
heard(struct channel *c, const struct message *message)
{
	struct process *p = LIST_ENTRY(c, struct process, channel);
	struct log_field why[] = {log_str("why", message->text), {0}};

	switch (message->kind) {
	case MESSAGE_READY:
		accepts(p);
		break;
	case MESSAGE_FAILED:
		if (!p->master->starting)
			log_worker(p, GATE_FAILED, LOG_ERROR, "worker cannot start", why);
		note_failure(p, message->number, message->text);
		break;
	case MESSAGE_SHUTDOWN:
		shut_down(p->master, message->number);
		break;
	case MESSAGE_VOTE:
	case MESSAGE_SWITCHED:
	case MESSAGE_ASK:
		ballot_heard(p, message);
		break;
	}
}

/* ---- a worker's begin ---- */

/* In the new process: what the master's loop had under way is not this one's. */
static void
become_member(struct process *p, int fd, pid_t parent)
{
	struct master *m = p->master;

	for (unsigned i = 0; i < m->n; i++)
		m->processes[i].fd.fd = m->processes[i].channel.fd.fd = -1;
	m->host->engine.log->own = log_int("worker", p->number);
	m->host->watchdog.report = &m->reports[p->number - 1];
	m->member = (struct member){.host = m->host,
				    .boards = &m->boards,
				    .number = p->number,
				    .fd = fd,
				    .master = parent,
				    .mask = m->member.mask};
}

static int
watch(struct process *p, int fd)
{
	int rc;

	p->fd.fd = -1;
	p->channel = (struct channel){.heard = heard, .ended = on_channel_end};
	rc = channel_open(&p->channel, loop_of(p->master), fd);
	if (rc < 0)
		return rc;
	fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (fd < 0) /* the channel's end has to do */
		return 0;
	rc = loop_add(loop_of(p->master), &p->fd, fd, 0);
	if (rc < 0) {
		close(fd);
		return 0;
	}
	p->op.done = on_exit_of_process;
	loop_poll(&p->fd, &p->op, false);
	return 0;
}

/* MASTER_FORKED, 0 or -errno. */
static int
fork_process(struct process *p)
{
	struct master *m = p->master;
	pid_t parent = getpid();
	sigset_t all;
	int fds[2], rc = channel_pair(fds);

	if (rc < 0)
		return rc;
	fflush(NULL); /* what is buffered is the master's to write */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &m->member.mask);
	p->began = clock_now();
	p->pid = fork();
	if (p->pid == 0) {
		become_member(p, fds[1], parent);
		return MASTER_FORKED;
	}
	rc = -errno;
	pthread_sigmask(SIG_SETMASK, &m->member.mask, NULL);
	close(fds[1]);
	if (p->pid < 0) {
		p->pid = 0;
		close(fds[0]);
		return rc;
	}
	rc = watch(p, fds[0]);
	if (rc < 0) {
		kill(p->pid, SIGKILL);
		reap(p, 0);
	}
	return rc;
}

/* A fork that fails is tried again, as if the worker had died at once. */
static int
fork_due(struct master *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct process *p = &m->processes[i];
		int rc;
		if (!p->due || m->draining || ballot_busy(&m->ballot))
			continue;
		p->due = false;
		rc = fork_process(p);
		if (rc == MASTER_FORKED)
			return rc;
		if (rc == 0)
			continue;
		struct log_field f[] = {log_str("why", strerror(-rc)), {0}};
		log_worker(p, GATE_FAILED, LOG_ERROR, "worker cannot start", f);
		p->began = clock_now();
		replace(p);
	}
	return 0;
}

/* ---- the master ---- */

static void
on_give_up(struct loop_timer *t)
{
	kill_all(LIST_ENTRY(t, struct master, give_up));
}

int
master_init(struct master *m, struct host *h, unsigned n, char *why, size_t size)
{
	snprintf(why, size, "out of memory");
	*m = (struct master){.host = h, .n = n};
	m->processes = calloc(n, sizeof(*m->processes));
	m->reports = mmap(NULL, n * sizeof(*m->reports), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m->reports == MAP_FAILED)
		m->reports = NULL;
	if (!m->processes || !m->reports || boards_init(&m->boards, h, n) < 0 ||
	    ballot_init(&m->ballot, m) < 0 ||
	    loop_timer_init(h->engine.loop, &m->give_up, on_give_up) < 0)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		struct process *p = &m->processes[i];
		p->master = m;
		p->number = i + 1;
		p->fd.fd = p->channel.fd.fd = -1;
		if (loop_timer_init(h->engine.loop, &p->retry, on_retry) < 0)
			return -ENOMEM;
	}
	return 0;
}

static bool
all_accept(const struct master *m)
{
	for (unsigned i = 0; i < m->n; i++)
		if (!m->processes[i].accepts)
			return false;
	return true;
}

int
master_start(struct master *m, char *why, size_t size)
{
	int rc = 0;

	m->starting = true;
	for (unsigned i = 0; rc == 0 && i < m->n; i++)
		rc = fork_process(&m->processes[i]);
	if (rc < 0)
		snprintf(why, size, "cannot fork a worker: %s", strerror(-rc));
	while (rc == 0 && !m->failed && !m->draining && !all_accept(m))
		loop_turn(loop_of(m), CLOCK_NEVER);
	m->starting = false;
	if (rc == 0 && m->failed) {
		snprintf(why, size, "%s", m->why);
		rc = m->failed;
	}
	return rc;
}

static bool
is_over(const struct master *m)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->processes[i].pid)
			return false;
	return m->draining;
}

int
master_run(struct master *m)
{
	int rc = 0;

	while (rc == 0 && !is_over(m)) {
		loop_turn(loop_of(m), CLOCK_NEVER);
		rc = fork_due(m);
	}
	loop_timer_set(loop_of(m), &m->give_up, CLOCK_NEVER);
	if (rc == 0)
		host_end_reloads(m->host);
	return rc;
}

static void
log_draining(struct master *m)
{
	uint64_t active = 0;

	for (struct list *l = m->host->servers.next; l != &m->host->servers; l = l->next) {
		struct stats stats;
		stats_read(LIST_ENTRY(l, struct server, link), &stats);
		active += stats.active;
	}
	struct log_field f[] = {log_int("active", (int64_t)active), {0}};
	log_event(m->host->engine.log, LOG_INFO, "draining", f);
}

void
master_drain(struct master *m)
{
	if (m->host->draining)
		return;
	m->host->draining = true;
	log_draining(m);
	begin_end(m, false);
	tell_all(m, MESSAGE_DRAIN, 0);
}

void
master_stop(struct master *m)
{
	begin_end(m, true);
	tell_all(m, MESSAGE_STOP, 0);
}

void
master_log_tasks(struct master *m)
{
	tell_all(m, MESSAGE_LOG_TASKS, 0);
}

void
master_free(struct master *m)
{
	struct loop *loop = loop_of(m);

	if (!m->host->member) {
		m->draining = true;
		kill_all(m);
	}
	for (unsigned i = 0; m->processes && i < m->n; i++) {
		struct process *p = &m->processes[i];
		if (!m->host->member && p->pid)
			reap(p, 0);
		if (p->retry.kind)
			loop_timer_done(loop, &p->retry);
	}
	if (m->give_up.kind)
		loop_timer_done(loop, &m->give_up);
	ballot_free(&m->ballot);
	boards_free(&m->boards);
	if (m->reports)
		munmap(m->reports, m->n * sizeof(*m->reports));
	free(m->processes);
}
