#include "server/roster.h"

#include "script/script.h"
#include "server/control.h"
#include "server/host.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int
host_unit_load(struct host *h, const char *path, const struct attrs *a, struct unit **out,
	       char *why, size_t size)
{
	struct script *sc;
	int rc;

	for (struct list *l = h->units.next; l != &h->units; l = l->next) {
		struct unit *u = LIST_ENTRY(l, struct unit, link);
		if (strcmp(u->script->path, path) == 0) {
			*out = u;
			return 0;
		}
	}
	rc = host_load(h, path, a, NULL, &sc, why, size);
	if (rc < 0)
		return rc;
	*out = unit_new(h, sc);
	if (*out)
		return 0;
	snprintf(why, size, "out of memory");
	return -ENOMEM;
}

struct server *
host_next(const struct host *h, const struct server *s)
{
	const struct list *l = s ? s->link.next : h->servers.next;

	for (; l != &h->servers; l = l->next) {
		struct server *next = LIST_ENTRY(l, struct server, link);
		if (!next->leaving)
			return next;
	}
	return NULL;
}

struct server *
host_server(const struct host *h, const char *name)
{
	for (struct server *s = NULL; (s = host_next(h, s));)
		if (s->name && strcmp(s->name, name) == 0 &&
		    (!s->unit || !control_owns(h, s->unit)))
			return s;
	return NULL;
}

/* Whether such a server can be opened now. */
static int
check(struct host *h, const char *name, char *why, size_t size)
{
	if (h->member || h->ballot) {
		snprintf(why, size,
			 "%s cannot be opened: servers come and go only in a "
			 "host without workers",
			 name);
		return -ENOTSUP;
	}
	if (h->draining || h->cancelled) {
		snprintf(why, size, "%s cannot be opened: the host stops", name);
		return -EPIPE;
	}
	if (host_server(h, name)) {
		snprintf(why, size, "there is a server named %s already", name);
		return -EEXIST;
	}
	return 0;
}

/* A path may be written in two ways, and be that of a socket of the other kind. */
static bool
holds(const struct server *s, const struct url *url, const struct addr *a)
{
	const struct listener *l = &s->listener;
	struct stat st;

	if (!s->name || l->fd < 0)
		return false;
	if (transport_is_unix(url->transport) && *url->path != '@')
		return l->ino && lstat(url->path, &st) == 0 && st.st_dev == l->dev &&
		       st.st_ino == l->ino;
	return l->transport == url->transport && addr_overlap(&l->addr, a);
}

/* What the system takes for somebody else's may be a server of this host: one that listens
 * there, or for all addresses there. */
static void
name_holder(const struct host *h, const struct url *url, char *why, size_t size)
{
	char asked[ADDR_TEXT], held[ADDR_TEXT], rest[256];
	struct server *s = NULL;
	struct addr a;

	if (url_resolve(url, true, &a, rest, sizeof(rest)) < 0)
		return;
	while ((s = host_next(h, s)) && !holds(s, url, &a))
		;
	if (!s)
		return;
	addr_url(&a, url->transport, asked, sizeof(asked));
	addr_url(&s->listener.addr, s->listener.transport, held, sizeof(held));
	if (strcmp(asked, held) == 0)
		snprintf(why, size,
			 "cannot listen on %s twice: %s, of this host itself, does already",
			 asked, s->name);
	else
		snprintf(why, size,
			 "cannot listen on %s: %s, of this host itself, listens on %s",
			 asked, s->name, held);
}

int
host_bind(struct server *s, const struct url *url, char *why, size_t size)
{
	int rc = listening_bind(s, url, true, why, size);

	if (rc == -EADDRINUSE)
		name_holder(s->host, url, why, size);
	return rc;
}

static int
begin(struct server *s, const char *name, const struct url *url, char *why, size_t size)
{
	struct host *h = s->host;
	int rc;

	s->switchable = true;
	s->site.view.name = s->name = strdup(name);
	if (!s->name) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	rc = host_bind(s, url, why, size);
	if (rc == 0 && h->begun)
		rc = host_check_policies(h, why, size);
	if (rc == 0 && h->begun)
		rc = server_begin(s, why, size);
	return rc < 0 ? rc : reload_join(s, why, size);
}

static void
log_server(const struct server *s, const char *event)
{
	char url[ADDR_TEXT];

	addr_url(&s->site.view.addr, s->site.view.transport, url, sizeof(url));
	struct log_field f[] = {log_str("server", s->name),
				log_str("class", s->class_name),
				log_str("url", url),
				log_str("script", s->site.script->path),
				{0}};
	log_event(s->host->engine.log, LOG_INFO, event, f);
}

int
host_open(struct host *h, struct unit *u, const char *name, const struct url *url,
	  const struct policy *policy, const struct attrs *attrs, struct server **out,
	  char *why, size_t size)
{
	struct server *s;
	int rc = check(h, name, why, size);

	if (rc < 0)
		return rc;
	script_hold(u->script);
	rc = server_new(h, policy, attrs, u->script, &s, why, size);
	if (rc < 0)
		return rc;
	s->unit = u;
	rc = begin(s, name, url, why, size);
	if (rc < 0) {
		server_close(s);
		return rc;
	}
	if (h->begun) /* else all are named when they begin */
		log_server(s, "listening");
	*out = s;
	return 0;
}

void
host_close(struct server *s)
{
	if (!s->leaving)
		log_server(s, "closed");
	if (s->policy->threads || s->policy->forks)
		server_close(s);
	else
		server_leave(s);
}
