/* stats.h - what stats() tells of a server: the sums of what its parts have counted
 * (counters.h), and how its script, its listener and its workers are.
 *
 * The caller owns the structs.  Any thread, while the server is there, where it does not
 * say otherwise; nothing fails. */
#ifndef HOST_SERVER_STATS_H
#define HOST_SERVER_STATS_H

#include "server/counters.h"

#include <lua.h>
#include <stdint.h>

struct server;

struct stats {
	struct counters counters;
	uint64_t active, reloads, failed_reloads, drops;
	uint64_t generations;           /* alive */
	uint64_t workers, workers_died; /* that accept; that were replaced */
};

/* The sum of what was counted everywhere. */
void stats_count(const struct server *s, struct counters *sum);

/* Without what other workers have counted. */
void stats_count_here(const struct server *s, struct counters *sum);

void stats_read(const struct server *s, struct stats *out);

/* Pushes a table of these.  The state's thread.  May raise for want of memory. */
void stats_push(lua_State *L, const struct stats *stats);

#endif
