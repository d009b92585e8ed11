#include "server/watchdog.h"

#include "base/log.h"
#include "script/script.h"
#include "script/task.h"
#include "server/request.h"
#include "server/site.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { FREE, BEGUN, COMPLETE };

/* ---- in the signal handler ---- */

static void
fill(struct stuck_report *r, const struct stuck *what)
{
	const struct request *q = what->owner;
	const char *name = q ? q->site->view.name : "";
	size_t n = strlen(name);

	r->what = *what;
	r->client.len = 0;
	r->generation = 0;
	n = n < sizeof(r->server) - 1 ? n : sizeof(r->server) - 1;
	memcpy(r->server, name, n);
	r->server[n] = 0;
	if (!q)
		return;
	r->generation = q->script->number;
	r->client.len = q->client.len;
	memcpy(&r->client.ss, &q->client.ss, q->client.len);
}

static bool
claim(struct stuck_report *r)
{
	int was = FREE;

	return atomic_compare_exchange_strong(&r->state, &was, BEGUN);
}

static void
on_stuck(struct sched *s, const struct stuck *what)
{
	struct watchdog *w = s->watchdog;
	struct stuck_report *r = w->shared ? w->shared : w->reports;

	for (int i = 0; i < WATCHDOG_REPORTS; i++) {
		if (!claim(&r[i]))
			continue;
		fill(&r[i], what);
		atomic_store(&r[i].state, COMPLETE);
		break;
	}
	if (w->shared)
		kill(getpid(), SIGKILL);
	else
		sem_post(&w->told);
}

/* ---- outside of it ---- */

bool
watchdog_log(struct stuck_report *reports, struct log *log)
{
	bool any = false;

	for (int i = 0; i < WATCHDOG_REPORTS; i++) {
		struct stuck_report *r = &reports[i];
		char client[ADDR_TEXT] = "";
		if (atomic_load(&r->state) != COMPLETE)
			continue;
		if (r->client.len > 0)
			addr_text(&r->client, client, sizeof(client));
		struct log_field f[] = {log_str("server", r->server),
					log_str("client", client),
					log_int("generation", r->generation),
					log_int("cpu_ms", r->what.used / CLOCK_MS),
					log_str("at", r->what.where),
					log_str("in", r->what.what),
					{0}};
		log_event(log, LOG_ERROR, "stuck", f);
		atomic_store(&r->state, FREE);
		any = true;
	}
	return any;
}

static void *
watch(void *arg)
{
	struct watchdog *w = arg;

	for (;;) {
		while (sem_wait(&w->told) < 0)
			;
		if (w->quit)
			return NULL;
		watchdog_log(w->reports, w->log);
	}
}

int
watchdog_open(struct watchdog *w, struct log *log)
{
	sigset_t all, old;
	int rc;

	*w = (struct watchdog){.log = log};
	sem_init(&w->told, 0, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->thread, NULL, watch, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->runs = rc == 0;
	return -rc;
}

void
watchdog_close(struct watchdog *w)
{
	if (!w->runs)
		return;
	w->quit = true;
	sem_post(&w->told);
	pthread_join(w->thread, NULL);
	w->runs = false;
}

void
watchdog_sacrifice(struct watchdog *w, struct stuck_report *shared)
{
	*w = (struct watchdog){.shared = shared};
}

void
watchdog_watch(struct watchdog *w, struct sched *s)
{
	s->watchdog = w;
	s->stuck = on_stuck;
}
