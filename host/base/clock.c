#include "base/clock.h"

#include <time.h>

int64_t
clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec;
}

int64_t
clock_after(int64_t now, double seconds)
{
	/* 1e9 s is 31 years: past it the sum could overflow. */
	if (!(seconds < 1e9))
		return CLOCK_NEVER;
	return seconds > 0 ? now + (int64_t)(seconds * 1e9) : now;
}
