#include "net/libssl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define FILE_NAME "libssl.so." TEXT(OPENSSL_SHLIB_VERSION)

static bool
find(void *library, const char *name, void *function, char *why, size_t size)
{
	void *there = dlsym(library, name); /* libcrypto's, too: libssl needs that */

	memcpy(function, &there, sizeof(there));
	if (!there)
		snprintf(why, size, "TLS needs OpenSSL, and its %s has no %s", FILE_NAME,
			 name);
	return there;
}

bool
libssl_load(struct libssl *l, char *why, size_t size)
{
	void *library = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

	if (!library) {
		snprintf(why, size, "TLS needs OpenSSL (Debian package libssl%s): %s",
			 TEXT(OPENSSL_SHLIB_VERSION), dlerror());
		return false;
	}
#define LIBSSL_FIND(name)                                                                  \
	if (!find(library, #name, &l->name, why, size)) {                                  \
		dlclose(library);                                                          \
		return false;                                                              \
	}
	LIBSSL_FUNCTIONS(LIBSSL_FIND)
#undef LIBSSL_FIND
	dlclose(library); /* which RTLD_NODELETE has stay */
	return true;
}

const char *
libssl_error(const struct libssl *l)
{
	unsigned long code = l->ERR_peek_last_error();
	const char *reason = code ? l->ERR_reason_error_string(code) : NULL;

	l->ERR_clear_error();
	return reason ? reason : "an unknown error of OpenSSL";
}
