/* libssl.h - OpenSSL, loaded when the first mock wants TLS: a program that serves without
 * it starts in half the time, and needs no OpenSSL at all.
 *
 * The struct holds the functions under their own names; it is filled once and then only
 * read, from any thread.  The caller owns it; the library stays until the process ends,
 * for it leaves functions behind that run then. */
#ifndef HOST_NET_LIBSSL_H
#define HOST_NET_LIBSSL_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stddef.h>

#define LIBSSL_FUNCTIONS(F)                                                                \
	F(ASN1_INTEGER_set_int64)                                                          \
	F(BIO_ctrl)                                                                        \
	F(BIO_ctrl_pending)                                                                \
	F(BIO_free)                                                                        \
	F(BIO_new)                                                                         \
	F(BIO_new_mem_buf)                                                                 \
	F(BIO_read)                                                                        \
	F(BIO_s_mem)                                                                       \
	F(BIO_write)                                                                       \
	F(ERR_clear_error)                                                                 \
	F(ERR_get_error)                                                                   \
	F(ERR_peek_last_error)                                                             \
	F(ERR_reason_error_string)                                                         \
	F(EVP_PKEY_Q_keygen)                                                               \
	F(EVP_PKEY_free)                                                                   \
	F(EVP_sha256)                                                                      \
	F(PEM_read_bio_PrivateKey)                                                         \
	F(PEM_read_bio_X509)                                                               \
	F(PEM_write_bio_PrivateKey)                                                        \
	F(PEM_write_bio_X509)                                                              \
	F(SSL_CIPHER_get_name)                                                             \
	F(SSL_CTX_check_private_key)                                                       \
	F(SSL_CTX_ctrl)                                                                    \
	F(SSL_CTX_free)                                                                    \
	F(SSL_CTX_new)                                                                     \
	F(SSL_CTX_set_num_tickets)                                                         \
	F(SSL_CTX_set_options)                                                             \
	F(SSL_CTX_use_PrivateKey)                                                          \
	F(SSL_CTX_use_certificate)                                                         \
	F(SSL_do_handshake)                                                                \
	F(SSL_free)                                                                        \
	F(SSL_get_current_cipher)                                                          \
	F(SSL_get_error)                                                                   \
	F(SSL_get_servername)                                                              \
	F(SSL_get_version)                                                                 \
	F(SSL_new)                                                                         \
	F(SSL_read)                                                                        \
	F(SSL_set_accept_state)                                                            \
	F(SSL_set_bio)                                                                     \
	F(SSL_shutdown)                                                                    \
	F(SSL_write)                                                                       \
	F(TLS_server_method)                                                               \
	F(X509V3_EXT_conf_nid)                                                             \
	F(X509V3_set_ctx)                                                                  \
	F(X509_EXTENSION_free)                                                             \
	F(X509_NAME_add_entry_by_txt)                                                      \
	F(X509_add_ext)                                                                    \
	F(X509_free)                                                                       \
	F(X509_get_serialNumber)                                                           \
	F(X509_get_subject_name)                                                           \
	F(X509_getm_notAfter)                                                              \
	F(X509_getm_notBefore)                                                             \
	F(X509_new)                                                                        \
	F(X509_set_issuer_name)                                                            \
	F(X509_set_pubkey)                                                                 \
	F(X509_set_version)                                                                \
	F(X509_sign)                                                                       \
	F(X509_time_adj_ex)

struct libssl {
#define LIBSSL_MEMBER(name) __typeof__(name) *name;
	LIBSSL_FUNCTIONS(LIBSSL_MEMBER)
#undef LIBSSL_MEMBER
};

/* False: there is no OpenSSL, or another than this was built for; `why`, of `size` bytes,
 * has a sentence. */
bool libssl_load(struct libssl *l, char *why, size_t size);

/* What OpenSSL says of the last failure in this thread; forgets it.  Static. */
const char *libssl_error(const struct libssl *l);

#endif
