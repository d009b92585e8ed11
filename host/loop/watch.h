/* watch.h - says when one of a set of files has become another one.
 *
 * The folders that lead to the files are watched, not the files: editors rename over
 * them, deployments swap a link, files go and come back.  A new file in the folder of one
 * of them counts, too, if its name ends in ".lua": a module that was missing, or one that
 * is now found first.  Nothing else in these folders does.
 *
 * changed() is called when the set has been quiet for 50 ms; if it never is, 500 ms after
 * the first event, again and again.  An event alone decides nothing: files are compared
 * with what was there when changed() was called last (device, inode, size, mtime, ctime,
 * and whether it can be read), and if all are the same there is no call.
 *
 * While a writer has a file open, that is from its first write until it closes the file,
 * its half is no reason for a call; but no longer than 10 s after the first event.  Of
 * two writers at once the first that closes ends the wait, and a file that is renamed
 * into place before it is complete shows as it is: whoever loads must still refuse what
 * does not parse.
 *
 * Where inotify is not to be had (its limits, descriptors, memory, a folder that may not
 * be read) the files are looked at every 500 ms; so are they, although inotify works, as
 * long as one of them cannot be read.  Where events were lost all is looked at at once.
 *
 * The owner frees it with watch_close(), also from inside a callback.  Paths are copied.
 * The loop's thread.  A forked child only closes the descriptors that it does not keep. */
#ifndef HOST_LOOP_WATCH_H
#define HOST_LOOP_WATCH_H

#include "loop/stamp.h"

#include <stddef.h>

struct loop;
struct watch;

/* Watches nothing yet.  blind(), or NULL, is told once, when inotify fails for the first
 * time, and with which -errno.  Errors: -ENOMEM. */
int watch_open(struct watch **out, struct loop *loop, void (*changed)(void *arg),
	       void (*blind)(void *arg, int err), void *arg);

/* Replaces the set of files.  Of those that were in the set before, what counts is still a
 * change since the last call of changed(); of the others, since they were read as their
 * stamps say.  So a set that was learnt by loading it misses nothing that has happened
 * meanwhile.  A path may lead nowhere: stamp_of() says so, and the file's coming is a
 * change.  After a load that failed the set should have the files that it has tried, too.
 * Errors: -ENOMEM: nothing has changed. */
int watch_set(struct watch *w, const struct stamped *files, size_t n);

/* Has changed() be called once more in a second, although nothing may have changed: what
 * is there could not be loaded for a reason outside the files. */
void watch_again(struct watch *w);

void watch_close(struct watch *w); /* NULL is fine */

/* The same in a forked process, whose descriptors have been closed or are its parent's. */
void watch_forget(struct watch *w);

#endif
