/* sources.h - the texts that a generation was loaded from: the script and its modules.
 *
 * Each state of the generation is loaded from the same texts, whatever has become of the
 * files meanwhile.  Counted; once its script is loaded a set is not changed any more, and
 * any thread may hold, read and release it. */
#ifndef HOST_SCRIPT_SOURCES_H
#define HOST_SCRIPT_SOURCES_H

#include "loop/stamp.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sources;
struct text;

/* strict: what others could have changed is refused, see text.h.  NULL: out of memory. */
struct sources *sources_new(bool strict);
struct sources *sources_hold(struct sources *s);
void sources_release(struct sources *s); /* NULL is fine */

/* Has load and require in this state use the set; `record`: add what they read.  The
 * caller keeps the set until the state is closed.  May raise for want of memory. */
void sources_attach(lua_State *L, struct sources *s, bool record);

/* Whether the state's set is strict. */
bool sources_strict(lua_State *L);

/* Adds a file, and takes its text over: it is in the set, or freed.  name: of the module,
 * or NULL.  False: out of memory. */
bool sources_put(struct sources *s, const char *name, const char *file, struct text *text);

/* From now on nothing is added. */
void sources_seal(struct sources *s);

/* The file of a module that is in the state's set; NULL: it is not. */
const char *sources_module(lua_State *L, const char *name);

/* Of all texts and their files' names: FNV-1a, 64 bits. */
uint64_t sources_hash(const struct sources *s);

/* Puts its first n files where `files` points to, as they were when they were read; the
 * paths are the set's.  Returns how many it has. */
size_t sources_files(const struct sources *s, struct stamped *files, size_t n);

/* As luaL_loadfilex(L, file, "t"), by the state's set if it has the file.  name: of the
 * module, or NULL.  A file that the state's sandbox or strictness forbids is an error. */
int sources_load(lua_State *L, const char *name, const char *file);

/* The same for what is no part of the generation: always the file as it is now. */
int sources_loadfile(lua_State *L, const char *file);

#endif
