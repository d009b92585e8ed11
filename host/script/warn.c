#include "script/warn.h"

#include <string.h>

static void
on_warning(void *ud, const char *msg, int more)
{
	struct warnings *w = ud;
	size_t n = strlen(msg), room = sizeof(w->text) - w->len;

	if (w->len == 0 && !more && *msg == '@')
		return; /* a control message, which has no meaning here */
	if (n > room)
		n = room;
	memcpy(w->text + w->len, msg, n);
	w->len += n;
	if (more)
		return;
	struct log_field f[] = {
	    log_str("script", w->script), log_bytes("what", w->text, w->len), {0}};
	w->len = 0;
	if (w->log)
		log_gated(w->log, &w->gate, LOG_WARN, "warning", f);
}

void
warn_open(lua_State *L, struct warnings *w, struct log *log, const char *script)
{
	*w = (struct warnings){.log = log, .script = script};
	lua_setwarnf(L, on_warning, w);
}
