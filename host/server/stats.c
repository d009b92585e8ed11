#include "server/stats.h"

#include "server/board.h"
#include "server/engine.h"
#include "server/host.h"
#include "server/server.h"
#include "server/unit.h"

static void
put_count(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

void
stats_count_here(const struct server *s, struct counters *sum)
{
	*sum = (struct counters){0};
	counters_add(sum, &s->counters);
	for (unsigned i = 0; i < s->ntally; i++)
		counters_add(sum, &s->tally[i]);
	count_add(&sum->bytes_in, count_get(&s->site.engine->io.bytes_in));
	count_add(&sum->bytes_out, count_get(&s->site.engine->io.bytes_out));
	if (s->policy->count)
		s->policy->count(s, sum);
}

void
stats_count(const struct server *s, struct counters *sum)
{
	stats_count_here(s, sum);
	if (s->board)
		board_add_others(s->board, sum);
}

void
stats_read(const struct server *s, struct stats *out)
{
	*out = (struct stats){.reloads = count_get(&s->host->reloads),
			      .failed_reloads = count_get(&s->host->failed_reloads),
			      .drops = listener_drops(s->site.port.fd),
			      .generations = s->unit ? count_get(&s->unit->alive) : 1};
	stats_count(s, &out->counters);
	out->active = count_get(&out->counters.requests) - count_get(&out->counters.ended);
	if (s->board) {
		out->workers = s->board->set->memory->accepting;
		out->workers_died = count_get(&s->board->set->memory->died);
		count_add(&out->counters.stuck, count_get(&s->board->set->memory->stuck));
	}
}

void
stats_push(lua_State *L, const struct stats *stats)
{
	const struct counters *c = &stats->counters;

	lua_newtable(L);
	put_count(L, "requests", count_get(&c->requests));
	put_count(L, "active", stats->active);
	put_count(L, "errors", count_get(&c->errors));
	put_count(L, "peers_gone", count_get(&c->peers_gone));
	put_count(L, "timeouts", count_get(&c->timeouts));
	put_count(L, "cancelled", count_get(&c->cancelled));
	put_count(L, "cpu_limit", count_get(&c->cpu_limit));
	put_count(L, "out_of_memory", count_get(&c->out_of_memory));
	put_count(L, "preempted", count_get(&c->preempted));
	put_count(L, "refused", count_get(&c->refused));
	put_count(L, "accept_errors", count_get(&c->accept_errors));
	put_count(L, "truncated", count_get(&c->truncated));
	put_count(L, "unanswered", count_get(&c->unanswered));
	put_count(L, "send_errors", count_get(&c->send_errors));
	put_count(L, "died", count_get(&c->died));
	put_count(L, "stuck", count_get(&c->stuck));
	put_count(L, "bytes_in", count_get(&c->bytes_in));
	put_count(L, "bytes_out", count_get(&c->bytes_out));
	put_count(L, "reloads", stats->reloads);
	put_count(L, "failed_reloads", stats->failed_reloads);
	put_count(L, "generations", stats->generations);
	put_count(L, "drops", stats->drops);
	put_count(L, "workers", stats->workers);
	put_count(L, "workers_died", stats->workers_died);
}
