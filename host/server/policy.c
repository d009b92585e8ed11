#include "server/policy.h"

#include "server/attrs.h"

#include <string.h>

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

static const struct policy policies[] = {
    {"async", "Async", many_at_once},
    {"sync", "", one_at_a_time},
};

const struct policy *
policy_at(size_t i)
{
	return i < sizeof(policies) / sizeof(*policies) ? &policies[i] : NULL;
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
