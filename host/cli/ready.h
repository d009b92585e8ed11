/* ready.h - what the program tells its starter once every listener accepts.  Main thread.
 */
#ifndef HOST_CLI_READY_H
#define HOST_CLI_READY_H

struct host;

/* Writes the ready line to `path`, as one step (a rename), or to standard output for
 * "-".  Its form is documented API.  Returns 0 or -errno. */
int ready_write(struct host *h, const char *path);

/* Tells a person at a terminal what is listening and what to type next. */
void ready_greet(struct host *h);

#endif
