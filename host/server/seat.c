#include "server/seat.h"

#include "bind/lmoonport.h"
#include "script/handover.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/ask.h"
#include "server/crew.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

bool
seat_claim(struct seat *s)
{
	int was = SEAT_FREE;

	for (;;) {
		if (was == SEAT_FREE &&
		    atomic_compare_exchange_weak(&s->turn, &was, SEAT_TAKEN))
			return true;
		if (was == SEAT_AGAIN ||
		    (was == SEAT_TAKEN &&
		     atomic_compare_exchange_weak(&s->turn, &was, SEAT_AGAIN)))
			return false;
	}
}

bool
seat_release(struct seat *s)
{
	int was = SEAT_TAKEN;

	if (atomic_compare_exchange_strong(&s->turn, &was, SEAT_FREE))
		return true;
	atomic_store(&s->turn, SEAT_TAKEN);
	return false;
}

static void
view_shutdown(struct server_view *v)
{
	crew_shutdown(LIST_ENTRY(v, struct seat, site.view)->crew);
}

static void
view_stats(struct server_view *v, lua_State *L)
{
	struct seat *s = LIST_ENTRY(v, struct seat, site.view);

	struct stats stats = {0};

	(void)crew_stats(s->crew, &stats);
	stats_push(L, &stats);
	engine_push_stats(&s->engine, L);
	lua_pushinteger(L, s->site.script->number);
	lua_setfield(L, -2, "generation");
}

static bool
view_attribute(struct server_view *v, lua_State *L, const char *name)
{
	return attrs_push(&LIST_ENTRY(v, struct site, view)->attrs, L, name);
}

static int
view_reload(struct server_view *v, lua_State *L)
{
	return ask_crew(L, LIST_ENTRY(v, struct seat, site.view));
}

static bool
site_tell(struct site *site, const struct addr *client, const char *text)
{
	return crew_tell_error(LIST_ENTRY(site, struct seat, site)->crew, client, text);
}

static void
site_ended(struct site *site)
{
	(void)site; /* seat_run() looks at the end of each run */
}

/* Loads a generation, and hands over to it what the seat's own one saves.  `want` is freed.
 */
static int
build(struct seat *s, struct crew_script *want, struct script **out, char *why, size_t size)
{
	struct script_options o = {.open = preload_moonport,
				   .memory_limit = want->memory_limit,
				   .lua_path = want->lua_path,
				   .number = want->number,
				   .sandbox = want->sandbox,
				   .sources = want->sources};
	int rc = -ENOMEM;

	snprintf(why, size, "out of memory");
	if (want->path)
		rc = script_load(&s->engine.sched, want->path, &o, out, why, size);
	sources_release(want->sources);
	free(want->path);
	if (rc == 0 && s->site.script) {
		rc = handover_run(s->site.script, *out, &s->site.allowance, why, size);
		if (rc < 0)
			script_release(*out);
	}
	return rc;
}

static void
drop_next(struct seat *s)
{
	if (s->next)
		script_release(s->next);
	s->next = NULL;
}

/* What the seat could go on with. */
static int
build_next(struct seat *s, char *why, size_t size)
{
	struct crew_script want;
	int rc;

	drop_next(s);
	if (!s->open || !s->site.script || !crew_next(s->crew, &want))
		return 0; /* it will load what there is by then */
	rc = build(s, &want, &s->next, why, size);
	if (rc < 0) {
		s->next = NULL;
		return rc;
	}
	rc = site_prepare(&s->site, s->next, &s->plan, why, size);
	if (rc < 0)
		drop_next(s);
	return rc;
}

/* Goes on with what it has built, if that is what there is now. */
static bool
take_next(struct seat *s)
{
	bool now = s->next && crew_runs(s->crew, s->next);

	if (now)
		site_commit(&s->site, &s->plan);
	drop_next(s);
	return now;
}

/* The generation that the server runs now, unless the seat has it. */
static int
load(struct seat *s, char *why, size_t size)
{
	struct crew_script want;
	struct script *sc;
	int rc;

	if (!crew_script(s->crew, s->site.script ? s->site.script->number : 0, &want))
		return 0;
	if (take_next(s)) {
		sources_release(want.sources);
		free(want.path);
		return 0;
	}
	rc = build(s, &want, &sc, why, size);
	return rc < 0 ? rc : site_adopt(&s->site, sc, why, size);
}

int
seat_open(struct seat *s)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.ptr = s};
	struct buffers own = {0}; /* it takes turns at those of the threads */
	int rc = engine_init(&s->engine, s->crew->log), fd;

	if (rc < 0)
		return rc;
	engine_swap(&s->engine, &own);
	buffers_free(&own);
	s->engine.sched.allowance = site_allowance(&s->crew->given);
	watchdog_watch(s->crew->watchdog, &s->engine.sched);
	s->site = (struct site){.engine = &s->engine,
				.counters = &s->counters,
				.given = s->crew->given,
				.ended = site_ended,
				.tell = site_tell,
				.port = s->crew->port,
				.view = s->crew->view};
	s->site.view.shutdown = view_shutdown;
	s->site.view.push_stats = view_stats;
	s->site.view.push_attribute = view_attribute;
	s->site.view.reload = view_reload;
	site_init(&s->site);
	fd = loop_embed(s->engine.loop);
	rc = fd < 0 ? fd : epoll_ctl(s->crew->ep, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
	if (rc < 0) {
		site_free(&s->site);
		engine_free(&s->engine);
		return rc;
	}
	s->open = true;
	return 0;
}

void
seat_empty(struct seat *s)
{
	struct buffers own = {0};

	if (!s->open)
		return;
	s->open = false;
	while (!buffers_init(&own)) /* what ends may still write */
		usleep(1000);
	engine_swap(&s->engine, &own);
	site_kill(&s->site);
	drop_next(s);
	site_free(&s->site);
	engine_check(&s->engine);
	engine_free(&s->engine); /* its descriptor leaves the crew's epoll set with it */
}

static void
drop_job(struct inbox *in)
{
	if (in->fd >= 0)
		close(in->fd);
	free((void *)in->dgram.data);
	in->job = false;
}

/* Makes the seat ready for the request in the inbox: its code is that of today. */
static int
prepare(struct seat *s, struct inbox *in, struct buffers *b, char *why, size_t size)
{
	int rc;

	engine_swap(&s->engine, b);
	rc = load(s, why, size);
	engine_swap(&s->engine, b);
	if (rc < 0 && s->site.script) {
		crew_log_reload(s->crew, why);
		rc = 0;
	}
	if (rc < 0) {
		count_add(&s->counters.accept_errors, 1);
		drop_job(in);
	}
	return rc;
}

static void
prepare_next(struct seat *s, struct buffers *b, char *why, size_t size)
{
	int rc = 0;

	if (s->open) {
		engine_swap(&s->engine, b);
		rc = build_next(s, why, size);
		engine_swap(&s->engine, b);
	}
	crew_prepared(s->crew, s, rc, why);
}

static int
begin(struct seat *s, struct inbox *in, char *why, size_t size)
{
	struct arrival a = {.fd = in->fd, .client = &in->client};
	int rc;

	if (in->fd < 0)
		a.dgram = &in->dgram;
	in->fd = -1; /* taken over */
	s->generation = s->site.script->number;
	rc = request_start(&s->site, &a);
	if (rc < 0) {
		count_add(&s->counters.accept_errors, 1);
		snprintf(why, size, "%s", strerror(-rc));
	}
	drop_job(in);
	return rc;
}

int
seat_run(struct seat *s, struct inbox *in, struct buffers *b, bool *more, char *why,
	 size_t size)
{
	int rc = 0;

	*more = false;
	if (in->leave)
		seat_empty(s);
	if (s->open && in->settle) /* of the reload before the one to prepare for */
		(void)take_next(s);
	if (in->prepare)
		prepare_next(s, b, why, size);
	if (!s->open)
		return 0; /* a late event */
	loop_refresh(s->engine.loop);
	if (in->job)
		rc = prepare(s, in, b, why, size);
	engine_swap(&s->engine, b);
	if (in->job)
		rc = begin(s, in, why, size);
	if (in->retire)
		site_retire(&s->site, in->retire, in->why);
	if (in->answered)
		ask_answer(s);
	if (in->kill)
		site_kill(&s->site);
	else if (in->cancel)
		site_cancel(&s->site, in->cancel);
	*more = loop_step(s->engine.loop);
	engine_swap(&s->engine, b);
	count_set(&s->counters.bytes_in, count_get(&s->engine.io.bytes_in));
	count_set(&s->counters.bytes_out, count_get(&s->engine.io.bytes_out));
	return rc;
}
