/* ljournal.h - the module `moonport.journal`, and the journal (base/journal.h) of a host.
 *
 * All scripts whose requests run on the host's own thread share one journal: it is made
 * when the first of them requires the module, belongs to the engine's struct io, and goes
 * with it; no reload touches it.  A threading server's seats and a forked child have none:
 * there the module raises one sentence.  A worker of a master has one of its own.
 *
 * The connection that journal.open() numbers has its number in its stream, as s->conn, by
 * which the host can find it.  One engine, its thread. */
#ifndef HOST_BIND_LJOURNAL_H
#define HOST_BIND_LJOURNAL_H

#include <lua.h>
#include <stdint.h>

struct io;
struct journal;
struct journal_record;

/* NULL: nobody has asked for it so far. */
struct journal *ljournal_get(const struct io *io);

/* Makes it unless there is one.  NULL: out of memory, or none may be here. */
struct journal *ljournal_make(struct io *io);

/* Adds a record, with the time of this turn of the loop for its time: 0 if there is no
 * journal. */
uint64_t ljournal_add(struct io *io, const struct journal_record *r);

/* Frees it; there will be no other one. */
void ljournal_close(struct io *io);

/* In a forked copy: those who waited are not here any more. */
void ljournal_reborn(struct io *io);

/* The module's loader. */
int open_journal(lua_State *L);

#endif
