#include "module/started.h"

#include "base/stack.h"
#include "script/state.h"
#include "server/policy.h"
#include "server/server.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Those that run now, for an exit of the process that closes no Lua state: there is no
 * other way to find them then.  Guarded by the mutex. */
static struct list running = {&running, &running};
static pthread_mutex_t running_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *
run(void *arg)
{
	struct started *st = arg;

	host_run(&st->host);
	st->over = true;
	return NULL;
}

static void
drain(void *arg)
{
	host_drain(&((struct started *)arg)->host);
}

static void
stop_now(void *arg)
{
	host_drain(&((struct started *)arg)->host);
	host_stop(&((struct started *)arg)->host);
}

/* A handler has called os.exit: the thread cannot wait for itself, and what it stands on
 * cannot go away. */
static void
leave_paths(struct started *st)
{
	pthread_mutex_lock(&running_mutex);
	list_remove(&st->link);
	pthread_mutex_unlock(&running_mutex);
	for (struct list *l = st->host.servers.next; l != &st->host.servers; l = l->next)
		listener_close(&LIST_ENTRY(l, struct server, link)->listener);
}

/* Stops the thread, by fn on it, and frees the host.  Harmless when repeated. */
static void
finish(struct started *st, void (*fn)(void *arg))
{
	if (!st->runs || getpid() != st->host.pid)
		return; /* a forked child's copy has no thread, and nothing of its own */
	st->runs = false;
	if (pthread_equal(st->thread, pthread_self())) {
		leave_paths(st);
		return;
	}
	while (loop_post(st->host.engine.loop, fn, st) == -ENOMEM)
		usleep(1000); /* without a word to it the thread never ends */
	pthread_join(st->thread, NULL);
	pthread_mutex_lock(&running_mutex);
	list_remove(&st->link);
	pthread_mutex_unlock(&running_mutex);
	if (st->ended && fn == drain)
		st->ended(st);
	host_free(&st->host);
}

void
started_finish(struct started *st)
{
	finish(st, drain);
}

bool
started_free(struct started *st)
{
	finish(st, drain);
	if (st->runs || st->host.left_behind)
		return false; /* its threads may still use the log */
	free(st->lua_path);
	return true;
}

/* The process ends: sockets' paths go away, threads end, nobody is waited for. */
static void
at_exit(void)
{
	struct list *l;

	for (;;) {
		pthread_mutex_lock(&running_mutex);
		l = running.next;
		pthread_mutex_unlock(&running_mutex);
		if (l == &running ||
		    LIST_ENTRY(l, struct started, link)->host.pid != getpid())
			return;
		finish(LIST_ENTRY(l, struct started, link), stop_now);
	}
}

static void
register_exit(void)
{
	(void)atexit(at_exit);
}

/* The places of this Lua state's modules, for the scripts' own states. */
static char *
lua_path(lua_State *L)
{
	char *path;

	lua_getglobal(L, "package");
	lua_getfield(L, -1, "path");
	path = strdup(luaL_optstring(L, -1, ""));
	lua_pop(L, 2);
	return path;
}

/* Signals are for the process that the server is a guest in. */
static int
start_thread(struct started *st)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_NEEDED); /* not what `ulimit -s` says */
	rc = pthread_create(&st->thread, &attr, run, st);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

static int
begin(struct started *st)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int rc;

	pthread_once(&once, register_exit);
	rc = start_thread(st);
	if (rc < 0)
		return rc;
	st->runs = true;
	pthread_mutex_lock(&running_mutex);
	list_append(&running, &st->link);
	pthread_mutex_unlock(&running_mutex);
	return 0;
}

void
started_init(struct started *st)
{
	st->log = (struct log){.fd = STDERR_FILENO, .level = LOG_WARN};
	st->policy = policy_find("async");
	attrs_init(&st->attrs);
}

void
started_run(lua_State *L, struct started *st, lua_CFunction set_up, const char *who)
{
	int rc;

	st->lua_path = lua_path(L);
	rc = st->lua_path ? host_init(&st->host, &st->log, st->lua_path) : -ENOMEM;
	if (rc < 0)
		luaL_error(L, "%s: %s", who, strerror(-rc));
	lua_pushcfunction(L, set_up);
	for (int i = 1; i <= 3; i++)
		lua_pushvalue(L, i);
	if (state_try(L, 3, 0) != LUA_OK) {
		host_free(&st->host);
		lua_error(L);
	}
	rc = begin(st);
	if (rc < 0) {
		host_free(&st->host);
		luaL_error(L, "%s: cannot start a thread: %s", who, strerror(-rc));
	}
}

/* A method, or a field of the object's own.  Upvalues: the class, its methods. */
static int
index_object(lua_State *L)
{
	luaL_checkudata(L, 1, lua_tostring(L, lua_upvalueindex(1)));
	lua_pushvalue(L, 2);
	if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL)
		return 1;
	lua_getiuservalue(L, 1, 1);
	lua_pushvalue(L, 2);
	lua_rawget(L, -2);
	return 1;
}

void
started_set_class(lua_State *L, const char *class, const luaL_Reg *methods,
		  const luaL_Reg *meta)
{
	if (luaL_getmetatable(L, class) != LUA_TTABLE) {
		lua_newtable(L);
		lua_pushstring(L, class);
		lua_pushvalue(L, -1);
		lua_setfield(L, -3, "__name");
		lua_newtable(L);
		luaL_setfuncs(L, methods, 0);
		lua_pushcclosure(L, index_object, 2);
		lua_setfield(L, -2, "__index");
		luaL_setfuncs(L, meta, 0);
		lua_pushvalue(L, -1);
		lua_setfield(L, LUA_REGISTRYINDEX, class); /* only what is whole */
		lua_replace(L, -2);
	}
	lua_setmetatable(L, -2);
}

void
started_push_place(lua_State *L, const struct server *s)
{
	char text[ADDR_TEXT];
	const struct addr *a = &s->site.view.addr;

	lua_newtable(L);
	addr_url(a, s->site.view.transport, text, sizeof(text));
	lua_pushstring(L, text);
	lua_setfield(L, -2, "url");
	lua_pushstring(L, s->class_name);
	lua_setfield(L, -2, "class");
	lua_pushstring(L, s->name);
	lua_setfield(L, -2, "name");
	if (addr_is_unix(a)) {
		addr_path(a, text, sizeof(text));
		lua_pushstring(L, text);
		lua_setfield(L, -2, "path");
		return;
	}
	addr_host(a, text, sizeof(text));
	lua_pushstring(L, text);
	lua_setfield(L, -2, "host");
	lua_pushinteger(L, addr_port(a));
	lua_setfield(L, -2, "port");
}

void
started_read_attributes(lua_State *L, struct started *st, const char *who)
{
	const char *name, *value;
	char why[320];

	luaL_argcheck(L, lua_istable(L, -1), 2, "options.options must be a table");
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 2)) {
		luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, 2,
			      "options.options: names are strings");
		name = lua_tostring(L, -2);
		value = luaL_tolstring(L, -1, NULL);
		if (attrs_set_text(&st->attrs, name, value, why, sizeof(why)) < 0)
			luaL_error(L, "%s: %s", who, why);
	}
	lua_pop(L, 1);
}

const char *
started_string(lua_State *L, const char *who, const char *name)
{
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "%s: %s must be a string, not a %s", who, name,
			   luaL_typename(L, -1));
	return lua_tostring(L, -1);
}

void
started_read_level(lua_State *L, struct started *st, const char *who)
{
	int level = log_level_of(started_string(L, who, "log_level"));

	if (level < 0)
		luaL_error(L, "%s: log_level must be debug, info, warn or error", who);
	st->log.level = (enum log_level)level;
	lua_pop(L, 1);
}
