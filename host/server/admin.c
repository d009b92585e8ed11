#include "server/admin.h"

#include "bind/lmoonport.h"
#include "net/addr.h"
#include "server/control.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/roster.h"
#include "server/server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* No name that a script's server could have by accident. */
static const char NAME[] = "(admin)";

static bool
is_loopback(const struct addr *a)
{
	char host[ADDR_TEXT];

	addr_host(a, host, sizeof(host)); /* a mapped address comes out as IPv4 */
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static int
check_place(const struct url *url, const struct control_options *o, char *why, size_t size)
{
	struct addr a;
	int rc = url_resolve(url, true, &a, why, size);

	if (rc < 0 || o->token || is_loopback(&a))
		return rc;
	snprintf(why, size,
		 "the control API at %s:%d can be reached from other machines and needs a "
		 "token: %s",
		 url->host, url->port, o->how);
	return -EINVAL;
}

static int
load(struct host *h, struct control *c, const struct attrs *a, char *why, size_t size)
{
	char path[PATH_MAX];

	if (control_find(h, "moonport/admin", path, sizeof(path)))
		return control_load(c, h, path, a, why, size);
	snprintf(why, size, "the control API is not there: no moonport/admin.lua in %s",
		 h->lua_path);
	return -ENOENT;
}

int
admin_open(struct host *h, struct control *c, const struct control_options *o,
	   const struct attrs *a, const struct url *url, char *why, size_t size)
{
	struct attrs own;
	int rc = check_place(url, o, why, size);

	attrs_init(&own);
	*c = (struct control){.options = *o, .policy = policy_find("async"), .attrs = *a};
	c->options.version = MOONPORT_VERSION;
	c->options.pid = getpid();
	c->options.started = time(NULL);
	if (rc == 0)
		rc = load(h, c, &own, why, size);
	if (rc == 0)
		rc =
		    host_open(h, c->unit, NAME, url, c->policy, &own, &h->admin, why, size);
	return rc;
}

bool
admin_is_token(const char *s)
{
	for (const char *p = s; *p; p++)
		if (*p <= ' ' || *p > '~')
			return false;
	return *s != 0;
}

bool
admin_end(struct host *h)
{
	if (!h->admin || h->admin->draining)
		return false;
	server_drain(h->admin);
	server_cancel(h->admin, "the server stops");
	return true;
}
