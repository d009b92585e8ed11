/* lrfile.h - reading, as rfile and request:recv() share it. */
#ifndef HOST_BIND_LRFILE_H
#define HOST_BIND_LRFILE_H

#include <lua.h>
#include <sys/types.h>

struct stream;

/* What a read gives when it has no data: nil, why [, errno].  rc: 0 end of stream, else
 * -errno; -ENOMEM raises. */
int read_failed(lua_State *L, ssize_t rc);

/* For the continuation of a receive: 0, go on; else how many values were pushed, as above,
 * or nil, "interrupted".  Raises if the stream is closed, or NULL. */
int recv_woken(lua_State *L, struct stream *s);

#endif
