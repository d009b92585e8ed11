/* ltls.h - `require "moonport.tls"`: TLS for a server, between bytes and bytes; the mocks
 * stand behind it.  OpenSSL is loaded when it is first used.
 *
 * tls.certificate{ names = {"localhost"}, days = 365 } -> certificate, key: PEM.
 * tls.context{ certificate =, key = } -> context.
 * context:engine() -> engine, of one connection:
 *   engine:give(bytes)   bytes of the peer
 *   engine:output()      bytes for the peer, or nil; to be asked after each other call
 *   engine:handshake()   true
 *   engine:read()        bytes
 *   engine:seal(bytes)   bytes for the peer, with all that output() would have given
 *   engine:close()       says to the peer that no more comes
 *   engine:info()        { version =, cipher =, server_name = or nil }
 *   engine:free()        at once: what it holds does not count for Lua's collector
 * Those that cannot give nil and why: "wait" for more of the peer's bytes, "closed" by the
 * peer, or a sentence, after which the engine is of no more use.  Wrong arguments and want
 * of memory raise. */
#ifndef HOST_BIND_LTLS_H
#define HOST_BIND_LTLS_H

#include <lua.h>

int open_tls(lua_State *L);

#endif
