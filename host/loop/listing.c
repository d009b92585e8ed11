#include "loop/listing.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool
listing_wants(const char *name, const char *suffix)
{
	size_t n = strlen(name), end = strlen(suffix);

	return *name != '.' && n > end && strcmp(name + n - end, suffix) == 0;
}

static int
compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
add(struct listing *l, size_t *room, const char *name)
{
	if (l->n == *room) {
		size_t more = *room ? *room * 2 : 16;
		char **names = realloc(l->names, more * sizeof(*names));

		if (!names)
			return -ENOMEM;
		l->names = names;
		*room = more;
	}
	l->names[l->n] = strdup(name);
	return l->names[l->n] ? (l->n++, 0) : -ENOMEM;
}

int
listing_read(struct listing *l, const char *folder, const char *suffix)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	size_t room = 0;
	int rc = 0;

	*l = (struct listing){0};
	if (!d)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	while (rc == 0 && (e = readdir(d)))
		if (listing_wants(e->d_name, suffix))
			rc = add(l, &room, e->d_name);
	closedir(d);
	if (rc < 0)
		listing_free(l);
	if (l->n > 0)
		qsort(l->names, l->n, sizeof(*l->names), compare);
	return rc;
}

bool
listing_adds(const struct listing *now, const struct listing *before)
{
	for (size_t i = 0; i < now->n; i++)
		if (before->n == 0 || !bsearch(&now->names[i], before->names, before->n,
					       sizeof(*before->names), compare))
			return true;
	return false;
}

void
listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->names[i]);
	free(l->names);
	*l = (struct listing){0};
}
