/* take.h - what a read wants, looked for in the bytes that a stream has at hand.
 *
 * The stream's engine, its thread; nothing here waits. */
#ifndef HOST_BIND_TAKE_H
#define HOST_BIND_TAKE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct stream;

/* How many values were pushed.  TAKEN: the one that was wanted, and its bytes are gone.
 * REFUSED: nil and why.  MORE: more must be received first. */
enum outcome { MORE = 0, TAKEN = 1, REFUSED = 2 };

/* What a format asks for. */
struct want {
	enum { LINE, LINE_NL, ALL, NUMBER, COUNT, EXACTLY, UNTIL, UNPACK } kind;
	size_t n;      /* COUNT, EXACTLY; UNTIL: the delimiter's length */
	const char *s; /* UNTIL: the delimiter; UNPACK: the format; both are on the stack */
};

/* Takes a line, with its newline or without. */
enum outcome take_line(lua_State *L, struct stream *s, bool keep_nl);

/* Takes one thing from the stream, if it is there. */
enum outcome take_wanted(lua_State *L, struct stream *s, const struct want *w);

#endif
