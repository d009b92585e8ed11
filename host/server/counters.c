#include "server/counters.h"

void
counters_add(struct counters *to, const struct counters *from)
{
	count_add(&to->requests, count_get(&from->requests));
	count_add(&to->ended, count_get(&from->ended));
	count_add(&to->errors, count_get(&from->errors));
	count_add(&to->peers_gone, count_get(&from->peers_gone));
	count_add(&to->timeouts, count_get(&from->timeouts));
	count_add(&to->cancelled, count_get(&from->cancelled));
	count_add(&to->cpu_limit, count_get(&from->cpu_limit));
	count_add(&to->out_of_memory, count_get(&from->out_of_memory));
	count_add(&to->preempted, count_get(&from->preempted));
	count_add(&to->refused, count_get(&from->refused));
	count_add(&to->accept_errors, count_get(&from->accept_errors));
	count_add(&to->truncated, count_get(&from->truncated));
	count_add(&to->unanswered, count_get(&from->unanswered));
	count_add(&to->send_errors, count_get(&from->send_errors));
	count_add(&to->stuck, count_get(&from->stuck));
	count_add(&to->died, count_get(&from->died));
	count_add(&to->bytes_in, count_get(&from->bytes_in));
	count_add(&to->bytes_out, count_get(&from->bytes_out));
}
