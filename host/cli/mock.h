/* mock.h - what `moonport mock` does that `serve` does not.  Main thread. */
#ifndef HOST_CLI_MOCK_H
#define HOST_CLI_MOCK_H

#include <stddef.h>

struct host;
struct options;

/* Loads the scripts and opens what they declare.  -errno with one sentence in why. */
int mock_add_all(struct host *h, const struct options *o, char *why, size_t size);

/* When nothing runs any more: writes what has failed to standard error.  Returns the exit
 * code. */
int mock_verdict(struct host *h);

#endif
