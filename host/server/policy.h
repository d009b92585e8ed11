/* policy.h - how a server runs its requests: what `--mixin` chooses.
 *
 * A policy knows no transport.  Today's two run every request on the server's
 * own engine and differ only in whether accepting goes on meanwhile. */
#ifndef HOST_SERVER_POLICY_H
#define HOST_SERVER_POLICY_H

#include <stddef.h>
#include <stdint.h>

struct attrs;

struct policy {
	const char *name;   /* of --mixin */
	const char *prefix; /* of the class: "Async" in AsyncTCPServer */
	/* How many requests may run at once; at the ceiling accepting stops. */
	uint64_t (*ceiling)(const struct attrs *a);
};

/* NULL: no such policy. */
const struct policy *policy_find(const char *name);

/* The i-th, NULL past the last. */
const struct policy *policy_at(size_t i);

#endif
