#include "server/crew.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/report.h"
#include "server/seat.h"
#include "server/server.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How often progress is looked at while there is some, and after how many looks without
 * any it is not looked at any more. */
static const int64_t WATCH = 2 * CLOCK_MS;

enum { QUIET = 5 };

/* Enough for Lua's C levels (200), and address space only until used. */
enum { STACK = 1024 * 1024 };

/* How long closing waits for threads that should end at once. */
static const int64_t JOIN = CLOCK_SECOND;

/* ---- all below: under the mutex, unless it says otherwise ---- */

/* Threads that run a seat or look for one. */
static unsigned
at_work(const struct crew *c)
{
	return c->nworkers - c->nstuck - c->nparked;
}

static void
ring(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static void
tell_server(struct crew *c)
{
	if (c->server)
		ring(c->notice.fd);
}

static void
enqueue(struct crew *c, struct seat *s)
{
	list_remove(&s->queue);
	list_append(&c->queue, &s->queue);
	if (c->npolling > 0)
		ring(c->bell);
}

/* ---- threads ---- */

/* Waits until it is needed.  False: it was not, for long. */
static bool
park(struct worker *w)
{
	struct crew *c = w->crew;
	struct timespec until;
	int64_t at = clock_after(clock_now(), c->given.thread_idle_timeout);
	int rc = 0;

	c->nparked++;
	if (at == CLOCK_NEVER)
		pthread_cond_wait(&c->parked, &c->mutex);
	else {
		until.tv_sec = at / CLOCK_SECOND;
		until.tv_nsec = at % CLOCK_SECOND;
		rc = pthread_cond_timedwait(&c->parked, &c->mutex, &until);
	}
	c->nparked--;
	return rc == 0;
}

/* The next seat with something to do; NULL: the thread is to end. */
static struct seat *
next_seat(struct worker *w)
{
	struct crew *c = w->crew;
	struct epoll_event e;
	struct seat *s;
	int n;

	for (;;) {
		if (c->quit)
			return NULL;
		if (at_work(c) > c->at_once) {
			if (!park(w) && at_work(c) >= c->at_once)
				return NULL;
			continue;
		}
		if (!list_empty(&c->queue)) {
			s = LIST_ENTRY(c->queue.next, struct seat, queue);
			list_remove(&s->queue);
			return s;
		}
		c->npolling++;
		pthread_mutex_unlock(&c->mutex);
		n = epoll_wait(c->ep, &e, 1, -1);
		pthread_mutex_lock(&c->mutex);
		c->npolling--;
		if (n == 1 && e.data.ptr)
			return e.data.ptr;
	}
}

static void
finished(struct crew *c, struct seat *s)
{
	if (!s->busy || s->inbox.job || (s->furnished && s->site.nrequests > 0))
		return;
	s->busy = false;
	c->busy--;
	s->idle_since = clock_now();
	s->idle.next = c->idle.next; /* the last one is the first to be used again */
	s->idle.prev = &c->idle;
	c->idle.next->prev = &s->idle;
	c->idle.next = &s->idle;
	if (c->draining || c->busy + 1 >= c->max)
		tell_server(c); /* it may have stopped accepting */
}

/* One run of a claimed seat. */
static void
round_of(struct worker *w, struct seat *s)
{
	struct crew *c = w->crew;
	struct inbox in = s->inbox;
	char why[SCRIPT_ERROR];
	int rc;

	s->inbox = (struct inbox){.fd = -1};
	w->seat = s;
	s->runs = w;
	w->rounds++;
	if (!c->watching) {
		c->watching = true;
		tell_server(c);
	}
	pthread_mutex_unlock(&c->mutex);
	rc = seat_run(s, &in, &w->buffers, why, sizeof(why));
	pthread_mutex_lock(&c->mutex);
	w->seat = NULL;
	s->runs = NULL;
	if (w->stuck) {
		w->stuck = false;
		c->nstuck--;
	}
	if (rc < 0) {
		struct log_field f[] = {
		    log_str("server", c->view.name), log_str("why", why), {0}};
		log_gated(c->log, &c->fail_gate, LOG_ERROR, "request not begun", f);
		c->failed = rc;
		tell_server(c);
	}
	finished(c, s);
}

static void free_crew(struct crew *c);

static void *
work(void *arg)
{
	struct worker *w = arg;
	struct crew *c = w->crew;
	struct seat *s;
	bool last;

	pthread_mutex_lock(&c->mutex);
	while ((s = next_seat(w)))
		if (seat_claim(s))
			do
				round_of(w, s);
			while (!seat_release(s));
	c->nworkers--;
	w->ended = true;
	last = c->orphan && c->nworkers == 0;
	if (c->quit)
		ring(c->bell); /* the next one */
	pthread_cond_signal(&c->left);
	pthread_mutex_unlock(&c->mutex);
	if (last)
		free_crew(c);
	return NULL;
}

static int
start_worker(struct crew *c)
{
	struct worker *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	int rc;

	if (!w || !buffers_init(&w->buffers)) {
		free(w);
		return -ENOMEM;
	}
	w->crew = c;
	w->number = c->started + 1;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	rc = pthread_create(&w->thread, &attr, work, w);
	pthread_attr_destroy(&attr);
	if (rc != 0) {
		struct log_field f[] = {
		    log_str("server", c->view.name), log_str("why", strerror(rc)), {0}};
		log_gated(c->log, &c->start_gate, LOG_WARN, "cannot start a thread", f);
		buffers_free(&w->buffers);
		free(w);
		return -rc;
	}
	c->started++;
	c->nworkers++;
	list_append(&c->workers, &w->link);
	return 0;
}

static void
free_worker(struct worker *w)
{
	list_remove(&w->link);
	buffers_free(&w->buffers);
	free(w);
}

/* Frees threads that have ended. */
static void
join_ended(struct crew *c)
{
	for (struct list *l = c->workers.next, *next; l != &c->workers; l = next) {
		struct worker *w = LIST_ENTRY(l, struct worker, link);
		next = l->next;
		if (!w->ended)
			continue;
		pthread_join(w->thread, NULL);
		free_worker(w);
	}
}

/* Brings the threads at work up to what is useful.  -errno: none could be started. */
static int
reinforce(struct crew *c)
{
	if (at_work(c) >= c->at_once)
		return 0;
	if (c->nparked > 0) {
		pthread_cond_signal(&c->parked);
		return 0;
	}
	return c->nworkers < c->max ? start_worker(c) : 0;
}

/* ---- the server's thread ---- */

static void
watch(struct crew *c)
{
	c->watching = true;
	c->quiet = 0;
	if (!c->watch.slot)
		loop_timer_set(c->notice.loop, &c->watch, clock_now() + WATCH);
}

/* Counts out the threads that have been in the same run since the last look. */
static void
on_watch(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, watch);
	bool progress = false;

	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->workers.next; l != &c->workers; l = l->next) {
		struct worker *w = LIST_ENTRY(l, struct worker, link);
		if (w->rounds != w->seen)
			progress = true;
		else if (w->seat && !w->stuck) {
			w->stuck = true;
			c->nstuck++;
			progress = true;
		}
		w->seen = w->rounds;
	}
	if (c->nseats > c->nstuck && c->nworkers > 0)
		(void)reinforce(c);
	c->quiet = progress ? 0 : c->quiet + 1;
	if (c->quiet < QUIET)
		loop_timer_set(c->notice.loop, t, clock_now() + WATCH);
	else
		c->watching = false;
	pthread_mutex_unlock(&c->mutex);
}

/* A handler's error on its way to the server. */
struct told {
	struct list link;
	struct addr client;
	char text[];
};

static void
pass_errors_on(struct server *s, struct list *told)
{
	while (!list_empty(told)) {
		struct told *t = LIST_ENTRY(told->next, struct told, link);
		list_remove(&t->link);
		if (s)
			s->handle_error(s, &t->client, t->text);
		free(t);
	}
}

static void
on_notice(struct loop_op *op)
{
	struct crew *c = LIST_ENTRY(op, struct crew, notice_op);
	struct server *s = c->server;
	struct list told;
	bool stop;
	int failed;
	uint64_t n;

	(void)!read(c->notice.fd, &n, sizeof(n));
	c->notice.readable = false;
	loop_poll(&c->notice, op, false);
	pthread_mutex_lock(&c->mutex);
	stop = c->shutdown;
	failed = c->failed;
	c->shutdown = false;
	c->failed = 0;
	list_take(&told, &c->told);
	if (c->watching && !c->watch.slot)
		watch(c);
	join_ended(c);
	pthread_mutex_unlock(&c->mutex);
	pass_errors_on(s, &told);
	server_resume(s);
	if (failed)
		server_pause(s, -failed);
	if (stop)
		s->shutdown(s);
}

/* Ends all threads; they have nothing to do. */
static void
dismiss(struct crew *c)
{
	c->quit = true;
	ring(c->bell);
	pthread_cond_broadcast(&c->parked);
	while (!list_empty(&c->workers)) {
		struct worker *w = LIST_ENTRY(c->workers.next, struct worker, link);
		pthread_mutex_unlock(&c->mutex);
		pthread_join(w->thread, NULL);
		pthread_mutex_lock(&c->mutex);
		free_worker(w);
	}
	c->quit = false;
}

static int64_t
sweep_period(const struct crew *c)
{
	double s = c->given.thread_idle_timeout / 2;

	return clock_after(clock_now(), s < 0.01 ? 0.01 : s > 30 ? 30 : s);
}

/* Takes a seat that has been idle for long, and claims it. */
static struct seat *
take_stale(struct crew *c, int64_t now)
{
	for (struct list *l = c->idle.prev; l != &c->idle; l = l->prev) {
		struct seat *s = LIST_ENTRY(l, struct seat, idle);
		if (!s->furnished ||
		    clock_after(s->idle_since, c->given.thread_idle_timeout) > now)
			continue;
		if (!seat_claim(s))
			continue;
		if (s->engine.io.lingers.n == 0) {
			list_remove(&s->idle);
			return s;
		}
		if (!seat_release(s)) {
			atomic_store(&s->turn, SEAT_FREE);
			enqueue(c, s);
		}
	}
	return NULL;
}

static void
on_sweep(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, sweep);
	int64_t now = clock_now();
	bool any = false;
	struct seat *s;

	pthread_mutex_lock(&c->mutex);
	while ((s = take_stale(c, now))) {
		pthread_mutex_unlock(&c->mutex);
		seat_empty(s);
		pthread_mutex_lock(&c->mutex);
		list_append(&c->idle, &s->idle);
		atomic_store(&s->turn,
			     SEAT_FREE); /* whoever came meanwhile wants nothing */
	}
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next)
		any |= LIST_ENTRY(l, struct seat, link)->busy ||
		       LIST_ENTRY(l, struct seat, link)->furnished;
	if (!any && c->nworkers > 0)
		dismiss(c);
	join_ended(c);
	if (any)
		loop_timer_set(c->notice.loop, t, sweep_period(c));
	pthread_mutex_unlock(&c->mutex);
}

static void
log_seat(struct crew *c, struct seat *s, const char *event)
{
	char client[ADDR_TEXT];

	addr_text(&s->client, client, sizeof(client));
	struct log_field f[] = {log_str("server", c->view.name),
				log_str("client", client),
				log_int("thread", s->runs ? (int64_t)s->runs->number : 0),
				log_int("age_ms", (clock_now() - s->began) / CLOCK_MS),
				log_str("state", s->runs ? "running" : "queued"),
				{0}};
	log_event(c->log, LOG_INFO, event, f);
}

/* A seat with a request that was not visited this time; NULL: there is none left. */
static struct seat *
next_visit(struct crew *c)
{
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next) {
		struct seat *s = LIST_ENTRY(l, struct seat, link);
		if (s->busy && s->visit != c->visits) {
			s->visit = c->visits;
			return s;
		}
	}
	return NULL;
}

void
crew_log_requests(struct crew *c, const char *event)
{
	struct seat *s;

	pthread_mutex_lock(&c->mutex);
	c->visits++;
	while ((s = next_visit(c))) {
		if (!seat_claim(s)) {
			log_seat(c, s, event);
			continue;
		}
		pthread_mutex_unlock(&c->mutex);
		if (s->furnished)
			report_tasks(&s->engine, event); /* enters Lua */
		pthread_mutex_lock(&c->mutex);
		if (!seat_release(s)) {
			atomic_store(&s->turn, SEAT_FREE);
			enqueue(c, s);
		}
	}
	pthread_mutex_unlock(&c->mutex);
}

/* Threads that nothing could end in time. */
static void
on_give_up(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, give_up);

	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next)
		if (LIST_ENTRY(l, struct seat, link)->busy)
			log_seat(c, LIST_ENTRY(l, struct seat, link), "left behind");
	c->abandoned = c->busy > 0;
	pthread_mutex_unlock(&c->mutex);
	if (c->abandoned)
		c->server->host->left_behind = true;
}

static void
init_locks(struct crew *c)
{
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;

	pthread_mutexattr_init(&ma);
	pthread_mutexattr_settype(&ma, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&c->mutex, &ma);
	pthread_mutexattr_destroy(&ma);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&c->parked, &ca);
	pthread_cond_init(&c->left, &ca);
	pthread_condattr_destroy(&ca);
}

static int
open_descriptors(struct crew *c, struct loop *loop)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};
	int fd, rc;

	c->ep = epoll_create1(EPOLL_CLOEXEC);
	c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->ep < 0 || c->bell < 0 || fd < 0 ||
	    epoll_ctl(c->ep, EPOLL_CTL_ADD, c->bell, &e) < 0)
		rc = -errno;
	else
		rc = loop_add(loop, &c->notice, fd, 0);
	if (rc < 0 && fd >= 0)
		close(fd);
	return rc;
}

static int
make_room(struct crew *c, struct loop *loop)
{
	if (loop_timer_init(loop, &c->watch, on_watch) < 0)
		return -ENOMEM;
	if (loop_timer_init(loop, &c->sweep, on_sweep) < 0)
		goto fail_watch;
	if (loop_timer_init(loop, &c->give_up, on_give_up) < 0)
		goto fail_sweep;
	return 0;

fail_sweep:
	loop_timer_done(loop, &c->sweep);
fail_watch:
	loop_timer_done(loop, &c->watch);
	return -ENOMEM;
}

int
crew_new(struct server *server, struct crew **out, char *why, size_t size)
{
	struct loop *loop = server->site.engine->loop;
	struct crew *c = calloc(1, sizeof(*c));
	int rc = -ENOMEM;

	snprintf(why, size, "out of memory");
	if (!c)
		return rc;
	c->server = server;
	c->log = server->site.engine->log;
	c->given = server->site.given;
	c->given.thread_idle_timeout = server->site.attrs.thread_idle_timeout;
	c->port = server->site.port;
	c->view = server->site.view;
	c->ep = c->bell = c->notice.fd = -1;
	list_init(&c->workers);
	list_init(&c->seats);
	list_init(&c->queue);
	list_init(&c->idle);
	list_init(&c->told);
	init_locks(c);
	c->notice_op.done = on_notice;
	rc = make_room(c, loop);
	if (rc < 0)
		goto fail;
	rc = open_descriptors(c, loop);
	if (rc < 0) {
		snprintf(why, size, "%s", strerror(-rc));
		loop_timer_done(loop, &c->watch);
		loop_timer_done(loop, &c->sweep);
		loop_timer_done(loop, &c->give_up);
		goto fail;
	}
	loop_poll(&c->notice, &c->notice_op, false);
	if (crew_adopt(c) < 0) {
		crew_close(c);
		return -ENOMEM;
	}
	*out = c;
	return 0;

fail:
	free_crew(c);
	return rc;
}

static unsigned
processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}

static void
free_script(struct crew_script *s)
{
	free(s->path);
	sources_release(s->sources);
}

int
crew_adopt(struct crew *c)
{
	const struct script *sc = c->server->site.script;
	char *path = strdup(sc->path);

	if (!path)
		return -ENOMEM;
	pthread_mutex_lock(&c->mutex);
	free_script(&c->script);
	c->script =
	    (struct crew_script){.path = path,
				 .sources = sc->sources ? sources_hold(sc->sources) : NULL,
				 .lua_path = c->server->host->lua_path,
				 .memory_limit = sc->state.alloc.limit,
				 .number = sc->number};
	c->max = (unsigned)c->server->site.attrs.max_threads;
	c->at_once = processors();
	if (c->at_once > c->max)
		c->at_once = c->max;
	pthread_mutex_unlock(&c->mutex);
	return 0;
}

static struct seat *
take_seat(struct crew *c)
{
	struct seat *s;

	if (!list_empty(&c->idle)) {
		s = LIST_ENTRY(c->idle.next, struct seat, idle);
		list_remove(&s->idle);
		return s;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->crew = c;
	s->inbox.fd = -1;
	list_init(&s->queue);
	list_init(&s->idle);
	list_append(&c->seats, &s->link);
	c->nseats++;
	return s;
}

static int
write_job(struct inbox *in, const struct arrival *a)
{
	char *data;

	in->fd = a->fd;
	in->client = *a->client;
	if (a->dgram) {
		in->dgram = *a->dgram;
		data = malloc(a->dgram->len + 1);
		if (!data)
			return -ENOMEM;
		memcpy(data, a->dgram->data, a->dgram->len);
		in->dgram.data = data;
	}
	in->job = true;
	return 0;
}

static int
hand_over(struct crew *c, const struct arrival *a)
{
	struct seat *s;
	int rc = reinforce(c);

	if (rc < 0 && c->nworkers == 0)
		return rc;
	s = take_seat(c);
	if (!s)
		return -ENOMEM;
	rc = write_job(&s->inbox, a);
	if (rc < 0) {
		s->inbox.fd = -1;
		list_append(&c->idle, &s->idle);
		return rc;
	}
	s->client = *a->client;
	s->began = clock_now();
	s->busy = true;
	c->busy++;
	enqueue(c, s);
	watch(c);
	if (!c->sweep.slot)
		loop_timer_set(c->notice.loop, &c->sweep, sweep_period(c));
	return 0;
}

int
crew_hand_over(struct crew *c, const struct arrival *a)
{
	int rc;

	pthread_mutex_lock(&c->mutex);
	rc = hand_over(c, a);
	pthread_mutex_unlock(&c->mutex);
	if (rc < 0 && a->fd >= 0)
		close(a->fd);
	return rc;
}

unsigned
crew_busy(const struct crew *c)
{
	return c->abandoned ? 0 : c->busy;
}

static void
order(struct crew *c, const char *why, int64_t patience)
{
	pthread_mutex_lock(&c->mutex);
	c->draining = true;
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next) {
		struct seat *s = LIST_ENTRY(l, struct seat, link);
		if (!s->busy)
			continue;
		if (why)
			s->inbox.cancel = why;
		else
			s->inbox.kill = true;
		enqueue(c, s);
	}
	if (c->busy > 0)
		loop_timer_set(c->notice.loop, &c->give_up,
			       patience < CLOCK_NEVER - clock_now() ? clock_now() + patience
								    : CLOCK_NEVER);
	pthread_mutex_unlock(&c->mutex);
}

void
crew_cancel(struct crew *c, const char *why, int64_t patience)
{
	order(c, why, patience);
}

void
crew_kill(struct crew *c, int64_t patience)
{
	order(c, NULL, patience);
}

void
crew_drained(struct crew *c)
{
	pthread_mutex_lock(&c->mutex);
	c->draining = true;
	pthread_mutex_unlock(&c->mutex);
}

void
crew_count(struct crew *c, struct counters *sum)
{
	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next)
		counters_add(sum, &LIST_ENTRY(l, struct seat, link)->counters);
	pthread_mutex_unlock(&c->mutex);
}

/* Without threads, and without the mutex. */
static void
free_crew(struct crew *c)
{
	while (!list_empty(&c->workers)) {
		struct worker *w = LIST_ENTRY(c->workers.next, struct worker, link);
		free_worker(w);
	}
	while (!list_empty(&c->seats)) {
		struct seat *s = LIST_ENTRY(c->seats.next, struct seat, link);
		list_remove(&s->link);
		seat_empty(s);
		if (s->inbox.job && s->inbox.fd >= 0)
			close(s->inbox.fd);
		free((void *)s->inbox.dgram.data);
		free(s);
	}
	if (c->bell >= 0)
		close(c->bell);
	if (c->ep >= 0)
		close(c->ep);
	pass_errors_on(NULL, &c->told);
	free_script(&c->script);
	pthread_cond_destroy(&c->parked);
	pthread_cond_destroy(&c->left);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

/* Gives the threads time to end, and joins those that have.  True: all. */
static bool
join_all(struct crew *c)
{
	int64_t until = clock_now() + (c->abandoned ? 0 : JOIN);
	struct timespec t = {until / CLOCK_SECOND, until % CLOCK_SECOND};
	bool all;

	pthread_mutex_lock(&c->mutex);
	while (c->nworkers > 0)
		if (pthread_cond_timedwait(&c->left, &c->mutex, &t) != 0)
			break;
	join_ended(c);
	all = list_empty(&c->workers);
	pthread_mutex_unlock(&c->mutex);
	return all;
}

void
crew_close(struct crew *c)
{
	struct loop *loop = c->notice.loop;
	struct host *host = c->server->host;
	bool last;

	pthread_mutex_lock(&c->mutex);
	c->server = NULL;
	c->quit = true;
	ring(c->bell);
	pthread_cond_broadcast(&c->parked);
	pthread_mutex_unlock(&c->mutex);
	loop_close_fd(&c->notice);
	loop_timer_done(loop, &c->watch);
	loop_timer_done(loop, &c->sweep);
	loop_timer_done(loop, &c->give_up);
	if (join_all(c)) {
		free_crew(c);
		return;
	}
	host->left_behind = true;
	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->workers.next; l != &c->workers; l = l->next)
		pthread_detach(LIST_ENTRY(l, struct worker, link)->thread);
	c->orphan = true; /* the last thread frees it */
	last = c->nworkers == 0;
	pthread_mutex_unlock(&c->mutex);
	if (last)
		free_crew(c);
}

/* ---- for seats ---- */

bool
crew_script(struct crew *c, unsigned number, struct crew_script *out)
{
	bool newer;

	pthread_mutex_lock(&c->mutex);
	newer = c->script.number != number;
	if (newer) {
		*out = c->script;
		out->path = strdup(c->script.path);
		if (out->sources)
			sources_hold(out->sources);
	}
	pthread_mutex_unlock(&c->mutex);
	return newer;
}

bool
crew_tell_error(struct crew *c, const struct addr *client, const char *text)
{
	size_t n = strlen(text) + 1;
	struct told *t = NULL;

	pthread_mutex_lock(&c->mutex);
	if (c->server && c->server->tells)
		t = malloc(sizeof(*t) + n);
	if (t) {
		t->client = *client;
		memcpy(t->text, text, n);
		list_append(&c->told, &t->link);
		tell_server(c);
	}
	pthread_mutex_unlock(&c->mutex);
	return t != NULL;
}

void
crew_log_reload(struct crew *c, const char *why)
{
	struct log_field f[] = {log_str("server", c->view.name), log_str("why", why), {0}};

	pthread_mutex_lock(&c->mutex);
	log_gated(c->log, &c->reload_gate, LOG_ERROR, "reload failed in a thread", f);
	pthread_mutex_unlock(&c->mutex);
}

void
crew_shutdown(struct crew *c)
{
	pthread_mutex_lock(&c->mutex);
	c->shutdown = true;
	tell_server(c);
	pthread_mutex_unlock(&c->mutex);
}

bool
crew_stats(struct crew *c, struct server_stats *out)
{
	bool there;

	pthread_mutex_lock(&c->mutex);
	there = c->server != NULL;
	if (there)
		server_stats(c->server, out);
	pthread_mutex_unlock(&c->mutex);
	return there;
}
