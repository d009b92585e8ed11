#include "server/crew.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/ask.h"
#include "server/foreman.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/seat.h"
#include "server/server.h"
#include "server/stats.h"
#include "server/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
open_descriptors(struct crew *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};

	c->ep = epoll_create1(EPOLL_CLOEXEC);
	c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->ep < 0 || c->bell < 0 || epoll_ctl(c->ep, EPOLL_CTL_ADD, c->bell, &e) < 0)
		return -errno;
	if (transport_is_stream(c->view.transport))
		return 0;
	/* A late reply must not leave by what has the number then. */
	c->port.fd = c->view.fd = fcntl(c->view.fd, F_DUPFD_CLOEXEC, 3);
	return c->port.fd < 0 ? -errno : 0;
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
	c->watchdog = &server->host->watchdog;
	c->given = server->site.given;
	c->given.thread_idle_timeout = server->site.attrs.thread_idle_timeout;
	c->port = server->site.port;
	c->view = server->site.view;
	c->name = strdup(c->view.name);
	c->class_name = strdup(c->view.class_name);
	c->view.name = c->name;
	c->view.class_name = c->class_name;
	c->port.fd = c->ep = c->bell = c->notice.fd = -1;
	list_init(&c->workers);
	list_init(&c->seats);
	list_init(&c->queue);
	list_init(&c->idle);
	list_init(&c->told);
	list_init(&c->questions);
	init_locks(c);
	rc = c->name && c->class_name ? open_descriptors(c) : -ENOMEM;
	if (rc == 0)
		rc = foreman_open(c, loop);
	if (rc < 0) {
		snprintf(why, size, "cannot start threads: %s", strerror(-rc));
		goto fail;
	}
	rc = crew_adopt(c);
	if (rc == 0) {
		*out = c;
		return 0;
	}
	foreman_close(c);

fail:
	crew_free(c);
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
	*s = (struct crew_script){0};
}

/* False: out of memory, and nothing has changed. */
static bool
take_script(struct crew *c, struct crew_script *to, const struct script *sc)
{
	char *path = strdup(sc->path);

	if (!path)
		return false;
	free_script(to);
	*to =
	    (struct crew_script){.path = path,
				 .sources = sc->sources ? sources_hold(sc->sources) : NULL,
				 .lua_path = c->server->host->lua_path,
				 .memory_limit = sc->state.alloc.limit,
				 .number = sc->number,
				 .sandbox = c->server->host->sandbox};
	return true;
}

/* Something in each open seat's inbox. */
static void
ask_seats(struct crew *c, void (*put)(struct crew *c, struct seat *s))
{
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next) {
		struct seat *s = LIST_ENTRY(l, struct seat, link);
		if (!s->open)
			continue;
		put(c, s);
		workers_enqueue(c, s);
	}
	if (c->nopen > 0)
		(void)workers_reinforce(c);
}

static void
put_prepare(struct crew *c, struct seat *s)
{
	s->due = s->inbox.prepare = true;
	c->preparing++;
}

static void
put_settle(struct crew *c, struct seat *s)
{
	(void)c;
	s->inbox.settle = true;
}

int
crew_prepare(struct crew *c, const struct script *next)
{
	unsigned n;

	pthread_mutex_lock(&c->mutex);
	*c->why = 0;
	c->preparing = 0;
	c->prepared = false;
	if (c->nworkers > 0 && take_script(c, &c->next, next))
		ask_seats(c, put_prepare);
	n = c->preparing;
	if (n > 0)
		foreman_expect(c);
	pthread_mutex_unlock(&c->mutex);
	return n > 0;
}

void
crew_abandon(struct crew *c)
{
	pthread_mutex_lock(&c->mutex);
	free_script(&c->next);
	c->preparing = 0;
	ask_seats(c, put_settle);
	pthread_mutex_unlock(&c->mutex);
}

unsigned
crew_running(struct crew *c, unsigned number)
{
	unsigned n = 0;

	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next) {
		const struct seat *s = LIST_ENTRY(l, struct seat, link);
		n += s->busy && s->generation == number;
	}
	pthread_mutex_unlock(&c->mutex);
	return n;
}

void
crew_retire(struct crew *c, unsigned number, const char *why)
{
	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->seats.next; l != &c->seats; l = l->next) {
		struct seat *s = LIST_ENTRY(l, struct seat, link);
		if (!s->busy || s->generation != number)
			continue;
		s->inbox.retire = number;
		s->inbox.why = why;
		workers_enqueue(c, s);
	}
	pthread_mutex_unlock(&c->mutex);
}

int
crew_adopt(struct crew *c)
{
	const struct script *sc = c->server->site.script;

	pthread_mutex_lock(&c->mutex);
	if (!take_script(c, &c->script, sc)) {
		pthread_mutex_unlock(&c->mutex);
		return -ENOMEM;
	}
	free_script(&c->next);
	if (c->nworkers > 0)
		ask_seats(c, put_settle);
	c->max = (unsigned)c->server->site.attrs.max_threads;
	c->at_once = processors();
	if (c->at_once > c->max)
		c->at_once = c->max;
	pthread_mutex_unlock(&c->mutex);
	return 0;
}

static struct seat *
new_seat(struct crew *c)
{
	struct seat *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->crew = c;
	s->inbox.fd = -1;
	list_init(&s->queue);
	list_init(&s->idle);
	list_init(&s->answers);
	list_append(&c->seats, &s->link);
	c->nseats++;
	return s;
}

/* Open seats are the first in the list. */
static int
make_ready(struct crew *c)
{
	struct seat *s =
	    list_empty(&c->idle) ? NULL : LIST_ENTRY(c->idle.next, struct seat, idle);
	int rc;

	if (s && s->open)
		return 0;
	if (!s && !(s = new_seat(c)))
		return -ENOMEM;
	rc = seat_open(s);
	s->idle_since = clock_now();
	list_remove(&s->idle);
	if (rc < 0)
		list_append(&c->idle, &s->idle);
	else {
		c->nopen++;
		list_prepend(&c->idle, &s->idle);
	}
	return rc;
}

int
crew_ready(struct crew *c)
{
	int rc;

	pthread_mutex_lock(&c->mutex);
	rc = make_ready(c);
	c->lacking = rc < 0;
	pthread_mutex_unlock(&c->mutex);
	return rc;
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
	int rc = workers_reinforce(c);

	if (rc < 0 && c->nworkers == 0)
		return rc;
	rc = make_ready(c); /* it is, but for a request that Lua has handed over */
	if (rc < 0)
		return rc;
	s = LIST_ENTRY(c->idle.next, struct seat, idle);
	list_remove(&s->idle);
	rc = write_job(&s->inbox, a);
	if (rc < 0) {
		s->inbox.fd = -1;
		list_prepend(&c->idle, &s->idle);
		return rc;
	}
	s->client = *a->client;
	s->began = clock_now();
	s->generation = 0;
	s->busy = true;
	c->busy++;
	workers_enqueue(c, s);
	foreman_watch(c);
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

size_t
crew_lingering(struct crew *c)
{
	size_t n;

	pthread_mutex_lock(&c->mutex);
	n = c->lingering;
	pthread_mutex_unlock(&c->mutex);
	return c->abandoned ? 0 : n;
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
		workers_enqueue(c, s);
	}
	if (c->busy > 0)
		foreman_give_up(c, patience);
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

/* Closing their states runs finalizers, which a limit has to reach. */
static void
free_seats(struct crew *c)
{
	struct meter meter = {0};

	if (c->given.cpu_limit != ATTR_NONE)
		(void)meter_open(&meter);
	while (!list_empty(&c->seats)) {
		struct seat *s = LIST_ENTRY(c->seats.next, struct seat, link);
		list_remove(&s->link);
		if (s->open)
			meter_watch(&meter, &s->engine.sched);
		seat_empty(s);
		meter_watch(&meter, NULL);
		if (s->inbox.job && s->inbox.fd >= 0)
			close(s->inbox.fd);
		free((void *)s->inbox.dgram.data);
		free(s);
	}
	meter_close(&meter);
}

/* Without threads, and without the mutex. */
void
crew_free(struct crew *c)
{
	while (!list_empty(&c->workers)) {
		struct worker *w = LIST_ENTRY(c->workers.next, struct worker, link);
		worker_free(w);
	}
	free_seats(c);
	if (!transport_is_stream(c->view.transport) && c->port.fd >= 0)
		close(c->port.fd);
	if (c->bell >= 0)
		close(c->bell);
	if (c->ep >= 0)
		close(c->ep);
	foreman_drop_errors(c);
	free(c->name);
	free(c->class_name);
	free_script(&c->script);
	free_script(&c->next);
	ask_drop(&c->questions);
	pthread_cond_destroy(&c->parked);
	pthread_cond_destroy(&c->left);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

/* A datagram's address is free, though threads may still try to reply from it. */
static void
free_address(struct crew *c)
{
	int null;

	if (transport_is_stream(c->view.transport))
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return;
	(void)dup3(null, c->port.fd, O_CLOEXEC);
	close(null);
}

void
crew_close(struct crew *c)
{
	struct host *host = c->server->host;
	bool last;

	pthread_mutex_lock(&c->mutex);
	c->server = NULL;
	c->quit = true;
	workers_ring(c->bell);
	pthread_cond_broadcast(&c->parked);
	pthread_mutex_unlock(&c->mutex);
	foreman_close(c);
	if (workers_join(c)) {
		crew_free(c);
		return;
	}
	host->left_behind = true;
	pthread_mutex_lock(&c->mutex);
	for (struct list *l = c->workers.next; l != &c->workers; l = l->next)
		pthread_detach(LIST_ENTRY(l, struct worker, link)->thread);
	free_address(c);
	c->orphan = true; /* the last thread frees it */
	last = c->nworkers == 0;
	pthread_mutex_unlock(&c->mutex);
	if (last)
		crew_free(c);
}

/* ---- for seats ---- */

static void
copy_script(const struct crew_script *from, struct crew_script *to)
{
	*to = *from;
	to->path = strdup(from->path);
	if (to->sources)
		sources_hold(to->sources);
}

bool
crew_script(struct crew *c, unsigned number, struct crew_script *out)
{
	bool newer;

	pthread_mutex_lock(&c->mutex);
	newer = c->script.number != number;
	if (newer)
		copy_script(&c->script, out);
	pthread_mutex_unlock(&c->mutex);
	return newer;
}

bool
crew_runs(struct crew *c, const struct script *sc)
{
	bool same;

	pthread_mutex_lock(&c->mutex);
	same = c->script.number == sc->number &&
	       (!c->script.sources || c->script.sources == sc->sources);
	pthread_mutex_unlock(&c->mutex);
	return same;
}

bool
crew_next(struct crew *c, struct crew_script *out)
{
	bool there;

	pthread_mutex_lock(&c->mutex);
	there = c->next.number != 0;
	if (there)
		copy_script(&c->next, out);
	pthread_mutex_unlock(&c->mutex);
	return there;
}

void
crew_prepared(struct crew *c, struct seat *s, int rc, const char *why)
{
	pthread_mutex_lock(&c->mutex);
	if (s->inbox.prepare) { /* it is late, and was asked for another one meanwhile */
		pthread_mutex_unlock(&c->mutex);
		return;
	}
	if (s->due && c->preparing > 0) {
		if (rc < 0 && !*c->why)
			snprintf(c->why, sizeof(c->why), "%s", why);
		if (--c->preparing == 0) {
			c->prepared = true;
			workers_tell(c);
		}
	}
	s->due = false;
	pthread_mutex_unlock(&c->mutex);
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
	workers_tell(c);
	pthread_mutex_unlock(&c->mutex);
}

bool
crew_stats(struct crew *c, struct stats *out)
{
	bool there;

	pthread_mutex_lock(&c->mutex);
	there = c->server != NULL;
	if (there)
		stats_read(c->server, out);
	pthread_mutex_unlock(&c->mutex);
	return there;
}
