/* engine.h - what runs requests: one loop, one scheduler and their connections' buffers.
 *
 * The caller owns the struct and the log, and keeps both in place.  One thread at a time.
 */
#ifndef HOST_SERVER_ENGINE_H
#define HOST_SERVER_ENGINE_H

#include "base/log.h"
#include "bind/stream.h"
#include "loop/loop.h"
#include "script/task.h"

struct engine {
	struct loop *loop;
	struct sched sched;
	struct io io;
	struct log *log; /* borrowed */
};

/* Errors: -EMFILE, -ENFILE, -ENOMEM. */
int engine_init(struct engine *e, struct log *log);

/* No task may be left. */
void engine_free(struct engine *e);

/* In a forked child: forgets all that the parent's engine has under way, but for the
 * running task and its stream (NULL: none).  Scripts' states stay as they are.  Errors:
 * -EMFILE, -ENFILE, -ENOMEM, -ENOSPC: the engine is of no more use. */
int engine_reborn(struct engine *e, struct stream *keep);

/* Buffers that nothing is left in when a turn is over: engines that take turns can share
 * them.  An engine has its own until told otherwise. */
struct buffers {
	char *receive, *gather;
};

/* False: out of memory. */
bool buffers_init(struct buffers *b);
void buffers_free(struct buffers *b);

/* Exchanges the engine's buffers for these; a second call undoes it. */
void engine_swap(struct engine *e, struct buffers *b);

/* Timers that are set, but for the scheduler's own. */
size_t engine_timers(const struct engine *e);

/* Before the end, without requests: whatever is still alive has leaked, and is logged. */
void engine_check(struct engine *e);

/* Puts what is alive on the engine into the table on top of the stack. */
void engine_push_stats(const struct engine *e, lua_State *L);

#endif
