#include "server/engine.h"

#include "server/report.h"

#include <stdlib.h>

int
engine_init(struct engine *e, struct log *log)
{
	int rc;

	*e = (struct engine){.log = log};
	rc = loop_new(&e->loop);
	if (rc < 0)
		return rc;
	sched_init(&e->sched, e->loop);
	e->sched.log = log;
	e->sched.stray = report_stray;
	rc = io_init(&e->io, &e->sched, log);
	if (rc == 0)
		rc = rest_open(&e->sched);
	if (rc < 0) {
		io_free(&e->io);
		sched_free(&e->sched);
		loop_free(e->loop);
	}
	return rc;
}

void
engine_free(struct engine *e)
{
	io_free(&e->io);
	sched_free(&e->sched);
	loop_free(e->loop);
}

int
engine_reborn(struct engine *e, struct stream *keep)
{
	int rc = loop_reborn(e->loop);

	if (rc < 0)
		return rc;
	sched_reborn(&e->sched);
	return io_reborn(&e->io, keep);
}

bool
buffers_init(struct buffers *b)
{
	b->receive = malloc(loop_buffer_size());
	b->gather = malloc(STREAM_GATHER);
	if (b->receive && b->gather)
		return true;
	buffers_free(b);
	return false;
}

void
buffers_free(struct buffers *b)
{
	free(b->receive);
	free(b->gather);
	b->receive = b->gather = NULL;
}

void
engine_swap(struct engine *e, struct buffers *b)
{
	char *gather = e->io.gather;

	b->receive = loop_swap_buffer(e->loop, b->receive);
	e->io.gather = b->gather;
	b->gather = gather;
}

size_t
engine_timers(const struct engine *e)
{
	return loop_live_timers(e->loop) - (e->sched.rest.timer.slot != 0);
}

void
engine_check(struct engine *e)
{
	struct log_field f[] = {log_int("tasks", (int64_t)e->sched.ntasks),
				log_int("streams", (int64_t)e->io.streams.taken),
				log_int("buffered", (int64_t)e->io.gathered),
				{0},
				{0}};

	lingers_drop(&e->io.lingers);
	f[3] = log_int("descriptors", (int64_t)loop_live_fds(e->loop));
	if (f[0].num || f[1].num || f[2].num || f[3].num)
		log_event(e->log, LOG_ERROR, "left over", f);
}

static void
put(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

void
engine_push_stats(const struct engine *e, lua_State *L)
{
	put(L, "tasks", e->sched.ntasks);
	put(L, "streams", e->io.streams.taken);
	put(L, "lingering", e->io.lingers.n);
	put(L, "descriptors", loop_live_fds(e->loop));
	put(L, "timers", engine_timers(e));
	put(L, "log_dropped", log_dropped(e->log));
}
