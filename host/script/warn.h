/* warn.h - what Lua warns of (an error in a finalizer, `warn`), as events of the log.
 *
 * The struct is part of a state's, and ends with it. */
#ifndef HOST_SCRIPT_WARN_H
#define HOST_SCRIPT_WARN_H

#include "base/log.h"

#include <lua.h>

struct warnings {
	struct log *log;    /* borrowed; NULL: nobody hears */
	const char *script; /* borrowed */
	struct log_gate gate;
	size_t len;
	char text[512]; /* a message comes in pieces */
};

/* From now on the state's warnings are events, at most one a second. */
void warn_open(lua_State *L, struct warnings *w, struct log *log, const char *script);

#endif
