#include "bind/ltls.h"

#include "net/certificate.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char CONTEXT_META[] = "moonport.tls.Context";
static const char ENGINE_META[] = "moonport.tls.Engine";
static const char LIBRARY_KEY[] =
    "moonport.tls.openssl"; /* its address: the registry's key */

enum {
	PIECE = 16 * 1024, /* bytes, of a record at most */
	MOST_DAYS = 36500,
};

/* ---- the library ---- */

/* Pushes nothing: a struct of the state's.  NULL: why is pushed. */
static const struct libssl *
library(lua_State *L)
{
	struct libssl *l;
	char why[256];

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, LIBRARY_KEY) == LUA_TUSERDATA) {
		l = lua_touserdata(L, -1);
		lua_pop(L, 1);
		return l;
	}
	lua_pop(L, 1);
	l = lua_newuserdatauv(L, sizeof(*l), 0);
	if (!libssl_load(l, why, sizeof(why))) {
		lua_pop(L, 1);
		lua_pushstring(L, why);
		return NULL;
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, LIBRARY_KEY);
	return l;
}

/* nil, and the string on top. */
static int
refuse(lua_State *L)
{
	lua_pushnil(L);
	lua_insert(L, -2);
	return 2;
}

/* ---- certificates ---- */

static bool
is_address(const char *name)
{
	unsigned char bytes[16];

	return inet_pton(AF_INET, name, bytes) == 1 ||
	       inet_pton(AF_INET6, name, bytes) == 1;
}

static bool
is_name(const char *name, size_t n)
{
	return n > 0 && n < 64 &&
	       strspn(
		   name,
		   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-*") ==
		   n;
}

/* Pushes "DNS:localhost,IP:127.0.0.1" for the list at `at`. */
static void
push_names(lua_State *L, int at)
{
	lua_Integer n = luaL_len(L, at);
	luaL_Buffer b;

	luaL_argcheck(L, n > 0 && n <= 100, 1, "names: 1 to 100 host names or addresses");
	luaL_buffinit(L, &b);
	for (lua_Integer i = 1; i <= n; i++) {
		const char *name;
		size_t size;

		lua_rawgeti(L, at, i);
		name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
		if (!name || !(is_address(name) || is_name(name, size)))
			luaL_error(L, "tls: a name is a host name or an address, not '%s'",
				   luaL_tolstring(L, -1, NULL));
		lua_pop(L, 1); /* the list has it */
		luaL_addstring(&b, i > 1 ? "," : "");
		luaL_addstring(&b, is_address(name) ? "IP:" : "DNS:");
		luaL_addstring(&b, name);
	}
	luaL_pushresult(&b);
}

/* tls.certificate{ names =, days = } -> certificate, key | nil, why */
static int
tls_certificate(lua_State *L)
{
	struct certificate c;
	const struct libssl *l;
	const char *why;
	lua_Integer days;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lua_getfield(L, 1, "days");
	days = luaL_optinteger(L, 2, 365);
	luaL_argcheck(L, days >= -MOST_DAYS && days <= MOST_DAYS, 1,
		      "days: at most 36500, or so long ago");
	luaL_argcheck(L, lua_getfield(L, 1, "names") == LUA_TTABLE, 1,
		      "names: a list of host names or addresses");
	push_names(L, 3);
	lua_rawgeti(L, 3, 1);
	l = library(L);
	if (!l)
		return refuse(L);
	why = certificate_make(l, &c, lua_tostring(L, 5), lua_tostring(L, 4), (int)days);
	if (why) {
		lua_pushfstring(L, "a certificate cannot be made: %s", why);
		return refuse(L);
	}
	/* Lua may want for memory: then it is the certificate's that is lost */
	lua_pushstring(L, c.pem);
	lua_pushstring(L, c.key);
	certificate_free(&c);
	return 2;
}

/* ---- contexts ---- */

/* tls.context{ certificate =, key = } -> context | nil, why */
static int
tls_context(lua_State *L)
{
	const struct libssl *l;
	const char *chain, *key, *why;
	size_t n, key_n;
	struct tls_context **c;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lua_getfield(L, 1, "certificate");
	lua_getfield(L, 1, "key");
	luaL_argcheck(L, lua_type(L, 2) == LUA_TSTRING && lua_type(L, 3) == LUA_TSTRING, 1,
		      "certificate and key are texts in PEM");
	chain = lua_tolstring(L, 2, &n);
	key = lua_tolstring(L, 3, &key_n);
	l = library(L);
	if (!l)
		return refuse(L);
	c = lua_newuserdatauv(L, sizeof(struct tls_context *), 0);
	*c = NULL;
	luaL_setmetatable(L, CONTEXT_META);
	*c = tls_context_new(l, chain, n, key, key_n, &why);
	if (*c)
		return 1;
	lua_pushstring(L, why);
	return refuse(L);
}

static int
context_gc(lua_State *L)
{
	struct tls_context **c = luaL_checkudata(L, 1, CONTEXT_META);

	tls_context_free(*c);
	*c = NULL;
	return 0;
}

static int
context_engine(lua_State *L)
{
	struct tls_context **c = luaL_checkudata(L, 1, CONTEXT_META);
	struct tls **t = lua_newuserdatauv(L, sizeof(struct tls *), 0);

	*t = NULL;
	luaL_setmetatable(L, ENGINE_META);
	*t = *c ? tls_new(*c) : NULL;
	return *t ? 1 : luaL_error(L, "not enough memory");
}

/* ---- engines ---- */

static struct tls *
engine_of(lua_State *L)
{
	struct tls **t = luaL_checkudata(L, 1, ENGINE_META);

	luaL_argcheck(L, *t, 1, "it is closed");
	return *t;
}

static int
engine_gc(lua_State *L)
{
	struct tls **t = luaL_checkudata(L, 1, ENGINE_META);

	tls_free(*t);
	*t = NULL;
	return 0;
}

static int
engine_give(lua_State *L)
{
	struct tls *t = engine_of(L);
	size_t n;
	const char *bytes = luaL_checklstring(L, 2, &n);

	return tls_give(t, bytes, n) ? 0 : luaL_error(L, "not enough memory");
}

/* nil, and why there is nothing. */
static int
push_why(lua_State *L, const struct tls *t, enum tls_result result)
{
	lua_pushnil(L);
	lua_pushstring(L, result == TLS_WAIT     ? "wait"
			  : result == TLS_CLOSED ? "closed"
						 : tls_why(t));
	return 2;
}

static int
engine_handshake(lua_State *L)
{
	struct tls *t = engine_of(L);
	enum tls_result result = tls_handshake(t);

	if (result != TLS_DONE)
		return push_why(L, t, result);
	lua_pushboolean(L, 1);
	return 1;
}

static int
engine_read(lua_State *L)
{
	struct tls *t = engine_of(L);
	luaL_Buffer b;
	char *to = luaL_buffinitsize(L, &b, PIECE);
	enum tls_result result;
	size_t n;

	result = tls_read(t, to, PIECE, &n);
	luaL_pushresultsize(&b, n);
	return result == TLS_DONE ? 1 : push_why(L, t, result);
}

/* All that is to be sent, as one string; nil: nothing. */
static int
push_output(lua_State *L, struct tls *t)
{
	size_t n = tls_pending(t);
	luaL_Buffer b;

	if (n == 0) {
		lua_pushnil(L);
		return 1;
	}
	n = tls_take(t, luaL_buffinitsize(L, &b, n), n);
	luaL_pushresultsize(&b, n);
	return 1;
}

static int
engine_output(lua_State *L)
{
	return push_output(L, engine_of(L));
}

static int
engine_seal(lua_State *L)
{
	struct tls *t = engine_of(L);
	size_t n;
	const char *bytes = luaL_checklstring(L, 2, &n);
	enum tls_result result = tls_write(t, bytes, n);

	return result == TLS_DONE ? push_output(L, t) : push_why(L, t, result);
}

static int
engine_close(lua_State *L)
{
	tls_close(engine_of(L));
	return 0;
}

static int
engine_info(lua_State *L)
{
	struct tls *t = engine_of(L);

	lua_createtable(L, 0, 3);
	lua_pushstring(L, tls_version(t));
	lua_setfield(L, -2, "version");
	lua_pushstring(L, tls_cipher(t));
	lua_setfield(L, -2, "cipher");
	lua_pushstring(L, tls_server_name(t));
	lua_setfield(L, -2, "server_name");
	return 1;
}

static void
open_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc)
{
	luaL_newmetatable(L, name);
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, gc);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
}

int
open_tls(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"certificate", tls_certificate}, {"context", tls_context}, {NULL, NULL}};
	static const luaL_Reg of_contexts[] = {{"engine", context_engine}, {NULL, NULL}};
	static const luaL_Reg of_engines[] = {{"close", engine_close},
					      {"free", engine_gc},
					      {"give", engine_give},
					      {"handshake", engine_handshake},
					      {"info", engine_info},
					      {"output", engine_output},
					      {"read", engine_read},
					      {"seal", engine_seal},
					      {NULL, NULL}};

	open_class(L, CONTEXT_META, of_contexts, context_gc);
	open_class(L, ENGINE_META, of_engines, engine_gc);
	luaL_newlib(L, functions);
	return 1;
}
