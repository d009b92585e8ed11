/* meter.h - a timer of a thread's own CPU time that looks at what the thread's scheduler
 * runs: see slice.h.
 *
 * The owner keeps the struct in place from meter_open() to meter_close(), which are both
 * for the thread that is measured.  The timer's signal, SIGRTMIN + 7, is taken only from
 * its default.  Times are nanoseconds of the thread's CPU. */
#ifndef HOST_SCRIPT_METER_H
#define HOST_SCRIPT_METER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct sched;

/* A run that neither a hook nor its limit could end: it stands in a C function. */
struct stuck {
	const void *owner; /* of the task; NULL: it is none */
	int64_t used;
	char where[64]; /* "script.lua:7", the last line of Lua before it */
	char what[32];  /* the C function's name; "": not known */
};

struct meter {
	timer_t timer;
	pid_t tid;                    /* of the thread; 0: closed */
	struct sched *volatile sched; /* that the thread runs now; NULL: none */
	volatile uint64_t seen;       /* the run that was seen last */
	volatile unsigned ticks;      /* that it has been seen since */
	volatile int64_t since;       /* when it began, as far as that is known */
	volatile bool told;           /* that it is stuck */
	int64_t armed,
	    cost; /* the signal's own: when it last armed the hook, how long for */
};

/* Starts the calling thread's timer.  Errors: -EBUSY (the signal is somebody else's),
 * -EAGAIN, -ENOMEM: nothing is measured, and no limit of CPU time holds. */
int meter_open(struct meter *m);

/* The same, unless it is this thread's already: for a loop that may move. */
int meter_claim(struct meter *m);

/* Harmless when repeated. */
void meter_close(struct meter *m);

/* In a forked child, whose timers are gone. */
void meter_reborn(struct meter *m);

/* From now on the thread runs this scheduler's tasks; NULL: none. */
void meter_watch(struct meter *m, struct sched *s);

/* The run that begins now goes on with something: its time is to be known well. */
void meter_begin(struct meter *m);

/* What the run that is under way has used. */
int64_t meter_used(const struct meter *m);

/* Takes `spent` off that: it was somebody else's. */
void meter_forgive(struct meter *m, int64_t spent);

/* The thread's clock. */
int64_t meter_now(void);

#endif
