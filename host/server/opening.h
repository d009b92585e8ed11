/* opening.h - units and servers that come and go while the host runs. */
#ifndef HOST_SERVER_OPENING_H
#define HOST_SERVER_OPENING_H

#include <stddef.h>

struct attrs;
struct host;
struct server;
struct unit;
struct url;

/* Loads a script as a unit of its own.  -errno with one sentence in why. */
int host_unit_load(struct host *h, const char *path, const struct attrs *a,
		   struct unit **out, char *why, size_t size);

/* Binds a server that will run the unit's current generation.  -errno with why. */
int host_open(struct host *h, struct unit *u, const char *name, const struct url *url,
	      struct server **out, char *why, size_t size);
void host_close(struct server *s);
#endif
