#include "server/forking.h"

#include "base/clock.h"
#include "loop/signals.h"
#include "script/files.h"
#include "script/script.h"
#include "server/accepting.h"
#include "server/ask.h"
#include "server/children.h"
#include "server/host.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/report.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a child that was told to end may take beyond its request's grace. */
static const int64_t MOMENT = CLOCK_SECOND / 2;

/* A pre-forked child that dies sooner than this, with nothing done, is not replaced at
 * once. */
static const int64_t EARLY = CLOCK_SECOND, RETRY = 100 * CLOCK_MS;

/* A child that serves one request never collects garbage below this much of it, in KiB:
 * marking would copy all the pages that it shares with the parent. */
enum { GARBAGE = 16 * 1024 };

/* A connection that has no child yet. */
struct waiting {
	int fd;
	struct addr client;
};

struct family {
	struct children children;
	bool prefork;
	/* What gather() has taken, and nobody has begun: from `at` to `nwaiting`. */
	struct waiting *waiting;
	unsigned at, nwaiting;
	bool fork_due;            /* one is missing */
	struct loop_timer retry;  /* set: no fork before that */
	struct loop_task replace; /* forks what is missing */
	struct log_gate gate;
};

/* Of a child, which is a process of its own. */
static struct {
	struct signals signals;
	struct family *family; /* the parent's: what it holds is still there */
	pid_t parent;
} self;

static uint64_t
ceiling(const struct attrs *a)
{
	return (uint64_t)a->max_children;
}

/* ---- the child ---- */

/* Signals of a child: its parent says TERM for "cancel", USR2 for "your code is too old"
 * and QUIT for "no more".  What a terminal sends to the whole group is for the parent to
 * act upon. */
static void
on_signal(void *arg, int signo)
{
	struct server *s = arg;

	if (signo == SIGUSR1) /* the parent has been asked what runs */
		report_tasks(s->site.engine, "task");
	if (signo != SIGTERM && signo != SIGQUIT && signo != SIGUSR2)
		return;
	s->listener.ino = 0; /* its path is the parent's */
	server_drain(s);
	if (signo == SIGQUIT)
		return;
	server_cancel(s, signo == SIGTERM ? "the server stops" : "its code was replaced");
	s->host->cancelled = true; /* and nobody lingers */
}

/* A script's server:shutdown(): the parent learns of it when this child ends. */
static void
shut_down(struct server *s)
{
	self.family->children.shared->shutdown = true;
	s->listener.ino = 0;
	server_drain(s);
}

static int
view_reload(struct server_view *v, lua_State *L)
{
	if (!LIST_ENTRY(v, struct server, site.view)->unit)
		return luaL_error(L, ASK_NO_SCRIPT);
	return ask_parent(L, &self.family->children, self.parent);
}

/* A handler that blocks in C does not get to hear of a signal: it may have its grace. */
static void
limit_life(const struct server *s)
{
	double grace = s->site.attrs.cancel_grace;

	signals_last_word(SIGTERM, SIGUSR2, grace < 1e6 ? (unsigned)grace + 1 : 0);
}

/* Where close_range(2) is missing or forbidden. */
static void
close_each(int first, int last)
{
	long max = sysconf(_SC_OPEN_MAX);

	if (max < 0 || max > 1 << 20)
		max = 1 << 20;
	for (int fd = first; fd <= last && fd < max; fd++)
		close(fd);
}

static void
close_between(int first, int last)
{
	if (first <= last && close_range((unsigned)first, (unsigned)last, 0) < 0)
		close_each(first, last);
}

/* Closes all but 0 to 2 and, if it is not negative, `keep`. */
static void
close_others(int keep)
{
	close_between(3, keep > 2 ? keep - 1 : 2);
	close_between(keep > 2 ? keep + 1 : 3, INT_MAX);
}

/* The parent counts and logs it. */
static _Noreturn void
fail(struct counters *slot)
{
	count_add(&slot->accept_errors, 1);
	_exit(1);
}

static void
become_child(struct server *s, pid_t parent, int keep_fd, struct stream *keep,
	     struct counters *slot)
{
	static const int signos[] = {SIGTERM, SIGQUIT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
	struct state *state = &s->site.script->state;

	close_others(keep_fd);
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		fail(slot);
	if (getppid() != parent)
		_exit(1);         /* it has ended meanwhile */
	signal(SIGALRM, SIG_DFL); /* they may have been ignored since before exec(2) */
	signal(SIGCHLD, SIG_DFL);
	site_count_in(&s->site, slot);
	self.family = s->mixin;
	self.parent = parent;
	if (host_reborn(s->host, keep) < 0 ||
	    signals_open(&self.signals, s->site.engine->loop, signos,
			 sizeof(signos) / sizeof(*signos), on_signal, s) < 0)
		fail(slot);
	limit_life(s);
	s->shutdown = shut_down;
	s->site.view.reload = view_reload;
	s->host->watchdog.report = &self.family->children.shared->stuck;
	s->policy = &policy_sync;
	children_unblock();
	files_forget(state->L);
	if (!s->site.script->borrowed)
		state_reseed(state);
	if (self.family->prefork)
		return;
	lua_gc(state->L, LUA_GCSTEP, -GARBAGE);
	alloc_apart(&state->alloc);
}

void
forking_exit(struct server *s, int status)
{
	struct counters *c = s->site.counters;

	count_set(&c->bytes_in, count_get(&s->site.engine->io.bytes_in));
	count_set(&c->bytes_out, count_get(&s->site.engine->io.bytes_out));
	fflush(NULL);
	_exit(status);
}

static _Noreturn void
serve_one(struct server *s, const struct arrival *a)
{
	int rc = request_start(&s->site, a);

	if (rc < 0)
		count_add(&s->site.counters->accept_errors, 1);
	host_run_child(s->host);
	forking_exit(s, rc < 0 || count_get(&s->site.counters->errors) > 0);
}

/* How many children do the work as long as they keep up with it: while one waits for its
 * client the next one runs, and what they use stays in the processor's caches. */
static ptrdiff_t
count_eager(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

	return 2 + 2 * n;
}

/* A child that accepts for itself, so many requests. */
static _Noreturn void
serve_many(struct server *s, int listener)
{
	char why[256];

	s->draining = s->closed = s->elsewhere = false;
	s->shared = true;
	s->newest = &self.family->children.shared->newest;
	s->defers = s->site.counters - self.family->children.shared->slots >= count_eager();
	s->listener.fd = listener;
	s->budget = (uint64_t)s->site.attrs.max_requests_per_child;
	if (listening_watch(s, why, sizeof(why)) < 0)
		fail(s->site.counters);
	while (!(s->budget == 0 && s->site.nrequests == 0) && !server_is_done(s, false))
		loop_turn(s->site.engine->loop, CLOCK_NEVER);
	server_drain(s);
	host_run_child(s->host);
	forking_exit(s, 0);
}

/* ---- the parent ---- */

/* Threads of this process; 1 when that cannot be told. */
static unsigned
count_threads(void)
{
	struct stat st;

	return stat("/proc/self/task", &st) == 0 && st.st_nlink > 2 ? st.st_nlink - 2 : 1;
}

/* A forked child has only the thread that forked: what another one held stays locked. */
static bool
may_fork(struct server *s)
{
	unsigned threads = count_threads();
	struct log_field f[] = {log_str("server", s->site.view.name),
				log_int("threads", threads),
				log_str("why", "what a thread holds would stay locked in "
					       "the child: use a process of its own"),
				{0}};
	struct family *family = s->mixin;

	if (threads > 1)
		log_gated(s->site.engine->log, &family->gate, LOG_ERROR, "cannot fork", f);
	return threads == 1;
}

pid_t
forking_fork(struct server *s, struct stream *keep, const struct addr *client)
{
	struct family *f = s->mixin;
	struct counters *slot;
	pid_t parent = getpid(), pid;

	if (!may_fork(s))
		return -EBUSY;
	pid = children_fork(&f->children, client, &slot);
	if (pid == 0)
		become_child(s, parent, keep->fd.fd >= 0 ? keep->fd.fd : s->listener.fd,
			     keep, slot);
	return pid;
}

static int
begin(struct server *s, const struct arrival *a)
{
	struct family *f = s->mixin;
	struct counters *slot;
	pid_t parent = getpid(), pid;
	int keep = a->fd >= 0 ? a->fd : s->listener.fd;

	pid = may_fork(s) ? children_fork(&f->children, a->client, &slot) : -EBUSY;
	if (pid == 0) {
		become_child(s, parent, keep, NULL, slot);
		serve_one(s, a);
	}
	if (a->fd >= 0)
		close(a->fd);
	return pid < 0 ? (int)pid : 0;
}

static void
drop_waiting(struct family *f)
{
	while (f->at < f->nwaiting)
		close(f->waiting[f->at++].fd);
}

/* A drain has begun: as children leave, each that waits gets one to itself. */
static void
fork_for_waiting(struct family *f)
{
	struct server *s = f->children.server;

	while (f->at < f->nwaiting && f->children.nspare > 0) {
		struct waiting *w = &f->waiting[f->at++];
		struct arrival a = {.fd = w->fd, .client = &w->client};
		if (begin(s, &a) < 0)
			count_add(&s->site.counters->accept_errors, 1);
	}
}

static void
fork_missing(struct loop_task *t)
{
	struct family *f = LIST_ENTRY(t, struct family, replace);
	struct server *s = f->children.server;
	struct counters *slot;
	pid_t parent = getpid(), pid;
	int listener = s->listener.fd;

	f->fork_due = false;
	if (s->draining)
		fork_for_waiting(f);
	while (!s->draining && f->children.nspare > 0) {
		pid = may_fork(s) ? children_fork(&f->children, NULL, &slot) : -EBUSY;
		if (pid == 0) {
			become_child(s, parent, listener, NULL, slot);
			serve_many(s, listener);
		}
		if (pid < 0) {
			accepting_pause(s, (int)-pid);
			loop_timer_set(s->site.engine->loop, &f->retry,
				       clock_now() + RETRY);
			return;
		}
	}
}

static void
want_fork(struct family *f)
{
	if (f->fork_due || f->retry.slot)
		return;
	f->fork_due = true;
	loop_defer(f->children.server->site.engine->loop, &f->replace);
}

static void
on_retry(struct loop_timer *t)
{
	want_fork(LIST_ENTRY(t, struct family, retry));
}

static void
log_failed(struct server *s, struct family *f)
{
	struct log_field l[] = {
	    log_str("server", s->site.view.name),
	    log_str("why", "a child could not set itself up: descriptors, memory, or a "
			   "system call that is not allowed"),
	    {0}};

	log_gated(s->site.engine->log, &f->gate, LOG_ERROR, "request not begun", l);
	accepting_pause(s, EAGAIN);
}

static void
gone(struct children *c, const struct child *child, const struct counters *counted)
{
	struct family *f = LIST_ENTRY(c, struct family, children);
	struct server *s = c->server;
	int64_t now = clock_now();

	if (c->shared->shutdown) {
		c->shared->shutdown = false;
		s->shutdown(s);
	}
	accepting_resume(s);
	if (count_get(&counted->accept_errors) > 0)
		log_failed(s, f);
	if (!f->prefork || (s->draining && f->at == f->nwaiting))
		return;
	if (!s->draining && count_get(&counted->ended) == 0 && now - child->began < EARLY &&
	    !f->retry.slot)
		loop_timer_set(s->site.engine->loop, &f->retry, now + RETRY);
	else
		want_fork(f);
}

static int
open_family(struct server *s, char *why, size_t size)
{
	struct loop *loop = s->site.engine->loop;
	unsigned threads = count_threads();
	struct family *f;

	if (threads > 1) {
		snprintf(why, size,
			 "%s cannot fork: this process has %u threads, and what one of "
			 "them holds would stay locked in a child; use the async or "
			 "threading mixin, or a process of its own",
			 s->site.view.name, threads);
		return -EINVAL;
	}
	snprintf(why, size, "out of memory");
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	list_init(&f->replace.link);
	f->replace.run = fork_missing;
	/* For a limited number of requests nobody is kept ready. */
	f->prefork = s->elsewhere =
	    s->site.attrs.max_requests_per_child > 1 && s->budget == UINT64_MAX;
	if (f->prefork) {
		f->waiting =
		    calloc((size_t)s->site.attrs.max_children, sizeof(*f->waiting));
		if (!f->waiting)
			goto fail;
	}
	if (children_init(&f->children, s, (unsigned)s->site.attrs.max_children, gone) < 0)
		goto fail;
	if (loop_timer_init(loop, &f->retry, on_retry) < 0) {
		children_close(&f->children);
		goto fail;
	}
	s->mixin = f;
	f->children.shared->newest = s->site.script->number;
	if (f->prefork)
		want_fork(f);
	else
		(void)site_warm(&s->site); /* without it children are but slower */
	return 0;

fail:
	free(f->waiting);
	free(f);
	return -ENOMEM;
}

static uint64_t
active(const struct server *s)
{
	const struct family *f = s->mixin;
	struct counters sum = {0};

	if (!f)
		return 0;
	if (!f->prefork || s->draining)
		return f->children.n + f->nwaiting - f->at;
	children_count(&f->children, &sum);
	return count_get(&sum.requests) - count_get(&sum.ended);
}

static uint64_t
running(const struct server *s, unsigned number)
{
	const struct family *f = s->mixin;

	return f ? children_running(&f->children, number) : 0;
}

static void
retire(struct server *s, unsigned number, const char *why)
{
	struct family *f = s->mixin;

	(void)why; /* the children know */
	if (f)
		children_retire(&f->children, number, SIGUSR2);
}

static void
told(struct server *s, int64_t began, unsigned number, const char *why)
{
	struct family *f = s->mixin;

	struct shared *shared = f ? f->children.shared : NULL;

	if (!f)
		return;
	shared->reloads++;
	shared->began = began;
	shared->number = number;
	snprintf(shared->why, sizeof(shared->why), "%s", why ? why : "");
	shared->reloads++;
}

/* Pre-forked children have the old generation: each ends when its request has. */
static void
adopted(struct server *s)
{
	struct family *f = s->mixin;

	if (!f)
		return;
	f->children.shared->newest = s->site.script->number;
	if (f->prefork)
		children_signal(&f->children, SIGQUIT);
	else
		(void)site_warm(&s->site);
}

static void
cancel(struct server *s, const char *why)
{
	struct family *f = s->mixin;

	(void)why;
	drop_waiting(f);
	children_signal(&f->children, SIGTERM);
	children_give_up(&f->children, clock_after(MOMENT, s->site.attrs.cancel_grace));
}

static void
kill_all(struct server *s)
{
	struct family *f = s->mixin;

	if (!f)
		return;
	drop_waiting(f);
	children_kill(&f->children);
}

/* Idle children leave at once, and a busy one would leave the queue behind.  That nothing
 * is begun yet makes it quick: few come meanwhile. */
static void
gather(struct server *s)
{
	struct family *f = s->mixin;
	uint64_t busy = active(s);

	for (int failed = 0; busy + f->nwaiting < f->children.max;) {
		struct waiting *w = &f->waiting[f->nwaiting];
		w->fd = listener_accept(&s->listener, &w->client);
		if (w->fd >= 0)
			f->nwaiting++;
		else if (!accepting_is_transient(-w->fd) || ++failed == ACCEPTING_BATCH)
			return;
	}
}

static void
drained(struct server *s)
{
	struct family *f = s->mixin;

	if (!f)
		return;
	if (f->prefork) {
		children_signal(&f->children, SIGQUIT);
		want_fork(f);
	}
	if (!s->site.attrs.block_on_close)
		cancel(s, NULL);
}

static void
log_requests(const struct server *s, const char *event)
{
	const struct family *f = s->mixin;

	if (!f)
		return;
	children_log(&f->children, event);
	children_signal(&f->children, SIGUSR1); /* each has a traceback to tell */
}

static void
close_family(struct server *s)
{
	struct family *f = s->mixin;

	if (!f)
		return;
	drop_waiting(f);
	children_close(&f->children);
	s->mixin = NULL;
	list_remove(&f->replace.link);
	loop_timer_done(s->site.engine->loop, &f->retry);
	free(f->waiting);
	free(f);
}

struct children *
forking_children(struct server *s)
{
	struct family *f = s->mixin;

	return f ? &f->children : NULL;
}

const struct policy policy_forking = {
    .name = "forking",
    .prefix = "Forking",
    .forks = true,
    .ceiling = ceiling,
    .open = open_family,
    .begin = begin,
    .active = active,
    .running = running,
    .retire = retire,
    .adopted = adopted,
    .told = told,
    .gather = gather,
    .drained = drained,
    .cancel = cancel,
    .kill = kill_all,
    .log_requests = log_requests,
    .close = close_family,
};
