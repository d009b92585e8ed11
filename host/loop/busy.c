#include "loop/busy.h"

#include "base/clock.h"

#include <unistd.h>

/* Polling for less than 20 microseconds misses most replies of a client on the same
 * machine, and costs more than it saves; more than 50 gains nothing further. */
static const int64_t SPIN = 50 * CLOCK_MS / 1000;

/* A sleep this short would have been shorter still, had nobody needed to be woken. */
static const int64_t SHORT = 200 * CLOCK_MS / 1000;

/* Between two looks lies a microsecond: who misses so much time was off the core. */
static const int64_t GAP = 500 * CLOCK_MS / 1000;

/* For how long the core is left to others, the first time. */
static const int64_t LEAVE = 100 * CLOCK_MS;

/* Behind so many events at once polling finds the next few, and a sleep gives more of them
 * the time to come: then each wait serves more. */
enum { CROWD = 8 };

enum { QUICK = 4, MOST_MISSES = 10, MOST_STOLEN = 6 };

/* With a single core, whoever is waited for could not run meanwhile. */
static bool
has_cores(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

void
busy_init(struct busy *b, int64_t spin)
{
	*b = (struct busy){.spin = spin, .adaptive = spin == BUSY_AUTO};
	if (b->adaptive)
		b->spin = has_cores() ? SPIN : 0;
}

int64_t
busy_begin(struct busy *b, int64_t now, int came)
{
	b->looked = now;
	if (!b->adaptive || b->spin == 0)
		return b->spin;
	if (came >= CROWD)
		return 0;
	if (b->quick < QUICK || now < b->until)
		return 0;
	if (b->skip > 0) {
		b->skip--;
		return 0;
	}
	return b->spin;
}

bool
busy_go_on(struct busy *b, int64_t now)
{
	int64_t since = now - b->looked;

	b->looked = now;
	if (!b->adaptive || since < GAP)
		return true;
	if (now - b->until > 10 * (LEAVE << b->stolen))
		b->stolen = 0; /* that was long ago */
	b->until = now + (LEAVE << b->stolen);
	b->quick = 0;
	if (b->stolen < MOST_STOLEN)
		b->stolen++;
	return false;
}

void
busy_found(struct busy *b)
{
	b->misses /= 2;
}

void
busy_missed(struct busy *b)
{
	if (!b->adaptive)
		return;
	if (b->misses < MOST_MISSES)
		b->misses++;
	b->skip = 1U << b->misses;
}

void
busy_slept(struct busy *b, int64_t duration)
{
	if (duration > SHORT)
		b->quick = 0;
	else if (b->quick < QUICK)
		b->quick++;
}
