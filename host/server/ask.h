/* ask.h - server:reload(), as requests call it: on the server's own engine, in a thread's
 * seat, or in a forked child.
 *
 * Each pushes the new generation's number, or nil and why the old one stays, and returns
 * how many; or what the wait returned: `return ask_...(...)`.  Raises what waits raise. */
#ifndef HOST_SERVER_ASK_H
#define HOST_SERVER_ASK_H

#include <lua.h>
#include <sys/types.h>

#define ASK_NO_SCRIPT "reload: this server runs no script"

struct children;
struct list;
struct seat;
struct server;
struct unit;

int ask_here(lua_State *L, struct server *s);
/* The same for a unit, by one that has this text (a copy is made) in place of the script's
 * file; NULL: the file.  Cuts the stack to one value. */
int ask_unit(lua_State *L, struct unit *u, const char *text, size_t n);
int ask_crew(lua_State *L, struct seat *s);

/* In a child: the parent process reloads on SIGHUP, and says how that went in shared
 * memory. */
int ask_parent(lua_State *L, const struct children *c, pid_t parent);

/* ---- what a seat has asked ---- */

/* By the server's thread: asks what is in the list. */
void ask_take(struct server *s, struct list *questions);

/* By who has claimed the seat: wakes those whose answers have come. */
void ask_answer(struct seat *s);

/* Nobody will answer these any more, and nobody waits. */
void ask_drop(struct list *questions);

#endif
