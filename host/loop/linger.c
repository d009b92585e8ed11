#include "loop/linger.h"

#include "loop/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct linger_fd {
	struct list link;
	struct lingers *set;
	struct loop_fd fd;
	struct loop_op op;
	struct loop_timer timer;
};

void
lingers_init(struct lingers *l, struct loop *loop)
{
	*l = (struct lingers){.loop = loop};
	list_init(&l->list);
}

static void
finish(struct linger_fd *x)
{
	loop_timer_done(x->set->loop, &x->timer);
	loop_close_fd(&x->fd);
	list_remove(&x->link);
	x->set->n--;
	free(x);
}

/* Throws away what has come.  A peer that sends without end gets a limited share of a turn.
 */
static void
discard(struct linger_fd *x)
{
	const char *data;
	ssize_t n;

	for (int i = 0; i < 16; i++) {
		n = loop_recv(&x->fd, &x->op, loop_buffer_size(), &data);
		if (n == -EINPROGRESS)
			return;
		if (n <= 0) {
			finish(x);
			return;
		}
	}
	x->fd.readable = false; /* let others run: the next turn finds the rest */
	loop_poll(&x->fd, &x->op, false);
}

static void
on_readable(struct loop_op *op)
{
	struct linger_fd *x = LIST_ENTRY(op, struct linger_fd, op);

	x->fd.readable = true;
	discard(x);
}

static void
on_time(struct loop_timer *t)
{
	finish(LIST_ENTRY(t, struct linger_fd, timer));
}

void
linger_start(struct lingers *l, int fd)
{
	struct linger_fd *x = NULL;

	/* Not connected any more: the peer has sent a reset, there is nothing to wait for.
	 */
	if (shutdown(fd, SHUT_WR) < 0 || l->n >= LINGER_MAX || !(x = malloc(sizeof(*x))))
		goto fail;
	if (loop_timer_init(l->loop, &x->timer, on_time) < 0)
		goto fail;
	if (loop_add(l->loop, &x->fd, fd, LOOP_LIKELY | LOOP_STREAM) < 0) {
		loop_timer_done(l->loop, &x->timer);
		goto fail;
	}
	x->set = l;
	x->op = (struct loop_op){.done = on_readable};
	list_append(&l->list, &x->link);
	l->n++;
	loop_timer_set(l->loop, &x->timer, loop_now(l->loop) + LINGER_TIME);
	discard(x);
	return;

fail:
	free(x);
	close(fd);
}

void
lingers_drop(struct lingers *l)
{
	while (!list_empty(&l->list))
		finish(LIST_ENTRY(l->list.next, struct linger_fd, link));
}
