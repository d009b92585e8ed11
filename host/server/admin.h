/* admin.h - the control API's server: beside those that are served, first to listen and
 * last to end.
 *
 * Its handler is moonport/admin.lua, in the unit that control.h loads; no reload and no
 * sandbox of scripts concerns it, and it answers while they drain.  The host owns the
 * server, the caller the struct control.  The loop's thread. */
#ifndef HOST_SERVER_ADMIN_H
#define HOST_SERVER_ADMIN_H

#include <stdbool.h>
#include <stddef.h>

struct attrs;
struct control;
struct control_options;
struct host;
struct url;

/* Loads it and binds it; attributes: of servers that are made over the API.  -EINVAL: for
 * all addresses but this machine's own it needs a token.  Else -errno.  One sentence in
 * why. */
int admin_open(struct host *h, struct control *c, const struct control_options *o,
	       const struct attrs *a, const struct url *url, char *why, size_t size);

/* Whether s can be a token: what a header field can carry, visible ASCII. */
bool admin_is_token(const char *s);

/* What is served has ended: so does it.  False: it does already, or there is none. */
bool admin_end(struct host *h);

#endif
