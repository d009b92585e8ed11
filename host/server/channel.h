/* channel.h - the line between the master and one of its workers.
 *
 * A pair of connected sockets that keep messages whole and in order.  The caller owns the
 * struct and keeps it in place; channel_open() takes the descriptor over.  Sending never
 * waits.  The thread of the loop. */
#ifndef HOST_SERVER_CHANNEL_H
#define HOST_SERVER_CHANNEL_H

#include "loop/loop.h"

#include <stdbool.h>
#include <stdint.h>

enum { MESSAGE_TEXT = 2048 };

enum message_kind {
	MESSAGE_READY,     /* worker: it accepts */
	MESSAGE_FAILED,    /* worker: it cannot; number: -errno, text: why */
	MESSAGE_DRAIN,     /* master: stop accepting, let requests end, end */
	MESSAGE_STOP,      /* master: end now */
	MESSAGE_LOG_TASKS, /* master */
	MESSAGE_RELOAD,    /* master: prepare the unit with this number, and vote */
	MESSAGE_VOTE,      /* worker: text "+HASH", it could go on with that; "-WHY" */
	MESSAGE_VERDICT,   /* master: switch; or, with a text, why not */
	MESSAGE_SWITCHED,  /* worker: it has */
	MESSAGE_ASK,      /* worker: a script wants a reload; number: of the question, text:
			     the unit */
	MESSAGE_ANSWER,   /* master: to that question: text "+GENERATION" or "-WHY" */
	MESSAGE_SHUTDOWN, /* both: drain the server with this number */
};

struct message {
	int32_t kind; /* enum message_kind */
	int32_t number;
	char text[MESSAGE_TEXT]; /* ends with a NUL; only what there is of it is sent */
};

struct channel {
	struct loop_fd fd;
	struct loop_op op;
	void (*heard)(struct channel *c, const struct message *m);
	void (*ended)(struct channel *c); /* the other end is closed; called once */
};

/* Errors: -EMFILE, -ENFILE, -ENOMEM. */
int channel_pair(int fds[2]);

/* `heard` and `ended` are set already.  Errors: as loop_add(); the descriptor is closed. */
int channel_open(struct channel *c, struct loop *loop, int fd);

/* text: NULL for none; cut when it is too long.  Errors: send(2)'s; -EAGAIN: the other end
 * has not read for hundreds of messages. */
int channel_send(struct channel *c, enum message_kind kind, int number, const char *text);

/* The same where there is no loop yet. */
int channel_write(int fd, enum message_kind kind, int number, const char *text);

void channel_close(struct channel *c);

#endif
