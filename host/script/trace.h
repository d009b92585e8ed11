/* trace.h - tracebacks that do not take long, however deep the stack is.
 *
 * Lua counts the levels of a stack from its top for each line that it writes.  That is
 * nothing in a usual stack; at the end of an endless recursion it is most of a second. */
#ifndef HOST_SCRIPT_TRACE_H
#define HOST_SCRIPT_TRACE_H

#include <lua.h>
#include <stdbool.h>

/* Pushes onto L the traceback of co, which is L itself or suspended, from this level on:
 * Lua's own or, of a very deep stack, its innermost levels. */
void trace_push(lua_State *L, lua_State *co, int level);

/* For an error value that can hold none itself: remembers beside the table or userdata at
 * idx the traceback from this level on, unless it has one.  False: it is neither.  For a
 * message handler. */
bool trace_keep(lua_State *L, int idx, int level);

/* Pushes what is remembered of the value at idx, or nil. */
void trace_push_kept(lua_State *L, int idx);

/* The error is over: the value may be raised again. */
void trace_forget(lua_State *L, int idx);

#endif
