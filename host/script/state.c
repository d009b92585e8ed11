#include "script/state.h"

#include "base/clock.h"
#include "script/clibs.h"
#include "script/coro.h"
#include "script/files.h"
#include "script/finalizer.h"
#include "script/lerror.h"
#include "script/lstring.h"
#include "script/ltable.h"
#include "script/lxpcall.h"
#include "script/require.h"
#include "script/sandbox.h"
#include "script/slice.h"
#include "script/sources.h"
#include "script/task.h"
#include "script/trace.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <malloc.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* tostring() in protected mode: a throwing __tostring must not end the report.  The
 * address of an object would tell nobody anything. */
static int
protected_tostring(lua_State *L)
{
	if (lua_type(L, 1) > LUA_TSTRING && !luaL_getmetafield(L, 1, "__tostring")) {
		lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
		return 1;
	}
	luaL_tolstring(L, 1, NULL);
	return 1;
}

void
state_push_text(lua_State *L, int idx)
{
	struct sched *s = sched_of(L);
	struct section section;
	int status;

	idx = lua_absindex(L, idx);
	lua_pushcfunction(L, protected_tostring);
	lua_pushvalue(L, idx);
	if (s)
		slice_enter(s, L, &section);
	status = lua_pcall(L, 1, 1, 0);
	if (s)
		slice_leave(s, L, &section);
	if (status == LUA_OK)
		return;
	lua_pop(L, 1);
	lua_pushfstring(L, "(error value: a %s whose __tostring failed)",
			luaL_typename(L, idx));
}

/* Whether the text on top of the stack has been given one where it was raised first. */
static bool
has_traceback(lua_State *L)
{
	static const char mark[] = "\nstack traceback:\n";
	size_t n;
	const char *text = lua_tolstring(L, -1, &n);

	return n > sizeof(mark) && memmem(text, n, mark, sizeof(mark) - 1);
}

int
state_traceback(lua_State *L)
{
	if (lerror_code(L, 1)) {
		lerror_add_traceback(L, 1);
		return 1;
	}
	state_push_text(L, 1);
	if (has_traceback(L))
		return 1;
	lua_pushliteral(L,
			"\n"); /* not by luaL_traceback(): the text may have a NUL in it */
	trace_push(L, L, 1);
	lua_concat(L, 3);
	return 1;
}

int
state_observe(lua_State *L)
{
	if (lerror_code(L, 1) || !trace_keep(L, 1, 1))
		return state_traceback(L);
	return 1;
}

void
state_push_report(lua_State *L, int idx)
{
	idx = lua_absindex(L, idx);
	state_push_text(L, idx);
	trace_push_kept(L, idx);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		return;
	}
	lua_pushliteral(L, "\n");
	lua_insert(L, -2);
	lua_concat(L, 3);
}

int
state_call(lua_State *L, int nargs, int nresults)
{
	int at = lua_gettop(L) - nargs, status;
	struct sched *s = sched_of(L);
	struct section section;

	lua_pushcfunction(L, state_traceback);
	lua_insert(L, at);
	if (s)
		slice_enter(s, L, &section);
	status = lua_pcall(L, nargs, nresults, at);
	if (s)
		slice_leave(s, L, &section);
	lua_remove(L, at);
	return status;
}

int
state_try(lua_State *L, int nargs, int nresults)
{
	return lua_pcall(L, nargs, nresults, 0);
}

/* What load() reads from, which is upvalue 1: a C function might feed it for ever. */
static int
read_piece(lua_State *L)
{
	slice_check(L);
	lua_settop(L, 0);
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_call(L, 0, 1);
	return 1;
}

/* load() as Lua's own, but for text only: bytecode can break out of any sandbox. */
static int
text_load(lua_State *L)
{
	int type = lua_type(L, 1);
	int n = lua_gettop(L) < 4
		    ? 3
		    : 4; /* a fourth argument, nil or not, is the environment */

	luaL_argexpected(L, type == LUA_TFUNCTION || lua_isstring(L, 1), 1, "function");
	lua_settop(L, n);
	if (type == LUA_TFUNCTION) {
		lua_pushvalue(L, 1);
		lua_pushcclosure(L, read_piece, 1);
		lua_replace(L, 1);
	}
	lua_pushliteral(L, "t");
	lua_replace(L, 3);
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, n, LUA_MULTRET);
	return lua_gettop(L);
}

static int
text_loadfile(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	int has_env = lua_gettop(L) >= 3;

	if (sources_loadfile(L, name) != LUA_OK) {
		luaL_pushfail(L);
		lua_insert(L, -2);
		return 2;
	}
	if (has_env) {
		lua_pushvalue(L, 3);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

static int
dofile_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return lua_gettop(L) - 1;
}

static int
text_dofile(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	lua_settop(L, 1);
	if (sources_loadfile(L, name) != LUA_OK)
		return lua_error(L);
	lua_callk(L, 0, LUA_MULTRET, 0, dofile_k);
	return dofile_k(L, LUA_OK, 0);
}

/* A format of more bytes would keep os.date busy for long, out of reach of any limit. */
enum { LONGEST_DATE = 64 * 1024 };

/* os.date, which is upvalue 1, for formats of a sensible length. */
static int
bounded_date(lua_State *L)
{
	size_t n = 0;

	luaL_optlstring(L, 1, "", &n);
	luaL_argcheck(L, n <= LONGEST_DATE, 1, "format too long");
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* os.exit, which is upvalue 1, for requests: new code that ends the process as it is loaded
 * would take the old code's requests with it. */
static int
request_exit(lua_State *L)
{
	const struct sched *s = sched_of(L);

	if (s && (!s->current || s->current->chore))
		return luaL_error(L,
				  "only a request can end the process: call os.exit in a "
				  "handler, not while the script is loaded");
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, 0);
	return 0;
}

/* Has the os library's functions that can do harm look at what they are asked for. */
static void
watch_os(lua_State *L)
{
	lua_getglobal(L, "os");
	lua_getfield(L, -1, "date");
	lua_pushcclosure(L, bounded_date, 1);
	lua_setfield(L, -2, "date");
	lua_getfield(L, -1, "exit");
	lua_pushcclosure(L, request_exit, 1);
	lua_setfield(L, -2, "exit");
	lua_pop(L, 1);
}

static int
refuse_sethook(lua_State *L)
{
	return luaL_error(L,
			  "debug.sethook is not for handlers: by its hook the host stops "
			  "code that computes too long");
}

/* The metatable of large buffers is made with the first of them, in two steps.  Where
 * memory ends between them (Lua 5.4.4), the state could have no large buffer ever again. */
static void
make_box(lua_State *L)
{
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	luaL_prepbuffsize(&b, LUAL_BUFFERSIZE + 1);
	luaL_pushresultsize(&b, 0);
	lua_pop(L, 1);
}

/* Arguments, as light userdata (outside of here making a string would be fatal without
 * memory), NULL for none: 1: what to put before package.path; 3: the script's path if it
 * has a sandbox; 4: where the host's own modules are.  2: the function that opens more, or
 * nil.
 */
static int
open_libraries(lua_State *L)
{
	const char *boxed = lua_touserdata(L, 3);

	luaL_openlibs(L);
	make_box(L);
	lstring_install(L);
	ltable_install(L);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	luaopen_moonport_coroutine(L);
	lua_pushvalue(L, -1);
	lua_setglobal(L, "coroutine");
	lua_setfield(L, -2, "coroutine");
	lua_pop(L, 1);
	lua_getglobal(L, "load");
	lua_pushcclosure(L, text_load, 1);
	lua_setglobal(L, "load");
	clibs_watch(L);
	if (boxed)
		sandbox_enter(L, boxed, lua_touserdata(L, 4));
	files_watch(L);
	finalizer_guard(L);
	lxpcall_install(L);
	watch_os(L);
	lua_getglobal(L, "debug");
	lua_pushcfunction(L, refuse_sethook);
	lua_setfield(L, -2, "sethook");
	lua_pop(L, 1);
	lua_register(L, "loadfile", text_loadfile);
	lua_register(L, "dofile", text_dofile);
	require_install(L, lua_touserdata(L, 1));
	if (boxed)
		sandbox_strip(L);
	if (!lua_isnil(L, 2)) {
		lua_pushvalue(L, 2);
		lua_call(L, 0, 0);
	}
	return 0;
}

/* Garbage that may pile up before a small heap is collected.  Less, and the standard
 * libraries are marked too often; more, and new strings are cold memory every time. */
enum { GARBAGE = 512 * 1024 };

/* A state that held this much leaves holes worth giving back to the system. */
enum { MUCH = 4 * 1024 * 1024 };

/* Collections in a row after a lack of memory. */
enum { ROUNDS = 8 };

void
state_tune(struct state *st)
{
	size_t live = st->alloc.low ? st->alloc.low : 1;
	size_t pause = 100 + 100 * GARBAGE / live;

	st->alloc.low = st->alloc.used;
	pause = pause < 200 ? 200 : pause > 1000 ? 1000 : pause;
	if (st->alloc.limit && pause > st->alloc.limit / 2 * 100 / live)
		pause = st->alloc.limit / 2 * 100 / live; /* buffers cannot wait for it */
	pause = pause < 110 ? 110 : pause;
	if (st->pause < 0 || (int)pause == st->pause)
		return;
	st->pause = (int)pause;
	if (lua_gc(st->L, LUA_GCINC, (int)pause, 0, 0) == LUA_GCGEN) {
		lua_gc(st->L, LUA_GCGEN, 0, 0); /* the script's choice stands */
		st->pause = -1;
	}
}

void
state_relieve(struct state *st)
{
	struct sched *s = sched_of(st->L);
	size_t before;

	/* Each collection makes the table of all strings smaller by half, and runs
	 * finalizers, which may make more garbage. */
	for (int i = 0; i < ROUNDS; i++) {
		before = st->alloc.used;
		st->alloc.refused = s->final.some = false;
		lua_gc(st->L, LUA_GCCOLLECT);
		if (s->final.some) /* what they were called for goes with the next one */
			continue;
		if (!st->alloc.refused && st->alloc.used >= before - before / 4)
			break;
	}
	st->alloc.refused = false;
	malloc_trim(0); /* what is free lies below what lives: only this gives it back */
}

/* Runs protected. */
static int
reseed(lua_State *L)
{
	lua_Integer seed[2] = {0};

	if (getrandom(seed, sizeof(seed), GRND_NONBLOCK) < 0) {
		seed[0] = getpid();
		seed[1] = clock_now();
	}
	lua_getglobal(L, LUA_MATHLIBNAME);
	lua_getfield(L, -1, "randomseed");
	lua_pushinteger(L, seed[0]);
	lua_pushinteger(L, seed[1]);
	lua_call(L, 2, 0);
	return 0;
}

void
state_reseed(struct state *st)
{
	lua_State *L = st->L;

	lua_pushcfunction(L, reseed);
	if (state_call(L, 0, 0) != LUA_OK) /* the script has taken the library away */
		lua_pop(L, 1);
}

int
state_open(struct state *st, struct sched *s, size_t limit, const char *path,
	   lua_CFunction open, const struct sandbox_options *box)
{
	*st = (struct state){0};
	alloc_init(&st->alloc, limit);
	st->L = lua_newstate(alloc_realloc, &st->alloc);
	if (!st->L) {
		alloc_free(&st->alloc);
		return -ENOMEM;
	}
	sched_attach(st->L, s);
	lua_pushcfunction(st->L, open_libraries);
	lua_pushlightuserdata(st->L, (void *)path);
	if (open)
		lua_pushcfunction(st->L, open);
	else
		lua_pushnil(st->L);
	lua_pushlightuserdata(st->L, (void *)(box ? box->script : NULL));
	lua_pushlightuserdata(st->L, (void *)(box ? box->lua_path : NULL));
	if (state_call(st->L, 4, 0) != LUA_OK) {
		state_close(st);
		return -ENOMEM;
	}
	state_reseed(st);
	st->alloc.low = st->alloc.used;
	state_tune(st);
	return 0;
}

void
state_close(struct state *st)
{
	size_t held = st->alloc.used;
	struct sched *s = st->L ? sched_of(st->L) : NULL;
	struct section section;

	if (s) /* finalizers have one allowance for all of it */
		slice_enter(s, NULL, &section);
	if (st->L)
		lua_close(st->L);
	if (s)
		slice_leave(s, NULL, &section);
	st->L = NULL;
	alloc_free(&st->alloc);
	if (held > MUCH || st->alloc.strained)
		malloc_trim(0);
}
