/* clock.h - monotonic time.
 *
 * Every deadline inside the host is an absolute CLOCK_MONOTONIC time in
 * nanoseconds; Lua and the command line speak seconds.  Any thread. */
#ifndef HOST_BASE_CLOCK_H
#define HOST_BASE_CLOCK_H

#include <stdint.h>

/* Later than every deadline: "for ever". */
#define CLOCK_NEVER INT64_MAX
#define CLOCK_SECOND INT64_C(1000000000)
#define CLOCK_MS INT64_C(1000000)

int64_t clock_now(void);

/* The deadline that lies `seconds` after `now`; CLOCK_NEVER when that is too far off. */
int64_t clock_after(int64_t now, double seconds);

#endif
