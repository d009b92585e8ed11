/* fixed - takes from a program what differs from run to run.
 *
 * Preloaded, it stops all clocks, so that nothing happens because time has passed, and Lua
 * makes the same seed of its hashes each time; gives the same numbers whenever the kernel
 * is asked for random ones; and timers that never expire: that of CPU time
 * (host/script/meter.h) would look at what runs 50 times as often, by instructions, as it
 * does without callgrind. */
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { NOW = 1700000000 };

EXPORT time_t
time(time_t *t)
{
	if (t)
		*t = NOW;
	return NOW;
}

EXPORT int
clock_gettime(clockid_t id, struct timespec *t)
{
	(void)id;
	*t = (struct timespec){.tv_sec = NOW};
	return 0;
}

EXPORT ssize_t
getrandom(void *buffer, size_t size, unsigned flags)
{
	(void)flags;
	memset(buffer, 7, size);
	return (ssize_t)size;
}

EXPORT int
timer_settime(timer_t timer, int flags, const struct itimerspec *new,
	      struct itimerspec *old)
{
	(void)timer, (void)flags, (void)new;
	if (old)
		memset(old, 0, sizeof(*old));
	return 0;
}
