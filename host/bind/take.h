/* take.h - what a read wants, looked for in the bytes that a stream has at hand.
 *
 * The stream's engine, its thread; nothing here waits. */
#ifndef HOST_BIND_TAKE_H
#define HOST_BIND_TAKE_H

#include <lua.h>
#include <stddef.h>

struct stream;

/* TAKEN: one value was pushed, and its bytes are gone.  REFUSED: nil and why were
 * pushed.  MORE: nothing was pushed, more must be received first. */
enum outcome { TAKEN, REFUSED, MORE };

/* What a format asks for. */
struct want {
	enum { LINE, LINE_NL, ALL, NUMBER, COUNT, EXACTLY, UNTIL, UNPACK } kind;
	size_t n;      /* COUNT, EXACTLY; UNTIL: the delimiter's length */
	const char *s; /* UNTIL: the delimiter; UNPACK: the format; both are on the stack */
};

/* Takes one thing from the stream, if it is there. */
enum outcome take_wanted(lua_State *L, struct stream *s, const struct want *w);

#endif
