#include "script/meter.h"

#include "base/clock.h"
#include "script/slice.h"
#include "script/task.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Two make a slice. */
static const int64_t TICK = SLICE_MS * CLOCK_MS / 2;

int64_t
meter_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * CLOCK_SECOND + t.tv_nsec;
}

/* On the measured thread itself, between two of its instructions. */
static void
on_tick(int signo, siginfo_t *info, void *context)
{
	struct meter *m = info->si_code == SI_TIMER ? info->si_value.sival_ptr : NULL;
	struct sched *s = m ? m->sched : NULL;
	int saved = errno;

	(void)signo, (void)context;
	if (!s || !s->running)
		return;
	if (m->seen != s->runs) {
		m->seen = s->runs;
		m->ticks = 0;
		m->told = false;
		m->since = meter_now();
	} else {
		m->ticks++;
		slice_tick(m, s);
	}
	errno = saved;
}

static int
take_signal(int signo)
{
	struct sigaction sa = {.sa_sigaction = on_tick,
			       .sa_flags = SA_SIGINFO | SA_RESTART},
			 old;
	sigset_t set;

	if (sigaction(signo, NULL, &old) < 0)
		return -errno;
	if (!(old.sa_flags & SA_SIGINFO) && old.sa_handler != SIG_DFL)
		return -EBUSY;
	if ((old.sa_flags & SA_SIGINFO) && old.sa_sigaction != on_tick)
		return -EBUSY;
	sigfillset(&sa.sa_mask);
	if (!(old.sa_flags & SA_SIGINFO) && sigaction(signo, &sa, NULL) < 0)
		return -errno;
	sigemptyset(&set);
	sigaddset(&set, signo);
	return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int
meter_open(struct meter *m)
{
	int signo = SIGRTMIN + 7, rc = take_signal(signo);
	struct sigevent e = {.sigev_notify = SIGEV_THREAD_ID,
			     .sigev_signo = signo,
			     .sigev_value.sival_ptr = m};
	struct itimerspec every = {{0, TICK}, {0, TICK}};

	*m = (struct meter){.sched = NULL};
	if (rc < 0)
		return rc;
	e.sigev_notify_thread_id = gettid();
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &e, &m->timer) < 0)
		return -errno;
	timer_settime(m->timer, 0, &every, NULL);
	m->tid = gettid();
	return 0;
}

int
meter_claim(struct meter *m)
{
	struct sched *s = m->sched;
	int rc;

	if (m->tid == gettid())
		return 0;
	meter_close(m);
	rc = meter_open(m);
	meter_watch(m, s);
	return rc;
}

void
meter_close(struct meter *m)
{
	if (!m->tid)
		return;
	if (m->sched)
		m->sched->meter = NULL;
	m->sched = NULL;
	m->tid = 0;
	timer_delete(m->timer); /* a signal that was pending has come by the time it returns
				 */
}

void
meter_reborn(struct meter *m)
{
	m->tid = 0;
}

void
meter_watch(struct meter *m, struct sched *s)
{
	if (m->sched)
		m->sched->meter = NULL;
	m->seen = UINT64_MAX;
	m->sched = s;
	if (s)
		s->meter = m->tid ? m : NULL;
}

void
meter_begin(struct meter *m)
{
	m->seen = m->sched->runs;
	m->ticks = 0;
	m->told = false;
	m->since = meter_now();
}

int64_t
meter_used(const struct meter *m)
{
	return m->seen == m->sched->runs ? meter_now() - m->since : 0;
}

void
meter_forgive(struct meter *m, int64_t spent)
{
	m->since += spent;
}
