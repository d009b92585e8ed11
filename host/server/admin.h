/* admin.h - the control API: one server more, whose handler is moonport/admin.lua.
 *
 * It is not one of those that are served: it has a unit of its own that no reload and no
 * sandbox of scripts concerns, it answers while they drain, and it ends last.
 *
 * The host owns it.  The loop's thread. */
#ifndef HOST_SERVER_ADMIN_H
#define HOST_SERVER_ADMIN_H

#include <stdbool.h>
#include <stddef.h>

struct host;
struct unit;
struct url;

/* How it is to answer.  All is borrowed, and outlives the host. */
struct admin_options {
	const char *token; /* that requests must carry; NULL: none */
	const char *const
	    *hosts; /* further names that Host may carry, up to a NULL; or NULL */
	bool allow_script_upload;
};

/* Loads it and binds it.  -EINVAL: for all addresses but this machine's own it needs a
 * token.  Else -errno.  One sentence in why. */
int admin_open(struct host *h, const struct url *url, const struct admin_options *o,
	       char *why, size_t size);

/* Whether the unit is its own, not a script's that is served. */
bool admin_is(const struct unit *u);

/* What is served has ended: so does it.  False: it does already, or there is none. */
bool admin_end(struct host *h);

#endif
