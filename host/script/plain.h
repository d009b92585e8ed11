/* plain.h - plain data as bytes, so that a value can go from one Lua state to another.
 *
 * Plain are nil, booleans, integers, floats (to the last bit), strings of any bytes, and
 * tables without a metatable whose keys and values are plain.  A table that is reached
 * twice is one table in the copy as well, and a long string is written once: the bytes
 * are no more than a few times what the value takes.  No table may be inside itself, or
 * inside PLAIN_DEPTH others.
 *
 * The bytes are for this process and its forks: numbers are in memory order.  Each state
 * on its own thread; the bytes may change threads in between. */
#ifndef HOST_SCRIPT_PLAIN_H
#define HOST_SCRIPT_PLAIN_H

#include <lua.h>
#include <stddef.h>

struct buf;

enum { PLAIN_DEPTH = 100 };

/* Appends the value at idx to out, which stays the caller's to free, whatever happens.
 * Raises if something in the value is not plain, with a sentence that says where it is,
 * and for want of memory; out then holds a part of the bytes. */
void plain_write(lua_State *L, int idx, struct buf *out);

/* Pushes the value that the n bytes hold.  Raises if they are not what plain_write() makes,
 * and for want of memory. */
void plain_read(lua_State *L, const char *p, size_t n);

#endif
