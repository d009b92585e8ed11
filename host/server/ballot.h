/* ballot.h - the master's side of a reload: all workers switch together or not at all.
 *
 * When the master's own copy of a script could go on with new code, each worker is told to
 * prepare and says whether it could, and with which texts.  If all could, all are told to
 * switch, and when they have, whoever asked gets the answer: from then on every new request
 * runs new code.  A worker that dies meanwhile has no say; its replacement is forked from
 * what the master has by then.
 *
 * The master owns the struct.  One reload of one script at a time has a ballot; the others
 * wait.  The master's thread. */
#ifndef HOST_SERVER_BALLOT_H
#define HOST_SERVER_BALLOT_H

#include "loop/loop.h"
#include "server/channel.h"

#include <stdbool.h>

struct master;
struct process;
struct unit;

enum { BALLOT_WHY = 1024 };

struct ballot {
	struct master *master;
	struct unit *unit;      /* whose; NULL: none is under way */
	bool switching;         /* all could, and were told to */
	char why[BALLOT_WHY];   /* somebody could not */
	struct unit *retried;   /* its files had changed, and it was begun again */
	struct loop_timer late; /* then those who have not answered have failed it */
	struct loop_task next;  /* a unit that waits for its ballot */
	bool next_due;
};

/* Errors: -ENOMEM. */
int ballot_init(struct ballot *b, struct master *m);
void ballot_free(struct ballot *b);

/* What workers say: votes, switches and questions. */
void ballot_heard(struct process *p, const struct message *message);

/* The worker is gone. */
void ballot_gone(struct process *p);

/* A reload is under way: no worker is to be forked now. */
bool ballot_busy(const struct ballot *b);

#endif
