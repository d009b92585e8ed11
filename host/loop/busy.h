/* busy.h - whether a loop polls for a moment before it sleeps.
 *
 * To sleep and be woken costs more than a small request, so where the next event comes
 * within microseconds it is cheaper to look again than to sleep.  That is so with one
 * client that waits for each reply, and with a load that keeps the loop nearly full.
 * It is not when events are far apart, or come in crowds, or when somebody else could
 * use the core.  So a
 * loop polls only while its recent waits were short, and each time that it has polled in
 * vain it lets twice as many waits go by before it tries again; who is taken off the core
 * while polling leaves it to others for a while.
 *
 * Nothing here reads the clock, or waits: the loop tells what happened.  Times are
 * clock.h's, in nanoseconds.  One loop, its thread. */
#ifndef HOST_LOOP_BUSY_H
#define HOST_LOOP_BUSY_H

#include <stdbool.h>
#include <stdint.h>

struct busy {
	int64_t spin;   /* how long to poll before a sleep; 0: not at all */
	bool adaptive;  /* only while it pays; else always */
	uint8_t quick;  /* waits in a row that were short */
	uint8_t misses; /* polls that found nothing, less those that did */
	uint8_t stolen; /* times that the core was taken away, lately */
	unsigned skip;  /* waits that are let go by */
	int64_t until;  /* the core is left to others before this */
	int64_t looked; /* while polling: when it last looked */
};

/* As `--busy-poll` has it: BUSY_AUTO, 0 (off), or how long. */
enum { BUSY_AUTO = -1 };
void busy_init(struct busy *b, int64_t spin);

/* A wait begins, behind one in which so many events came: how long to poll first; 0: not at
 * all. */
int64_t busy_begin(struct busy *b, int64_t now, int came);

/* It has looked once more and found nothing.  False: it had better stop, for it was off
 * the core in between. */
bool busy_go_on(struct busy *b, int64_t now);

/* How the polling has ended. */
void busy_found(struct busy *b);
void busy_missed(struct busy *b);

/* A sleep has ended, by an event or by its deadline. */
void busy_slept(struct busy *b, int64_t duration);

#endif
