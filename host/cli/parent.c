#include "cli/parent.h"

#include "base/clock.h"
#include "base/list.h"

#include <errno.h>
#include <sys/pidfd.h>
#include <unistd.h>

/* How often it is looked for a parent that no descriptor tells of. */
static const int64_t LOOK = 200 * CLOCK_MS;

static void
on_input(struct loop_op *op)
{
	struct parent *p = LIST_ENTRY(op, struct parent, input_op);
	char junk[4096];
	ssize_t n = read(p->input.fd, junk, sizeof(junk));

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) {
		p->input.readable = false;
		loop_poll(&p->input, op, false);
		return;
	}
	p->gone(p);
}

static void
on_process(struct loop_op *op)
{
	struct parent *p = LIST_ENTRY(op, struct parent, process_op);

	p->gone(p);
}

static void
on_timer(struct loop_timer *t)
{
	struct parent *p = LIST_ENTRY(t, struct parent, timer);

	if (getppid() != p->pid)
		p->gone(p);
	else
		loop_timer_set(p->loop, t, loop_now(p->loop) + LOOK);
}

void
parent_init(struct parent *p)
{
	*p = (struct parent){.input.fd = -1,
			     .process.fd = -1,
			     .input_op.done = on_input,
			     .process_op.done = on_process};
}

/* The kernel tells, or a timer looks.  (Where the parent is in another PID namespace its
 * number is 0, and its end is seen by getppid() alone.) */
static void
watch_process(struct parent *p)
{
	int fd = p->pid > 0 ? pidfd_open(p->pid, PIDFD_NONBLOCK) : -1;

	if (fd >= 0 && loop_add(p->loop, &p->process, fd, 0) == 0)
		loop_poll(&p->process, &p->process_op, false);
	else {
		if (fd >= 0)
			close(fd);
		loop_timer_set(p->loop, &p->timer, loop_now(p->loop) + LOOK);
	}
	if (getppid() != p->pid) /* meanwhile: the descriptor may be another process's */
		p->gone(p);
}

void
parent_watch(struct parent *p, struct loop *loop, void (*gone)(struct parent *p))
{
	if (loop_timer_init(loop, &p->timer, on_timer) < 0) {
		gone(p);
		return;
	}
	p->loop = loop;
	p->gone = gone;
	p->pid = getppid();
	watch_process(p);
	if (loop_add(loop, &p->input, STDIN_FILENO, 0) < 0)
		gone(p);
	else
		loop_poll(&p->input, &p->input_op, false);
}

void
parent_forget(struct parent *p)
{
	if (!p->loop)
		return;
	loop_release_fd(&p->input);
	loop_close_fd(&p->process);
	loop_timer_done(p->loop, &p->timer);
	p->loop = NULL;
}

void
parent_reborn(struct parent *p)
{
	if (p->process.fd >= 0)
		close(p->process.fd);
	p->loop = NULL;
}
