/* sockopt.h - socket options by the names of socket(7), tcp(7), ip(7), lower case.
 *
 * Any thread.  Failing functions return -errno. */
#ifndef HOST_NET_SOCKOPT_H
#define HOST_NET_SOCKOPT_H

#include <stddef.h>

enum sockopt_kind {
	SOCKOPT_BOOL,
	SOCKOPT_INT,
	SOCKOPT_LINGER, /* seconds, or -1 for off */
	SOCKOPT_STRING,
	SOCKOPT_CRED, /* struct ucred, read only */
};

struct sockopt {
	const char *name;
	int level, option;
	enum sockopt_kind kind;
};

/* NULL: no such option. */
const struct sockopt *sockopt_find(const char *name);

/* The name most like a misspelt one. */
const char *sockopt_nearest(const char *name);

/* Sets a BOOL, INT or LINGER option. */
int sockopt_set(int fd, const struct sockopt *o, double value);
int sockopt_set_string(int fd, const struct sockopt *o, const char *value, size_t n);

/* Reads any but STRING and CRED. */
int sockopt_get(int fd, const struct sockopt *o, double *value);

/* Reads a STRING option; the result ends with NUL. */
int sockopt_get_string(int fd, const struct sockopt *o, char *out, size_t size);

/* pid, uid, gid of a Unix peer. */
int sockopt_get_cred(int fd, const struct sockopt *o, long out[3]);

#endif
