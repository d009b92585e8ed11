/* handover.h - what one generation leaves to the next: the old one's save() may return
 * plain data, which the new one's init(data) receives.
 *
 * Both are fields of the handler, and run as chores of their state; the caller keeps the
 * struct and the buffer in place until done() is called, once, or handover_cancel(). */
#ifndef HOST_SCRIPT_HANDOVER_H
#define HOST_SCRIPT_HANDOVER_H

#include "base/buf.h"
#include "script/script.h"

struct handover {
	struct chore chore;
	struct script *script; /* whose function runs */
	struct buf data;       /* what was saved; empty: nothing */
	/* rc: 0, or -EINVAL and why says more. */
	void (*done)(struct handover *h, int rc);
	char why[SCRIPT_ERROR];
};

/* Begins save() of `from`.  -ENOMEM: done() will not be called. */
int handover_save(struct handover *h, struct script *from, const struct allowance *a);

/* Begins init(data) of `to`, if anything was saved.  -ENOMEM: as above. */
int handover_init(struct handover *h, struct script *to, const struct allowance *a);

/* Both at once, one after the other.  -EINVAL or -ENOMEM with why. */
int handover_run(struct script *from, struct script *to, const struct allowance *a,
		 char *why, size_t size);

/* Ends what runs, and frees what was saved. */
void handover_cancel(struct handover *h);

#endif
