#include "server/report.h"

#include "script/lerror.h"
#include "script/script.h"
#include "server/host.h"
#include "server/request.h"
#include "server/server.h"

#include <string.h>

void
report_outcome(struct request *r, enum log_level level, const char *event, const char *why)
{
	struct server *s = r->server;
	char client[ADDR_TEXT];

	addr_text(&r->client, client, sizeof(client));
	struct log_field f[] = {log_str("server", s->name),
				log_str("client", client),
				log_int("generation", r->script->number),
				log_str("why", why),
				{0}};
	log_event(s->host->log, level, event, f);
}

/* text: the message; its traceback follows behind a newline, unless it is given apart. */
static void
log_error(struct request *r, const char *text, size_t n, const char *traceback)
{
	struct server *s = r->server;
	const char *nl = memmem(text, n, "\nstack traceback:", 17);
	char client[ADDR_TEXT];
	struct log_field f[6];

	addr_text(&r->client, client, sizeof(client));
	f[0] = log_str("server", s->name);
	f[1] = log_str("client", client);
	f[2] = log_int("generation", r->script->number);
	f[3] = log_bytes("error", text, nl ? (size_t)(nl - text) : n);
	f[4] = nl ? log_bytes("traceback", nl + 1, n - (size_t)(nl + 1 - text))
		  : log_str("traceback", traceback);
	f[5] = (struct log_field){0};
	log_event(s->host->log, LOG_ERROR, "handler error", f);
}

void
report_error(struct request *r, lua_State *L)
{
	struct counters *c = &r->server->counters;
	const char *code = lerror_code(L, -1), *text;
	size_t n;

	r->failed = true;
	if (lua_islightuserdata(L, -1)) { /* closed by task_kill() */
		c->cancelled++;
		report_outcome(r, LOG_INFO, "cancelled", lua_touserdata(L, -1));
		return;
	}
	state_push_text(L, -1);
	text = lua_tolstring(L, -1, &n);
	if (!code) {
		c->errors++;
		log_error(r, text, n, NULL);
	} else if (strcmp(code, "cancelled") == 0) {
		c->cancelled++;
		report_outcome(r, LOG_INFO, "cancelled", text);
	} else if (strcmp(code, "timeout") == 0) {
		c->timeouts++;
		report_outcome(r, LOG_INFO, "timeout", text);
	} else if (lerror_is_peer_gone(code)) {
		c->peers_gone++;
		report_outcome(r, LOG_INFO, "peer gone", text);
	} else {
		c->errors++;
		lua_pushliteral(L, "traceback");
		lua_rawget(L, -3);
		log_error(r, text, n, lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

void
report_unsent(struct server *s, const char *why)
{
	struct log_field f[] = {log_str("server", s->name), log_str("why", why), {0}};

	log_gated(s->host->log, &s->reply_gate, LOG_WARN, "reply not sent", f);
}
