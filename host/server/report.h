/* report.h - what the log says of a request that did not end well.  The engine's thread. */
#ifndef HOST_SERVER_REPORT_H
#define HOST_SERVER_REPORT_H

#include "base/log.h"

#include <lua.h>

struct engine;
struct request;
struct site;
struct task;

/* One event with the server, the client and why. */
void report_outcome(struct request *r, enum log_level level, const char *event,
		    const char *why);

/* A reply that the kernel refused; at most one event a second. */
void report_unsent(struct site *s, const char *why);

/* Counts and logs the error value on top of L's stack, which stays there: a peer that is
 * gone, a timeout or a cancel is one info line, anything else an error with traceback. */
void report_error(struct request *r, lua_State *L);

/* The same without the log, for an error that somebody else is told of. */
void report_count(struct request *r, lua_State *L);

/* For struct sched: a task beside a request's ends with an error.  That it was ended, or
 * cancelled, with its request is no news. */
void report_stray(struct task *companion, lua_State *L);

/* Counts and logs an error, with its traceback behind a newline, of a request that is not
 * at hand. */
void report_text(struct site *s, const char *client, const char *text);

/* One event for every request of the engine, with its age, state and traceback. */
void report_tasks(struct engine *e, const char *event);

#endif
