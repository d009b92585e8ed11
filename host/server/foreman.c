#include "server/foreman.h"

#include "base/clock.h"
#include "script/script.h"
#include "server/accepting.h"
#include "server/ask.h"
#include "server/crew.h"
#include "server/host.h"
#include "server/reload.h"
#include "server/report.h"
#include "server/seat.h"
#include "server/server.h"
#include "server/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How often progress is looked at while there is some, and after how many looks without
 * any it is not looked at any more. */
static const int64_t WATCH = 2 * CLOCK_MS;

enum { QUIET = 5 };

/* How often it is tried again to get what there was none of. */
static const int64_t RETRY = 100 * CLOCK_MS;

/* How long a reload waits for threads that do not come back: see crew_prepare(). */
static const int64_t PREPARE = 2 * CLOCK_SECOND;

static int64_t
sweep_period(const struct crew *c)
{
	double s = c->given.thread_idle_timeout / 2;

	return clock_after(clock_now(), s < 0.01 ? 0.01 : s > 30 ? 30 : s);
}

void
foreman_watch(struct crew *c)
{
	c->watching = true;
	c->quiet = 0;
	if (!c->watch.slot)
		loop_timer_set(c->notice.loop, &c->watch, clock_now() + WATCH);
	if (!c->sweep.slot)
		loop_timer_set(c->notice.loop, &c->sweep, sweep_period(c));
}

/* Counts out the threads that have been in the same run since the last look. */
static void
on_watch(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, watch);
	bool progress = false, wanting = false;

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
		wanting = workers_reinforce(c) < 0;
	c->quiet = progress ? 0 : c->quiet + 1;
	if (c->quiet < QUIET)
		loop_timer_set(c->notice.loop, t, clock_now() + WATCH);
	else if (wanting)
		loop_timer_set(c->notice.loop, t, clock_now() + RETRY);
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
	struct list told, questions;
	bool stop, prepared;
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
	prepared = c->prepared;
	c->prepared = false;
	list_take(&told, &c->told);
	list_take(&questions, &c->questions);
	if (c->watching && !c->watch.slot)
		foreman_watch(c);
	workers_join_ended(c);
	pthread_mutex_unlock(&c->mutex);
	pass_errors_on(s, &told);
	ask_take(s, &questions);
	if (prepared)
		reload_prepared(s, *c->why ? c->why : NULL);
	accepting_resume(s);
	if (failed)
		accepting_pause(s, -failed);
	if (stop)
		s->shutdown(s);
}

/* Seats that have been idle for long are emptied, by a thread: a state that is closed runs
 * the script's finalizers. */
static void
empty_stale(struct crew *c, int64_t now)
{
	for (struct list *l = c->idle.prev, *prev; l != &c->idle; l = prev) {
		struct seat *s = LIST_ENTRY(l, struct seat, idle);
		prev = l->prev;
		if (!s->open || s->lingering > 0 ||
		    clock_after(s->idle_since, c->given.thread_idle_timeout) > now)
			continue;
		list_remove(&s->idle);
		s->inbox.leave = true;
		workers_enqueue(c, s);
	}
}

static void
on_sweep(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, sweep);

	pthread_mutex_lock(&c->mutex);
	if (c->nworkers > 0)
		empty_stale(c, clock_now());
	if (c->nopen == 0 && c->nworkers > 0)
		workers_dismiss(c);
	workers_join_ended(c);
	if (c->nopen > 0 && c->nworkers > 0)
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
		if (s->open)
			report_tasks(&s->engine, event); /* enters Lua */
		pthread_mutex_lock(&c->mutex);
		if (!seat_release(s)) {
			atomic_store(&s->turn, SEAT_FREE);
			workers_enqueue(c, s);
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

/* Threads that have not come back to prepare. */
static void
on_late(struct loop_timer *t)
{
	struct crew *c = LIST_ENTRY(t, struct crew, late);
	bool any;

	pthread_mutex_lock(&c->mutex);
	any = c->preparing > 0;
	c->preparing = 0;
	pthread_mutex_unlock(&c->mutex);
	if (any)
		reload_prepared(c->server, *c->why ? c->why : NULL);
}

void
foreman_expect(struct crew *c)
{
	loop_timer_set(c->notice.loop, &c->late, clock_now() + PREPARE);
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
	if (loop_timer_init(loop, &c->late, on_late) < 0)
		goto fail_give_up;
	return 0;

fail_give_up:
	loop_timer_done(loop, &c->give_up);
fail_sweep:
	loop_timer_done(loop, &c->sweep);
fail_watch:
	loop_timer_done(loop, &c->watch);
	return -ENOMEM;
}

static void
free_room(struct crew *c, struct loop *loop)
{
	loop_timer_done(loop, &c->watch);
	loop_timer_done(loop, &c->sweep);
	loop_timer_done(loop, &c->give_up);
	loop_timer_done(loop, &c->late);
}

void
foreman_drop_errors(struct crew *c)
{
	pass_errors_on(NULL, &c->told);
}

int
foreman_open(struct crew *c, struct loop *loop)
{
	int fd, rc = make_room(c, loop);

	if (rc < 0)
		return rc;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = fd < 0 ? -errno : loop_add(loop, &c->notice, fd, 0);
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		free_room(c, loop);
		return rc;
	}
	c->notice_op.done = on_notice;
	loop_poll(&c->notice, &c->notice_op, false);
	return 0;
}

void
foreman_close(struct crew *c)
{
	struct loop *loop = c->notice.loop;

	loop_close_fd(&c->notice);
	free_room(c, loop);
}

void
foreman_give_up(struct crew *c, int64_t patience)
{
	int64_t now = clock_now();

	loop_timer_set(c->notice.loop, &c->give_up,
		       patience < CLOCK_NEVER - now ? now + patience : CLOCK_NEVER);
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
		workers_tell(c);
	}
	pthread_mutex_unlock(&c->mutex);
	return t != NULL;
}
