/* accepting.h - how requests come in: connections are accepted here, datagrams received in
 * datagrams.h, some at a time, as long as the server may have more.
 *
 * The listener stays the server's (listening.h); a connection is its request's as soon as
 * it has begun.  The loop's thread.  No error gets out: it is counted, logged at most once
 * a second, and accepting pauses. */
#ifndef HOST_SERVER_ACCEPTING_H
#define HOST_SERVER_ACCEPTING_H

#include <stdbool.h>

struct addr;
struct arrival;
struct dgram;
struct server;

/* Accepts, or datagrams, in a row before other descriptors get a turn. */
enum { ACCEPTING_BATCH = 64 };

/* server_close() undoes it.  Errors: -ENOMEM. */
int accepting_init(struct server *s);

/* Accepts again as soon as it may: a request has ended, or a descriptor is free. */
void accepting_resume(struct server *s);

/* Stops accepting for a moment: err is of something that requests need and that is used
 * up. */
void accepting_pause(struct server *s, int err);

/* Connections that the kernel has already let in get their turn, as far as the ceiling and
 * drain_timeout allow; those that come meanwhile do not. */
void accepting_empty(struct server *s);

/* For a request that began by pulling: accepts a connection, or receives a datagram.  What
 * *a refers to is in *client and *d.  -EAGAIN: there is none; else -errno. */
int accepting_pull(struct server *s, struct arrival *a, struct addr *client,
		   struct dgram *d);

/* ---- for datagrams.c ---- */

/* The ceiling, the budget and the server's state allow one more request. */
bool accepting_allowed(const struct server *s);

/* What a request needs of the system is got before it is accepted: at a shortage it waits
 * in the kernel's queue. */
bool accepting_ready(struct server *s);

/* Begins a request; what has arrived is taken over. */
void accepting_begin(struct server *s, const struct arrival *a);

/* After some: the rest comes when other descriptors have had their turn. */
void accepting_go_on(struct server *s);

/* Errors that concern one arrival only: the next may be fine. */
bool accepting_is_transient(int err);

#endif
