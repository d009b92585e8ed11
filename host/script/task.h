/* task.h - the scheduler: coroutines that wait for the loop.
 *
 * A task is a coroutine that the scheduler runs, parks until an operation or a
 * deadline, wakes and can cancel.  A binding that has to wait parks the running
 * task by task_park() and goes on in its continuation, where task_woke() says
 * why.  Waits pass outward through the handler's own coroutines (coro.h).
 *
 * The scheduler owns the tasks and frees each when it ends.  All functions are
 * for the loop's own thread.  Deadlines are clock.h's. */
#ifndef HOST_SCRIPT_TASK_H
#define HOST_SCRIPT_TASK_H

#include "base/list.h"
#include "base/pool.h"
#include "loop/loop.h"
#include "script/rest.h"
#include "script/slice.h"

#include <errno.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct log;
struct meter;
struct script;
struct sched;
struct stream;
struct stuck;
struct task;

enum task_state { TASK_NEW, TASK_RUNNING, TASK_WAITING, TASK_READY };

/* What many tasks have in common.  Their owner keeps it in place while there are such. */
struct task_kind {
	/* Called once when the task has ended, with its coroutine still there: on
	 * an error (status not LUA_OK) the error value is on top of its stack.  Or NULL. */
	void (*ended)(struct task *t, int status);
	/* It is past its limit, and suspended as it stood; its coroutines will be closed.
	 * Pushes onto L the function that runs then, in its place, and arguments; returns
	 * how many, or -1: nothing.  Protected.  NULL: nothing. */
	int (*overran)(struct task *t, lua_State *L);
	const struct allowance *allowance; /* NULL: the scheduler's */
	int64_t grace;                     /* nanoseconds to clean up in, once cancelled */
};

/* A grace where nobody says anything. */
static const int64_t TASK_GRACE = 5 * CLOCK_SECOND;

/* Of a task that has had others beside it, or is beside another. */
struct kin {
	struct task *self;      /* whose it is */
	struct task *main;      /* it is beside this one, and ends with it; or NULL */
	struct list companions; /* those beside it; of a companion: its place there */
	struct task_kind kind;  /* a companion's */
};

/* Two cache lines, what each run needs in the first: there is one for each idle connection,
 * and it is kept small. */
struct task {
	struct list link; /* in the scheduler's tasks */
	lua_State *co;
	struct script *script;     /* whose code it runs; holds a reference */
	void (*detach)(void *arg); /* takes back what this wait had in flight */
	union {
		struct { /* while it waits */
			void *detach_arg;
			int64_t deadline;
		};
		struct {               /* since its last wait */
			int64_t final; /* finalizers have used, this run included */
			int64_t cpu;   /* used in the runs before this one: task_cpu() */
		};
	};
	uint8_t state;         /* enum task_state */
	int8_t wake;           /* why the last wait ended: 0 or -errno */
	uint8_t why;           /* of the cancel: task_why() */
	uint8_t cancelled : 2; /* 0 no, 1 asked for, 2 raised */
	uint8_t overrun : 2;   /* past its limit: 0 no, 1 just now, 2 cleaning up, 3 then */
	bool begun : 1;        /* co has been resumed since a function was put there */
	bool chore : 1;        /* no request: it may not wait */
	int ref;               /* keeps co alive */

	struct loop_timer timer;
	uint32_t started;      /* see task_age() */
	struct stream *stream; /* the bindings': its request's, or NULL */
	/* Among those to be resumed; in a wait it is for whoever is to wake the task. */
	struct list ready;
	int64_t limit; /* of the whole task; once cancelled, of its cleaning up */
	const struct task_kind *kind;
	void *owner;     /* the caller's */
	struct kin *kin; /* NULL: none */
};

_Static_assert(sizeof(struct task) <= 128, "an idle connection is small");

enum { SCHED_REASONS = 24 };

struct sched {
	struct loop *loop;
	int line; /* where the innermost function of the last task_overrun() stands; 0: in C
		   */
	struct task *current;        /* the one that runs now */
	lua_State *volatile running; /* the innermost coroutine; NULL: Lua does not run */
	lua_State
	    *barrier; /* an outer coroutine that stands in a C call which cannot yield */
	const char *barrier_name; /* that call, where the stack does not show it */
	const char *base;         /* where the C stack was when Lua was entered */
	bool parked;              /* a wait is on its way outward */
	struct list tasks, ready;
	struct list slow; /* those that compute: one has a slice each turn of the loop */
	struct loop_task turn;
	bool turn_due;
	struct pool pool, kins;
	size_t ntasks;
	uint64_t ends; /* of tasks, so far */
	struct rest rest;
	/* Whether this iterator looks at its arguments no more once it waits.  NULL: none.
	 */
	bool (*forgets)(lua_CFunction iterator);
	const char *reasons[SCHED_REASONS]; /* why tasks were cancelled: literals */
	unsigned nreasons;
	volatile uint64_t runs;     /* of tasks and sections, so far */
	volatile uint64_t overdue;  /* the number of a run whose slice is over */
	struct allowance allowance; /* of what has none of its own */
	struct meter *meter;        /* of the thread that runs it; NULL: none */
	struct {
		bool runs_now;
		bool some;    /* there were some */
		uint64_t run; /* of no task, in which the others were */
		int64_t used, began;
	} final; /* finalizers */
	/* In a signal handler: a run that cannot be ended.  NULL: nothing to do. */
	void (*stuck)(struct sched *s, const struct stuck *what);
	void *watchdog;               /* who hears of it */
	struct log *log;              /* for warnings; NULL: none */
	void (*ran)(struct sched *s); /* after every run of a task; NULL: nothing to do */
	/* A companion ends with the error on top of L's stack, which is popped; L is its
	 * state's own.  Whoever has tasks that may have companions sets it. */
	void (*stray)(struct task *companion, lua_State *L);
	void *io; /* the bindings' own */
};

void sched_init(struct sched *s, struct loop *loop);

/* No task may be left. */
void sched_free(struct sched *s);

/* In a forked child: forgets all tasks but the running one.  Their coroutines stay as they
 * are, and never go on. */
void sched_reborn(struct sched *s);

/* The scheduler that a state belongs to; NULL in a state that no host runs. */
struct sched *sched_of(lua_State *L);

/* Makes `s` the scheduler of a new state and all coroutines made in it. */
void sched_attach(lua_State *L, struct sched *s);

/* Makes `s` (NULL: none) the scheduler of a state that has others at other times, and
 * whose extra space therefore names none.  May raise for want of memory. */
void sched_lend(lua_State *L, struct sched *s);

/* A task whose coroutine has an empty stack: push a function and its arguments
 * there, then task_start().  The script is one of this scheduler.  NULL: out of memory. */
struct task *task_new(struct sched *s, struct script *script, const struct task_kind *kind);

/* One beside a task that exists, or beside the one that this is beside of; it has the same
 * owner and limits, and of `kind` the functions.  When that task ends its companions are
 * killed; what cancels it cancels them.  NULL: out of memory. */
struct task *task_new_beside(struct task *t, const struct task_kind *kind);

/* The one that it is beside; NULL: none. */
static inline struct task *
task_main(const struct task *t)
{
	return t->kin ? t->kin->main : NULL;
}

static inline bool
task_has_companions(const struct task *t)
{
	return t->kin && !t->kin->main && !list_empty(&t->kin->companions);
}

/* The CPU time that it has used since its last wait, in the runs before this one. */
static inline int64_t
task_cpu(const struct task *t)
{
	return t->state == TASK_WAITING ? 0 : t->cpu;
}

/* For how long it is there: nanoseconds, to about 17 ms, and at most 2 years. */
int64_t task_age(const struct task *t);

/* Runs the task until its first wait; soon, when another task runs.  It may have
 * ended, and be freed, on return. */
void task_start(struct task *t);

/* The same, but never at once. */
void task_start_soon(struct task *t);

/* The task that runs L, or an error in Lua when none does. */
struct task *task_current(lua_State *L);

/* Parks the running task until task_wake() or the deadline; must be returned
 * from a C function: `return task_park(...)`.  detach(arg), if not NULL, takes
 * back what is in flight when the wait ends any other way than by task_wake().
 * Raises "cancelled", and an error where Lua cannot yield, naming the culprit. */
int task_park(lua_State *L, int64_t deadline, void (*detach)(void *arg), void *arg,
	      lua_KContext ctx, lua_KFunction k);

/* The same for a task that is known to be the one that runs L. */
int task_wait(struct task *t, lua_State *L, int64_t deadline, void (*detach)(void *arg),
	      void *arg, lua_KContext ctx, lua_KFunction k);

/* The error of a task that was woken because it is cancelled: for the next one. */
int task_raise_cancelled(lua_State *L, struct task *t);

/* For the continuation: 0, or -ETIMEDOUT.  Raises "cancelled". */
static inline int
task_woke(lua_State *L)
{
	struct task *t = sched_of(L)->current;
	int wake = t->wake;

	t->wake = 0;
	if (wake == -ECANCELED)
		task_raise_cancelled(L, t);
	return wake;
}

/* Ends a wait; the task runs now if none runs, else soon. */
void task_wake(struct task *t);

/* The same, but never at once: for a caller in the middle of something. */
void task_wake_soon(struct task *t);

/* Has the task's wait, now or next, raise "cancelled"; it may then clean up for
 * its grace, after which its coroutine is closed.  why: a literal. */
void task_cancel(struct task *t, const char *why);

/* Closes the task's coroutine without another word; not for the running task.  The
 * "error value" that ended() finds is the light userdata of a C string that says so; a
 * companion's may be what went wrong in a __close. */
void task_kill(struct task *t);

/* Kills the companions of a task, which may be the running one; the youngest first. */
void task_dismiss(struct task *t);

/* Cancels the task at this time, unless it has ended.  CLOCK_NEVER: no limit. */
void task_limit(struct task *t, int64_t limit);

/* For slice.h: the running task has had its slice, or is past its limit; its innermost
 * coroutine yields next. */
void task_step_aside(struct task *t);
void task_overrun(struct task *t, int line);

/* The running task, which has not been closed for being past its limit, has got an error
 * for it: what it does now is to clean up, in the time that there is for that. */
void task_clean_up(struct task *t);

/* Runs a task that is ready, and no other, until it has ended or waits.  Not from within
 * another task. */
void task_insist(struct task *t);

/* Puts the running task behind the other ready ones: `return task_yield(L, ctx, k)`. */
int task_yield(lua_State *L, lua_KContext ctx, lua_KFunction k);

#endif
