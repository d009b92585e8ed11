/* clock - a wall clock that cannot be trusted, to prove that nobody waits by it.
 *
 * Preloaded (LD_PRELOAD=build/clock.so), it makes each look at the time of day an hour
 * too early or too late, in turn.  The monotonic clock is left alone. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { HOUR = 3600 };

static atomic_uint looks;

static time_t
shift(void)
{
	return atomic_fetch_add(&looks, 1) % 2 ? HOUR : -HOUR;
}

static int
real_gettime(clockid_t id, struct timespec *t)
{
	static int (*real)(clockid_t, struct timespec *);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	return real(id, t);
}

EXPORT int
clock_gettime(clockid_t id, struct timespec *t)
{
	int rc = real_gettime(id, t);

	if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += shift();
	return rc;
}

EXPORT int
gettimeofday(struct timeval *tv, void *zone)
{
	struct timespec t;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &t);
	*tv = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
	return 0;
}

EXPORT time_t
time(time_t *out)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}
