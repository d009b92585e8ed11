#include "server/server.h"

#include "base/clock.h"
#include "script/script.h"
#include "script/task.h"
#include "server/accepting.h"
#include "server/ask.h"
#include "server/board.h"
#include "server/datagrams.h"
#include "server/engine.h"
#include "server/host.h"
#include "server/listening.h"
#include "server/replies.h"
#include "server/request.h"
#include "server/stats.h"
#include "server/unit.h"

#include <errno.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>

static void
view_shutdown(struct server_view *v)
{
	struct server *s = LIST_ENTRY(v, struct server, site.view);

	s->shutdown(s);
}

static bool
view_attribute(struct server_view *v, lua_State *L, const char *name)
{
	return attrs_push(&LIST_ENTRY(v, struct site, view)->attrs, L, name);
}

static void
view_stats(struct server_view *v, lua_State *L)
{
	struct server *s = LIST_ENTRY(v, struct server, site.view);
	struct stats stats;

	stats_read(s, &stats);
	stats_push(L, &stats);
	engine_push_stats(s->site.engine, L);
	lua_pushinteger(L, s->site.script->number);
	lua_setfield(L, -2, "generation");
}

static int
view_reload(struct server_view *v, lua_State *L)
{
	return ask_here(L, LIST_ENTRY(v, struct server, site.view));
}

static void
site_ended(struct site *site)
{
	struct server *s = LIST_ENTRY(site, struct server, site);

	s->pulling = false; /* it may have ended without */
	accepting_resume(s);
	if (s->leaving && list_empty(&s->reaper.link))
		loop_defer(site->engine->loop, &s->reaper);
}

static void
on_reap(struct loop_task *t)
{
	struct server *s = LIST_ENTRY(t, struct server, reaper);

	if (s->site.nrequests == 0)
		server_close(s);
}

int
server_new(struct host *host, const struct policy *policy, const struct attrs *attrs,
	   struct script *script, struct server **out, char *why, size_t size)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	snprintf(why, size, "out of memory");
	if (!s)
		goto fail_script;
	s->host = host;
	s->policy = policy;
	s->budget = UINT64_MAX;
	s->shutdown = server_drain;
	s->listener.fd = s->fd.fd = -1;
	s->reaper.run = on_reap;
	list_init(&s->reaper.link);
	s->site = (struct site){.engine = &host->engine,
				.counters = &s->counters,
				.given = *attrs,
				.attrs = *attrs,
				.ended = site_ended,
				.view = {.fd = -1,
					 .shutdown = view_shutdown,
					 .push_stats = view_stats,
					 .push_attribute = view_attribute,
					 .reload = view_reload}};
	site_init(&s->site);
	if (accepting_init(s) < 0)
		goto fail_server;
	if (replies_init(s) < 0)
		goto fail_timer;
	list_append(&host->servers, &s->link);
	rc = script ? site_adopt(&s->site, script, why, size) : 0;
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;

fail_timer:
	loop_timer_done(host->engine.loop, &s->paused);
fail_server:
	free(s);
fail_script:
	if (script)
		script_release(script);
	return -ENOMEM;
}

int
server_begin(struct server *s, char *why, size_t size)
{
	int rc;

	snprintf(why, size, "out of memory");
	if (!transport_is_stream(s->site.view.transport) && datagrams_init(s) < 0)
		return -ENOMEM;
	rc = s->policy->open ? s->policy->open(s, why, size) : 0;
	if (rc < 0 || s->elsewhere || s->down)
		return rc;
	return listening_watch(s, why, size);
}

void
server_end_drain(struct server *s)
{
	if (s->fd.fd >= 0 && s->dgrams.out)
		replies_flush(s);
	loop_timer_set(s->site.engine->loop, &s->dgrams.retry, CLOCK_NEVER);
	loop_release_fd(&s->fd);
	if (s->policy->close)
		s->policy->close(s);
}

/* A pre-forked child leaves them to its parent: while it served them, others would come. */
static void
take_waiting(struct server *s)
{
	if (s->elsewhere && s->policy->gather)
		s->policy->gather(s);
	else if (s->fd.fd >= 0 && !s->newest)
		accepting_empty(s);
}

void
server_drain(struct server *s)
{
	if (s->draining)
		return;
	if (transport_is_stream(s->site.view.transport))
		take_waiting(s);
	s->draining = true;
	loop_timer_set(s->site.engine->loop, &s->paused, CLOCK_NEVER);
	listening_drain(s);
	if (s->policy->drained)
		s->policy->drained(s);
}

void
server_leave(struct server *s)
{
	if (s->leaving)
		return;
	s->leaving = s->draining = s->closed = true;
	s->site.reply = NULL; /* what is still answered has no socket */
	listening_leave(s);
	if (s->unit)
		reload_leave(s);
	server_cancel(s, "its server was closed");
	if (s->site.nrequests == 0)
		loop_defer(s->site.engine->loop, &s->reaper);
}

bool
server_is_done(const struct server *s, bool hurry)
{
	if (!s->draining || s->policy->active(s) > 0)
		return false;
	return hurry ||
	       (s->fd.fd < 0 && !(s->policy->lingering && s->policy->lingering(s) > 0));
}

void
server_cancel(struct server *s, const char *why)
{
	s->policy->cancel(s, why);
}

void
server_kill(struct server *s)
{
	s->draining = s->closed = true;
	s->policy->kill(s);
}

void
server_forget(struct server *s)
{
	const struct task *t = s->site.engine->sched.current;
	struct request *r = t && !t->chore ? t->owner : NULL;

	s->draining = s->closed = true;
	s->accept_due = s->dgrams.flush_due = false;
	list_remove(&s->accept_task.link);
	list_remove(&s->dgrams.flush.link);
	if (s->dgrams.out)
		dgram_out_drop(s->dgrams.out, dgram_out_count(s->dgrams.out));
	loop_cancel(&s->accept_op);
	loop_cancel(&s->dgrams.out_op);
	s->fd.fd = s->listener.fd = -1;
	s->listener.ino = 0;
	list_init(&s->site.requests);
	s->site.nrequests = 0;
	if (r && request_site(r) == &s->site) {
		list_append(&s->site.requests, &r->link);
		s->site.nrequests = 1;
	}
	s->site.reply = NULL; /* that one collects for the loop of the server */
	s->mixin = NULL;
	if (s->board)
		s->board->mute = true;
}

void
server_share(struct server *s)
{
	s->shared = true;
	s->listener.ino = 0; /* its path is the master's */
	s->accept_due = false;
	list_remove(&s->accept_task.link);
}

void
server_close(struct server *s)
{
	server_kill(s);
	if (s->policy->close)
		s->policy->close(s);
	loop_release_fd(&s->fd);
	listener_close(&s->listener);
	loop_timer_done(s->site.engine->loop, &s->paused);
	loop_timer_done(s->site.engine->loop, &s->dgrams.retry);
	if (s->board)
		board_forget(s->board);
	list_remove(&s->accept_task.link);
	list_remove(&s->dgrams.flush.link);
	list_remove(&s->reaper.link);
	list_remove(&s->link);
	if (s->unit) {
		reload_leave(s);
		unit_lose(s->unit, s);
		if (s->site.script && s->site.nrequests == 0)
			site_leave(&s->site);
	}
	site_free(&s->site);
	datagrams_free(&s->dgrams);
	free(s->name);
	free(s->declared);
	free(s->next_name);
	free(s->next_declared);
	free(s);
}
