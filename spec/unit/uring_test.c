#include "base/clock.h"
#include "loop/backend.h"
#include "loop/loop.h"
#include "loop/queues.h"
#include "loop/slots.h"
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* More than one wait can tell of, and more than the ring has buffers. */
enum { CROWD = 480 };

static struct loop *loop;
static int told, late;

/* A stream that waits for data until a deadline. */
struct client {
	struct loop_fd fd;
	struct loop_op in;
	struct loop_timer deadline;
	int other;
	bool closes; /* as soon as it has been told */
};

static struct client clients[CROWD];

static void
leave(struct client *c)
{
	if (c->fd.loop)
		loop_close_fd(&c->fd);
	if (c->other >= 0)
		close(c->other);
	c->other = -1;
	loop_timer_set(loop, &c->deadline, CLOCK_NEVER);
}

static void
on_data(struct loop_op *op)
{
	struct client *c = LIST_ENTRY(op, struct client, in);
	const char *p = NULL;

	told++;
	loop_timer_set(loop, &c->deadline, CLOCK_NEVER);
	CHECK(loop_recv(&c->fd, &c->in, 100, &p) == 1 && *p == (char)(c - clients));
	if (c->closes)
		leave(c);
}

static void
on_deadline(struct loop_timer *t)
{
	(void)t;
	late++;
}

static void
begin(struct client *c)
{
	const char *p;
	int fds[2] = {-1, -1};

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	*c = (struct client){
	    .in.done = on_data, .other = fds[1], .closes = (c - clients) % 3};
	CHECK(loop_add(loop, &c->fd, fds[0], LOOP_STREAM) == 0);
	CHECK(loop_timer_init(loop, &c->deadline, on_deadline) == 0);
	CHECK(loop_recv(&c->fd, &c->in, 100, &p) == -EINPROGRESS);
}

/* From then on it is the ring that receives, if there is one. */
static void
wait_again(struct client *c)
{
	const char *p;

	loop_cancel(&c->in);
	CHECK(loop_recv(&c->fd, &c->in, 100, &p) == -EINPROGRESS);
	CHECK(!c->fd.slot == !loop->slots);
}

/* All have sent, and all deadlines have passed, before the loop comes to it: as after a
 * program was stopped for a while.  Data that came in time is in time. */
static void
deadlines_of_a_crowd(void)
{
	told = late = 0;
	for (int i = 0; i < CROWD; i++)
		begin(&clients[i]);
	for (int i = 0; i < 5; i++)
		loop_turn(loop, 0); /* registers them, sooner or later */
	for (int i = 0; i < CROWD; i++) {
		char byte = (char)i;

		wait_again(&clients[i]);
		loop_timer_set(loop, &clients[i].deadline, clock_now());
		CHECK(write(clients[i].other, &byte, 1) == 1);
	}
	poll(NULL, 0, 5);
	for (int i = 0; loop->slots && i < CROWD / 10; i++)
		queues_get(loop->slots->queues); /* some find no buffer */
	CHECK(!loop->slots || queues_ready(loop->slots->queues) > QUEUES_BUFFERS);
	while (told + late < CROWD)
		loop_turn(loop, clock_now() + CLOCK_SECOND);
	CHECK(told == CROWD && late == 0);
	for (int i = 0; i < CROWD; i++) {
		leave(&clients[i]);
		loop_timer_done(loop, &clients[i].deadline);
	}
	CHECK(loop_live_fds(loop) == 0);
}

static void
with(enum loop_kind kind, void (*run)(void))
{
	struct loop_tuning tuning = {.kind = kind};

	CHECK(loop_new(&loop) == 0);
	if (loop_tune(loop, &tuning) == 0) /* or there is no io_uring */
		run();
	loop_free(loop);
}

void
test_uring(void)
{
	with(LOOP_EPOLL, deadlines_of_a_crowd);
	with(LOOP_URING, deadlines_of_a_crowd);
}
