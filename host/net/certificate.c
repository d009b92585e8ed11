#include "net/certificate.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { VERSION_3 = 2 };

/* What a strict client asks of one that signs itself. */
static bool
extend(const struct libssl *l, X509 *x, const char *names)
{
	const struct {
		int nid;
		const char *value;
	} all[] = {
	    {NID_basic_constraints, "critical,CA:TRUE"},
	    {NID_key_usage, "critical,digitalSignature,keyCertSign"},
	    {NID_ext_key_usage, "serverAuth"},
	    {NID_subject_key_identifier, "hash"},
	    {NID_subject_alt_name, names},
	};
	X509V3_CTX context;

	memset(&context, 0, sizeof(context));
	l->X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		X509_EXTENSION *e =
		    l->X509V3_EXT_conf_nid(NULL, &context, all[i].nid, all[i].value);
		bool added = e && l->X509_add_ext(x, e, -1);

		l->X509_EXTENSION_free(e);
		if (!added)
			return false;
	}
	return true;
}

static bool
fill(const struct libssl *l, X509 *x, EVP_PKEY *key, const char *common, const char *names,
     int days)
{
	int64_t serial = 0;
	X509_NAME *name = l->X509_get_subject_name(x);

	/* no two alike: some clients remember them by issuer and number */
	if (getrandom(&serial, sizeof(serial), 0) != sizeof(serial))
		return false;
	return l->X509_set_version(x, VERSION_3) &&
	       l->ASN1_INTEGER_set_int64(l->X509_get_serialNumber(x),
					 (serial & INT64_MAX) | 1) &&
	       l->X509_time_adj_ex(l->X509_getm_notBefore(x), (days < 0 ? days : 0) - 1, 0,
				   NULL) &&
	       l->X509_time_adj_ex(l->X509_getm_notAfter(x), days, 0, NULL) &&
	       l->X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
					     (const unsigned char *)common, -1, -1, 0) &&
	       l->X509_set_issuer_name(x, name) && l->X509_set_pubkey(x, key) &&
	       extend(l, x, names) && l->X509_sign(x, key, l->EVP_sha256());
}

/* What was written, as a string; frees the BIO. */
static char *
text_of(const struct libssl *l, BIO *b, bool written)
{
	size_t n = b ? l->BIO_ctrl_pending(b) : 0;
	char *text = written ? malloc(n + 1) : NULL;

	if (text)
		text[l->BIO_read(b, text, (int)n) < 0 ? 0 : n] = '\0';
	l->BIO_free(b);
	return text;
}

static char *
text_of_certificate(const struct libssl *l, X509 *x)
{
	BIO *b = l->BIO_new(l->BIO_s_mem());

	return text_of(l, b, b && l->PEM_write_bio_X509(b, x));
}

static char *
text_of_key(const struct libssl *l, EVP_PKEY *key)
{
	BIO *b = l->BIO_new(l->BIO_s_mem());

	return text_of(l, b,
		       b && l->PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL));
}

const char *
certificate_make(const struct libssl *l, struct certificate *c, const char *common,
		 const char *names, int days)
{
	EVP_PKEY *key = l->EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	X509 *x = l->X509_new();
	bool made = key && x && fill(l, x, key, common, names, days);

	*c = (struct certificate){0};
	if (made) {
		c->pem = text_of_certificate(l, x);
		c->key = text_of_key(l, key);
		made = c->pem && c->key;
	}
	l->X509_free(x);
	l->EVP_PKEY_free(key);
	if (made)
		return NULL;
	certificate_free(c);
	return libssl_error(l);
}

void
certificate_free(struct certificate *c)
{
	free(c->pem);
	free(c->key);
	*c = (struct certificate){0};
}
