/* lrequest.h - parts of the request object that other bindings share. */
#ifndef HOST_BIND_LREQUEST_H
#define HOST_BIND_LREQUEST_H

#include <lua.h>

struct stream;

/* Pushes the peer's (or the own) address, or nil, message, errno.  Returns how many. */
int request_push_name(lua_State *L, struct stream *s, int peer);

/* setsockopt(name, value) and getsockopt(name) with the name at argument 2.
 * *abortive (may be NULL) follows so_linger. */
int sockopt_l_set(lua_State *L, int fd, int *abortive);
int sockopt_l_get(lua_State *L, int fd);

#endif
