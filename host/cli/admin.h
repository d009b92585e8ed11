/* admin.h - the options of the control API, and what they come to.
 *
 * The choice borrows argv's strings; a token that was read is the caller's to free.  Main
 * thread.  Failing functions return -EINVAL, or -errno, with one sentence in why. */
#ifndef HOST_CLI_ADMIN_H
#define HOST_CLI_ADMIN_H

#include "net/addr.h"

#include <stdbool.h>
#include <stdint.h>

enum { MAX_ADMIN_HOSTS = 16 };

struct admin_choice {
	bool on;
	struct url url;
	const char *token_file;             /* NULL: none */
	const char *hosts[MAX_ADMIN_HOSTS]; /* that Host may name */
	int nhosts;
	bool allow_script_upload;
};

/* --admin HOST:PORT, or none. */
int admin_choose(struct admin_choice *a, const char *value, char *why, size_t size);

/* An option that was given, and is for a control API; NULL: none was. */
const char *admin_wants(const struct admin_choice *a);

/* --admin-host NAME. */
int admin_add_host(struct admin_choice *a, const char *name, char *why, size_t size);

/* --journal SIZE. */
int admin_journal(int64_t *bytes, const char *value, char *why, size_t size);

/* The token of --admin-token-file or else of the environment, which forgets it: no script
 * is to find it there.  *token is NULL if there is none. */
int admin_read_token(const struct admin_choice *a, char **token, char *why, size_t size);

#endif
