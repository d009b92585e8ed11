/* lrfile.h - reading, as rfile and request:recv() share it. */
#ifndef HOST_BIND_LRFILE_H
#define HOST_BIND_LRFILE_H

#include <lua.h>
#include <sys/types.h>

struct stream;

/* What a read gives when it has no data: nil, why [, errno].  rc: 0 end of stream, else
 * -errno; -ENOMEM raises. */
int read_failed(lua_State *L, ssize_t rc);

#endif
