/* Addresses in Lua: {host, port}, also .host and .port; a path for Unix sockets. */
#include "bind/lhandle.h"
#include "net/addr.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

static int
address_index(lua_State *L)
{
	const char *key = lua_tostring(L, 2);

	if (key && strcmp(key, "host") == 0)
		lua_rawgeti(L, 1, 1);
	else if (key && strcmp(key, "port") == 0)
		lua_rawgeti(L, 1, 2);
	else
		lua_pushnil(L);
	return 1;
}

static int
address_tostring(lua_State *L)
{
	const char *host;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_rawgeti(L, 1, 1);
	lua_rawgeti(L, 1, 2);
	host = luaL_tolstring(L, -2, NULL);
	lua_pushfstring(L, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
			luaL_tolstring(L, -2, NULL));
	return 1;
}

void
open_address(lua_State *L)
{
	luaL_newmetatable(L, address_class);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, address_class);
	lua_pushcfunction(L, address_index);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, address_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushboolean(L, 0); /* all requests of the state share it */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void
push_address(lua_State *L, const struct addr *a)
{
	char text[ADDR_TEXT];

	if (a->len == 0 || addr_is_unix(a)) {
		lua_pushlstring(L, text, addr_path(a, text, sizeof(text)));
		return;
	}
	lua_createtable(L, 2, 0);
	addr_host(a, text, sizeof(text));
	lua_pushstring(L, text);
	lua_rawseti(L, -2, 1);
	lua_pushinteger(L, addr_port(a));
	lua_rawseti(L, -2, 2);
	lua_rawgetp(L, LUA_REGISTRYINDEX, address_class);
	lua_setmetatable(L, -2);
}

/* Of one host after the other there come many: a text is made for the first of them. */
enum { HOSTS = 16 /* see slot_of() */ };

struct hosts {
	struct in6_addr ip[HOSTS]; /* what user value i + 1 is the text of */
	bool known[HOSTS];
};

void
push_hosts(lua_State *L)
{
	struct hosts *h = lua_newuserdatauv(L, sizeof(*h), HOSTS);

	memset(h, 0, sizeof(*h));
}

/* The number that names it, IPv4 as mapped into IPv6. */
static struct in6_addr
ip_of(const struct addr *a)
{
	const struct sockaddr_in *in = (const void *)&a->ss;
	const struct sockaddr_in6 *in6 = (const void *)&a->ss;
	struct in6_addr ip = {0};

	if (a->ss.ss_family == AF_INET6)
		return in6->sin6_addr;
	ip.s6_addr32[2] = htonl(0xffff);
	ip.s6_addr32[3] = in->sin_addr.s_addr;
	return ip;
}

static unsigned
slot_of(const struct in6_addr *ip)
{
	uint32_t n =
	    ip->s6_addr32[0] ^ ip->s6_addr32[1] ^ ip->s6_addr32[2] ^ ip->s6_addr32[3];

	return n * 2654435769U >> 28;
}

static void
push_host(lua_State *L, const struct addr *a, int hosts)
{
	struct hosts *h = lua_touserdata(L, hosts);
	struct in6_addr ip = ip_of(a);
	unsigned i = slot_of(&ip);
	char text[ADDR_TEXT];

	if (h->known[i] && memcmp(&h->ip[i], &ip, sizeof(ip)) == 0) {
		lua_getiuservalue(L, hosts, (int)i + 1);
		return;
	}
	addr_host(a, text, sizeof(text));
	lua_pushstring(L, text);
	lua_pushvalue(L, -1);
	lua_setiuservalue(L, hosts, (int)i + 1);
	h->ip[i] = ip;
	h->known[i] = true;
}

void
push_known_address(lua_State *L, const struct addr *a, int hosts, int meta)
{
	if (a->len == 0 || addr_is_unix(a)) {
		push_address(L, a);
		return;
	}
	lua_createtable(L, 2, 0);
	push_host(L, a, hosts);
	lua_rawseti(L, -2, 1);
	lua_pushinteger(L, addr_port(a));
	lua_rawseti(L, -2, 2);
	lua_pushvalue(L, meta);
	lua_setmetatable(L, -2);
}

void
check_address(lua_State *L, int idx, struct addr *out)
{
	char why[160];
	const char *s;
	size_t n;
	lua_Integer port;

	idx = lua_absindex(L, idx);
	if (lua_type(L, idx) == LUA_TSTRING) {
		s = lua_tolstring(L, idx, &n);
		if (addr_from_path(s, n, out, why, sizeof(why)) < 0)
			luaL_argerror(L, idx, lua_pushstring(L, why));
		return;
	}
	luaL_argexpected(L, lua_istable(L, idx), idx, "address ({host, port} or a path)");
	lua_geti(L, idx, 1);
	lua_geti(L, idx, 2);
	s = lua_tostring(L, -2);
	port = lua_tointeger(L, -1);
	if (!s || port < 0 || port > 65535 || !lua_isinteger(L, -1) ||
	    addr_from_ip(s, (int)port, out) < 0)
		luaL_argerror(
		    L, idx,
		    "an address must be {host, port}: an IP address and a number to 65535");
	lua_pop(L, 2);
}
