#include "base/clock.h"
#include "loop/backend.h"
#include "loop/loop.h"
#include "net/addr.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct loop *loop;

/* One end of a socket pair in the loop, the other in the test's hands. */
struct end {
	struct loop_fd fd;
	struct loop_op in, out;
	int other;
	int ins, outs, hangups;
};

static void
count_in(struct loop_op *op)
{
	LIST_ENTRY(op, struct end, in)->ins++;
}

static void
count_out(struct loop_op *op)
{
	LIST_ENTRY(op, struct end, out)->outs++;
}

static void
count_hangup(struct loop_fd *fd, enum loop_news news)
{
	CHECK(news == LOOP_GONE);
	LIST_ENTRY(fd, struct end, fd)->hangups++;
}

static void
make(struct end *e)
{
	int fds[2] = {-1, -1};

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	*e = (struct end){.in.done = count_in, .out.done = count_out, .other = fds[1]};
	CHECK(loop_add(loop, &e->fd, fds[0], 0) == 0);
	e->fd.told = count_hangup;
}

static void
make_stream(struct end *e)
{
	int fd;

	make(e);
	fd = loop_release_fd(&e->fd);
	CHECK(loop_add(loop, &e->fd, fd, LOOP_STREAM) == 0);
}

static void
destroy(struct end *e)
{
	loop_close_fd(&e->fd);
	if (e->other >= 0)
		close(e->other);
}

/* What has already happened is handled; nothing is waited for. */
static void
turn(void)
{
	loop_turn(loop, 0);
}

static void
receive(void)
{
	struct end e;
	const char *p = NULL;

	make(&e);
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == -EINPROGRESS && e.in.fd == &e.fd);
	turn();
	CHECK(e.ins == 0);
	CHECK(write(e.other, "hello", 5) == 5);
	turn();
	CHECK(e.ins == 1 && !e.in.fd);
	CHECK(loop_recv(&e.fd, &e.in, 3, &p) == 3 &&
	      memcmp(p, "hel", 3) == 0); /* full: there may be more */
	CHECK(loop_recv(&e.fd, &e.in, 3, &p) == 2 && memcmp(p, "lo", 2) == 0);
	CHECK(loop_recv(&e.fd, &e.in, 3, &p) == -EINPROGRESS);
	loop_cancel(&e.in);
	loop_cancel(&e.in);
	CHECK(write(e.other, "more", 4) == 4);
	turn();
	CHECK(e.ins == 1); /* nobody waits */
	turn();
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == 4 && memcmp(p, "more", 4) == 0);
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == -EINPROGRESS);
	CHECK(write(e.other, "last", 4) == 4);
	close(e.other);
	e.other = -1;
	turn();
	CHECK(e.ins == 2);
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == 4 && memcmp(p, "last", 4) == 0);
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) ==
	      0); /* the end, at once: it was seen with the data */
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == 0);
	destroy(&e);
}

/* Data that nobody wants must not keep the loop from waiting. */
static void
unwanted(void)
{
	struct end e;
	const char *p = NULL;
	int64_t began;

	make(&e);
	CHECK(write(e.other, "unwanted", 8) == 8);
	turn();
	began = clock_now();
	loop_turn(loop, began + 30 * CLOCK_MS);
	CHECK(clock_now() - began >= 25 * CLOCK_MS);
	CHECK(write(e.other, "!", 1) == 1);
	turn();
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == 9);
	CHECK(loop_recv(&e.fd, &e.in, 100, &p) == -EINPROGRESS);
	CHECK(write(e.other, "wanted", 6) == 6);
	turn();
	CHECK(e.ins == 1 && loop_recv(&e.fd, &e.in, 100, &p) == 6);
	destroy(&e);
}

static void
sending(void)
{
	static char block[65536];
	struct end e;
	size_t sent = 0, got = 0;
	ssize_t n;

	make(&e);
	while ((n = loop_send(&e.fd, &e.out, block, sizeof(block))) > 0)
		sent += (size_t)n;
	CHECK(n == -EINPROGRESS && e.out.fd == &e.fd && sent > 0);
	turn();
	CHECK(e.outs == 0);
	while ((n = read(e.other, block, sizeof(block))) > 0)
		got += (size_t)n;
	CHECK(got == sent);
	turn();
	CHECK(e.outs == 1 && !e.out.fd);
	turn();
	CHECK(e.outs == 1);
	CHECK(loop_send(&e.fd, &e.out, "x", 1) == 1);
	close(e.other);
	e.other = -1;
	CHECK(loop_send(&e.fd, &e.out, "x", 1) == -EPIPE);
	destroy(&e);
}

/* Both directions pend at once; closing forgets both without a call. */
static void
both(void)
{
	static char block[65536];
	struct end e;
	const char *p;

	make(&e);
	while (loop_send(&e.fd, &e.out, block, sizeof(block)) > 0)
		;
	CHECK(loop_recv(&e.fd, &e.in, 1, &p) == -EINPROGRESS);
	CHECK(write(e.other, "x", 1) == 1);
	turn();
	CHECK(e.ins == 1 && e.outs == 0 && e.out.fd);
	CHECK(loop_recv(&e.fd, &e.in, 1, &p) == 1 &&
	      loop_recv(&e.fd, &e.in, 1, &p) == -EINPROGRESS);
	destroy(&e);
	CHECK(e.fd.fd == -1 && !e.in.fd && !e.out.fd);
	turn();
	CHECK(e.ins == 1 && e.outs == 0);
	loop_close_fd(&e.fd); /* harmless */
}

static void
polling(void)
{
	struct end e;

	make(&e);
	CHECK(loop_poll(&e.fd, &e.in, false) == -EINPROGRESS);
	CHECK(write(e.other, "x", 1) == 1);
	turn();
	CHECK(e.ins == 1 && loop_poll(&e.fd, &e.in, false) == 0);
	CHECK(loop_poll(&e.fd, &e.out, true) == -EINPROGRESS);
	turn();
	CHECK(e.outs == 1);
	destroy(&e);
}

static struct end *victim;

static void
close_victim(struct loop_op *op)
{
	LIST_ENTRY(op, struct end, in)->ins++;
	if (victim)
		loop_close_fd(&victim->fd);
	victim = NULL;
}

/* Two become ready in the same turn, and the first to be called closes the other. */
static void
close_other(void)
{
	struct end a, b;
	const char *p;

	make(&a);
	make(&b);
	a.in.done = b.in.done = close_victim;
	loop_recv(&a.fd, &a.in, 1, &p);
	loop_recv(&b.fd, &b.in, 1, &p);
	CHECK(write(a.other, "x", 1) == 1 && write(b.other, "x", 1) == 1);
	victim = &b;
	turn();
	CHECK(a.ins + b.ins <= 2 && a.ins == 1 && !victim);
	turn();
	CHECK(a.ins == 1);
	destroy(&a);
	destroy(&b);
}

static void
close_self(struct loop_op *op)
{
	struct end *e = LIST_ENTRY(op, struct end, in);

	e->ins++;
	loop_close_fd(&e->fd);
}

static void
hanging_up(void)
{
	struct end e;
	struct linger l = {.l_onoff = 1};
	struct addr any, to;
	socklen_t len;
	int server, fd;
	const char *p;

	make(&e);
	e.in.done = close_self;
	loop_recv(&e.fd, &e.in, 1, &p);
	close(e.other);
	e.other = -1;
	turn();
	CHECK(e.ins == 1 && e.fd.fd == -1);
	/* A reset, while no operation is there to learn of it. */
	addr_from_ip("127.0.0.1", 0, &any);
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(server, addr_sa(&any), any.len) == 0 && listen(server, 1) == 0);
	to = (struct addr){.len = sizeof(to.ss)};
	CHECK(getsockname(server, addr_sa_out(&to), &to.len) == 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	e = (struct end){.in.done = count_in, .out.done = count_out, .other = -1};
	CHECK(loop_add(loop, &e.fd, fd, 0) == 0);
	e.fd.told = count_hangup;
	if (loop_connect(&e.fd, &e.out, &to) == -EINPROGRESS) {
		for (int i = 0; i < 100 && e.outs == 0; i++)
			loop_turn(loop, clock_now() + 50 * CLOCK_MS);
		CHECK(e.outs == 1 && loop_connect(&e.fd, &e.out, NULL) == 0);
	}
	len = sizeof(l);
	fd = accept(server, NULL, NULL);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, len);
	close(fd);
	for (int i = 0; i < 100 && e.hangups == 0; i++)
		loop_turn(loop, clock_now() + 50 * CLOCK_MS);
	CHECK(e.hangups >= 1);
	destroy(&e);
	close(server);
}

static void
accepting(void)
{
	struct addr any, to = {.len = sizeof(to.ss)}, peer;
	struct end e = {.in.done = count_in, .other = -1};
	int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), client,
	    fd;

	addr_from_ip("127.0.0.1", 0, &any);
	CHECK(bind(server, addr_sa(&any), any.len) == 0 && listen(server, 1) == 0);
	CHECK(getsockname(server, addr_sa_out(&to), &to.len) == 0);
	CHECK(loop_add(loop, &e.fd, server, LOOP_LIKELY) == 0);
	CHECK(loop_accept(&e.fd, &e.in, &peer) == -EINPROGRESS);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(client, addr_sa(&to), to.len) == 0);
	turn();
	CHECK(e.ins == 1);
	fd = loop_accept(&e.fd, &e.in, &peer);
	CHECK(fd >= 0 && fcntl(fd, F_GETFL) & O_NONBLOCK &&
	      fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CHECK(addr_port(&peer) > 0);
	CHECK(loop_accept(&e.fd, &e.in, &peer) == -EINPROGRESS);
	close(fd);
	close(client);
	destroy(&e);
}

static void
refused(void)
{
	struct end e;
	int fds[2];

	CHECK(loop_add(loop, &e.fd, 1000000, 0) < 0);
	CHECK(pipe2(fds, O_CLOEXEC) == 0);
	close(fds[0]);
	close(fds[1]);
	fds[0] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK(loop_add(loop, &e.fd, fds[0], 0) == -EPERM); /* a plain file */
	close(fds[0]);
}

/* ---- timers ---- */

enum { TIMERS = 50 };

static struct loop_timer timers[TIMERS];
static int fired[TIMERS + 1], nfired;

/* After the time at which the first could be: but for one they are set like this. */
static int
due_of(int i)
{
	return i == 4 ? 2 * TIMERS : i * 17 % TIMERS;
}

static void
on_timer(struct loop_timer *t)
{
	fired[nfired++] = (int)(t - timers);
}

static void
on_timer_again(struct loop_timer *t)
{
	if (++nfired < 3)
		loop_timer_set(loop, t, loop_now(loop));
}

static void
timing(void)
{
	int64_t base = clock_now();
	bool in_order = true;

	nfired = 0;
	for (int i = 0; i < TIMERS; i++) {
		CHECK(loop_timer_init(loop, &timers[i], on_timer) == 0);
		loop_timer_set(loop, &timers[i], base + (i * 17 % TIMERS) * CLOCK_MS / 2);
	}
	CHECK(loop_live_timers(loop) == TIMERS);
	loop_timer_set(loop, &timers[3], CLOCK_NEVER);
	loop_timer_set(loop, &timers[3], CLOCK_NEVER);
	loop_timer_set(loop, &timers[4], base + 60 * CLOCK_MS); /* moved: now the last */
	for (int i = 0; i < 1000 && nfired < TIMERS - 1; i++)
		loop_turn(loop, CLOCK_NEVER);
	CHECK(nfired == TIMERS - 1 && fired[TIMERS - 2] == 4);
	for (int i = 1; i < nfired; i++)
		in_order = in_order && due_of(fired[i - 1]) <= due_of(fired[i]);
	CHECK(in_order);
	CHECK(clock_now() - base >= 60 * CLOCK_MS); /* never early */
	CHECK(loop_live_timers(loop) == 0);
	for (int i = 0; i < TIMERS; i++)
		loop_timer_done(loop, &timers[i]);
	nfired = 0;
	CHECK(loop_timer_init(loop, &timers[0], on_timer_again) == 0);
	loop_timer_set(loop, &timers[0], 0);
	for (int i = 0; i < 5; i++)
		turn();
	CHECK(nfired == 3);
	loop_timer_done(loop, &timers[0]);
}

/* ---- deferred calls and posts ---- */

static int ran, order[8];
static struct loop_task tasks[2];

static void
on_task(struct loop_task *t)
{
	order[ran++] = (int)(t - tasks);
	if (ran == 2)
		loop_defer(loop, &tasks[0]); /* for the next turn, not this one */
}

static void
deferring(void)
{
	ran = 0;
	for (int i = 0; i < 2; i++) {
		tasks[i].run = on_task;
		list_init(&tasks[i].link);
		loop_defer(loop, &tasks[i]);
	}
	loop_turn(loop, CLOCK_NEVER); /* does not wait */
	CHECK(ran == 2 && order[0] == 0 && order[1] == 1);
	loop_turn(loop, CLOCK_NEVER);
	CHECK(ran == 3 && order[2] == 0);
	loop_defer(loop, &tasks[1]);
	list_remove(&tasks[1].link); /* taken back */
	turn();
	CHECK(ran == 3);
}

/* ---- what cannot be registered ---- */

static void
defer_task(struct loop_op *op)
{
	LIST_ENTRY(op, struct end, out)->outs++;
	loop_defer(loop, &tasks[1]);
}

/* Who waits for a stream that cannot be waited for is told, and what comes of that does not
 * wait for something else to happen, whether the loop polls before it sleeps or not. */
static void
refusing(enum loop_kind kind)
{
	struct loop *outer = loop;
	struct loop_tuning tuning = {.kind = kind, .busy_poll = CLOCK_SECOND / 10};
	struct end e[2], ring;
	const char *p;
	int64_t began;

	CHECK(loop_new(&loop) == 0);
	if (loop_tune(loop, &tuning) == 0) {
		make_stream(&ring);
		CHECK(loop_recv(&ring.fd, &ring.in, 100, &p) == -EINPROGRESS);
		for (int i = 0; i < 5; i++)
			turn(); /* registers it, sooner or later */
		loop_cancel(&ring.in);
		CHECK(loop_recv(&ring.fd, &ring.in, 100, &p) == -EINPROGRESS);
		CHECK(!ring.fd.slot == (kind == LOOP_EPOLL));
		while (loop_live_timers(loop) > 0) /* the backend's own */
			loop_turn(loop, CLOCK_NEVER);
		ran = 0;
		for (int i = 0; i < 2; i++) {
			e[i] = (struct end){.out.done = defer_task, .other = -1};
			CHECK(loop_add(loop, &e[i].fd,
				       open("/dev/null", O_RDWR | O_CLOEXEC),
				       LOOP_STREAM) == 0);
		}
		CHECK(loop_recv(&e[1].fd, &e[1].in, 100, &p) == -ENOSPC); /* at once */
		CHECK(loop_poll(&e[0].fd, &e[0].out, true) == -EINPROGRESS);
		began = clock_now();
		loop_turn(loop, began + 3 * CLOCK_SECOND);
		CHECK(e[0].outs == 1 && ran == 1);
		CHECK(clock_now() - began < 2 * CLOCK_SECOND);
		destroy(&e[0]);
		destroy(&e[1]);
		destroy(&ring);
	}
	loop_free(loop);
	loop = outer;
}

enum { POSTS = 1000, THREADS = 4 };

static int posted[THREADS];
static bool post_order = true;
static int numbers[THREADS][POSTS];

static void
on_post(void *arg)
{
	int at = (int)((int *)arg - numbers[0]), thread = at / POSTS;

	post_order = post_order && at % POSTS == posted[thread];
	posted[thread]++;
}

static void *
poster(void *arg)
{
	int *mine = arg;

	for (int i = 0; i < POSTS; i++)
		loop_post(loop, on_post, mine + i);
	return NULL;
}

static void *
late_poster(void *arg)
{
	usleep(20000); /* the loop is most likely asleep by now; either way it must end */
	loop_post(loop, on_post, arg);
	return NULL;
}

static void
posting(void)
{
	pthread_t threads[THREADS];
	int total = 0;

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, poster, numbers[i]) == 0);
	for (int turns = 0; turns < 10000 && total < THREADS * POSTS; turns++) {
		loop_turn(loop, clock_now() + CLOCK_SECOND);
		total = posted[0] + posted[1] + posted[2] + posted[3];
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(total == THREADS * POSTS);
	CHECK(post_order);
	posted[0] = 0;
	CHECK(pthread_create(&threads[0], NULL, late_poster, numbers[0]) == 0);
	/* A turn may be due to one of the posts before, whose work was done already. */
	for (int turns = 0; turns < 3 && posted[0] == 0; turns++)
		loop_turn(loop, CLOCK_NEVER);
	CHECK(posted[0] == 1);
	pthread_join(threads[0], NULL);
	loop_post(loop, on_post, numbers[1]); /* never run: loop_free() forgets it */
}

static int rung;

static void
ring(struct loop_timer *t)
{
	(void)t;
	rung++;
}

/* A loop that is waited for from outside: by its descriptor, and driven by steps. */
static void
embedding(void)
{
	struct loop *outer = loop;
	struct loop_timer timer;
	struct pollfd p = {.events = POLLIN};
	struct end e;

	CHECK(loop_new(&loop) == 0);
	CHECK((p.fd = loop_embed(loop)) >= 0);
	make(&e);
	CHECK(loop_poll(&e.fd, &e.in, false) == -EINPROGRESS);
	CHECK(!loop_step(loop));
	CHECK(e.ins == 0 && poll(&p, 1, 0) == 0);
	CHECK(write(e.other, "x", 1) == 1);
	CHECK(poll(&p, 1, 1000) == 1);
	CHECK(!loop_step(loop));
	CHECK(e.ins == 1);
	destroy(&e);
	CHECK(loop_timer_init(loop, &timer, ring) == 0);
	loop_timer_set(loop, &timer, clock_now() + 5 * CLOCK_MS);
	CHECK(!loop_step(loop));
	CHECK(rung == 0);
	while (rung == 0) { /* an alarm may be early */
		CHECK(poll(&p, 1, 1000) == 1);
		(void)loop_step(loop);
	}
	loop_timer_done(loop, &timer);
	CHECK(loop_live_fds(loop) == 0 && loop_live_timers(loop) == 0);
	loop_free(loop);
	loop = outer;
}

/* A backend in which a task runs, and sets a timer, without an event to tell of. */
static struct {
	struct loop_timer timer;
	int64_t longest; /* that anybody wanted to wait; -1: for ever */
} silent;

static bool
silent_wait(struct loop *l, int64_t timeout)
{
	l->came = 0;
	loop_refresh(l);
	if (!silent.timer.slot)
		loop_timer_set(l, &silent.timer, l->now + CLOCK_MS);
	if (timeout < 0 || timeout > silent.longest)
		silent.longest = timeout < 0 ? CLOCK_NEVER : timeout;
	return false;
}

static void
polling_before_a_sleep(void)
{
	struct loop_tuning tuning = {LOOP_EPOLL, CLOCK_MS};
	const struct backend *real = loop->backend;
	struct backend fake = *real;

	fake.wait = silent_wait;
	silent.longest = 0;
	CHECK(loop_tune(loop, &tuning) == 0);
	CHECK(loop_timer_init(loop, &silent.timer, ring) == 0);
	loop->backend = &fake;
	loop_turn(loop, CLOCK_NEVER);
	CHECK(silent.longest <= CLOCK_MS);
	loop->backend = real;
	loop_timer_done(loop, &silent.timer);
	tuning.busy_poll = 0;
	CHECK(loop_tune(loop, &tuning) == 0);
}

/* What a forked child does: the parent's registrations stay as they are. */
static void
reborn(void)
{
	struct end e;
	int status = -1;
	pid_t pid;

	make(&e);
	CHECK(loop_poll(&e.fd, &e.in, false) == -EINPROGRESS);
	pid = fork();
	if (pid == 0) {
		bool good = loop_reborn(loop) == 0 && loop_live_fds(loop) == 0;
		struct end own;
		make(&own);
		good = good && loop_poll(&own.fd, &own.in, false) == -EINPROGRESS &&
		       write(own.other, "x", 1) == 1;
		loop_turn(loop, clock_now() + CLOCK_SECOND);
		_exit(good && own.ins == 1 && e.ins == 0 ? 0 : 1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(write(e.other, "x", 1) == 1);
	loop_turn(loop, clock_now() + CLOCK_SECOND);
	CHECK(e.ins == 1);
	destroy(&e);
}

void
test_loop(void)
{
	CHECK(loop_new(&loop) == 0);
	receive();
	unwanted();
	sending();
	both();
	polling();
	close_other();
	hanging_up();
	accepting();
	refused();
	timing();
	deferring();
	polling_before_a_sleep();
	refusing(LOOP_EPOLL);
	refusing(LOOP_URING);
	CHECK(loop_live_fds(loop) == 0 && loop_live_timers(loop) == 0);
	embedding();
	reborn();
	posting();
	loop_free(loop);
}
