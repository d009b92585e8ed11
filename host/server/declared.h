/* declared.h - the servers that a loaded script has declared by moonport.mock.
 *
 * The caller owns the struct.  The script's thread. */
#ifndef HOST_SERVER_DECLARED_H
#define HOST_SERVER_DECLARED_H

#include "net/addr.h"

struct script;

struct declaration {
	char *name, *text; /* the URL as it stands in the script */
	struct url url;
};

struct declared {
	struct declaration *list;
	size_t n;
};

/* Asks the script, which has at least one.  -EINVAL or -ENOMEM with one sentence in why;
 * there is nothing to free then. */
int declared_read(struct declared *d, struct script *sc, char *why, size_t size);

/* NULL: there is none of that name. */
const struct declaration *declared_find(const struct declared *d, const char *name);

void declared_free(struct declared *d);

#endif
