/* parent.h - --exit-with-parent: the program ends with who has started it.
 *
 * Two signs, whichever comes first: standard input reaches its end, or the parent process
 * ends, SIGKILL included.  The first sees through a shell in between, but not when another
 * process has inherited the pipe's other end; the second does.  (PR_SET_PDEATHSIG would
 * do neither: it tells of the end of the parent's thread.)
 *
 * The caller owns the struct, and keeps it in place.  The loop's thread. */
#ifndef HOST_CLI_PARENT_H
#define HOST_CLI_PARENT_H

#include "loop/loop.h"

#include <sys/types.h>

struct parent {
	struct loop_fd input, process; /* standard input; a pidfd */
	struct loop_op input_op, process_op;
	struct loop_timer timer; /* without a pidfd: looks whether it is there */
	struct loop *loop;       /* NULL: it is not watched */
	pid_t pid;
	void (*gone)(struct parent *p); /* once at least */
};

void parent_init(struct parent *p);

/* Has gone() called when that happens; at once, if it has or if standard input is nothing
 * to wait for, such as /dev/null. */
void parent_watch(struct parent *p, struct loop *loop, void (*gone)(struct parent *p));

/* Standard input stays open.  Harmless when it is not watched. */
void parent_forget(struct parent *p);

/* The same in a forked process, whose loop has forgotten all that it had. */
void parent_reborn(struct parent *p);

#endif
