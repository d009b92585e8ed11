/* course.h - the course of a request: what its coroutine runs, from verify_request over the
 * handler to the last byte that goes out.
 *
 * The request (request.h) owns the task and the stream that it runs with.  Errors of Lua
 * code go to handle_error, else to the log.  The thread of the request's engine. */
#ifndef HOST_SERVER_COURSE_H
#define HOST_SERVER_COURSE_H

#include <lua.h>

struct request;
struct task;

/* The function of the task: see instance_push_course(). */
int course_run(lua_State *L);

/* For struct task: the course has gone on for too long; pushes what does the rest of it. */
int course_overran(struct task *t, lua_State *L);

/* The task died outside the course's protected calls, or was closed; no traceback is left.
 * The error is on top of co, and is told and popped. */
void course_died(struct request *r, lua_State *co);

#endif
