#include "base/clock.h"
#include "bind/lmoonport.h"
#include "loop/loop.h"
#include "script/script.h"
#include "script/task.h"
#include "unit.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More than a state with its libraries and a small script needs. */
enum { PLENTY = 1 << 20, STEP = 48 };

static char path[] = "/tmp/moonport-unit-XXXXXX";

/* The least limit with which a state opens; each lesser one fails, and leaves nothing. */
static size_t
opens_or_not(struct sched *s)
{
	size_t limit = STEP;
	struct state st;

	while (limit < PLENTY &&
	       state_open(&st, s, limit, "/nowhere/?.lua;", preload_moonport, NULL) < 0) {
		if (st.L || st.alloc.used || st.alloc.spare || st.alloc.mixed)
			break;
		limit += STEP;
	}
	CHECK(limit < PLENTY && st.L);
	if (st.L)
		state_close(&st);
	CHECK(st.alloc.used == 0);
	return limit;
}

/* Loading under each limit between the one that a state needs and one that is enough. */
static void
loads_or_not(struct sched *s, size_t limit)
{
	struct script_options o = {.lua_path = "", .open = preload_moonport, .number = 1};
	struct script *sc = NULL;
	char why[SCRIPT_ERROR];
	unsigned failed = 0;

	for (limit -= limit / 4; limit < PLENTY && !sc; limit += STEP) {
		o.memory_limit = limit;
		if (script_load(s, path, &o, &sc, why, sizeof(why)) == 0)
			break;
		sc = NULL;
		failed++;
		CHECK(strstr(why, "memory") && strstr(why, path));
	}
	CHECK(failed > 50 && sc && *why == 0);
	if (sc)
		script_release(sc);
}

static int
return_nothing(lua_State *L)
{
	(void)L;
	return 0;
}

static void
note_end(struct task *t, int status)
{
	*(int *)t->owner = status;
}

/* Tasks in a state that has less and less: each ends well, is not made, or ends for want of
 * memory. */
static void
runs_or_not(struct sched *s)
{
	static const struct task_kind kind = {.ended = note_end};
	struct script_options o = {.lua_path = "", .open = preload_moonport, .number = 1};
	struct script *sc;
	char why[SCRIPT_ERROR];
	unsigned made = 0, refused = 0;
	int status;

	if (script_load(s, path, &o, &sc, why, sizeof(why)) < 0) {
		CHECK(!"loading");
		return;
	}
	for (size_t spare = 0; spare < 4096; spare += 16) {
		struct task *tasks[4];
		sc->state.alloc.limit = sc->state.alloc.used + spare;
		for (int i = 0; i < 4; i++) {
			tasks[i] = task_new(s, sc, &kind);
			made += tasks[i] != NULL;
			refused += tasks[i] == NULL;
		}
		for (int i = 0; i < 4; i++) {
			if (!tasks[i])
				continue;
			status = -1;
			tasks[i]->owner = &status;
			lua_pushcfunction(tasks[i]->co, return_nothing);
			task_start(tasks[i]);
			CHECK(status == LUA_OK || status == LUA_ERRMEM);
		}
		CHECK(s->ntasks == 0 && loop_live_timers(s->loop) == 0);
		while (sc->nspare > 0) /* the next ones are made anew */
			luaL_unref(sc->state.L, LUA_REGISTRYINDEX,
				   sc->spare[--sc->nspare].ref);
		sc->state.alloc.limit = 0;
		state_relieve(&sc->state);
	}
	CHECK(made > 100 && refused > 10);
	CHECK(sc->refs == 1);
	script_release(sc);
}

/* What fails for want of memory leaves nothing behind that makes it fail for ever. */
static void
recovers(struct sched *s)
{
	static const char large[] = "return #('%s'):format(('x'):rep(5000))";
	struct state st;

	if (state_open(&st, s, 0, "/nowhere/?.lua;", preload_moonport, NULL) < 0) {
		CHECK(!"opening");
		return;
	}
	CHECK(luaL_loadstring(st.L, large) == LUA_OK);
	for (size_t spare = 0; spare < 24000; spare += 16) {
		lua_gc(st.L, LUA_GCCOLLECT);
		st.alloc.limit = st.alloc.used + spare;
		lua_pushvalue(st.L, 1);
		(void)lua_pcall(st.L, 0, 0, 0);
		lua_settop(st.L, 1);
		st.alloc.limit = 0;
	}
	CHECK(luaL_dostring(st.L, large) == LUA_OK && lua_tointeger(st.L, -1) == 5000);
	state_close(&st);
}

void
test_script(void)
{
	static const char text[] = "local part = {}\n"
				   "for i = 1, 20 do part[i] = ('word %d'):format(i) end\n"
				   "return { handle = function() return part end }\n";
	struct loop *loop;
	struct sched s;
	int fd = mkstemp(path);
	bool ready =
	    fd >= 0 && write(fd, text, sizeof(text) - 1) > 0 && loop_new(&loop) == 0;

	CHECK(ready);
	if (!ready)
		return;
	sched_init(&s, loop);
	loads_or_not(&s, opens_or_not(&s));
	runs_or_not(&s);
	recovers(&s);
	sched_free(&s);
	loop_free(loop);
	close(fd);
	unlink(path);
}
