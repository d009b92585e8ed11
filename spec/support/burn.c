/* burn - a C function that computes for long, and that nothing can interrupt.
 *
 *   require("burn")(seconds) -- of the thread's CPU */
#include <lauxlib.h>
#include <time.h>

static double
used(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
burn(lua_State *L)
{
	double end = used() + luaL_checknumber(L, 1);

	while (used() < end)
		;
	return 0;
}

__attribute__((visibility("default"))) int luaopen_burn(lua_State *L);

int
luaopen_burn(lua_State *L)
{
	lua_pushcfunction(L, burn);
	return 1;
}
