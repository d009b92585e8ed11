/* signals.h - signals as events of a loop.
 *
 * A handler writes the signal's number into a pipe; the loop reads it.  Caught
 * signals are not blocked, so that programs started by a script get the normal
 * dispositions.  One set a process, on the main thread. */
#ifndef HOST_LOOP_SIGNALS_H
#define HOST_LOOP_SIGNALS_H

#include "loop/loop.h"

struct signals {
	struct loop_fd pipe;
	struct loop_op op;
	int write_fd;
	void (*caught)(void *arg, int signo);
	void *arg;
};

/* Before there is a loop: from here on these end the process no more.  Of each, one that
 * comes is kept for signals_open(), after which it is caught as if it came then. */
void signals_keep(const int *signos, size_t n);

/* Catches the `n` signals in `signos`; caught() is then called from the loop, once
 * or more for each burst.  SIGPIPE is caught and forgotten.
 * Errors: -EMFILE, -ENFILE, -ENOMEM. */
int signals_open(struct signals *s, struct loop *loop, const int *signos, size_t n,
		 void (*caught)(void *arg, int signo), void *arg);

/* Whenever one of the two comes, the process has so many seconds left (0: no limit),
 * whether or not its loop gets to run. */
void signals_last_word(int signo, int other, unsigned seconds);

/* From here on the signals are ignored: the process is about to end, and one that
 * comes in its last instant must not keep it from tidying up. */
void signals_close(struct signals *s);

#endif
