/* door.h - where a process waits that serves one connection at a time.
 *
 * Between two connections it waits at the "door": a set of the listener and of
 * the loop's other set.  Meanwhile it waits elsewhere, and the kernel passes it
 * over.  So it stays in its place in the listener's queue, and the first
 * processes there do most of the work, from the processor's caches.
 *
 * The epoll backend's own, which closes it. */
#ifndef HOST_LOOP_DOOR_H
#define HOST_LOOP_DOOR_H

#include <stdbool.h>
#include <sys/epoll.h>

struct loop_fd;

struct door {
	int fd;                 /* -1: there is none */
	struct loop_fd *keeper; /* the listener; NULL: there is no door */
};

/* There is none yet. */
void door_init(struct door *d);

/* For this listener, and the other set.  Errors: epoll_ctl(2)'s and epoll_create1(2)'s. */
int door_open(struct door *d, int set, struct loop_fd *f, unsigned events);
void door_close(struct door *d);

/* Waits at most ms milliseconds (-1: for ever).  Returns the listener's events, at most
 * one; *set: the other set has some.  Errors: -1. */
int door_wait(const struct door *d, struct epoll_event *event, int ms, bool *set);

#endif
