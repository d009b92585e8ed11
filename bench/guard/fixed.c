/* fixed - takes from a program what differs from run to run.
 *
 * Preloaded, it gives one time of day to time(), of which Lua makes the seed of its hashes,
 * the same numbers whenever the kernel is asked for random ones, and timers that never
 * expire: the timer of CPU time (host/script/meter.h) would look at what runs 50 times as
 * often, by instructions, as it does without callgrind. */
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT time_t
time(time_t *t)
{
	const time_t now = 1700000000;

	if (t)
		*t = now;
	return now;
}

EXPORT ssize_t
getrandom(void *buffer, size_t size, unsigned flags)
{
	(void)flags;
	memset(buffer, 7, size);
	return (ssize_t)size;
}

EXPORT int
timer_settime(timer_t timer, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	(void)timer, (void)flags, (void)new;
	if (old)
		memset(old, 0, sizeof(*old));
	return 0;
}
