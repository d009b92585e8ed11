/* httphead.h - the usual head of an HTTP request, taken apart where it lies.
 *
 * What it finds points into the bytes that it was given, which are the caller's.  A head
 * that is not usual (see bind/lhttp.h) is left to others: it may be well-formed or not. */
#ifndef HOST_BIND_HTTPHEAD_H
#define HOST_BIND_HTTPHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTPHEAD_FIELDS = 32, /* headers; with more it is not usual */
	HTTPHEAD_NAME = 64,   /* bytes of a header's name, likewise */
};

struct httphead_piece {
	const char *p;
	size_t n;
};

/* Bytes of a line, and of all of them; lines of headers. */
struct httphead_limits {
	double line, head, headers;
};

struct httphead {
	const char *at, *end; /* set by the caller; `at` is behind the head then */
	struct httphead_limits left, used; /* `left` is set by the caller */
	struct httphead_piece method, target;
	int minor;
	bool plain; /* the target is just a path */
	size_t n;
	struct {
		struct httphead_piece name, value;
	} fields[HTTPHEAD_FIELDS];
};

/* What a usual head says, if that is usual, too. */
struct httphead_sense {
	struct httphead_piece path, query, host; /* query.p NULL: there is none */
	int64_t length;                          /* of the body; -1: there is none */
	bool keep_alive;
};

/* False: it is not there as a whole, beyond the limits, or unusual. */
bool httphead_scan(struct httphead *h);

/* False: it is unusual, or wrong. */
bool httphead_judge(const struct httphead *h, struct httphead_sense *out);

/* Writes the name of a header in lower case. */
void httphead_lower(char to[HTTPHEAD_NAME], const struct httphead_piece *name);

#endif
