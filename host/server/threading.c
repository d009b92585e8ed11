#include "server/threading.h"

#include "base/clock.h"
#include "server/crew.h"
#include "server/policy.h"
#include "server/server.h"

/* What a killed or cancelled request gets before it is left behind: its own grace, and
 * a moment for the thread to say so. */
static const int64_t MOMENT = CLOCK_SECOND / 2;

static uint64_t
ceiling(const struct attrs *a)
{
	return (uint64_t)a->max_threads;
}

static int
open_crew(struct server *s, char *why, size_t size)
{
	struct crew *c;
	int rc = crew_new(s, &c, why, size);

	if (rc == 0)
		s->mixin = c;
	return rc;
}

static int
begin(struct server *s, const struct arrival *a)
{
	return crew_hand_over(s->mixin, a);
}

static int
ready(struct server *s)
{
	return crew_ready(s->mixin);
}

static uint64_t
active(const struct server *s)
{
	return s->mixin ? crew_busy(s->mixin) : 0;
}

static size_t
lingering(const struct server *s)
{
	return s->mixin ? crew_lingering(s->mixin) : 0;
}

static int
prepare(struct server *s, struct script *next)
{
	return s->mixin ? crew_prepare(s->mixin, next) : 0;
}

static void
abandon(struct server *s)
{
	if (s->mixin)
		crew_abandon(s->mixin);
}

static uint64_t
running(const struct server *s, unsigned number)
{
	return s->mixin ? crew_running(s->mixin, number) : 0;
}

static void
retire(struct server *s, unsigned number, const char *why)
{
	if (s->mixin)
		crew_retire(s->mixin, number, why);
}

static void
adopted(struct server *s)
{
	if (s->mixin)
		(void)crew_adopt(s->mixin); /* without memory the old generation stays */
}

static void
cancel(struct server *s, const char *why)
{
	if (s->mixin)
		crew_cancel(s->mixin, why, clock_after(MOMENT, s->site.attrs.cancel_grace));
}

static void
kill_all(struct server *s)
{
	if (s->mixin)
		crew_kill(s->mixin, MOMENT);
}

static void
drained(struct server *s)
{
	if (!s->mixin)
		return;
	crew_drained(s->mixin);
	if (s->site.attrs.daemon_threads || !s->site.attrs.block_on_close)
		crew_cancel(s->mixin, "the server does not wait for its requests", MOMENT);
}

static void
count_all(const struct server *s, struct counters *sum)
{
	if (s->mixin)
		crew_count(s->mixin, sum);
}

static void
log_requests(const struct server *s, const char *event)
{
	if (s->mixin)
		crew_log_requests(s->mixin, event);
}

static void
close_crew(struct server *s)
{
	struct crew *c = s->mixin;

	if (!c)
		return;
	crew_count(c, &s->counters);
	s->mixin = NULL;
	crew_close(c);
}

const struct policy policy_threading = {
    .name = "threading",
    .prefix = "Threading",
    .threads = true,
    .ceiling = ceiling,
    .open = open_crew,
    .ready = ready,
    .begin = begin,
    .active = active,
    .lingering = lingering,
    .running = running,
    .retire = retire,
    .prepare = prepare,
    .abandon = abandon,
    .adopted = adopted,
    .drained = drained,
    .cancel = cancel,
    .kill = kill_all,
    .count = count_all,
    .log_requests = log_requests,
    .close = close_crew,
};
