/* calls.h - what one state asks of another: a function of the mocks' library is called in a
 * unit's current generation, as a chore, with plain data both ways.
 *
 * A unit's calls run one at a time, in the order in which they came, and never while a
 * reload hands data over: what a call changes is either saved or changed in the new
 * generation.  A call that runs is not interrupted when nobody waits for it any more.
 *
 * The unit owns the calls; who asks may withdraw.  The loop's thread. */
#ifndef HOST_SERVER_CALLS_H
#define HOST_SERVER_CALLS_H

#include "base/buf.h"
#include "base/list.h"
#include "script/chore.h"
#include "script/script.h"

struct unit;

struct call {
	struct list link; /* in the unit's */
	struct unit *unit;
	struct chore chore;
	char *op;
	struct buf data;        /* the argument, as plain.h has it; then the result */
	bool failed;            /* that result is an error value */
	char why[SCRIPT_ERROR]; /* or, not "", why there is none */
	/* Once, unless withdrawn; the call is freed afterwards. */
	void (*told)(struct call *c);
	void *asker;
};

/* Has require("moonport.mock").control(op, data) called; soon.  The data's bytes are taken
 * over, even on failure.  NULL: out of memory. */
struct call *call_ask(struct unit *u, const char *op, struct buf *data,
		      void (*told)(struct call *c), void *asker);

/* The asker does not want to know any more: a call that has not begun does not. */
void call_withdraw(struct call *c);

/* Whether one runs now; reload_go_on() says when it is over. */
bool calls_run(const struct unit *u);

/* The next one may begin. */
void calls_go_on(struct unit *u);

/* There are no more; who waits is told why. */
void calls_end(struct unit *u, const char *why);

#endif
