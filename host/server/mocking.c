#include "server/mocking.h"

#include "base/journal.h"
#include "bind/diary.h"
#include "script/script.h"
#include "server/control.h"
#include "server/declared.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/roster.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

/* The server of that name, unless it is the unit's own. */
static struct server *
find(const struct unit *u, const char *name)
{
	struct server *s = host_server(u->host, name);

	return s && s->unit != u ? s : NULL;
}

/* Names are what the control API and the journal know servers by. */
static int
check_names(const struct unit *u, const struct declared *d, char *why, size_t size)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct server *s = find(u, d->list[i].name);
		if (!s)
			continue;
		snprintf(
		    why, size,
		    "two mocks are named %s, one of %s and one of %s: give one of them "
		    "another name=",
		    s->site.view.name, s->site.script->path, u->script->path);
		return -EINVAL;
	}
	return 0;
}

/* ---- opening ---- */

/* A server of the generation, which accepts from the loop's next turn on. */
static int
open_one(struct unit *u, struct script *sc, const struct declaration *e,
	 struct server **out, char *why, size_t size)
{
	struct server *s;
	int rc;

	script_hold(sc);
	rc = server_new(u->host, policy_find("async"), &u->attrs, sc, &s, why, size);
	if (rc < 0)
		return rc;
	s->switchable = true;
	s->site.view.name = s->name = strdup(e->name);
	s->declared = strdup(e->text);
	if (s->name && s->declared)
		rc = host_bind(s, &e->url, why, size);
	else {
		snprintf(why, size, "out of memory");
		rc = -ENOMEM;
	}
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int
mocking_add(struct host *h, const char *path, const struct attrs *a, char *why, size_t size)
{
	struct declared d;
	struct server *s;
	struct unit *u;
	int rc = host_unit_load(h, path, a, &u, why, size);

	if (rc < 0)
		return rc;
	if (u->mocks) {
		snprintf(why, size, "%s is given twice", path);
		return -EINVAL;
	}
	u->mocks = true;
	u->attrs = *a;
	rc = declared_read(&d, u->script, why, size);
	if (rc < 0)
		return rc;
	rc = check_names(u, &d, why, size);
	for (size_t i = 0; rc == 0 && i < d.n; i++) {
		rc = open_one(u, u->script, &d.list[i], &s, why, size);
		if (rc == 0)
			s->unit = u;
	}
	declared_free(&d);
	return rc;
}

int
mocking_journal(struct host *h, int64_t limit, char *why, size_t size)
{
	struct diary *d = diary_make(&h->engine.io);
	int rc = d ? 0 : -ENOMEM;

	if (rc == 0 && limit > 0)
		rc = journal_limit(d->journal, (size_t)limit);
	if (rc < 0)
		snprintf(why, size, "no journal: %s", strerror(-rc));
	return rc;
}

/* ---- reload ---- */

/* Those of the unit that the script has declared: the next after s. */
static struct server *
declared_server(const struct unit *u, struct server *s)
{
	do
		s = unit_server(u, s);
	while (s && (!s->declared || s->leaving));
	return s;
}

static void
forget_next(struct server *s)
{
	free(s->next_name);
	free(s->next_declared);
	s->next_name = s->next_declared = NULL;
}

static bool
has(const struct unit *u, const struct declaration *e)
{
	for (struct server *s = NULL; (s = declared_server(u, s));)
		if (s->stays && strcmp(s->next_name ? s->next_name : s->name, e->name) == 0)
			return true;
	return false;
}

/* One that goes, and listens where e wants to. */
static struct server *
find_heir(const struct unit *u, const struct declaration *e)
{
	struct server *s = NULL;
	struct addr a;
	char why[256];

	if (url_resolve(&e->url, true, &a, why, sizeof(why)) < 0)
		return NULL; /* opening says so */
	while ((s = declared_server(u, s)))
		if (!s->stays && s->site.view.transport == e->url.transport &&
		    addr_same(&s->site.view.addr, &a))
			break;
	return s;
}

/* Hands it over: it changes its name when the generation is there. */
static int
inherit(struct server *s, const struct declaration *e)
{
	s->next_name = strdup(e->name);
	s->next_declared = strdup(e->text);
	s->stays = s->next_name && s->next_declared;
	return s->stays ? 0 : -ENOMEM;
}

/* Marks those that stay: under their own name and URL, else where they listen. */
static int
mark(const struct unit *u, const struct declared *d, char *why, size_t size)
{
	struct server *s = NULL;

	while ((s = declared_server(u, s))) {
		const struct declaration *e = declared_find(d, s->name);
		s->stays = e && strcmp(e->text, s->declared) == 0;
		forget_next(s);
	}
	for (size_t i = 0; i < d->n; i++) {
		s = has(u, &d->list[i]) ? NULL : find_heir(u, &d->list[i]);
		if (s && inherit(s, &d->list[i]) < 0) {
			snprintf(why, size, "out of memory");
			return -ENOMEM;
		}
	}
	return 0;
}

static int
open_new(struct unit *u, struct script *next, const struct declared *d, char *why,
	 size_t size)
{
	struct server *s;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < d->n; i++) {
		if (has(u, &d->list[i]))
			continue;
		rc = open_one(u, next, &d->list[i], &s, why, size);
		if (rc < 0)
			break;
		s->joins = u;
		rc = server_begin(s, why, size);
	}
	return rc;
}

int
mocking_prepare(struct unit *u, struct script *next, char *why, size_t size)
{
	struct declared d;
	int rc = declared_read(&d, next, why, size);

	if (rc < 0)
		return rc;
	rc = mark(u, &d, why, size);
	if (rc == 0)
		rc = check_names(u, &d, why, size);
	if (rc == 0)
		rc = open_new(u, next, &d, why, size);
	declared_free(&d);
	if (rc == 0)
		*why = 0; /* whoever asks goes by that */
	return rc;
}

/* It is what the new generation says. */
static void
rename_server(struct server *s)
{
	free(s->name);
	free(s->declared);
	s->site.view.name = s->name = s->next_name;
	s->declared = s->next_declared;
	s->next_name = s->next_declared = NULL;
}

void
mocking_commit(struct unit *u)
{
	struct list *all = &u->host->servers;

	for (struct list *l = all->next, *next; l != all; l = next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		next = l->next;
		if (s->joins == u) {
			s->unit = u;
			s->joins = NULL;
		} else if (s->unit == u && s->next_name)
			rename_server(s);
		else if (s->unit == u && s->declared && !s->stays && !s->leaving)
			host_close(s);
	}
}

void
mocking_abandon(struct unit *u)
{
	struct list *all = &u->host->servers;

	for (struct list *l = all->next, *next; l != all; l = next) {
		struct server *s = LIST_ENTRY(l, struct server, link);
		next = l->next;
		if (s->joins == u)
			server_close(s);
		else if (s->unit == u)
			forget_next(s);
	}
}

void
mocking_record(struct unit *u, const char *why)
{
	char text[SCRIPT_ERROR + 64];

	if (why)
		snprintf(text, sizeof(text), "failed: %s", why);
	else
		snprintf(text, sizeof(text), "generation %u", u->script->number);
	for (struct server *s = NULL; (s = unit_server(u, s));) {
		if (s->leaving)
			continue;
		const struct journal_record r = {.kind = JOURNAL_RELOAD,
						 .server = s->name,
						 .server_len = strlen(s->name),
						 .data = text,
						 .data_len = strlen(text)};
		(void)diary_add(&u->host->engine.io, &r);
	}
}

/* ---- the end ---- */

/* Runs protected: the texts of the script's own verdict; nil, it has no mocks. */
static int
ask_verdict(lua_State *L)
{
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	if (lua_getfield(L, -1, "moonport.mock") != LUA_TTABLE) {
		lua_pushnil(L);
		return 1;
	}
	lua_getfield(L, -1, "control");
	lua_pushliteral(L, "verdict");
	lua_newtable(L);
	lua_call(L, 2, 1);
	return 1;
}

/* Runs protected.  Arguments: the texts, a number.  Its text, or an error. */
static int
pick(lua_State *L)
{
	lua_geti(L, 1, lua_tointeger(L, 2));
	luaL_tolstring(L, -1, NULL);
	return 1;
}

static size_t
tell_unit(struct unit *u, void (*tell)(void *arg, const char *from, const char *text),
	  void *arg)
{
	lua_State *L = u->script->state.L;
	size_t n;

	lua_pushcfunction(L, ask_verdict);
	if (state_call(L, 0, 1) != LUA_OK) { /* it could not say */
		tell(arg, u->script->path, lua_tostring(L, -1));
		lua_pop(L, 1);
		return 1;
	}
	n = lua_istable(L, -1) ? lua_rawlen(L, -1) : 0;
	for (size_t i = 1; i <= n; i++) {
		lua_pushcfunction(L, pick);
		lua_pushvalue(L, -2);
		lua_pushinteger(L, (lua_Integer)i);
		(void)state_call(L, 2, 1);
		tell(arg, u->script->path, lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return n;
}

static size_t
tell_failures(const struct journal *j,
	      void (*tell)(void *arg, const char *from, const char *text), void *arg)
{
	const char *text;
	size_t len;

	for (size_t i = 0; (text = journal_failure(j, i, &len)); i++)
		tell(arg, NULL, text);
	return (size_t)journal_info(j).failures;
}

size_t
mocking_verdict(struct host *h, void (*tell)(void *arg, const char *from, const char *text),
		void *arg)
{
	const struct diary *d = h->engine.io.diary;
	size_t n = d ? tell_failures(d->journal, tell, arg) : 0;

	for (struct list *l = h->units.next; l != &h->units; l = l->next)
		if (!control_owns(h, LIST_ENTRY(l, struct unit, link)))
			n += tell_unit(LIST_ENTRY(l, struct unit, link), tell, arg);
	return n;
}
