#include "loop/loop.h"
#include "loop/signals.h"
#include "unit.h"

#include <signal.h>
#include <unistd.h>

struct seen {
	unsigned hups, usr1s;
	bool again; /* raise one more while the first is being handled */
};

static void
caught(void *arg, int signo)
{
	struct seen *s = arg;

	s->hups += signo == SIGHUP;
	s->usr1s += signo == SIGUSR1;
	if (s->again)
		raise(signo);
	s->again = false;
}

/* More than a pipe holds of one signal leave room for another. */
static void
flooded(struct loop *loop, struct seen *seen)
{
	for (int i = 0; i < 100000; i++)
		raise(SIGHUP);
	raise(SIGUSR1);
	loop_turn(loop, 0);
	CHECK(seen->hups == 1 && seen->usr1s == 1);
}

static void
while_handled(struct loop *loop, struct seen *seen)
{
	*seen = (struct seen){.again = true};
	raise(SIGHUP);
	loop_turn(loop, 0);
	loop_turn(loop, 0);
	CHECK(seen->hups == 2);
}

/* What comes before there is a loop is caught once there is. */
static void
kept(struct loop *loop, struct signals *signals, struct seen *seen)
{
	static const int signos[] = {SIGHUP, SIGUSR1};

	*seen = (struct seen){0};
	signals_keep(signos, 2);
	raise(SIGHUP);
	raise(SIGHUP);
	CHECK(signals_open(signals, loop, signos, 2, caught, seen) == 0);
	CHECK(seen->hups == 0);
	loop_turn(loop, 0);
	CHECK(seen->hups == 1 && seen->usr1s == 0);
	raise(SIGHUP);
	loop_turn(loop, 0);
	CHECK(seen->hups == 2);
	signals_close(signals);
}

void
test_signals(void)
{
	static const int signos[] = {SIGHUP, SIGUSR1};
	struct seen seen = {0};
	struct signals signals;
	struct loop *loop;

	CHECK(loop_new(&loop) == 0);
	CHECK(signals_open(&signals, loop, signos, 2, caught, &seen) == 0);
	flooded(loop, &seen);
	while_handled(loop, &seen);
	signals_close(&signals);
	raise(SIGHUP); /* does nothing any more */
	kept(loop, &signals, &seen);
	loop_free(loop);
	signal(SIGPIPE, SIG_IGN);
}
