#include "module/mocked.h"

#include "base/buf.h"
#include "module/started.h"
#include "script/script.h"
#include "server/admin.h"
#include "server/control.h"
#include "server/mocking.h"
#include "server/server.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* What the Lua object owns. */
struct mocked {
	struct started started;
	struct control control;
	char *token; /* of the control API, or NULL */
	struct buf
	    failures; /* the verdict's texts, each with a NUL; there once it has ended */
};

static const char META[] = "moonport.mocks", WHO[] = "moonport.mock";

enum { PLACES = 1 }; /* user value: admin, servers */

static struct mocked *
check(lua_State *L)
{
	return *(struct mocked **)luaL_checkudata(L, 1, META);
}

/* ---- the end ---- */

static void
keep_failure(void *arg, const char *from, const char *text)
{
	struct mocked *m = arg;

	(void)from;
	(void)buf_put(&m->failures, text,
		      strlen(text) + 1); /* no memory: the others count */
}

static void
judge(struct started *st)
{
	struct mocked *m = LIST_ENTRY(st, struct mocked, started);

	(void)mocking_verdict(&st->host, keep_failure, m);
}

/* mocks:stop() -> what has failed: a list of texts, the same one each time */
static int
mocked_stop(lua_State *L)
{
	struct mocked *m = check(L);
	size_t at = 0;
	lua_Integer n = 0;

	started_finish(&m->started);
	lua_newtable(L);
	while (at < buf_len(&m->failures)) {
		const char *text = buf_data(&m->failures) + at;
		lua_pushstring(L, text);
		lua_rawseti(L, -2, ++n);
		at += strlen(text) + 1;
	}
	return 1;
}

static int
mocked_gc(lua_State *L)
{
	struct mocked **p = luaL_checkudata(L, 1, META), *m = *p;

	if (!m)
		return 0;
	*p = NULL;
	if (!started_free(&m->started))
		return 0;
	buf_free(&m->failures);
	free(m->token);
	free(m);
	return 0;
}

/* ---- the start ---- */

/* The string option on top of the stack, as a copy; it is popped. */
static char *
copy(lua_State *L, const char *name)
{
	char *s = strdup(started_string(L, WHO, name));

	if (!s)
		luaL_error(L, "not enough memory");
	lua_pop(L, 1);
	return s;
}

static void
read_token(lua_State *L, struct mocked *m)
{
	m->token = copy(L, "token");
	if (!admin_is_token(m->token))
		luaL_error(L, "%s: token must be one word of visible ASCII characters",
			   WHO);
}

static void
read_option(lua_State *L, struct mocked *m, const char *name)
{
	if (strcmp(name, "options") == 0)
		started_read_attributes(L, &m->started, WHO);
	else if (strcmp(name, "log_level") == 0)
		started_read_level(L, &m->started, WHO);
	else if (strcmp(name, "token") == 0)
		read_token(L, m);
	else if (strcmp(name, "admin") == 0)
		lua_pop(L, 1);
	else
		luaL_error(L,
			   "moonport.mock: unknown option %s; there are admin, token, "
			   "options and log_level",
			   name);
}

/* options.admin: where the control API listens, HOST:PORT; false: nowhere. */
static void
open_admin(lua_State *L, struct mocked *m)
{
	const struct control_options o = {.token = m->token,
					  .how = "token = \"a secret\" in the options"};
	char why[SCRIPT_ERROR];
	struct url url;
	const char *text;
	size_t n;

	if (lua_getfield(L, 2, "admin") == LUA_TNIL)
		lua_pushliteral(L, "127.0.0.1:0");
	if (lua_isboolean(L, -1) && !lua_toboolean(L, -1))
		return;
	text = lua_pushfstring(L, "tcp://%s", started_string(L, WHO, "admin"));
	n = strlen(text);
	if (url_parse(text, n, &url, why, sizeof(why)) < 0 ||
	    admin_open(&m->started.host, &m->control, &o, &m->started.attrs, &url, why,
		       sizeof(why)) < 0)
		luaL_error(L, "%s: %s", WHO, why);
}

static void
add_scripts(lua_State *L, struct mocked *m)
{
	struct started *st = &m->started;
	char why[SCRIPT_ERROR];
	lua_Integer n = luaL_len(L, 1);

	if (mocking_journal(&st->host, 0, why, sizeof(why)) < 0)
		luaL_error(L, "%s: %s", WHO, why);
	if (n == 0)
		luaL_error(L, "%s: there is no script", WHO);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, 1, i);
		if (mocking_add(&st->host, started_string(L, WHO, "a script"), &st->attrs,
				why, sizeof(why)) < 0)
			luaL_error(L, "%s: %s", WHO, why);
		lua_pop(L, 1);
	}
}

/* { admin = its URL, servers = { name = place } }, as user value of the object. */
static void
keep_places(lua_State *L, const struct host *h, int object)
{
	char text[ADDR_TEXT];

	lua_newtable(L);
	if (h->admin) {
		addr_text(&h->admin->site.view.addr, text, sizeof(text));
		lua_pushfstring(L, "http://%s", text);
		lua_setfield(L, -2, "admin");
	}
	lua_newtable(L);
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		if (s == h->admin)
			continue;
		started_push_place(L, s);
		lua_setfield(L, -2, s->name);
	}
	lua_setfield(L, -2, "servers");
	lua_setiuservalue(L, object, PLACES);
}

/* Runs protected, with a host that its caller frees on an error.  Arguments: scripts,
 * options, the object. */
static int
set_up(lua_State *L)
{
	struct mocked *m = *(struct mocked **)lua_touserdata(L, 3);
	char why[SCRIPT_ERROR];

	open_admin(L, m);
	add_scripts(L, m);
	keep_places(L, &m->started.host, 3);
	if (host_begin(&m->started.host, why, sizeof(why)) < 0)
		luaL_error(L, "%s: %s", WHO, why);
	return 0;
}

/* mocks.admin, mocks.servers, mocks:stop() */
static struct mocked *
new_mocked(lua_State *L)
{
	static const luaL_Reg methods[] = {{"stop", mocked_stop}, {NULL, NULL}};
	static const luaL_Reg meta[] = {
	    {"__close", mocked_stop}, {"__gc", mocked_gc}, {NULL, NULL}};
	struct mocked **object = lua_newuserdatauv(L, sizeof(*object), 1), *m;

	*object = NULL;
	started_set_class(L, META, methods, meta); /* from here on its finalizer frees */
	*object = m = calloc(1, sizeof(*m));
	if (!m)
		luaL_error(L, "not enough memory");
	started_init(&m->started);
	m->started.ended = judge;
	m->started.attrs.drain_timeout = 0; /* as `moonport mock` has it */
	m->started.attrs.retire_timeout = 0;
	return m;
}

/* Arguments: a list of scripts; a table of options. */
int
module_mocking(lua_State *L)
{
	struct mocked *m;

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	m = new_mocked(L);
	for (lua_pushnil(L); lua_next(L, 2);)
		read_option(L, m,
			    lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?");
	started_run(L, &m->started, set_up, WHO);
	lua_settop(L, 3);
	return 1;
}
