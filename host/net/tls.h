/* tls.h - the server's side of TLS without a socket: bytes of the peer go in, bytes for
 * the peer come out, and who calls takes them there.
 *
 * TLS 1.2 and 1.3; no renegotiation, no tickets, no client certificates.  An engine holds
 * some 50 KiB that Lua's allocator does not count.  A context may be freed before its
 * engines; `lib` has to outlive both.  Nothing waits, and nothing is shared but a context,
 * which is only read: any thread, one at a time for each engine. */
#ifndef HOST_NET_TLS_H
#define HOST_NET_TLS_H

#include "net/libssl.h"

struct tls_context;
struct tls;

enum tls_result {
	TLS_DONE,
	TLS_WAIT,   /* for more from the peer */
	TLS_CLOSED, /* by the peer, as it should be */
	TLS_FAILED, /* and no more is to be done with it; tls_why() */
};

/* From a chain of certificates and its key in PEM; NULL, and `why`, static.  The caller
 * owns it. */
struct tls_context *tls_context_new(const struct libssl *lib, const char *chain, size_t n,
				    const char *key, size_t key_n, const char **why);
void tls_context_free(struct tls_context *c);

/* One connection.  NULL: out of memory. */
struct tls *tls_new(const struct tls_context *c);
void tls_free(struct tls *t);

/* Bytes of the peer, all of them.  False: out of memory. */
bool tls_give(struct tls *t, const char *bytes, size_t n);

enum tls_result tls_handshake(struct tls *t);

/* TLS_DONE: *n bytes of at most `size`, and maybe more. */
enum tls_result tls_read(struct tls *t, char *to, size_t size, size_t *n);

/* All of it, once the handshake is done. */
enum tls_result tls_write(struct tls *t, const char *bytes, size_t n);

/* Says to the peer that no more comes. */
void tls_close(struct tls *t);

/* What is to be sent to the peer: how many bytes; up to `size` of them. */
size_t tls_pending(const struct tls *t);
size_t tls_take(struct tls *t, char *to, size_t size);

const char *tls_why(const struct tls *t);

/* "TLSv1.3"; "TLS_AES_256_GCM_SHA384"; whom the client asked for, or NULL.  Until the
 * engine is freed. */
const char *tls_version(const struct tls *t);
const char *tls_cipher(const struct tls *t);
const char *tls_server_name(const struct tls *t);

#endif
