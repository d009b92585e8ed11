/* moonport check: loads each script as `serve` would, and runs no request. */
#include "cli/options.h"
#include "cli/serve.h"
#include "script/script.h"
#include "server/host.h"
#include "server/server.h"

#include <stdio.h>
#include <string.h>

int
check_command(const struct options *o, struct log *log, const char *lua_path)
{
	struct host h;
	char why[SCRIPT_ERROR];
	int code = EXIT_DONE, rc = host_init(&h, log, lua_path);

	if (rc < 0)
		return cannot_start(rc);
	h.sandbox = o->sandbox;
	h.strict = o->strict;
	for (int i = 0; i < o->nentries; i++) {
		const struct entry *e = &o->entries[i];
		rc = host_check(&h, e->script, &e->attrs, why, sizeof(why));
		if (rc < 0)
			code = complain(rc, why);
		else
			printf("%s: ok\n", e->script);
	}
	host_free(&h);
	return code;
}
