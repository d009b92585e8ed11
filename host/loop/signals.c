#include "loop/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* What a signal handler can see: where to write (-1: nowhere yet), and which signals have
 * come and are not read yet.  Those are not written again: a pipe full of one would have no
 * room for another.  A signal comes to any thread. */
static _Atomic sig_atomic_t signal_fd = -1;
static _Atomic sig_atomic_t pending[NSIG];

/* After which signals the process may live no longer than so many seconds. */
static volatile sig_atomic_t last_signo, last_other, last_seconds;

static void
write_signal(int signo)
{
	unsigned char c = (unsigned char)signo;

	if (signal_fd >= 0)
		(void)!write(signal_fd, &c, 1);
}

static void
on_signal(int signo)
{
	int saved = errno;

	if ((signo == last_signo || signo == last_other) && last_seconds > 0)
		alarm((unsigned)last_seconds);
	if (signo != SIGPIPE && !atomic_exchange(&pending[signo], 1))
		write_signal(signo);
	errno = saved;
}

static void
on_readable(struct loop_op *op)
{
	struct signals *s = LIST_ENTRY(op, struct signals, op);
	unsigned char got[NSIG];
	ssize_t n = read(s->pipe.fd, got, sizeof(got));

	s->pipe.readable = false;
	loop_poll(&s->pipe, op, false);
	for (ssize_t i = 0; i < n; i++) {
		pending[got[i]] = 0; /* one that comes from here on is a new one */
		s->caught(s->arg, got[i]);
	}
}

static void
dispose(int signo, void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};

	sigfillset(&sa.sa_mask);
	sigaction(signo, &sa, NULL);
}

void
signals_keep(const int *signos, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dispose(signos[i], on_signal);
}

static void
forget_pending(void)
{
	for (int i = 0; i < NSIG; i++)
		pending[i] = 0;
}

/* Those that came before there was a pipe; one that comes just now may be there twice. */
static void
write_pending(void)
{
	for (int i = 0; i < NSIG; i++)
		if (pending[i])
			write_signal(i);
}

int
signals_open(struct signals *s, struct loop *loop, const int *signos, size_t n,
	     void (*caught)(void *arg, int signo), void *arg)
{
	int fds[2], rc;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	*s = (struct signals){.caught = caught, .arg = arg, .write_fd = fds[1]};
	rc = loop_add(loop, &s->pipe, fds[0], LOOP_SIGNALS);
	if (rc < 0) {
		close(fds[0]);
		close(fds[1]);
		return rc;
	}
	s->op.done = on_readable;
	loop_poll(&s->pipe, &s->op, false);
	if (signal_fd >= 0) /* a child: they are its parent's */
		forget_pending();
	signal_fd = fds[1];
	write_pending();
	dispose(SIGPIPE, on_signal);
	for (size_t i = 0; i < n; i++)
		dispose(signos[i], on_signal);
	return 0;
}

void
signals_last_word(int signo, int other, unsigned seconds)
{
	last_signo = signo;
	last_other = other;
	last_seconds = (sig_atomic_t)seconds;
}

void
signals_close(struct signals *s)
{
	static const int all[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		dispose(all[i], SIG_IGN);
	signal_fd = -1;
	forget_pending();
	loop_close_fd(&s->pipe);
	close(s->write_fd);
}
