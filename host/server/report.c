#include "server/report.h"

#include "base/clock.h"
#include "script/coro.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/trace.h"
#include "server/counters.h"
#include "server/engine.h"
#include "server/request.h"
#include "server/site.h"

#include <lauxlib.h>
#include <string.h>

void
report_outcome(struct request *r, enum log_level level, const char *event, const char *why)
{
	struct site *s = request_site(r);
	char client[ADDR_TEXT];
	struct addr room;

	addr_text(request_client(r, &room), client, sizeof(client));
	struct log_field f[] = {log_str("server", s->view.name),
				log_str("client", client),
				log_int("generation", r->task->script->number),
				log_str("why", why),
				{0}};
	log_event(s->engine->log, level, event, f);
}

/* text: the message; its traceback follows behind a newline, unless it is given apart. */
static void
log_error(struct request *r, const char *event, const char *text, size_t n,
	  const char *traceback)
{
	struct site *s = request_site(r);
	const char *nl = memmem(text, n, "\nstack traceback:", 17);
	char client[ADDR_TEXT];
	struct addr room;
	struct log_field f[6];

	addr_text(request_client(r, &room), client, sizeof(client));
	f[0] = log_str("server", s->view.name);
	f[1] = log_str("client", client);
	f[2] = log_int("generation", r->task->script->number);
	f[3] = log_bytes("error", text, nl ? (size_t)(nl - text) : n);
	f[4] = nl ? log_bytes("traceback", nl + 1, n - (size_t)(nl + 1 - text))
		  : log_str("traceback", traceback);
	f[5] = (struct log_field){0};
	log_event(s->engine->log, LOG_ERROR, event, f);
}

void
report_text(struct site *s, const char *client, const char *text)
{
	const char *nl = strstr(text, "\nstack traceback:");
	struct log_field f[] = {
	    log_str("server", s->view.name),
	    log_str("client", client),
	    log_bytes("error", text, nl ? (size_t)(nl - text) : strlen(text)),
	    log_str("traceback", nl ? nl + 1 : NULL),
	    {0}};

	count_add(&s->counters->errors, 1);
	log_event(s->engine->log, LOG_ERROR, "handler error", f);
}

/* The kinds of errors that have counters of their own. */
static void
count_kind(struct counters *c, lua_State *L)
{
	const char *code = lerror_code(L, -1), *text;

	if (code && strcmp(code, "cpu_limit") == 0)
		count_add(&c->cpu_limit, 1);
	text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
	if (strncmp(text, "not enough memory", 17) == 0)
		count_add(&c->out_of_memory, 1);
}

void
report_count(struct request *r, lua_State *L)
{
	r->failed = true;
	count_kind(request_site(r)->counters, L);
	count_add(&request_site(r)->counters->errors, 1);
}

/* The error of the request's own task t, or of one beside it: `event` if it is to blame. */
static void
report(struct request *r, const struct task *t, lua_State *L, const char *event)
{
	struct counters *c = request_site(r)->counters;
	const char *code = lerror_code(L, -1), *text;
	size_t n;

	count_kind(c, L);
	if (lua_islightuserdata(L, -1)) { /* closed by task_kill() */
		text = lua_touserdata(L, -1);
		if (t->overrun > 2) { /* the first error is lost with the rest */
			count_add(&c->errors, 1);
			count_add(&c->cpu_limit, 1);
			log_error(r, event, text, strlen(text), NULL);
			return;
		}
		count_add(&c->cancelled, 1);
		report_outcome(r, LOG_INFO, "cancelled", text);
		return;
	}
	state_push_report(L, -1);
	text = lua_tolstring(L, -1, &n);
	if (!code) {
		count_add(&c->errors, 1);
		log_error(r, event, text, n, NULL);
		trace_forget(L, -2);
	} else if (strcmp(code, "cancelled") == 0) {
		count_add(&c->cancelled, 1);
		report_outcome(r, LOG_INFO, "cancelled", text);
	} else if (strcmp(code, "timeout") == 0) {
		count_add(&c->timeouts, 1);
		report_outcome(r, LOG_INFO, "timeout", text);
	} else if (lerror_is_peer_gone(code)) {
		count_add(&c->peers_gone, 1);
		report_outcome(r, LOG_INFO, "peer gone", text);
	} else {
		count_add(&c->errors, 1);
		lua_pushliteral(L, "traceback");
		lua_rawget(L, -3);
		log_error(r, event, text, n, lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

void
report_error(struct request *r, lua_State *L)
{
	r->failed = true;
	report(r, r->task, L, "handler error");
}

/* Runs protected.  Arguments: the task, its error value. */
static int
stray(lua_State *L)
{
	const struct task *t = lua_touserdata(L, 1);
	const char *code = lerror_code(L, 2);

	if (!code || strcmp(code, "cancelled") != 0)
		report(t->owner, t, L, "error in a spawned task");
	return 0;
}

void
report_stray(struct task *companion, lua_State *L)
{
	struct request *r = companion->owner;

	if (lua_islightuserdata(L, -1) && companion->overrun <= 2) {
		lua_pop(L, 1);
		return;
	}
	lua_pushcfunction(L, stray);
	lua_pushlightuserdata(L, companion);
	lua_rotate(L, -3, -1);
	if (state_call(L, 2, 0) == LUA_OK)
		return;
	lua_pop(L, 1);
	count_add(&request_site(r)->counters->errors, 1);
	report_outcome(r, LOG_ERROR, "error in a spawned task", "not enough memory");
}

void
report_unsent(struct site *s, const char *why)
{
	struct log_field f[] = {log_str("server", s->view.name), log_str("why", why), {0}};

	log_gated(s->engine->log, &s->reply_gate, LOG_WARN, "reply not sent", f);
}

/* Runs protected: a traceback may need more memory than the state may have. */
static int
push_traceback(lua_State *L)
{
	coro_push_traceback(L, lua_touserdata(L, 1));
	return 1;
}

/* Whose task it is: a request's, or one beside it, or (a chore) nobody's but the script's.
 */
static void
name_task(const struct task *t, struct log_field f[2], char client[ADDR_TEXT])
{
	const struct request *r = t->owner;
	struct addr room;

	if (t->chore) {
		f[0] = log_str("script", t->script->path);
		f[1] = log_str("client", NULL);
		return;
	}
	addr_text(request_client(r, &room), client, ADDR_TEXT);
	f[0] = log_str("server", request_site(r)->view.name);
	f[1] = log_str("client", client);
}

static void
log_task(struct engine *e, struct task *t, const char *event)
{
	static const char *const states[] = {"new", "running", "waiting", "ready"};
	char client[ADDR_TEXT];
	lua_State *L = t->script->state.L;
	struct log_field f[8];
	int n = 5;

	lua_pushcfunction(L, push_traceback);
	lua_pushlightuserdata(L, t->co);
	(void)state_call(L, 1, 1);
	name_task(t, f, client);
	f[2] = log_int("generation", t->script->number);
	f[3] = log_int("age_ms", task_age(t) / CLOCK_MS);
	f[4] = log_str("state", task_cpu(t) > 0 ? "computing" : states[t->state]);
	if (task_main(t))
		f[n++] = log_str("spawned", "yes");
	f[n++] =
	    log_str("traceback", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "");
	f[n] = (struct log_field){0};
	log_event(e->log, LOG_INFO, event, f);
	lua_pop(L, 1);
}

void
report_tasks(struct engine *e, const char *event)
{
	for (struct list *l = e->sched.tasks.next; l != &e->sched.tasks; l = l->next)
		log_task(e, LIST_ENTRY(l, struct task, link), event);
}
