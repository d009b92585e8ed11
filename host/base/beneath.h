/* beneath.h - opening files below a folder, and never outside.
 *
 * Where the kernel has openat2() it sees to that, and symbolic links that stay below the
 * folder are followed; where it has not, links are refused.  Nothing is kept open.  Any
 * thread.  Failing functions return -errno. */
#ifndef HOST_BASE_BENEATH_H
#define HOST_BASE_BENEATH_H

#include <stddef.h>
#include <sys/types.h>

/* Makes path absolute by the current folder, and takes ".", ".." and doubled slashes out
 * of it, as text: no link is looked at.  Errors: -ENOENT for "", -ENAMETOOLONG, or why
 * there is no current folder. */
int beneath_absolute(const char *path, char *out, size_t size);

/* What of an absolute path is below the absolute folder root, "." for root itself; NULL:
 * it is not below.  By text, too; a part of `absolute`, or static. */
const char *beneath_rest(const char *root, const char *absolute);

/* Opens what beneath_rest() returned, close-on-exec; the descriptor is the caller's.
 * -EXDEV: a link leads outside. */
int beneath_open(const char *root, const char *rest, int flags, mode_t mode);

#endif
