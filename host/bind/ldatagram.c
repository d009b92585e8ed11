#include "bind/ldatagram.h"

#include "base/clock.h"
#include "bind/lhandle.h"
#include "bind/lrequest.h"
#include "bind/stream.h"
#include "script/lerror.h"
#include "script/task.h"

#include <errno.h>

static const char META[] = "moonport.datagram_socket";

struct object {
	struct list link;           /* in the port's */
	struct datagram_port *port; /* NULL: it has gone */
};

static struct datagram_port *
check(lua_State *L)
{
	const struct object *o = luaL_checkudata(L, 1, META);

	if (!o->port)
		luaL_error(L, "the server is closed");
	return o->port;
}

static int
datagram_gc(lua_State *L)
{
	struct object *o = luaL_checkudata(L, 1, META);

	list_remove(&o->link);
	o->port = NULL;
	return 0;
}

int
datagram_try(struct datagram_port *port, const char *data, size_t n, const struct addr *to,
	     const struct dgram_local *local, unsigned tries, int64_t *deadline)
{
	int rc = dgram_send(port->fd, data, n, to, local);
	int64_t ms = tries < 6 ? (int64_t)1 << tries : 50;

	if (rc != -EAGAIN)
		return rc;
	*deadline = clock_now() + ms * CLOCK_MS;
	return -EINPROGRESS;
}

/* An answer to the running request's sender leaves from the address that was asked,
 * and goes to the sender's address in the form that the kernel gave it. */
static const struct dgram_local *
answer_from(lua_State *L, struct addr *to)
{
	const struct task *t = sched_of(L)->current;
	const struct stream *s = t ? t->stream : NULL;

	if (!s || !s->datagram || !s->from || !addr_same(to, &s->from->addr))
		return NULL;
	*to = s->from->addr;
	return &s->from->local;
}

static int sendto_k(lua_State *L, int status, lua_KContext tries);

/* Stack: socket, data, address. */
static int
send_to(lua_State *L, unsigned tries)
{
	struct datagram_port *port = check(L);
	struct addr to;
	size_t n;
	const char *data = luaL_checklstring(L, 2, &n);
	const struct dgram_local *local;
	int64_t deadline = 0;
	int rc;

	if (lua_type(L, 3) == LUA_TSTRING && lua_rawlen(L, 3) == 0)
		return luaL_argerror(
		    L, 3, "the address is empty: the sender has no name to answer to");
	check_address(L, 3, &to);
	local = answer_from(L, &to);
	rc = datagram_try(port, data, n, &to, local, tries, &deadline);
	if (rc == -EINPROGRESS)
		return task_park(L, deadline, NULL, NULL, (lua_KContext)tries + 1,
				 sendto_k);
	if (rc < 0)
		return lerror_raise_errno(L, "sendto", -rc);
	lua_pushinteger(L, (lua_Integer)n);
	return 1;
}

static int
sendto_k(lua_State *L, int status, lua_KContext tries)
{
	(void)status;
	task_woke(L);
	return send_to(L, (unsigned)tries);
}

/* socket:sendto(data, address) -> count; a datagram goes whole or not at all */
static int
datagram_sendto(lua_State *L)
{
	check(L);
	lua_settop(L, 3);
	return send_to(L, 0);
}

static int
datagram_recv(lua_State *L)
{
	check(L);
	return luaL_error(L, "the server receives on this socket: each datagram starts a "
			     "request of its own");
}

static int
datagram_getsockname(lua_State *L)
{
	struct addr a = {.len = sizeof(a.ss)};

	if (getsockname(check(L)->fd, addr_sa_out(&a), &a.len) < 0)
		return lerror_result(L, errno);
	push_address(L, &a);
	return 1;
}

static int
datagram_fileno(lua_State *L)
{
	lua_pushinteger(L, check(L)->fd);
	return 1;
}

static int
datagram_setsockopt(lua_State *L)
{
	return sockopt_l_set(L, check(L)->fd, NULL);
}

static int
datagram_getsockopt(lua_State *L)
{
	return sockopt_l_get(L, check(L)->fd);
}

static int
datagram_tostring(lua_State *L)
{
	lua_pushfstring(L, "socket (fd %d)", check(L)->fd);
	return 1;
}

void
open_datagram(lua_State *L)
{
	static const luaL_Reg methods[] = {
	    {"fileno", datagram_fileno},         {"getsockname", datagram_getsockname},
	    {"getsockopt", datagram_getsockopt}, {"recv", datagram_recv},
	    {"recvfrom", datagram_recv},         {"sendto", datagram_sendto},
	    {"setsockopt", datagram_setsockopt}, {NULL, NULL},
	};

	luaL_newmetatable(L, META);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, datagram_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushcfunction(L, datagram_gc);
	lua_setfield(L, -2, "__gc");
	lua_pushboolean(L, 0); /* all requests of the state share it */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void
datagram_push(lua_State *L, struct datagram_port *port)
{
	struct object *o = lua_newuserdatauv(L, sizeof(*o), 1);

	o->port = port;
	list_append(&port->objects, &o->link);
	luaL_setmetatable(L, META);
}

void
datagram_vanish(struct datagram_port *port)
{
	while (!list_empty(&port->objects)) {
		struct object *o = LIST_ENTRY(port->objects.next, struct object, link);
		list_remove(&o->link);
		o->port = NULL;
	}
}
