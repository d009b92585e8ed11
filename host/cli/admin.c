#include "cli/admin.h"

#include "base/journal.h"
#include "server/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char TOKEN_VARIABLE[] = "MOONPORT_ADMIN_TOKEN";

enum { TOKEN_MAX = 4096 };

int
admin_choose(struct admin_choice *a, const char *value, char *why, size_t size)
{
	char text[URL_HOST + 32], sentence[200];
	int n;

	a->on = strcmp(value, "none") != 0;
	if (!a->on)
		return 0;
	n = snprintf(text, sizeof(text), "tcp://%s", value);
	if (n < (int)sizeof(text) && !strstr(value, "://") &&
	    url_parse(text, (size_t)n, &a->url, sentence, sizeof(sentence)) == 0)
		return 0;
	snprintf(why, size,
		 "--admin %s: it must be HOST:PORT, such as 127.0.0.1:0, or none", value);
	return -EINVAL;
}

const char *
admin_wants(const struct admin_choice *a)
{
	return a->token_file            ? "--admin-token-file"
	       : a->nhosts              ? "--admin-host"
	       : a->allow_script_upload ? "--allow-script-upload"
					: NULL;
}

int
admin_add_host(struct admin_choice *a, const char *name, char *why, size_t size)
{
	if (!*name || strpbrk(name, " \t\r\n/@")) {
		snprintf(why, size,
			 "--admin-host %s: it must be a name, such as mocks.test, or an "
			 "address",
			 name);
		return -EINVAL;
	}
	if (a->nhosts == MAX_ADMIN_HOSTS) {
		snprintf(why, size, "more than %d --admin-host", MAX_ADMIN_HOSTS);
		return -EINVAL;
	}
	a->hosts[a->nhosts++] = name;
	return 0;
}

int
admin_journal(int64_t *bytes, const char *value, char *why, size_t size)
{
	static const char units[] = "KMG";
	char *end;
	const char *unit;
	double v = *value >= '0' && *value <= '9' ? strtod(value, &end) : -1;

	if (v >= 0 && *end && (unit = strchr(units, *end))) {
		for (const char *u = units; u <= unit; u++)
			v *= 1024;
		end++;
	}
	if (!(v >= JOURNAL_LEAST && v <= 1e12) || *end || strpbrk(value, "xXpP")) {
		snprintf(why, size,
			 "--journal %s: it must be a number of bytes from %dK (K, M and G "
			 "are understood)",
			 value, JOURNAL_LEAST / 1024);
		return -EINVAL;
	}
	*bytes = (int64_t)v;
	return 0;
}

/* The first line of the file. */
static int
read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
	int err = errno;

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -err;
	out[n] = 0;
	out[strcspn(out, "\r\n")] = 0;
	return 0;
}

int
admin_read_token(const struct admin_choice *a, char **token, char *why, size_t size)
{
	const char *from = a->token_file ? a->token_file : TOKEN_VARIABLE, *value = NULL;
	char text[TOKEN_MAX];
	int rc = a->token_file ? read_file(a->token_file, text, sizeof(text)) : 0;

	*token = NULL;
	if (rc < 0) {
		snprintf(why, size, "--admin-token-file %s: %s", from, strerror(-rc));
		return rc;
	}
	value = a->token_file ? text : getenv(TOKEN_VARIABLE);
	if (value && !admin_is_token(value)) {
		snprintf(why, size,
			 "%s holds no token: it must be one word of visible ASCII "
			 "characters, with nothing else",
			 from);
		return -EINVAL;
	}
	*token = value ? strdup(value) : NULL;
	if (value && !*token) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	(void)unsetenv(TOKEN_VARIABLE);
	return 0;
}
