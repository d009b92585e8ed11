/* request.h - one request: its instance, its task, and its end.
 *
 * The site's pool owns the struct; the request frees itself when its task has
 * ended, and tells the site. */
#ifndef HOST_SERVER_REQUEST_H
#define HOST_SERVER_REQUEST_H

#include "base/list.h"
#include "loop/loop.h"
#include "net/dgram.h"

#include <lua.h>

struct arrival;
struct script;
struct site;
struct stream;
struct task;

/* Registry references in a script's state, and what hooks it has. */
struct generation {
	int self_ref;                  /* self.server */
	int port_ref;                  /* the datagram socket object */
	int stream_ref, datagram_ref;  /* what builds instances: see request_prepare() */
	bool verifies, handles_errors; /* verify_request, handle_error */
};

struct request {
	struct list link; /* in the site's requests */
	struct site *site;
	struct stream *stream;
	struct task *task;
	struct script *script; /* borrowed from the task */
	struct addr client;
	struct dgram_local local; /* datagrams */
	size_t full_len;          /* a datagram that was cut: its true length, else 0 */
	struct loop_timer idle;
	unsigned tries; /* to send the reply */
	bool failed;
	struct generation generation; /* the site's, when it began */
};

/* Makes the functions that build instances, and their registry references.  Raises; for a
 * protected call. */
void request_prepare(lua_State *L, int *stream_ref, int *datagram_ref);

/* Runs a request.  A connection is taken over even on failure.  Errors: -ENOMEM, -ENOSPC.
 */
int request_start(struct site *s, const struct arrival *a);

#endif
