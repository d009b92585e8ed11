/* member.h - a worker's side: it serves what the master has loaded and bound.
 *
 * The struct is the master's, filled in when it forks, and each process has its copy. The
 * worker's main thread. */
#ifndef HOST_SERVER_MEMBER_H
#define HOST_SERVER_MEMBER_H

#include "loop/signals.h"
#include "server/channel.h"

#include <signal.h>
#include <sys/types.h>

struct boards;
struct host;

struct member {
	struct host *host;
	struct boards *boards;
	unsigned number; /* 1 and up */
	int fd;          /* its end of the channel */
	pid_t master;
	struct list asks; /* questions to the master */
	int nasks;        /* so far */
	sigset_t mask;    /* the signals that were blocked before the fork, where all are */
	struct channel channel;
	struct signals signals;
};

/* Serves until the master says otherwise, or is gone.  The host is the caller's to free.
 * Errors: -errno; the master knows why. */
int member_run(struct member *m);

#endif
