#include "server/counters.h"

typedef void change(counter *c, uint64_t n);

static inline void
each(struct counters *to, const struct counters *from, change *f)
{
	f(&to->requests, count_get(&from->requests));
	f(&to->ended, count_get(&from->ended));
	f(&to->errors, count_get(&from->errors));
	f(&to->peers_gone, count_get(&from->peers_gone));
	f(&to->timeouts, count_get(&from->timeouts));
	f(&to->cancelled, count_get(&from->cancelled));
	f(&to->cpu_limit, count_get(&from->cpu_limit));
	f(&to->out_of_memory, count_get(&from->out_of_memory));
	f(&to->preempted, count_get(&from->preempted));
	f(&to->refused, count_get(&from->refused));
	f(&to->accept_errors, count_get(&from->accept_errors));
	f(&to->truncated, count_get(&from->truncated));
	f(&to->unanswered, count_get(&from->unanswered));
	f(&to->send_errors, count_get(&from->send_errors));
	f(&to->stuck, count_get(&from->stuck));
	f(&to->died, count_get(&from->died));
	f(&to->bytes_in, count_get(&from->bytes_in));
	f(&to->bytes_out, count_get(&from->bytes_out));
}

void
counters_add(struct counters *to, const struct counters *from)
{
	each(to, from, count_add);
}

void
counters_copy(struct counters *to, const struct counters *from)
{
	each(to, from, count_set);
}
