/* certificate.h - a self-signed certificate for a server of tests, and its key.
 *
 * The texts are malloc()ed, PEM, with a NUL behind; the caller frees both with
 * certificate_free().  Any thread. */
#ifndef HOST_NET_CERTIFICATE_H
#define HOST_NET_CERTIFICATE_H

#include "net/libssl.h"

struct certificate {
	char *pem, *key;
};

/* For `names`, such as "DNS:localhost,IP:127.0.0.1", which have been checked, the first
 * of them also as `common`; from a day before now on, `days` days from now, or ago.  ECDSA
 * on P-256.  A client may also trust it as an authority.  NULL, or what went wrong:
 * static. */
const char *certificate_make(const struct libssl *l, struct certificate *c,
			     const char *common, const char *names, int days);

void certificate_free(struct certificate *c);

#endif
