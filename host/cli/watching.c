#include "cli/watching.h"

#include "loop/watch.h"
#include "script/script.h"
#include "script/sources.h"
#include "server/control.h"
#include "server/host.h"
#include "server/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A unit's watch. */
struct look {
	struct list link;
	struct unit *unit;
	struct watch *watch;
};

struct watching {
	struct list looks;
};

static void
on_changed(void *arg)
{
	struct look *k = arg;

	reload_ask(k->unit, NULL);
}

static void
on_blind(void *arg, int err)
{
	const struct look *k = arg;
	struct log_field f[] = {
	    log_str("script", k->unit->script->path), log_str("why", strerror(-err)), {0}};

	log_event(k->unit->host->engine.log, LOG_WARN, "watching without inotify", f);
}

/* Whether the file is in the script's folder or below. */
static bool
is_near(const char *file, const char *script)
{
	const char *slash = strrchr(script, '/');

	if (slash)
		return strncmp(file, script, (size_t)(slash - script) + 1) == 0;
	return strncmp(file, "./", 2) == 0 || strcmp(file, script) == 0;
}

/* Adds those of the files that the unit's generations consist of. */
static size_t
add_near(struct stamped *to, const struct sources *s, size_t n, const char *script)
{
	size_t kept = 0;

	n = s ? sources_files(s, to, n) : 0;
	for (size_t i = 0; i < n; i++)
		if (is_near(to[i].path, script))
			to[kept++] = to[i];
	return kept;
}

static int
set(struct look *k, const struct sources *tried)
{
	const struct script *sc = k->unit->script;
	size_t now = sources_files(sc->sources, NULL, 0), n = 0;
	size_t then = tried ? sources_files(tried, NULL, 0) : 0;
	struct stamped *files = calloc(now + then + 1, sizeof(*files));
	int rc;

	if (!files)
		return -ENOMEM;
	n += add_near(files, sc->sources, now, sc->path);
	n += add_near(files + n, tried, then, sc->path);
	files[n++] = (struct stamped){sc->path, stamp_of(sc->path)};
	rc = watch_set(k->watch, files, n);
	free(files);
	return rc;
}

static int
add_unit(struct watching *g, struct unit *u)
{
	struct look *k = calloc(1, sizeof(*k));
	int rc;

	if (!k)
		return -ENOMEM;
	k->unit = u;
	list_append(&g->looks, &k->link);
	rc = watch_open(&k->watch, u->host->engine.loop, on_changed, on_blind, k);
	return rc < 0 ? rc : set(k, NULL);
}

int
watching_begin(struct watching **out, struct host *h, char *why, size_t size)
{
	struct watching *g = calloc(1, sizeof(*g));
	int rc = g ? 0 : -ENOMEM;

	if (g)
		list_init(&g->looks);
	for (struct list *l = h->units.next; rc == 0 && l != &h->units; l = l->next)
		if (!control_owns(h, LIST_ENTRY(l, struct unit, link)))
			rc = add_unit(g, LIST_ENTRY(l, struct unit, link));
	if (rc < 0) {
		snprintf(why, size, "cannot watch the scripts: out of memory");
		watching_end(g);
		return rc;
	}
	*out = g;
	return 0;
}

void
watching_reloaded(struct watching *g, struct unit *u, const struct sources *tried)
{
	for (struct list *l = g->looks.next; l != &g->looks; l = l->next) {
		struct look *k = LIST_ENTRY(l, struct look, link);
		if (k->unit != u)
			continue;
		(void)set(k, tried); /* no memory: as it was */
		if (u->reload.passing)
			watch_again(k->watch);
	}
}

static void
end(struct watching *g, void (*close)(struct watch *w))
{
	if (!g)
		return;
	while (!list_empty(&g->looks)) {
		struct look *k = LIST_ENTRY(g->looks.next, struct look, link);
		list_remove(&k->link);
		if (k->watch)
			close(k->watch);
		free(k);
	}
	free(g);
}

void
watching_end(struct watching *g)
{
	end(g, watch_close);
}

void
watching_forget(struct watching *g)
{
	end(g, watch_forget);
}
