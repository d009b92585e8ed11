#include "loop/door.h"

#include "loop/loop.h"

#include <errno.h>
#include <unistd.h>

void
door_init(struct door *d)
{
	*d = (struct door){.fd = -1};
}

int
door_open(struct door *d, int set, struct loop_fd *f, unsigned events)
{
	struct epoll_event inner = {.events = EPOLLIN, .data.ptr = NULL};
	struct epoll_event outer = {.events = events, .data.ptr = f};

	d->fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->fd < 0)
		return -errno;
	if (epoll_ctl(d->fd, EPOLL_CTL_ADD, set, &inner) < 0 ||
	    epoll_ctl(d->fd, EPOLL_CTL_ADD, f->fd, &outer) < 0) {
		int rc = -errno;
		door_close(d);
		return rc;
	}
	d->keeper = f;
	return 0;
}

void
door_close(struct door *d)
{
	if (d->fd >= 0)
		close(d->fd);
	door_init(d);
}

int
door_wait(const struct door *d, struct epoll_event *event, int ms, bool *set)
{
	struct epoll_event both[2];
	int n = epoll_wait(d->fd, both, 2, ms), own = 0;

	*set = false;
	if (n < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		if (both[i].data.ptr)
			event[own++] = both[i];
		else
			*set = true;
	}
	return own;
}
