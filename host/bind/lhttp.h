/* lhttp.h - `require "moonport.http.scan"`: what most requests of HTTP need, each in one
 * call. Behind moonport.http, whose Lua does all the rest and says what is wrong.
 *
 * scan.head(buf, at, line, head, headers) -> method, target, minor, a table of the headers
 * by lower-case name, the position behind it, and whether the target is just a path; or
 * nothing, if it is not there as a whole, not well-formed, beyond these limits (bytes of a
 * line and of all, and how many), or unusual: a header that comes twice, one with spaces at
 * its end.  It keeps nothing, and needs no host.
 *
 * scan.direct(request, line, head, headers) -> what scan.take() needs of a connection; nil:
 * the request is none.
 *
 * scan.take(direct) -> a table of the headers, method, target, path, host (or nil), minor,
 * whether the connection is kept, query (or nil), length of the body (or nil): of the usual
 * head that is there, or comes next.  nil and why, if there is none, as from recv(); false,
 * if there is an unusual one; nothing, if it is not all there, or the connection is gone.
 * The last head is remembered: when the same bytes come again, from whomever, they need not
 * be taken apart.
 *
 * scan.replier(otherwise, starts, second) -> reply(wfile, req, status, body, ...), which
 * writes the usual reply if starts[status] has what goes before the body's length, and
 * second[1] is the time now; all else otherwise(...) does. */
#ifndef HOST_BIND_LHTTP_H
#define HOST_BIND_LHTTP_H

#include <lua.h>

int open_http_scan(lua_State *L);

#endif
