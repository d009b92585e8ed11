#include "server/worker.h"

#include "base/clock.h"
#include "base/stack.h"
#include "script/script.h"
#include "server/crew.h"
#include "server/seat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* How long closing waits for threads that should end at once. */
static const int64_t JOIN = CLOCK_SECOND;

/* Threads that run a seat or look for one. */
static unsigned
at_work(const struct crew *c)
{
	return c->nworkers - c->nstuck - c->nparked;
}

void
workers_ring(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

void
workers_tell(struct crew *c)
{
	if (c->server)
		workers_ring(c->notice.fd);
}

void
workers_enqueue(struct crew *c, struct seat *s)
{
	list_remove(&s->queue);
	list_append(&c->queue, &s->queue);
	if (c->npolling > 0)
		workers_ring(c->bell);
}

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
	size_t lingering = s->open ? s->engine.io.lingers.n : 0;

	c->lingering += lingering - s->lingering;
	if (c->draining && s->lingering > 0 && c->lingering == 0)
		workers_tell(c);
	s->lingering = lingering;
	if (!s->busy || s->inbox.job || (s->open && s->site.nrequests > 0))
		return;
	s->busy = false;
	c->busy--;
	s->idle_since = clock_now();
	list_prepend(&c->idle, &s->idle); /* the last one is the first to be used again */
	if (c->draining || c->lacking || c->busy + 1 >= c->max)
		workers_tell(c); /* it may have stopped accepting */
}

static void
not_begun(struct crew *c, int rc, const char *why)
{
	struct log_field f[] = {log_str("server", c->view.name), log_str("why", why), {0}};

	log_gated(c->log, &c->fail_gate, LOG_ERROR, "request not begun", f);
	c->failed = rc;
	workers_tell(c);
}

/* One run of a claimed seat. */
static void
round_of(struct worker *w, struct seat *s)
{
	struct crew *c = w->crew;
	struct inbox in = s->inbox;
	char why[SCRIPT_ERROR];
	bool more;
	int rc;

	s->inbox = (struct inbox){.fd = -1};
	w->seat = s;
	s->runs = w;
	w->rounds++;
	if (!c->watching) {
		c->watching = true;
		workers_tell(c);
	}
	pthread_mutex_unlock(&c->mutex);
	meter_watch(&w->meter, &s->engine.sched);
	rc = seat_run(s, &in, &w->buffers, &more, why, sizeof(why));
	meter_watch(&w->meter, NULL);
	pthread_mutex_lock(&c->mutex);
	w->seat = NULL;
	s->runs = NULL;
	if (w->stuck) {
		w->stuck = false;
		c->nstuck--;
	}
	if (rc < 0)
		not_begun(c, rc, why);
	if (more)
		workers_enqueue(c, s);
	if (in.leave) {
		c->nopen--;
		list_append(&c->idle, &s->idle);
	}
	finished(c, s);
}

static void
open_meter(struct worker *w)
{
	int rc = meter_open(&w->meter);
	struct log_field f[] = {
	    log_str("server", w->crew->view.name), log_str("why", strerror(-rc)), {0}};

	if (rc == 0)
		return;
	pthread_mutex_lock(&w->crew->mutex);
	log_gated(w->crew->log, &w->crew->start_gate, LOG_WARN, "no limits of CPU time", f);
	pthread_mutex_unlock(&w->crew->mutex);
}

static void *
work(void *arg)
{
	struct worker *w = arg;
	struct crew *c = w->crew;
	struct seat *s;
	bool last;

	if (c->given.cpu_limit != ATTR_NONE || c->given.time_slice != ATTR_NONE)
		open_meter(w);
	pthread_mutex_lock(&c->mutex);
	while ((s = next_seat(w)))
		if (seat_claim(s))
			do
				round_of(w, s);
			while (!seat_release(s));
	pthread_mutex_unlock(&c->mutex);
	meter_close(&w->meter);
	pthread_mutex_lock(&c->mutex);
	c->nworkers--;
	w->ended = true;
	last = c->orphan && c->nworkers == 0;
	if (c->quit)
		workers_ring(c->bell); /* the next one */
	pthread_cond_signal(&c->left);
	pthread_mutex_unlock(&c->mutex);
	if (last)
		crew_free(c);
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
	pthread_attr_setstacksize(&attr, STACK_NEEDED);
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

void
worker_free(struct worker *w)
{
	list_remove(&w->link);
	buffers_free(&w->buffers);
	free(w);
}

void
workers_join_ended(struct crew *c)
{
	for (struct list *l = c->workers.next, *next; l != &c->workers; l = next) {
		struct worker *w = LIST_ENTRY(l, struct worker, link);
		next = l->next;
		if (!w->ended)
			continue;
		pthread_join(w->thread, NULL);
		worker_free(w);
	}
}

int
workers_reinforce(struct crew *c)
{
	if (at_work(c) >= c->at_once)
		return 0;
	if (c->nparked > 0) {
		pthread_cond_signal(&c->parked);
		return 0;
	}
	return c->nworkers < c->max ? start_worker(c) : 0;
}

void
workers_dismiss(struct crew *c)
{
	c->quit = true;
	workers_ring(c->bell);
	pthread_cond_broadcast(&c->parked);
	while (!list_empty(&c->workers)) {
		struct worker *w = LIST_ENTRY(c->workers.next, struct worker, link);
		pthread_mutex_unlock(&c->mutex);
		pthread_join(w->thread, NULL);
		pthread_mutex_lock(&c->mutex);
		worker_free(w);
	}
	c->quit = false;
}

bool
workers_join(struct crew *c)
{
	int64_t until = clock_now() + (c->abandoned ? 0 : JOIN);
	struct timespec t = {until / CLOCK_SECOND, until % CLOCK_SECOND};
	bool all;

	pthread_mutex_lock(&c->mutex);
	while (c->nworkers > 0)
		if (pthread_cond_timedwait(&c->left, &c->mutex, &t) != 0)
			break;
	workers_join_ended(c);
	all = list_empty(&c->workers);
	pthread_mutex_unlock(&c->mutex);
	return all;
}
