/* unit.h - a script of a host, for all servers that run it: its current generation, the
 * retired ones whose requests still run, and the reload under way.  It may have no server.
 *
 * The host owns units, and keeps them until it ends.  The loop's thread. */
#ifndef HOST_SERVER_UNIT_H
#define HOST_SERVER_UNIT_H

#include "base/count.h"
#include "script/slice.h"
#include "server/attrs.h"
#include "server/reload.h"

#include <lua.h>

struct host;

/* A generation that was replaced. */
struct retired {
	struct list link; /* in the unit's, the oldest first */
	unsigned number;
	int64_t at; /* clock_now() */
	bool cancelled;
};

struct unit {
	struct list link; /* in the host's units */
	struct host *host;
	struct script *script; /* the current generation; holds a reference */
	lua_CFunction open;    /* adds the bindings to its states; NULL: those of all */
	struct allowance allowance; /* see unit_allowance() */
	struct list retired;
	struct loop_timer look; /* at the retired ones */
	counter alive;          /* generations: the current one, and those with requests */
	struct attrs attrs;     /* what its servers start from */
	bool mocks;             /* its script says which servers it has: see mocking.h */
	struct reload reload;
	struct list calls; /* calls.h */
};

/* The script's reference is taken over, even on failure.  NULL: out of memory. */
struct unit *unit_new(struct host *h, struct script *script);

/* What its chores run under: as its first server has it, or had.  Valid as long as the
 * unit. */
const struct allowance *unit_allowance(struct unit *u);

/* A server of the unit's will be freed. */
void unit_lose(struct unit *u, struct server *s);
void unit_free(struct unit *u);

/* The next generation: its servers have it already.  The record is taken over, the
 * reference too. */
void unit_switch(struct unit *u, struct script *next, struct retired *record);

/* In a forked worker: its loop has no timers yet. */
void unit_reborn(struct unit *u);

/* No more reloads; those who wait for one are told. */
void unit_stop(struct unit *u);

/* The unit's next server after s in the host's list; s NULL: the first.  NULL: no more. */
struct server *unit_server(const struct unit *u, const struct server *s);

#endif
