/* lresp.h - `require "moonport.resp.scan"`: where a command of RESP, the Redis protocol,
 * ends, and its words.  Behind moonport.resp.
 *
 * scan.command(buf, pos) -> its words with spaces in between, the first in capitals, and
 * the position behind it; or nil, and how many bytes there must be from pos on, if that is
 * known; or nil, nil, and what is wrong with it.  It keeps nothing, and needs no host.
 *
 * scan.bare(max, judge) -> the same as a function of its own, but what is no command of at
 * most `max` bytes is judge(buf, pos)'s to answer.
 *
 * scan.repeats(buf, pos, text) -> how many times the text stands there, one behind the
 * other. */
#ifndef HOST_BIND_LRESP_H
#define HOST_BIND_LRESP_H

#include <lua.h>

int open_resp_scan(lua_State *L);

#endif
