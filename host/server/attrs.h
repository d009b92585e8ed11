/* attrs.h - the attributes of servers and handlers: names, defaults, limits.
 *
 * A value comes from the command line, else from the script (the handler's own
 * fields, or its `server` table), else it is the default.  Sizes are bytes,
 * times seconds; an absent time is ATTR_NONE.  Any thread. */
#ifndef HOST_SERVER_ATTRS_H
#define HOST_SERVER_ATTRS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTR_NONE (-1.0)

struct attrs {
	int64_t request_queue_size;
	int64_t max_connections;
	int64_t max_threads, max_children, max_requests_per_child;
	int64_t max_packet_size;
	int64_t max_line;
	int64_t memory_limit;
	int64_t rbufsize, wbufsize;
	int64_t socket_mode;
	bool allow_reuse_address, allow_reuse_port, ipv6_v6only, disable_nagle_algorithm;
	bool daemon_threads, block_on_close;
	double timeout, idle_timeout, request_timeout, drain_timeout, cancel_grace,
	    thread_idle_timeout, retire_timeout;
	double cpu_limit, time_slice;
	uint32_t fixed; /* bit i: attribute i was set on the command line */
};

/* The defaults. */
void attrs_init(struct attrs *a);

/* Sets one from the command line.  -EINVAL: why says in one sentence what is wrong. */
int attrs_set_text(struct attrs *a, const char *name, const char *value, char *why,
		   size_t size);

/* Takes what the script says.  Stack: the handler at idx.  Raises a Lua error that
 * names the attribute.  Leaves the stack as it was. */
void attrs_read(struct attrs *a, lua_State *L, int idx);

/* Pushes the value of an attribute; false: no such name. */
bool attrs_push(const struct attrs *a, lua_State *L, const char *name);

/* The attribute i's name, and one line about it for --help; NULL past the last. */
const char *attrs_name(size_t i, const char **about);

#endif
