/* forking.h - the policy that runs each request in a child process. */
#ifndef HOST_SERVER_FORKING_H
#define HOST_SERVER_FORKING_H

#include <sys/types.h>

struct addr;
struct children;
struct server;
struct stream;

extern const struct policy policy_forking;

/* Forks for the request of the running task, whose stream stays with the child.  Returns
 * the pid in the parent, 0 in the child, where nothing else of the host goes on.
 * Errors: fork(2)'s. */
pid_t forking_fork(struct server *s, struct stream *keep, const struct addr *client);

/* In the child: sends what is left of the log and of standard output, and ends it. */
_Noreturn void forking_exit(struct server *s, int status);

/* The server's children; NULL: it has not begun. */
struct children *forking_children(struct server *s);

#endif
