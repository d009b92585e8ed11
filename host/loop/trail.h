/* trail.h - the folders on the way to files, under inotify.
 *
 * A path is followed as the kernel does it, name by name.  Each folder on the way is
 * watched for being moved or deleted itself; one that holds a symbolic link of the way,
 * the file at its end, or lacks the next name, also for what happens to its entries.
 * Each is watched before it is looked into, so a later change comes as an event.
 *
 * The caller owns the struct and the inotify descriptor.  One thread. */
#ifndef HOST_LOOP_TRAIL_H
#define HOST_LOOP_TRAIL_H

#include <stdbool.h>
#include <stddef.h>

/* In place of a file's number: a link, or a name that is missing. */
enum { TRAIL_TURN = -1 };

/* An entry of a watched folder that matters. */
struct trail_spot {
	int wd;
	int file; /* which path ends here, or TRAIL_TURN */
	char *name;
};

struct trail_folder {
	int wd;
	bool entries; /* is watched for what happens to them */
	char *path;
};

struct trail {
	struct trail_folder *folders;
	size_t nfolders, folder_room;
	struct trail_spot *spots;
	size_t nspots, spot_room;
};

/* Follows the n paths anew; what is not on the way any more is watched no longer.
 * Errors: why some folder cannot be watched, while all others are: -EACCES, -ENOSPC
 * (inotify's limit), -ENOMEM, -ENAMETOOLONG, -ENOENT (it changes too fast). */
int trail_lay(struct trail *t, int inotify, const char *const *paths, size_t n);

/* The folder of a watch; NULL: it is not one of these. */
const struct trail_folder *trail_folder(const struct trail *t, int wd);

/* Frees what is known, and leaves the kernel's watches to the descriptor's end. */
void trail_free(struct trail *t);

#endif
