/* lhttp.h - `require "moonport.http.scan"`: the usual head of an HTTP request, in one call.
 * Behind moonport.http, whose Lua reads all others and says what is wrong with them.
 *
 * scan.head(buf, at, line, head, headers) -> method, target, minor, a table of the headers
 * by lower-case name, the position behind it, and whether the target is just a path; or
 * nothing, if it is not there as a whole, not well-formed, beyond these limits (bytes of a
 * line and of all, and how many), or unusual: a header that comes twice, one with spaces at
 * its end.  It keeps nothing, and needs no host. */
#ifndef HOST_BIND_LHTTP_H
#define HOST_BIND_LHTTP_H

#include <lua.h>

int open_http_scan(lua_State *L);

#endif
