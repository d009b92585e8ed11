/* watching.h - --watch: a script is loaded anew when it or a module of its folder changes.
 *
 * The caller owns it; the host, whose servers are there, outlives it.  The loop's thread.
 */
#ifndef HOST_CLI_WATCHING_H
#define HOST_CLI_WATCHING_H

#include <stddef.h>

struct host;
struct sources;
struct unit;
struct watching;

/* Watches what every script of the host was loaded from.  -ENOMEM with one sentence in why.
 */
int watching_begin(struct watching **out, struct host *h, char *why, size_t size);

/* A reload of the unit is over.  tried: what one that failed has read, or NULL: a change
 * there may mend it. */
void watching_reloaded(struct watching *g, struct unit *u, const struct sources *tried);

void watching_end(struct watching *g); /* NULL is fine */

/* The same in a forked process: see watch_forget(). */
void watching_forget(struct watching *g);

#endif
