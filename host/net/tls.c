#include "net/tls.h"

#include <limits.h>
#include <stdlib.h>

struct tls_context {
	const struct libssl *lib;
	SSL_CTX *ctx;
};

struct tls {
	const struct libssl *lib;
	SSL *ssl;
	BIO *in, *out;   /* ssl's */
	const char *why; /* static */
};

/* ---- contexts ---- */

/* Of a key that is encrypted: OpenSSL would ask at the terminal. */
static int
no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

/* The first is the server's own. */
static const char *
use_chain(const struct libssl *l, SSL_CTX *ctx, BIO *b)
{
	X509 *x = l->PEM_read_bio_X509(b, NULL, no_password, NULL);
	bool used = x && l->SSL_CTX_use_certificate(ctx, x);

	l->X509_free(x);
	if (!used)
		return "the certificate is no certificate in PEM";
	while ((x = l->PEM_read_bio_X509(b, NULL, no_password, NULL)))
		if (!l->SSL_CTX_ctrl(ctx, SSL_CTRL_CHAIN_CERT, 0, x)) {
			l->X509_free(x);
			return "the chain of certificates cannot be used";
		}
	return NULL;
}

static const char *
use_key(const struct libssl *l, SSL_CTX *ctx, BIO *b)
{
	EVP_PKEY *key = l->PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
	bool used = key && l->SSL_CTX_use_PrivateKey(ctx, key);

	l->EVP_PKEY_free(key);
	if (!key)
		return "the key is no private key in PEM, or an encrypted one";
	if (!used || !l->SSL_CTX_check_private_key(ctx))
		return "the key is not the certificate's";
	return NULL;
}

static const char *
use(const struct libssl *l, SSL_CTX *ctx, const char *pem, size_t n,
    const char *(*how)(const struct libssl *, SSL_CTX *, BIO *))
{
	BIO *b = n <= INT_MAX ? l->BIO_new_mem_buf(pem, (int)n) : NULL;
	const char *why = b ? how(l, ctx, b) : "out of memory";

	l->BIO_free(b);
	return why;
}

struct tls_context *
tls_context_new(const struct libssl *l, const char *chain, size_t n, const char *key,
		size_t key_n, const char **why)
{
	struct tls_context *c = malloc(sizeof(*c));

	*why = "out of memory";
	if (!c)
		return NULL;
	*c = (struct tls_context){.lib = l, .ctx = l->SSL_CTX_new(l->TLS_server_method())};
	if (c->ctx &&
	    l->SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) &&
	    l->SSL_CTX_set_num_tickets(c->ctx, 0)) {
		l->SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
		l->SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF,
				NULL);
		*why = use(l, c->ctx, chain, n, use_chain);
		l->ERR_clear_error(); /* the end of a chain is one */
		if (!*why)
			*why = use(l, c->ctx, key, key_n, use_key);
	}
	l->ERR_clear_error();
	if (!*why)
		return c;
	tls_context_free(c);
	return NULL;
}

void
tls_context_free(struct tls_context *c)
{
	if (!c)
		return;
	c->lib->SSL_CTX_free(c->ctx);
	free(c);
}

/* ---- one connection ---- */

struct tls *
tls_new(const struct tls_context *c)
{
	const struct libssl *l = c->lib;
	struct tls *t = malloc(sizeof(*t));

	if (!t)
		return NULL;
	*t = (struct tls){.lib = l,
			  .ssl = l->SSL_new(c->ctx),
			  .in = l->BIO_new(l->BIO_s_mem()),
			  .out = l->BIO_new(l->BIO_s_mem())};
	if (!t->ssl || !t->in || !t->out) {
		l->BIO_free(t->in);
		l->BIO_free(t->out);
		t->in = t->out = NULL;
		tls_free(t);
		return NULL;
	}
	l->SSL_set_bio(t->ssl, t->in, t->out);
	l->SSL_set_accept_state(t->ssl);
	return t;
}

void
tls_free(struct tls *t)
{
	if (!t)
		return;
	t->lib->SSL_free(t->ssl);
	free(t);
}

bool
tls_give(struct tls *t, const char *bytes, size_t n)
{
	return n == 0 ||
	       (n <= INT_MAX && t->lib->BIO_write(t->in, bytes, (int)n) == (int)n);
}

/* What an operation's result means. */
static enum tls_result
judge(struct tls *t, int rc)
{
	if (rc > 0)
		return TLS_DONE;
	switch (t->lib->SSL_get_error(t->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WAIT;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_CLOSED;
	default:
		t->why = libssl_error(t->lib);
		return TLS_FAILED;
	}
}

/* What is left of the last failure, maybe another engine's, would be taken for this one's.
 */
static bool
may(struct tls *t)
{
	t->lib->ERR_clear_error();
	return !t->why;
}

enum tls_result
tls_handshake(struct tls *t)
{
	return may(t) ? judge(t, t->lib->SSL_do_handshake(t->ssl)) : TLS_FAILED;
}

enum tls_result
tls_read(struct tls *t, char *to, size_t size, size_t *n)
{
	enum tls_result result = TLS_FAILED;
	int rc;

	*n = 0;
	if (!may(t))
		return result;
	rc = t->lib->SSL_read(t->ssl, to, size > INT_MAX ? INT_MAX : (int)size);
	result = judge(t, rc);
	if (result == TLS_DONE)
		*n = (size_t)rc;
	return result;
}

enum tls_result
tls_write(struct tls *t, const char *bytes, size_t n)
{
	enum tls_result result = TLS_DONE;

	while (n > 0 && result == TLS_DONE) {
		int part = n > INT_MAX ? INT_MAX : (int)n;

		if (!may(t))
			return TLS_FAILED;
		result = judge(t, t->lib->SSL_write(t->ssl, bytes, part)); /* all of it */
		bytes += part;
		n -= (size_t)part;
	}
	return result;
}

void
tls_close(struct tls *t)
{
	if (may(t))
		t->lib->SSL_shutdown(t->ssl);
	t->lib->ERR_clear_error();
}

size_t
tls_pending(const struct tls *t)
{
	return t->lib->BIO_ctrl_pending(t->out);
}

size_t
tls_take(struct tls *t, char *to, size_t size)
{
	int n = t->lib->BIO_read(t->out, to, size > INT_MAX ? INT_MAX : (int)size);

	return n > 0 ? (size_t)n : 0;
}

const char *
tls_why(const struct tls *t)
{
	return t->why ? t->why : "nothing failed";
}

const char *
tls_version(const struct tls *t)
{
	return t->lib->SSL_get_version(t->ssl);
}

const char *
tls_cipher(const struct tls *t)
{
	return t->lib->SSL_CIPHER_get_name(t->lib->SSL_get_current_cipher(t->ssl));
}

const char *
tls_server_name(const struct tls *t)
{
	return t->lib->SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
}
