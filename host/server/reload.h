/* reload.h - how a script's next generation takes over, or does not.
 *
 * The script (its file, or a text that was given in its place) is loaded into a state of
 * its own, as a chore; save() of the old generation and init() of the new one run; each
 * server reads its attributes; threads build theirs. Only when all that has gone well do
 * all of them switch, at once.  Whatever fails, the old generation goes on, and those who
 * asked get the sentence that says why.
 *
 * One reload of a unit is under way at a time: who asks meanwhile gets the next one, since
 * this one may have read the files before they changed.  The unit owns the struct, who asks
 * the question.  The loop's thread. */
#ifndef HOST_SERVER_RELOAD_H
#define HOST_SERVER_RELOAD_H

#include "base/list.h"
#include "loop/loop.h"
#include "script/handover.h"

struct retired;
struct server;
struct text_ask;
struct unit;

struct reload_ask {
	struct list link;
	int id; /* of a question to a master */
	/* Once: the new generation's number, or 0 and why. */
	void (*told)(struct reload_ask *a, unsigned number, const char *why);
};

struct reload {
	bool passing; /* it has failed for want of something that may be there soon */
	bool runs;
	bool again;             /* somebody has asked for the file meanwhile */
	bool in_line;           /* of votes: the others have not been asked yet */
	bool votes;             /* others have a say: see struct host */
	int64_t began;          /* clock_now() */
	struct script *next;    /* holds a reference */
	struct retired *record; /* of the one that it replaces */
	bool prepared;          /* the unit's servers have their plans */
	bool handing;           /* save() may have run: nothing else may change the state */
	unsigned waiting;       /* servers whose threads build theirs */
	struct list texts;      /* reload_text()'s */
	struct text_ask *text;  /* the one that is loaded; NULL: the file is */
	struct loading loading;
	struct handover handover;
	struct list asks, later;
	struct loop_task begin;
	char why[SCRIPT_ERROR]; /* what has failed; "": nothing so far */
};

void reload_init(struct unit *u);

/* Ends one that is under way: those who asked are told. */
void reload_end(struct unit *u, const char *why);

/* Asks for one; soon.  a: NULL, nobody wants to know. */
void reload_ask(struct unit *u, struct reload_ask *a);

/* The same with this text in place of the script's file; modules come from their files, and
 * so does the script when it is loaded again.  A copy is made: -ENOMEM.  For a host alone,
 * without workers. */
int reload_text(struct unit *u, struct reload_ask *a, const char *text, size_t n);

/* The same in this process alone: in a worker that its master has told to. */
void reload_here(struct unit *u, struct reload_ask *a);

/* Tells the outcome to those who have asked elsewhere than on this engine: before it began,
 * by clock_now(). */
void reload_tell(struct unit *u, int64_t began, unsigned number, const char *why);

/* The asker does not want to know any more; harmless when it has been told. */
void reload_withdraw(struct reload_ask *a);

/* The call that reload waited for is over. */
void reload_go_on(struct unit *u);

/* A server has come while the unit may be about to switch: it has to switch as well.
 * -EINVAL with why: the generation to come does not fit it. */
int reload_join(struct server *s, char *why, size_t size);

/* A server goes: nothing waits for it. */
void reload_leave(struct server *s);

/* A policy whose prepare() was not done at once: its engines have the next generation; or
 * why (not NULL) they have not. */
void reload_prepared(struct server *s, const char *why);

/* What those say who have a say: NULL, go on; else why not. */
void reload_verdict(struct unit *u, const char *why);

#endif
