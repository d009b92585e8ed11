#include "loop/fileset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct file *
find_file(const struct fileset *set, const char *path)
{
	for (size_t i = 0; i < set->nfiles; i++)
		if (strcmp(set->files[i].path, path) == 0)
			return &set->files[i];
	return NULL;
}

static struct home *
find_home(const struct fileset *set, const char *path)
{
	for (size_t i = 0; i < set->nhomes; i++)
		if (strcmp(set->homes[i].path, path) == 0)
			return &set->homes[i];
	return NULL;
}

/* Adds the folder that the path names. */
static int
add_home(struct fileset *set, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");

	if (!folder)
		return -ENOMEM;
	if (find_home(set, folder))
		free(folder);
	else
		set->homes[set->nhomes++] = (struct home){.path = folder};
	return 0;
}

static int
add_file(struct fileset *set, const struct stamped *file)
{
	char *copy;

	if (find_file(set, file->path))
		return 0;
	copy = strdup(file->path);
	if (!copy)
		return -ENOMEM;
	set->files[set->nfiles++] =
	    (struct file){.path = copy, .seen = file->stamp, .last = file->stamp};
	return add_home(set, file->path);
}

int
fileset_make(struct fileset *set, const struct stamped *files, size_t n)
{
	int rc;

	*set = (struct fileset){.files = calloc(n + 1, sizeof(*set->files)),
				.homes = calloc(n + 1, sizeof(*set->homes))};
	rc = set->files && set->homes ? 0 : -ENOMEM;
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = add_file(set, &files[i]);
	if (rc < 0)
		fileset_free(set);
	return rc;
}

void
fileset_free(struct fileset *set)
{
	for (size_t i = 0; i < set->nfiles; i++)
		free(set->files[i].path);
	for (size_t i = 0; i < set->nhomes; i++) {
		free(set->homes[i].path);
		listing_free(&set->homes[i].seen);
	}
	free(set->files);
	free(set->homes);
	*set = (struct fileset){0};
}

void
fileset_learn(struct fileset *set, struct fileset *old)
{
	for (size_t i = 0; i < set->nfiles; i++) {
		struct file *f = &set->files[i], *known = find_file(old, f->path);
		char *path = f->path;

		if (known) {
			*f = *known;
			f->path = path;
		}
	}
	for (size_t i = 0; i < set->nhomes; i++) {
		struct home *h = &set->homes[i], *known = find_home(old, h->path);

		if (!known) {
			(void)listing_read(&h->seen, h->path, FILESET_SUFFIX);
			continue;
		}
		h->seen = known->seen;
		known->seen = (struct listing){0};
	}
}

bool
fileset_look(struct fileset *set)
{
	bool moved = false;

	for (size_t i = 0; i < set->nfiles; i++) {
		struct stamp now = stamp_of(set->files[i].path);
		moved |= !stamp_same(&now, &set->files[i].last);
		set->files[i].last = now;
	}
	return moved;
}

static bool
has_newcomer(struct home *h)
{
	struct listing now;
	bool any;

	if (listing_read(&now, h->path, FILESET_SUFFIX) < 0)
		return false; /* another time */
	any = listing_adds(&now, &h->seen);
	listing_free(&h->seen);
	h->seen = now;
	return any;
}

bool
fileset_compare(struct fileset *set)
{
	bool changed = false;

	for (size_t i = 0; i < set->nfiles; i++) {
		struct file *f = &set->files[i];
		changed |= !stamp_same(&f->seen, &f->last);
		changed |= f->seen.young && f->touched;
		f->seen = f->last;
		f->touched = false;
	}
	for (size_t i = 0; i < set->nhomes; i++)
		changed |= has_newcomer(&set->homes[i]);
	return changed;
}

bool
fileset_readable(const struct fileset *set)
{
	for (size_t i = 0; i < set->nfiles; i++)
		if (set->files[i].last.err != 0)
			return false;
	return true;
}

bool
fileset_writing(const struct fileset *set)
{
	for (size_t i = 0; i < set->nfiles; i++)
		if (set->files[i].writing)
			return true;
	return false;
}

void
fileset_forget_writers(struct fileset *set)
{
	for (size_t i = 0; i < set->nfiles; i++)
		set->files[i].writing = false;
}
