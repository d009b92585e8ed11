/* The core's socket: core:bind(), core:activate(), and what shows it.
 */
#include "bind/lhandle.h"
#include "module/serving.h"
#include "script/script.h"
#include "server/listening.h"
#include "server/server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void
read_url(lua_State *L, struct core *c, struct url *url)
{
	char why[320];
	size_t n;
	const char *text;

	*url = (struct url){.transport = c->transport};
	if (transport_is_unix(c->transport)) {
		text = luaL_checklstring(L, 2, &n);
		lua_pushfstring(L, "%s://%s",
				c->transport == TRANSPORT_UNIX ? "unix" : "unixgram", text);
		luaL_argcheck(L, strlen(text) == n, 2, "the path has a NUL in it");
	} else {
		luaL_checktype(L, 2, LUA_TTABLE);
		lua_geti(L, 2, 1);
		lua_geti(L, 2, 2);
		text = luaL_checkstring(L, -2);
		lua_pushfstring(L, strchr(text, ':') ? "%s://[%s]:%d" : "%s://%s:%d",
				c->transport == TRANSPORT_TCP ? "tcp" : "udp", text,
				(int)luaL_checkinteger(L, -1));
	}
	text = lua_tolstring(L, -1, &n);
	if (url_parse(text, n, url, why, sizeof(why)) < 0)
		luaL_error(L, "%s", why);
}

/* core:bind(address) -> server_address */
static int
core_bind(lua_State *L)
{
	struct core *c = core_check(L);
	char why[SCRIPT_ERROR];
	struct url url;

	if (c->server->listener.fd >= 0)
		return luaL_error(L, "the server is bound already");
	read_url(L, c, &url);
	if (listening_bind(c->server, &url, false, why, sizeof(why)) < 0)
		return luaL_error(L, "%s", why);
	c->server->site.view.name = c->server->class_name;
	c->port.fd = c->server->site.port.fd;
	c->port.transport = c->server->site.port.transport;
	push_address(L, &c->server->site.view.addr);
	return 1;
}

/* core:activate(): listens */
static int
core_activate(lua_State *L)
{
	struct core *c = core_check(L);
	int backlog = (int)c->attrs.request_queue_size;

	if (transport_is_stream(c->transport) &&
	    listen(c->server->listener.fd, backlog) < 0)
		return luaL_error(L, "cannot listen: %s", strerror(errno));
	return 0;
}

static int
core_fileno(lua_State *L)
{
	struct core *c = core_any(L);

	lua_pushinteger(L, c->open ? c->server->listener.fd : -1);
	return 1;
}

/* core:socket() -> an object that lives as long as the core does */
static int
core_socket(lua_State *L)
{
	struct core *c = core_check(L);

	datagram_push(L, &c->port);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	return 1;
}

const luaL_Reg core_socket_methods[] = {
    {"activate", core_activate}, {"bind", core_bind}, {"fileno", core_fileno},
    {"socket", core_socket},     {NULL, NULL},
};
