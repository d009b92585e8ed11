/* ballot.h - whether a reload is to be, where workers serve: the master's side of the vote.
 *
 * The master gets a script's next generation ready in its own copy, then asks each worker
 * to do the same.  When all have voted, and have read the same texts, all switch; else all
 * keep what they have, and so they do when one does not answer within ten seconds.  A
 * worker whose script has asked for a reload votes unasked, and the master begins one.
 *
 * The master owns the struct.  The loop's thread. */
#ifndef HOST_SERVER_BALLOT_H
#define HOST_SERVER_BALLOT_H

#include "loop/loop.h"
#include "server/channel.h"

#include <stdbool.h>
#include <stdint.h>

struct master;
struct unit;

struct vote {
	bool cast;
	bool late; /* it was waited for in vain: the next one counts for nothing */
	uint64_t hash;
};

struct ballot {
	struct ballots *set;
	struct unit *unit;
	int number;
	bool open;              /* the master waits for votes */
	struct vote *votes;     /* one of each worker */
	char why[MESSAGE_TEXT]; /* the first no; "": none so far */
	struct loop_timer due;  /* set: it is decided then */
};

struct ballots {
	struct master *master;
	unsigned n;
	struct ballot *all; /* in the order of the host's units */
};

/* Errors: -ENOMEM; ballots_free() is the caller's. */
int ballots_init(struct ballots *b, struct master *m);
void ballots_free(struct ballots *b);

/* A reload is under way. */
bool ballots_busy(const struct ballots *b);

/* What worker number 0 and up has voted. */
void ballot_cast(struct ballots *b, unsigned worker, const struct message *m);

/* It is gone, and so is its vote. */
void ballots_leave(struct ballots *b, unsigned worker);

#endif
