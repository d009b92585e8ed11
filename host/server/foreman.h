/* foreman.h - what the server's thread does for a crew, from its own loop.
 *
 * It is told (by an eventfd) when requests end, fail or ask for something; it looks at
 * progress while there is some, and counts out the threads that make none; it ends what has
 * been idle for long, and gives up on what does not end in time.  The server's thread. */
#ifndef HOST_SERVER_FOREMAN_H
#define HOST_SERVER_FOREMAN_H

#include <stdint.h>

struct crew;
struct loop;

/* Errors: -EMFILE, -ENFILE, -ENOMEM. */
int foreman_open(struct crew *c, struct loop *loop);
void foreman_close(struct crew *c);

/* Looks at progress from now on, until there is none.  With the crew's mutex. */
void foreman_watch(struct crew *c);

/* What still runs after so many ns is left behind.  With the crew's mutex. */
void foreman_give_up(struct crew *c, int64_t patience);

/* Seats that prepare get so much time before they are not waited for.  With the crew's
 * mutex. */
void foreman_expect(struct crew *c);

/* Errors of handlers that nobody will hear of any more. */
void foreman_drop_errors(struct crew *c);

#endif
