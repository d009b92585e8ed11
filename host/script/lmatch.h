/* lmatch.h - what the functions of `string` that take a pattern have in common.
 *
 * A match begins in the C function's own frame.  Before a pause it moves to a userdata,
 * which the function leaves on its stack and finds there when it goes on.  Captures of a
 * match are valid while subject and pattern are on the stack. */
#ifndef HOST_SCRIPT_LMATCH_H
#define HOST_SCRIPT_LMATCH_H

#include "script/pattern.h"

#include <lua.h>
#include <stdbool.h>

/* A continuation that slice_pause() has called at once returns this: it was no pause, and
 * the function goes on in its loop, not deeper in the stack. */
enum { LMATCH_GO_ON = -1 };

/* Runs the match.  True: it is known, *found; false: it is time to pause.  Raises what is
 * wrong with the pattern. */
bool lmatch_run(lua_State *L, struct match *m, bool *found);

/* Pushes the memory that the pattern needs, which has to stay on the stack, or nil. */
void *lmatch_push_room(lua_State *L, const char *pattern, size_t len);

/* The match in a userdata on top of the stack; pushes that unless it is there. */
struct match *lmatch_keep(lua_State *L, struct match *m);

/* Pushes a capture; the first of a pattern without any is the whole match. */
void lmatch_push_capture(lua_State *L, const struct match *m, unsigned i);

/* Pushes all captures, or the whole match where there are none; returns how many. */
int lmatch_push_captures(lua_State *L, const struct match *m);

/* From an argument like string.find()'s third: bytes before the start. */
size_t lmatch_init(lua_Integer init, size_t len);

#endif
