#include "loop/watch.h"

#include "base/clock.h"
#include "loop/fileset.h"
#include "loop/listing.h"
#include "loop/loop.h"
#include "loop/trail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t QUIET = 50 * CLOCK_MS, PATIENCE = 500 * CLOCK_MS,
		     WRITER = 10 * CLOCK_SECOND, LOOK = 500 * CLOCK_MS,
		     AGAIN = CLOCK_SECOND;

enum { READS = 16 }; /* of events in one turn; what is left makes the next one */

struct watch {
	struct loop *loop;
	void (*changed)(void *arg);
	void (*blind)(void *arg, int err);
	void *arg;
	struct loop_fd inotify;
	struct loop_op op;
	struct trail trail;
	struct fileset set;
	struct loop_timer settle, look;
	bool pending; /* there were events since changed() was called or proved needless */
	bool strayed; /* the way to a file is another one now */
	bool again;   /* call changed() whatever the files say */
	bool told;    /* blind() */
	int err;      /* why inotify does not see everything; 0: it does */
	int64_t first, latest; /* event, while pending */
};

/* When to look whether something has changed. */
static void
arm(struct watch *w)
{
	int64_t when = w->latest + QUIET, end = w->first + PATIENCE;

	if (fileset_writing(&w->set))
		when = w->first + WRITER;
	else if (when > end)
		when = end;
	loop_timer_set(w->loop, &w->settle, w->pending ? when : CLOCK_NEVER);
}

static void
note(struct watch *w)
{
	w->latest = loop_now(w->loop);
	if (!w->pending)
		w->first = w->latest;
	w->pending = true;
}

/* Whether a file that was just made is still to be written, or was linked. */
static bool
is_empty(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

static void
on_file(struct watch *w, struct file *f, uint32_t what)
{
	int64_t now = loop_now(w->loop);
	bool begins = what & IN_MODIFY || (what & IN_CREATE && is_empty(f->path));

	note(w);
	f->touched = true;
	if (begins && !f->writing) {
		f->writing = true;
		f->since = now;
	}
	/* The quiet begins here, unless it is one of a storm of writers. */
	if (what & IN_CLOSE_WRITE && f->writing && now - f->since > PATIENCE)
		w->first = now;
	if (what & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE))
		f->writing = false;
	if (what & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE))
		w->strayed = true; /* it may be a link now */
}

static void
on_entry(struct watch *w, const struct inotify_event *e)
{
	for (size_t i = 0; i < w->trail.nspots; i++) {
		const struct trail_spot *s = &w->trail.spots[i];
		if (s->wd != e->wd || strcmp(s->name, e->name) != 0)
			continue;
		if (s->file != TRAIL_TURN)
			on_file(w, &w->set.files[s->file], e->mask);
		else {
			note(w);
			w->strayed = true;
		}
	}
	if (e->mask & (IN_CREATE | IN_MOVED_TO) && listing_wants(e->name, FILESET_SUFFIX) &&
	    trail_folder(&w->trail, e->wd))
		note(w);
}

static void
on_event(struct watch *w, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		fileset_forget_writers(&w->set); /* one may have closed unseen */
	else if (e->len > 0) {
		on_entry(w, e);
		return;
	} else if (!trail_folder(&w->trail, e->wd))
		return;
	note(w);
	w->strayed = true;
}

/* Handles what has happened, or much of it. */
static void
read_events(struct watch *w)
{
	_Alignas(struct inotify_event) char buffer[16384];
	ssize_t n, at;

	for (int i = 0; i < READS && w->inotify.fd >= 0; i++) {
		n = read(w->inotify.fd, buffer, sizeof(buffer));
		if (n <= 0)
			break;
		for (at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(buffer + at);
			on_event(w, e);
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
}

static void on_readable(struct loop_op *op);

static int
open_inotify(struct watch *w)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = loop_add(w->loop, &w->inotify, fd, 0);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	w->op.done = on_readable;
	loop_poll(&w->inotify, &w->op, false);
	return 0;
}

/* Follows the ways to all files anew. */
static void
lay(struct watch *w)
{
	const char **paths = malloc((w->set.nfiles + 1) * sizeof(*paths));

	w->strayed = false;
	w->err = w->inotify.fd < 0 ? open_inotify(w) : 0;
	if (!paths)
		w->err = -ENOMEM;
	for (size_t i = 0; paths && i < w->set.nfiles; i++)
		paths[i] = w->set.files[i].path;
	if (w->err == 0)
		w->err = trail_lay(&w->trail, w->inotify.fd, paths, w->set.nfiles);
	free(paths);
}

static void
keep_looking(struct watch *w)
{
	bool needed =
	    w->set.nfiles > 0 && (w->err != 0 || w->again || !fileset_readable(&w->set));
	int64_t now = loop_now(w->loop);

	if (!needed)
		loop_timer_set(w->loop, &w->look, CLOCK_NEVER);
	else if (!w->look.slot)
		loop_timer_set(w->loop, &w->look, now + (w->again ? AGAIN : LOOK));
}

/* Last thing that its caller does: the callback may close the watch. */
static void
tell_blind(struct watch *w)
{
	if (w->err == 0 || w->told)
		return;
	w->told = true;
	if (w->blind)
		w->blind(w->arg, w->err);
}

static void
catch_up(struct watch *w)
{
	read_events(w);
	if (w->strayed)
		lay(w);
	arm(w);
}

static void
on_readable(struct loop_op *op)
{
	struct watch *w = LIST_ENTRY(op, struct watch, op);

	catch_up(w);
	w->inotify.readable = false;
	loop_poll(&w->inotify, &w->op, false);
	tell_blind(w);
}

static void
on_look(struct loop_timer *timer)
{
	struct watch *w = LIST_ENTRY(timer, struct watch, look);

	lay(w);
	if (fileset_look(&w->set) || w->again || w->err != 0)
		note(w);
	keep_looking(w);
	arm(w);
	tell_blind(w);
}

/* After the quiet: whether changed() is due. */
static bool
is_due(struct watch *w)
{
	bool moved;

	lay(w);
	moved = fileset_look(&w->set);
	if (moved && w->err != 0 && loop_now(w->loop) < w->first + PATIENCE) {
		note(w); /* no event would say that it still goes on */
		arm(w);
		return false;
	}
	w->pending = false;
	fileset_forget_writers(&w->set);
	moved = fileset_compare(&w->set) || w->again;
	w->again = false;
	arm(w);
	keep_looking(w);
	return moved;
}

static void
on_settled(struct loop_timer *timer)
{
	struct watch *w = LIST_ENTRY(timer, struct watch, settle);

	catch_up(w);
	if (loop_timer_when(w->loop, &w->settle) > loop_now(w->loop))
		return; /* there was more */
	if (is_due(w))
		w->changed(w->arg);
	else
		tell_blind(w);
}

int
watch_open(struct watch **out, struct loop *loop, void (*changed)(void *arg),
	   void (*blind)(void *arg, int err), void *arg)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct watch){
	    .loop = loop, .changed = changed, .blind = blind, .arg = arg, .inotify.fd = -1};
	if (loop_timer_init(loop, &w->settle, on_settled) < 0)
		goto fail;
	if (loop_timer_init(loop, &w->look, on_look) < 0) {
		loop_timer_done(loop, &w->settle);
		goto fail;
	}
	*out = w;
	return 0;

fail:
	free(w);
	return -ENOMEM;
}

int
watch_set(struct watch *w, const struct stamped *files, size_t n)
{
	struct fileset set, old = w->set;
	int rc = fileset_make(&set, files, n);

	if (rc < 0)
		return rc;
	w->set = set;
	lay(w); /* before they are looked at: what comes later makes an event */
	fileset_learn(&w->set, &old);
	if (fileset_look(&w->set))
		note(w);
	fileset_free(&old);
	keep_looking(w);
	arm(w);
	tell_blind(w);
	return 0;
}

void
watch_again(struct watch *w)
{
	w->again = true;
	keep_looking(w);
}

void
watch_forget(struct watch *w)
{
	w->inotify.fd = -1;
	watch_close(w);
}

void
watch_close(struct watch *w)
{
	if (!w)
		return;
	loop_close_fd(&w->inotify);
	loop_timer_done(w->loop, &w->settle);
	loop_timer_done(w->loop, &w->look);
	trail_free(&w->trail);
	fileset_free(&w->set);
	free(w);
}
