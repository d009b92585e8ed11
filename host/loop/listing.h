/* listing.h - the names in a folder that end in a suffix, as they were at one moment.
 *
 * Names that begin with a dot do not count.  The caller owns the struct; zeroed is
 * empty.  Any thread, one at a time. */
#ifndef HOST_LOOP_LISTING_H
#define HOST_LOOP_LISTING_H

#include <stdbool.h>
#include <stddef.h>

struct listing {
	char **names; /* sorted */
	size_t n;
};

/* Whether the name would be listed. */
bool listing_wants(const char *name, const char *suffix);

/* Reads the folder into an empty listing; one that is not there has no names.  Errors:
 * opendir(3)'s, -ENOMEM: the listing is empty. */
int listing_read(struct listing *l, const char *folder, const char *suffix);

/* Whether `now` has a name that `before` had not. */
bool listing_adds(const struct listing *now, const struct listing *before);

/* Leaves it empty. */
void listing_free(struct listing *l);

#endif
