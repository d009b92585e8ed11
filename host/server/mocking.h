/* mocking.h - scripts that say themselves which servers they have (moonport.mock), and the
 * control API beside them.
 *
 * Such a script is a unit of its own.  Loaded, it has declared servers by name and URL
 * (listeners() of its moonport.mock); each is opened, and runs the unit.  A reload opens
 * what the new generation declares and the old one does not, keeps what both declare with
 * the same URL, listener and port included, and closes the rest.  Where an address stays,
 * the listener does, under the new name.
 *
 * The host owns all.  The loop's thread.  Failing functions return -errno with one sentence
 * in why. */
#ifndef HOST_SERVER_MOCKING_H
#define HOST_SERVER_MOCKING_H

#include <stddef.h>
#include <stdint.h>

struct attrs;
struct host;
struct script;
struct unit;
struct url;

/* Loads a script and opens its servers.  Attributes: defaults and the command line. */
int mocking_add(struct host *h, const char *path, const struct attrs *a, char *why,
		size_t size);

/* Makes the journal; limit: the most bytes that it keeps, or 0. */
int mocking_journal(struct host *h, int64_t limit, char *why, size_t size);

/* ---- a reload of such a unit ---- */

/* Opens what the next generation declares beyond the current one; nothing else changes
 * yet. */
int mocking_prepare(struct unit *u, struct script *next, char *why, size_t size);

/* The unit has the next generation, or will not have it. */
void mocking_commit(struct unit *u);
void mocking_abandon(struct unit *u);

/* The journal's record of it: why it failed, or NULL. */
void mocking_record(struct unit *u, const char *why);

/* ---- the end ---- */

/* What has failed, when nothing runs any more: in conversations, as the journal has it, and
 * what scripts' mocks were to see and have not seen.  tell() is called with each text, and
 * the path of the script that it comes from, or NULL for the former.  Returns how many
 * there were; not all texts of very many are kept. */
size_t mocking_verdict(struct host *h,
		       void (*tell)(void *arg, const char *from, const char *text),
		       void *arg);

#endif
