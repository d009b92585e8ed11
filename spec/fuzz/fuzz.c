/* What libFuzzer calls: an input comes over a real connection, in one piece, in four, and
 * byte by byte, to the function `run` of spec/fuzz/TARGET.lua, which looks for mistakes.
 *
 * The host's library is in the program, instrumented; Lua's own code is not, so the lines
 * that Lua runs are counted here.  An input is a byte that chooses what to do, three that
 * say where to cut, and the bytes to be sent.  FUZZ_LUA: where the modules are, "lua".
 */
#include "base/log.h"
#include "bind/lhandle.h"
#include "bind/lmoonport.h"
#include "script/script.h"
#include "server/engine.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHOICE = 1, CUTS = 3, HEAD = CHOICE + CUTS, BYTEWISE = 256, TURNS = 1000 };
enum {
	COUNTED = 1
}; /* deliveries whose lines count: it is dear, and the others go much the same ways */
enum { LINES = 1 << 13, MEMORY = 256 << 20 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libFuzzer takes these for coverage. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lines[LINES];
static unsigned before;

static struct log events = {.fd = STDERR_FILENO, .level = LOG_ERROR};
static struct engine engine;
static struct script *script;
static int run_ref;

static void
fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", TARGET, what);
	abort();
}

/* One way from a line to the next.  Which file it is in would be dear to learn, and the
 * way tells. */
__attribute__((no_sanitize("coverage", "address", "undefined"))) static void
count_line(lua_State *L, lua_Debug *ar)
{
	unsigned now = (unsigned)ar->currentline * 40503u;

	(void)L;
	lines[(now ^ before) % LINES]++;
	before = now >> 1;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *lua = getenv("FUZZ_LUA");
	char path[512], why[SCRIPT_ERROR];
	struct script_options o = {.memory_limit = MEMORY,
				   .lua_path = path,
				   .open = preload_moonport,
				   .number = 1};

	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	snprintf(path, sizeof(path), "%s/?.lua;lua/?.lua;", lua ? lua : "lua");
	if (engine_init(&engine, &events) < 0)
		fail("no engine");
	if (script_load(&engine.sched, "spec/fuzz/" TARGET ".lua", &o, &script, why,
			sizeof(why)) < 0)
		fail(why);
	lua_rawgeti(script->state.L, LUA_REGISTRYINDEX, script->handler_ref);
	lua_getfield(script->state.L, -1, "run");
	run_ref = luaL_ref(script->state.L, LUA_REGISTRYINDEX);
	lua_pop(script->state.L, 1);
	return 0;
}

static void
on_end(struct task *t, int status)
{
	*(bool *)t->owner = true;
	if (status != LUA_OK)
		fail(luaL_tolstring(t->co, -1, NULL));
}

/* run(nth, choice, payload, { request =, rfile =, wfile = }) */
static void
start(struct task *t, struct stream *s, int nth, const uint8_t *data, size_t size)
{
	lua_State *L = t->co;

	lua_rawgeti(L, LUA_REGISTRYINDEX, run_ref);
	lua_pushinteger(L, nth);
	lua_pushinteger(L, data[0]);
	lua_pushlstring(L, (const char *)data + HEAD, size - HEAD);
	lua_createtable(L, 0, 3);
	handle_push(L, request_class, s, 0);
	lua_setfield(L, -2, "request");
	handle_push(L, rfile_class, s, 0);
	lua_setfield(L, -2, "rfile");
	handle_push(L, wfile_class, s, 0);
	lua_setfield(L, -2, "wfile");
	before = 0;
	if (nth <= COUNTED)
		lua_sethook(L, count_line, LUA_MASKLINE, 0);
	task_start(t, 4);
}

/* Sends the payload in pieces that end where `cut` says, the last with the payload. */
static void
deliver(int nth, const uint8_t *data, size_t size, const size_t *cut, size_t n)
{
	struct stream *s = NULL;
	struct task *t = task_new(&engine.sched, script);
	bool ended = false;
	size_t at = HEAD;
	int fds[2];

	if (!t ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0 ||
	    stream_new(&engine.io, fds[0], false, &s) < 0)
		fail("no connection");
	s->task = t;
	t->stream = s;
	t->owner = &ended;
	t->ended = on_end;
	start(t, s, nth, data, size);
	for (size_t i = 0; i < n && !ended; i++) {
		if (cut[i] <= at)
			continue;
		if (send(fds[1], data + at, cut[i] - at, MSG_NOSIGNAL) !=
		    (ssize_t)(cut[i] - at))
			fail("the payload does not fit");
		at = cut[i];
		loop_turn(engine.loop, 0);
	}
	shutdown(fds[1], SHUT_WR);
	for (int i = 0; i < TURNS && !ended; i++)
		loop_turn(engine.loop, 0);
	if (!ended)
		fail("it waits although the input has ended");
	stream_free(s);
	close(fds[1]);
	loop_turn(engine.loop, 0); /* for what lingers */
}

static int
by_place(const void *a, const void *b)
{
	return *(const size_t *)a < *(const size_t *)b ? -1 : 1;
}

/* One input in 16, and none of its children because it is: byte by byte is slow. */
static bool
chosen(const uint8_t *data, size_t size)
{
	unsigned sum = 0;

	for (size_t i = 0; i < size; i++)
		sum = sum * 31 + data[i];
	return sum % 16 == 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t cut[BYTEWISE];
	size_t len = size - HEAD;

	if (size < HEAD || len > 16384)
		return 0;
	cut[0] = size;
	deliver(1, data, size, cut, 1);
	for (int i = 0; i < CUTS; i++)
		cut[i] = HEAD + data[CHOICE + i] * (len + 1) / 256;
	cut[CUTS] = size;
	qsort(cut, CUTS, sizeof(*cut), by_place);
	deliver(2, data, size, cut, CUTS + 1);
	if (len > BYTEWISE || !chosen(data, size))
		return 0;
	for (size_t i = 0; i < len; i++)
		cut[i] = HEAD + i + 1;
	deliver(3, data, size, cut, len);
	return 0;
}
