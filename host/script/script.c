#include "script/script.h"

#include "script/coro.h"
#include "script/lerror.h"
#include "script/sandbox.h"
#include "script/sources.h"
#include "script/task.h"
#include "script/text.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
base_name(const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	size_t n = strlen(base);

	if (n > 4 && strcmp(base + n - 4, ".lua") == 0)
		n -= 4;
	return strndup(base, n);
}

/* A copy of a text that stands in for a file's, as if that had been read. */
static int
copy_text(const char *path, const struct script_options *o, struct text *out)
{
	*out = (struct text){
	    .p = malloc(o->text_len + 1), .len = o->text_len, .stamp = stamp_of(path)};
	if (!out->p)
		return -ENOMEM;
	memcpy(out->p, o->text, o->text_len);
	return 0;
}

static int
read_file(const char *path, const struct script_options *o, struct text *out, char *why,
	  size_t size)
{
	int wait = o->number > 1 ? O_NONBLOCK : 0; /* a pipe: others are served meanwhile */
	int fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC | wait);

	return fd < 0 ? -errno : text_read(fd, path, o->strict, out, why, size);
}

/* Reads the script into its sources, with clearer sentences than Lua's loader has. */
static int
read_script(struct sources *s, const char *path, const struct script_options *o, char *why,
	    size_t size)
{
	struct text text = {0};
	int rc;

	*why = 0;
	rc = o->text ? copy_text(path, o, &text) : read_file(path, o, &text, why, size);
	if (rc < 0 && !*why)
		snprintf(why, size, "cannot read the script %s: %s", path,
			 rc == -EISDIR ? "it is a folder" : strerror(-rc));
	else if (text.len > 0 && *text.p == LUA_SIGNATURE[0]) {
		snprintf(why, size,
			 "%s is precompiled Lua; scripts are loaded as text only", path);
		free(text.p);
		rc = -EINVAL;
	} else if (rc == 0 && !sources_put(s, NULL, path, &text))
		rc = -ENOMEM;
	if (rc == 0 || rc == -ENOMEM)
		snprintf(why, size, "cannot load %s: out of memory", path);
	return rc;
}

/* The registry's key of what script_default_handler() was given. */
static const char DEFAULT_HANDLER[] = "moonport.default_handler";

int
script_default_handler(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argcheck(L, lua_getfield(L, 1, "handle") == LUA_TFUNCTION, 1,
		      "the handler needs a function `handle`");
	lua_pushvalue(L, 1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, DEFAULT_HANDLER);
	return 0;
}

/* The handler that the script has returned or defined; or an error. */
static int
find_handler(lua_State *L, const char *path)
{
	if (lua_istable(L, -1)) {
		if (lua_getfield(L, -1, "handle") == LUA_TFUNCTION) {
			lua_pop(L, 1);
			return 1;
		}
		lua_pop(L, 1);
		/* what a library has made, such as a mock's server */
		if (luaL_getmetafield(L, -1, "__handler") == LUA_TTABLE)
			return 1;
	} else if (lua_isnil(L, -1) && lua_getglobal(L, "handle") == LUA_TFUNCTION) {
		/* the shorter form: global functions are the handler's */
		static const char *const names[] = {"setup", "handle", "finish", "save",
						    "init"};
		lua_createtable(L, 0, 4);
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			if (lua_getglobal(L, names[i]) == LUA_TFUNCTION)
				lua_setfield(L, -2, names[i]);
			else
				lua_pop(L, 1);
		}
		return 1;
	}
	if (lua_isnil(L, -1)) /* no global */
		lua_pop(L, 1);
	if (lua_isnil(L, -1) &&
	    lua_rawgetp(L, LUA_REGISTRYINDEX, DEFAULT_HANDLER) == LUA_TTABLE)
		return 1;
	return luaL_error(
	    L,
	    "%s has no handle: return a table with a function `handle`, or define a "
	    "global function `handle(self)`",
	    path);
}

/* The base classes' own step does nothing: it need not be called. */
static bool
has_step(lua_State *L, const char *name)
{
	int type = lua_getfield(L, 1, name);
	bool has = type != LUA_TNIL && lua_tocfunction(L, -1) != script_base_step;

	lua_pop(L, 1);
	return has;
}

/* Runs protected.  Arguments: handler, script.  Makes the registry's references. */
static int
anchor(lua_State *L)
{
	struct script *sc = lua_touserdata(L, 2);

	lua_createtable(L, 0, 2);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, sc->name);
	lua_setfield(L, -2, "__name");
	sc->meta_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pushvalue(L, 1);
	sc->handler_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	sc->has_setup = has_step(L, "setup");
	sc->has_finish = has_step(L, "finish");
	return 0;
}

/* The script has run.  Argument 1: its struct. */
static int
ran(lua_State *L, int status, lua_KContext ctx)
{
	struct script *sc = lua_touserdata(L, 1);

	(void)status, (void)ctx;
	find_handler(L, sc->path);
	lua_replace(L, 1);
	lua_settop(L, 1);
	lua_pushlightuserdata(L, sc);
	return anchor(L);
}

/* The chore.  Arguments: the script's struct, whether to add to its sources. */
static int
load(lua_State *L)
{
	struct script *sc = lua_touserdata(L, 1);

	sources_attach(L, sc->sources, lua_toboolean(L, 2));
	if (sources_load(L, NULL, sc->path) != LUA_OK)
		return lua_error(L);
	lua_callk(L, 0, 1, 0, ran);
	return ran(L, LUA_OK, 0);
}

int
script_base_step(lua_State *L)
{
	(void)L;
	return 0;
}

/* The script's own folder comes first where modules are looked for. */
static char *
search_path(const char *path, const char *lua_path)
{
	const char *slash = strrchr(path, '/');
	int n = slash ? (int)(slash - path) : 1;
	const char *dir = slash ? path : ".";
	char *out = NULL;

	if (slash == path)
		n = 0; /* the root folder */
	if (asprintf(&out, "%.*s/?.lua;%.*s/?/init.lua;%s", n, dir, n, dir,
		     lua_path ? lua_path : "") < 0)
		return NULL;
	return out;
}

/* Takes out of a borrowed state what was put there. */
static void
give_back(struct script *sc)
{
	lua_State *L = sc->state.L;

	luaL_unref(L, LUA_REGISTRYINDEX, sc->handler_ref);
	luaL_unref(L, LUA_REGISTRYINDEX, sc->meta_ref);
	while (sc->nspare > 0)
		luaL_unref(L, LUA_REGISTRYINDEX, sc->spare[--sc->nspare].ref);
}

static void
destroy(struct script *sc)
{
	if (sc->borrowed)
		give_back(sc);
	else
		state_close(&sc->state);
	sources_release(sc->sources);
	free(sc->spare);
	free(sc->path);
	free(sc->name);
	free(sc);
}

struct script *
script_borrow(lua_State *L, struct sched *s, const char *path)
{
	struct script *sc = calloc(1, sizeof(*sc));

	if (!sc)
		luaL_error(L, "not enough memory");
	*sc = (struct script){.sched = s,
			      .refs = 1,
			      .number = 1,
			      .borrowed = true,
			      .handler_ref = LUA_NOREF,
			      .meta_ref = LUA_NOREF,
			      .state = {.L = L, .pause = -1}};
	sc->path = strdup(path);
	sc->name = base_name(path);
	lua_pushcfunction(L, anchor);
	lua_insert(L, -2);
	lua_pushlightuserdata(L, sc);
	if (!sc->path || !sc->name || state_try(L, 2, 0) != LUA_OK) {
		destroy(sc);
		luaL_error(L, "not enough memory");
	}
	return sc;
}

/* Runs protected. */
static int
error_text(lua_State *L)
{
	state_push_text(L, 1);
	return 1;
}

void
script_keep_error(lua_State *L, const char *path, char *why, size_t size)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	size_t n, at = 0;
	const char *text, *end;

	lua_pushcfunction(L, error_text);
	lua_insert(L, -2);
	(void)state_try(L, 1, 1); /* else the text is that there is not enough memory */
	text = lua_tolstring(L, -1, &n);
	end = memmem(text, n, "\nstack traceback:", 17);
	n = end ? (size_t)(end - text) : n;
	end = memmem(text, n, " not found:\n", 12); /* a long list of places follows */
	n = end ? (size_t)(end - text) + 10 : n;
	if (!memmem(text, n, base, strlen(base)))
		at = (size_t)snprintf(why, size, "%s: ", path);
	for (size_t i = 0; i < n && at < size - 3; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\n') {
			why[at++] = ';';
			why[at++] = ' ';
		} else if (c >= ' ' && c != 0x7f)
			why[at++] = (char)c;
		else if (c != '\t')
			why[at++] = '?';
	}
	why[at < size ? at : size - 1] = 0;
	lua_pop(L, 1);
}

static void
loaded(struct chore *c, lua_State *co, int status)
{
	struct loading *l = LIST_ENTRY(c, struct loading, chore);
	struct script *sc = l->script;

	sources_seal(sc->sources);
	if (status == LUA_OK) {
		l->done(l, 0);
		return;
	}
	lua_xmove(co, sc->state.L, 1);
	script_keep_error(sc->state.L, sc->path, l->why, sizeof(l->why));
	l->script = NULL;
	l->tried = sources_hold(sc->sources);
	script_release(sc); /* it lives until its task is gone, too */
	l->done(l, -EINVAL);
}

/* A generation without its code and its state yet.  NULL: out of memory. */
static struct script *
new_script(struct sched *s, const char *path, const struct script_options *o)
{
	struct script *sc = calloc(1, sizeof(*sc));

	if (!sc)
		return NULL;
	*sc = (struct script){.sched = s, .refs = 1, .number = o->number};
	sc->path = strdup(path);
	sc->name = base_name(path);
	sc->sources = o->sources ? sources_hold(o->sources) : sources_new(o->strict);
	if (sc->path && sc->name && sc->sources)
		return sc;
	destroy(sc);
	return NULL;
}

/* Reads the text and opens a state for it.  why: what to say if memory is short. */
static int
open_script(struct script *sc, const struct script_options *o, char *why, size_t size)
{
	const struct sandbox_options box = {.script = sc->path, .lua_path = o->lua_path};
	char *search;
	int rc = 0;

	if (!o->sources)
		rc = read_script(sc->sources, sc->path, o, why, size);
	if (rc < 0)
		return rc;
	search = search_path(sc->path, o->lua_path);
	rc = search ? state_open(&sc->state, sc->sched, o->memory_limit, search, o->open,
				 o->sandbox ? &box : NULL)
		    : -ENOMEM;
	free(search);
	if (rc == 0)
		warn_open(sc->state.L, &sc->warnings, sc->sched->log, sc->path);
	return rc;
}

int
script_begin(struct sched *s, const char *path, const struct script_options *o,
	     struct loading *l)
{
	struct script *sc = new_script(s, path, o);
	lua_State *L;
	int rc;

	l->chore.task = NULL;
	l->script = NULL;
	l->tried = NULL;
	snprintf(l->why, sizeof(l->why), "cannot load %s: out of memory", path);
	if (!sc)
		return -ENOMEM;
	rc = open_script(sc, o, l->why, sizeof(l->why));
	if (rc < 0) {
		destroy(sc);
		return rc;
	}
	L = sc->state.L;
	lua_pushcfunction(L, load);
	lua_pushlightuserdata(L, sc);
	lua_pushboolean(L, !o->sources);
	l->chore.done = loaded;
	l->script = sc;
	rc = chore_start(&l->chore, sc, o->allowance, 2);
	if (rc < 0) {
		l->script = NULL;
		script_release(sc);
	}
	return rc;
}

void
script_give_up(struct loading *l)
{
	if (!l->chore.task)
		return;
	chore_cancel(&l->chore);
	script_release(l->script);
	l->script = NULL;
}

struct at_once {
	struct loading loading;
	int rc;
};

static void
keep_outcome(struct loading *l, int rc)
{
	LIST_ENTRY(l, struct at_once, loading)->rc = rc;
}

int
script_load(struct sched *s, const char *path, const struct script_options *o,
	    struct script **out, char *why, size_t size)
{
	struct at_once a = {.loading.done = keep_outcome};
	int rc = script_begin(s, path, o, &a.loading);

	if (rc == 0) {
		chore_insist(&a.loading.chore);
		rc = a.rc;
	}
	if (rc == 0)
		*out = a.loading.script;
	sources_release(a.loading.tried);
	snprintf(why, size, "%s", rc < 0 ? a.loading.why : "");
	return rc;
}

void
script_hold(struct script *sc)
{
	sc->refs++;
}

void
script_release(struct script *sc)
{
	if (--sc->refs == 0)
		destroy(sc);
}

/* Runs protected: making a coroutine may run out of memory. */
static int
make_co(lua_State *L)
{
	int *ref = lua_touserdata(L, 1);
	lua_State *co = lua_newthread(L);

	*ref = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pushlightuserdata(L, co);
	return 1;
}

lua_State *
script_take_co(struct script *sc, int *ref)
{
	lua_State *L = sc->state.L, *co;

	if (sc->nspare > 0) {
		sc->nspare--;
		*ref = sc->spare[sc->nspare].ref;
		return sc->spare[sc->nspare].co;
	}
	lua_pushcfunction(L, make_co);
	lua_pushlightuserdata(L, ref);
	co = state_call(L, 1, 1) == LUA_OK ? lua_touserdata(L, -1) : NULL;
	lua_pop(L, 1);
	return co;
}

/* False: no more are kept. */
static bool
more_room(struct script *sc)
{
	int room = sc->room ? sc->room * 4 : 4;
	struct spare *more;

	if (room > SCRIPT_SPARE)
		return false;
	more = realloc(sc->spare, (size_t)room * sizeof(*more));
	if (!more)
		return false;
	sc->spare = more;
	sc->room = room;
	return true;
}

void
script_give_co(struct script *sc, lua_State *co, int ref, bool clean)
{
	if (!clean && !coro_is_doomed(co))
		lua_resetthread(co);
	lua_settop(co, 0);
	if (lua_gethook(co)) /* one request's debug.sethook() is not the next one's */
		lua_sethook(co, NULL, 0, 0);
	if (coro_is_spent(co) || coro_is_doomed(co)) {
		luaL_unref(sc->state.L, LUA_REGISTRYINDEX, ref);
		return;
	}
	coro_mark_new(co);
	if (sc->nspare < sc->room || more_room(sc)) {
		sc->spare[sc->nspare].co = co;
		sc->spare[sc->nspare++].ref = ref;
	} else
		luaL_unref(sc->state.L, LUA_REGISTRYINDEX, ref);
}
