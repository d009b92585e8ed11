/* fileset.h - files, and what was seen of them: part of a watch (watch.h).
 *
 * The caller owns the struct; zeroed is empty.  One thread. */
#ifndef HOST_LOOP_FILESET_H
#define HOST_LOOP_FILESET_H

#include "loop/listing.h"
#include "loop/stamp.h"

#include <stdint.h>

/* Of names whose coming into a file's folder is a change, too. */
#define FILESET_SUFFIX ".lua"

struct file {
	char *path;
	struct stamp seen; /* at the last fileset_compare() */
	struct stamp last; /* when it was looked at last */
	bool touched;      /* the owner's: there was an event since fileset_compare() */
	bool writing;      /* the owner's: somebody is about to close it ... */
	int64_t since;     /* ... and has written since then */
};

/* A folder that files are found in by name. */
struct home {
	char *path;
	struct listing seen;
};

struct fileset {
	struct file *files;
	size_t nfiles;
	struct home *homes;
	size_t nhomes;
};

/* A set of these files, each once, that were seen as their stamps say.  Errors: -ENOMEM:
 * *set is empty. */
int fileset_make(struct fileset *set, const struct stamped *files, size_t n);

void fileset_free(struct fileset *set);

/* Takes over what the old set knew of the files that it had; it is only to be freed then.
 */
void fileset_learn(struct fileset *set, struct fileset *old);

/* Looks at all files; whether one is not what it was at the last look. */
bool fileset_look(struct fileset *set);

/* Whether a file was, at its last look, not what it was at the last call, or a folder has
 * a new name. */
bool fileset_compare(struct fileset *set);

/* Whether all could be read when looked at last. */
bool fileset_readable(const struct fileset *set);

bool fileset_writing(const struct fileset *set); /* any of them */
void fileset_forget_writers(struct fileset *set);

#endif
