/* slice.h - how long Lua may run at a stretch.
 *
 * A thread that runs tasks has a meter (meter.h), which looks every few milliseconds at
 * what the scheduler runs.  Only once the same run has lasted for a slice does it arm a
 * count hook on the running coroutine, which then lets the others go first; past the limit
 * the task is ended.  While handlers behave there is no hook, and nothing to pay for.
 *
 * A count hook does not fire inside C: a C function with a long loop asks slice_over() now
 * and then.  Times are nanoseconds of the thread's CPU. */
#ifndef HOST_SCRIPT_SLICE_H
#define HOST_SCRIPT_SLICE_H

#include "base/clock.h"
#include "base/count.h"

#include <lua.h>
#include <stdbool.h>

struct meter;
struct sched;

/* How long tasks may run.  The owner keeps it in place while it has tasks. */
struct allowance {
	int64_t slice;      /* before the others have their turn; CLOCK_NEVER: no end */
	int64_t limit;      /* between two waits; CLOCK_NEVER: none */
	counter *preempted; /* slices that were over; NULL: not counted */
};

enum { SLICE_MS = 10, LIMIT_MS = 5000 }; /* the defaults */

/* A coroutine inside L is over, maybe by an error of the limit: L does not escape it. */
void slice_pass_on(lua_State *L, const struct sched *s);

/* The running task has had its slice: a C function in a long loop should call
 * slice_pause().  Cheap. */
bool slice_over(lua_State *L);

/* Lets others go first: `return slice_pause(L, ctx, k)`.  k is called when it is this one's
 * turn again; at once, where L cannot be suspended.  Past the limit the task is ended, or,
 * where that cannot be, an error is raised. */
int slice_pause(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* ---- for the scheduler and its meter ---- */

/* Lua runs that is no task: loading, finalizers, reports.  enter() before, leave() after;
 * they nest. */
struct section {
	lua_State *running;
	bool counts; /* it is a run of its own */
};

void slice_enter(struct sched *s, lua_State *L, struct section *saved);
void slice_leave(struct sched *s, lua_State *L, const struct section *saved);

/* From the signal: the run that the meter sees has gone on for another tick. */
void slice_tick(struct meter *m, struct sched *s);

/* The limit that the run under way has, and what it has used of it. */
int64_t slice_limit(const struct sched *s);
int64_t slice_used(const struct sched *s);

/* Pushes onto L the error value of a task that is past its limit, with the place where co,
 * which is L itself or suspended, stands, and its traceback. */
void slice_push_error(lua_State *L, lua_State *co, int64_t used);

#endif
