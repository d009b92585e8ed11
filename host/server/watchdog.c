#include "server/watchdog.h"

#include "base/log.h"
#include "script/script.h"
#include "script/task.h"
#include "server/request.h"
#include "server/site.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static void
fill(struct stuck_report *r, const struct stuck *what)
{
	const struct request *q = what->owner;
	const char *name = q ? request_site(q)->view.name : "";
	size_t n = strlen(name);
	const struct addr *client;
	struct addr room;

	r->what = *what;
	r->client.len = 0;
	r->generation = 0;
	n = n < sizeof(r->server) - 1 ? n : sizeof(r->server) - 1;
	memcpy(r->server, name, n);
	r->server[n] = 0;
	if (!q)
		return;
	r->generation = q->task->script->number;
	client = request_client(q, &room);
	r->client.len = client->len;
	memcpy(&r->client.ss, &client->ss, client->len);
}

static void
write_event(const struct stuck_report *r, struct log *log, unsigned worker,
	    void (*write)(struct log *log, enum log_level level, const char *event,
			  const struct log_field *fields))
{
	char client[ADDR_TEXT] = "";

	if (r->client.len > 0)
		addr_text(&r->client, client, sizeof(client));
	struct log_field f[] = {log_str("server", r->server),
				log_str("client", client),
				log_int("generation", r->generation),
				log_int("cpu_ms", r->what.used / CLOCK_MS),
				log_str("at", r->what.where),
				log_str("in", r->what.what),
				{0},
				{0}};
	if (worker)
		f[6] = log_int("worker", worker);
	write(log, LOG_ERROR, "stuck", f);
}

/* In the signal handler. */
static void
on_stuck(struct sched *s, const struct stuck *what)
{
	struct watchdog *w = s->watchdog;
	struct stuck_report r;

	if (w->report) {
		fill(w->report, what);
		w->report->complete = 1;
		kill(getpid(), SIGKILL);
		return;
	}
	fill(&r, what);
	write_event(&r, w->log, 0, log_urgent);
}

bool
watchdog_log(struct stuck_report *r, struct log *log, unsigned worker)
{
	if (!r->complete)
		return false;
	write_event(r, log, worker, log_event);
	r->complete = 0;
	return true;
}

void
watchdog_watch(struct watchdog *w, struct sched *s)
{
	s->watchdog = w;
	s->stuck = on_stuck;
}
