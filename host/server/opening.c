#include "server/opening.h"

#include "script/script.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int
host_unit_load(struct host *h, const char *path, const struct attrs *a, struct unit **out,
	       char *why, size_t size)
{
	struct script *sc;
	int rc = host_load(h, path, a, false, &sc, why, size);

	if (rc < 0)
		return rc;
	*out = unit_new(h, sc);
	if (*out) {
		(*out)->attrs = *a;
		return 0;
	}
	snprintf(why, size, "out of memory");
	return -ENOMEM;
}

int
host_open(struct host *h, struct unit *u, const char *name, const struct url *url,
	  struct server **out, char *why, size_t size)
{
	struct server *s;
	int rc;

	script_hold(u->script);
	rc = server_new(h, policy_find("async"), &u->attrs, u->script, &s, why, size);
	if (rc < 0)
		return rc;
	s->unit = u;
	s->site.view.name = s->name = strdup(name);
	rc = server_bind(s, url, true, why, size);
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void
host_close(struct server *s)
{
	server_close(s);
}
