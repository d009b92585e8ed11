#include "loop/trail.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	LINKS = 40, /* as many as the kernel follows */
	TRIES = 8,  /* of a way that changes under our feet */
	ITSELF = IN_MOVE_SELF | IN_DELETE_SELF,
	/* Whoever still writes to a file that was replaced does not matter. */
	ENTRIES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY |
		  IN_CLOSE_WRITE | IN_ATTRIB | IN_EXCL_UNLINK,
	HOW = IN_ONLYDIR | IN_DONT_FOLLOW | IN_MASK_ADD,
};

/* One path on its way. */
struct walk {
	struct trail *t;
	int inotify;
	int file;
	int links;
	int err;             /* why some folder is not watched */
	char at[PATH_MAX];   /* a folder, free of links */
	char rest[PATH_MAX]; /* what is to be followed from there */
	char next[PATH_MAX]; /* at and the first name of the rest */
};

/* Room for one more of `size` bytes; NULL: out of memory. */
static void *
grow(void *p, size_t n, size_t *room, size_t size)
{
	void *more;

	if (n < *room)
		return p;
	more = realloc(p, (*room * 2 + 8) * size);
	if (more)
		*room = *room * 2 + 8;
	return more;
}

static int
add_spot(struct walk *k, int wd, int file, const char *name)
{
	struct trail *t = k->t;
	struct trail_spot *more =
	    grow(t->spots, t->nspots, &t->spot_room, sizeof(*t->spots));

	if (!more)
		return -ENOMEM;
	t->spots = more;
	more[t->nspots] = (struct trail_spot){.wd = wd, .file = file, .name = strdup(name)};
	return more[t->nspots].name ? (t->nspots++, 0) : -ENOMEM;
}

static int
add_folder(struct trail *t, int wd, bool entries, const char *path)
{
	struct trail_folder *more =
	    grow(t->folders, t->nfolders, &t->folder_room, sizeof(*t->folders));

	if (!more)
		return -ENOMEM;
	t->folders = more;
	more[t->nfolders] =
	    (struct trail_folder){.wd = wd, .entries = entries, .path = strdup(path)};
	return more[t->nfolders].path ? (t->nfolders++, 0) : -ENOMEM;
}

/* The watch of the folder where the walk is.  -1: it has none, which is in k->err if it
 * matters.  -ENOENT: it is there no more. */
static int
watch_folder(struct walk *k, bool entries)
{
	struct trail *t = k->t;
	struct trail_folder *f = NULL;
	int wd;

	for (size_t i = 0; i < t->nfolders && !f; i++)
		if (strcmp(t->folders[i].path, k->at) == 0)
			f = &t->folders[i];
	if (f && (f->entries || !entries))
		return f->wd;
	wd = inotify_add_watch(k->inotify, k->at, ITSELF | HOW | (entries ? ENTRIES : 0));
	if (wd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (wd < 0 && (entries || errno != EACCES)) /* a parent may well be unreadable */
		k->err = -errno;
	if (f) {
		f->entries = true;
		f->wd = wd < 0 ? -1 : wd;
	} else if (add_folder(t, wd < 0 ? -1 : wd, entries, k->at) < 0)
		k->err = -ENOMEM;
	return wd < 0 ? -1 : wd;
}

static int
join(char *out, const char *folder, const char *name)
{
	size_t n = strlen(folder), m = strlen(name);

	if (n + m + 2 > PATH_MAX)
		return -ENAMETOOLONG;
	memmove(out, folder, n);
	if (out[n - 1] != '/')
		out[n++] = '/';
	memmove(out + n, name, m + 1);
	return 0;
}

/* Takes the first name off the rest; false: there is none. */
static bool
take_name(char *rest, char *name, bool *last)
{
	char *p = rest + strspn(rest, "/");
	size_t n = strcspn(p, "/");

	if (n == 0 || n > NAME_MAX)
		return false;
	memcpy(name, p, n);
	name[n] = 0;
	p += n + strspn(p + n, "/");
	*last = !*p;
	memmove(rest, p, strlen(p) + 1);
	return true;
}

/* The link at k->next stands for its target.  False: it is none (any more), or one too
 * many. */
static bool
follow_link(struct walk *k)
{
	char target[PATH_MAX];
	ssize_t n = readlink(k->next, target, sizeof(target) - 1);

	if (n <= 0 || ++k->links > LINKS)
		return false;
	target[n] = 0;
	if (join(k->next, target, k->rest) < 0) {
		k->err = -ENAMETOOLONG;
		return false;
	}
	strcpy(k->rest, k->next);
	if (*target == '/')
		strcpy(k->at, "/");
	return true;
}

/* One name further.  1: go on; 0: the end of the way; -ENOENT: begin again. */
static int
step(struct walk *k, const char *name, bool last)
{
	bool entries = last;
	struct stat st;
	int wd, rc;

	if (strcmp(name, ".") == 0)
		return !last;
	if (join(k->next, k->at, name) < 0)
		return -ENAMETOOLONG;
	for (;; entries = true) {
		wd = watch_folder(k, entries);
		if (wd < -1)
			return wd;
		rc = lstat(k->next, &st);
		if (entries || (rc == 0 && S_ISDIR(st.st_mode)))
			break;
	}
	if (rc == 0 && S_ISDIR(st.st_mode) && !last) {
		strcpy(k->at, k->next);
		return 1;
	}
	if (rc < 0 || !S_ISLNK(st.st_mode))
		return add_spot(k, wd, last ? k->file : TRAIL_TURN, name);
	rc = add_spot(k, wd, TRAIL_TURN, name);
	return rc < 0 ? rc : follow_link(k);
}

static int
follow(struct walk *k, const char *path)
{
	char name[NAME_MAX + 1];
	bool last;
	int rc = 1;

	if (strlen(path) >= sizeof(k->rest))
		return -ENAMETOOLONG;
	strcpy(k->rest, path);
	strcpy(k->at, *path == '/' ? "/" : ".");
	k->links = 0;
	while (rc > 0 && take_name(k->rest, name, &last))
		rc = step(k, name, last);
	return rc < 0 ? rc : 0;
}

static void
drop_stale(const struct trail *old, const struct trail *t, int inotify)
{
	for (size_t i = 0; i < old->nfolders; i++)
		if (old->folders[i].wd >= 0 && !trail_folder(t, old->folders[i].wd))
			inotify_rm_watch(inotify, old->folders[i].wd);
}

int
trail_lay(struct trail *t, int inotify, const char *const *paths, size_t n)
{
	struct trail old = *t;
	struct walk k = {.t = t, .inotify = inotify};

	*t = (struct trail){0};
	for (size_t i = 0; i < n; i++) {
		int rc = -ENOENT;
		k.file = (int)i;
		for (int tries = 0; rc == -ENOENT && tries < TRIES; tries++)
			rc = follow(&k, paths[i]);
		if (rc < 0)
			k.err = rc;
	}
	drop_stale(&old, t, inotify);
	trail_free(&old);
	return k.err;
}

const struct trail_folder *
trail_folder(const struct trail *t, int wd)
{
	for (size_t i = 0; i < t->nfolders; i++)
		if (t->folders[i].wd == wd)
			return &t->folders[i];
	return NULL;
}

void
trail_free(struct trail *t)
{
	for (size_t i = 0; i < t->nfolders; i++)
		free(t->folders[i].path);
	for (size_t i = 0; i < t->nspots; i++)
		free(t->spots[i].name);
	free(t->folders);
	free(t->spots);
	*t = (struct trail){0};
}
