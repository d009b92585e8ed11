/* pattern.h - Lua's patterns, matched a few steps at a time.
 *
 * The patterns of string.find(), malformed ones and their errors included.  But what a
 * match has still to try is kept in an array, not on the C stack, and it can stop after so
 * many steps, to go on later: a step is a look at one byte, or nearly.  No pattern is too
 * complex.
 *
 * Subject and pattern belong to the caller and must stay; behind the pattern there must be
 * a NUL, as behind every string of Lua's.  Nothing is allocated: see pattern_room().  Any
 * thread.  Character classes are those of the process's locale. */
#ifndef HOST_SCRIPT_PATTERN_H
#define HOST_SCRIPT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PATTERN_CAPTURES = 32,
	PATTERN_CHOICES = 16, /* room for so many is in the struct */
	PATTERN_STEPS = 2000, /* a good number between two looks at the clock */
};

enum pattern_result {
	PATTERN_MATCHED, /* from start to end */
	PATTERN_FAILED,
	PATTERN_MORE,   /* out of steps */
	PATTERN_BROKEN, /* the pattern is malformed: see error */
};

/* A place to come back to: an item that could have taken fewer bytes, or more. */
struct choice {
	const char *item, *after; /* the item, and its quantifier */
	const char *at, *least;   /* where the rest begins; for a greedy item, at least */
	uint32_t open;
	uint8_t ncaptures;
	bool lazy;
	int16_t next; /* the byte that the rest begins with: see must_follow() */
};

struct capture {
	const char *at;
	ptrdiff_t len; /* or PATTERN_POSITION */
};

enum { PATTERN_POSITION = -1 };

struct match {
	const char *subject, *subject_end, *pattern, *pattern_end;
	const char *start, *end;       /* of the match that is tried, or found */
	const char *refused;           /* no match may end here */
	const char *first, *first_end; /* the item that every match begins with, or NULL */
	const char *at, *item;         /* what is to be looked at next */
	struct choice *choices;
	size_t nchoices;
	size_t depth;  /* of a balanced item */
	long steps;    /* that are left: the caller fills them up */
	uint32_t open; /* captures without an end, a bit each */
	uint8_t ncaptures;
	uint8_t next; /* what is to be done next */
	bool anchored;
	char error[64];
	struct capture captures[PATTERN_CAPTURES];
	struct choice own_choices[PATTERN_CHOICES];
};

/* Bytes of memory that pattern_init() needs for this pattern; 0: none. */
size_t pattern_room(const char *pattern, size_t len);

/* Begins a search at the subject's first byte.  `room` is the caller's and must stay with
 * the match.  anchor: a '^' that comes first is an anchor. */
void pattern_init(struct match *m, const char *subject, size_t subject_len,
		  const char *pattern, size_t len, void *room, bool anchor);

/* The next search begins here. */
void pattern_seek(struct match *m, const char *start);

/* Searches, until it is known or the steps are used up. */
enum pattern_result pattern_run(struct match *m);

/* Copies a match to where it can stay. */
void pattern_move(struct match *to, const struct match *from);

/* The capture has begun and not ended. */
bool pattern_is_open(const struct match *m, unsigned capture);

/* The pattern has no magic in it: it matches itself. */
bool pattern_is_plain(const char *pattern, size_t len);

#endif
