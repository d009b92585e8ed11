#include "server/policy.h"

#include "server/forking.h"
#include "server/server.h"
#include "server/threading.h"

#include <string.h>

/* sync and async: every request runs on the server's own engine. */

static uint64_t
one_at_a_time(const struct attrs *a)
{
	(void)a;
	return 1;
}

static uint64_t
many_at_once(const struct attrs *a)
{
	return (uint64_t)a->max_connections;
}

static int
begin_here(struct server *s, const struct arrival *a)
{
	return request_start(&s->site, a);
}

static uint64_t
active_here(const struct server *s)
{
	return s->site.nrequests;
}

static void
cancel_here(struct server *s, const char *why)
{
	site_cancel(&s->site, why);
}

static uint64_t
running_here(const struct server *s, unsigned number)
{
	return site_running(&s->site, number);
}

static void
retire_here(struct server *s, unsigned number, const char *why)
{
	site_retire(&s->site, number, why);
}

static void
kill_here(struct server *s)
{
	site_kill(&s->site);
}

static const struct policy policy_async = {
    .name = "async",
    .prefix = "Async",
    .ceiling = many_at_once,
    .begin = begin_here,
    .active = active_here,
    .running = running_here,
    .retire = retire_here,
    .cancel = cancel_here,
    .kill = kill_here,
};

const struct policy policy_sync = {
    .name = "sync",
    .prefix = "",
    .ceiling = one_at_a_time,
    .begin = begin_here,
    .active = active_here,
    .running = running_here,
    .retire = retire_here,
    .cancel = cancel_here,
    .kill = kill_here,
};

static const struct policy *const policies[] = {&policy_async, &policy_threading,
						&policy_forking, &policy_sync};

const struct policy *
policy_at(size_t i)
{
	return i < sizeof(policies) / sizeof(*policies) ? policies[i] : NULL;
}

const struct policy *
policy_find(const char *name)
{
	const struct policy *p;

	for (size_t i = 0; (p = policy_at(i)); i++)
		if (strcmp(p->name, name) == 0)
			return p;
	return NULL;
}
