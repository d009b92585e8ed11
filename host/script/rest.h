/* rest.h - what an engine gives back when it has nothing to do.
 *
 * A connection that waits for its next line still holds the last one, in the loop over
 * lines that its handler stands in; and garbage stays until there is more of it.  So when
 * nothing has run for a moment after there was much, those lines are let go, the states are
 * collected, and memory that is free goes back to the system: a millisecond at a time, and
 * not again soon.  The scheduler owns the struct.  Its thread. */
#ifndef HOST_SCRIPT_REST_H
#define HOST_SCRIPT_REST_H

#include "loop/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct list;
struct sched;
struct script;

struct rest {
	struct loop_timer timer;
	bool open;
	bool working;
	uint64_t runs;   /* of the scheduler, when it was last looked at */
	uint64_t rested; /* when it last began to work */
	uint64_t ends;   /* of tasks, then */
	int64_t next;    /* not before this time again */
	struct list *at; /* whose line is let go next; then NULL */
	unsigned pass;   /* its number, for scripts */
	unsigned cycles; /* of the collector, in the state that it is at */
	size_t used;     /* by that state, before */
	bool freed;      /* much */
};

/* Has the scheduler rest.  Errors: -ENOMEM. */
int rest_open(struct sched *s);
void rest_close(struct sched *s);

/* After many runs. */
void rest_later(struct sched *s);

#endif
