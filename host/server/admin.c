#include "server/admin.h"

#include "script/script.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* No name that a script's server could have by accident. */
static const char NAME[] = "(admin)";

/* The file of a module of the host's own. */
static int
find_module(const char *lua_path, const char *module, char out[PATH_MAX])
{
	for (const char *p = lua_path, *end; *p; p = *end ? end + 1 : end) {
		const char *mark;
		end = strchrnul(p, ';');
		mark = memchr(p, '?', (size_t)(end - p));
		if (!mark)
			continue;
		snprintf(out, PATH_MAX, "%.*s%s%.*s", (int)(mark - p), p, module,
			 (int)(end - mark - 1), mark + 1);
		if (access(out, R_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static bool
is_loopback(const struct addr *a)
{
	char host[INET6_ADDRSTRLEN];

	addr_host(a, host, sizeof(host)); /* a mapped address comes out as IPv4 */
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static int
check_place(const struct url *url, const struct admin_options *o, char *why, size_t size)
{
	struct addr a;
	int rc = url_resolve(url, true, &a, why, size);

	if (rc < 0 || o->token || is_loopback(&a))
		return rc;
	snprintf(why, size,
		 "--admin %s:%d can be reached from other machines and needs a token: "
		 "--admin-token-file PATH, or MOONPORT_ADMIN_TOKEN in the environment",
		 url->host, url->port);
	return -EINVAL;
}

static int
load(struct host *h, const struct attrs *a, struct unit **out, char *why, size_t size)
{
	char path[PATH_MAX];
	struct script *sc;
	int rc = find_module(h->lua_path, "moonport/admin", path);

	if (rc < 0) {
		snprintf(why, size,
			 "the control API is not there: no moonport/admin.lua in %s",
			 h->lua_path);
		return rc;
	}
	rc = host_load(h, path, a, true, &sc, why, size);
	if (rc < 0)
		return rc;
	*out = unit_new(h, sc);
	if (*out)
		return 0;
	snprintf(why, size, "out of memory");
	return -ENOMEM;
}

int
admin_open(struct host *h, const struct url *url, const struct admin_options *o, char *why,
	   size_t size)
{
	struct attrs a;
	struct server *s;
	struct unit *u = NULL;
	int rc = check_place(url, o, why, size);

	attrs_init(&a);
	h->admin_options = *o;
	if (rc == 0)
		rc = load(h, &a, &u, why, size);
	if (rc < 0)
		return rc;
	script_hold(u->script);
	rc = server_new(h, policy_find("async"), &a, u->script, &s, why, size);
	if (rc < 0)
		return rc;
	s->unit = u;
	h->admin = s;
	s->site.view.name = s->name = strdup(NAME);
	if (!s->name) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	return server_bind(s, url, true, why, size);
}

bool
admin_is(const struct unit *u)
{
	return u->host->admin && u->host->admin->unit == u;
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
