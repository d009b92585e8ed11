#include "base/stack.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

struct call {
	void (*fn)(void *arg);
	void *arg;
	const void *back; /* the stack that it returns to */
	size_t back_size;
};

/* AddressSanitizer wants to know which stack it is on. */
static void
leave_for(void **fake, const void *stack, size_t size)
{
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(fake, stack, size);
#else
	(void)fake, (void)stack, (void)size;
#endif
}

static void
arrived(void *fake, const void **from, size_t *size)
{
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(fake, from, size);
#else
	(void)fake, (void)from, (void)size;
#endif
}

/* makecontext() passes ints only: here, the halves of an address. */
static void
enter(unsigned high, unsigned low)
{
	struct call *c = (void *)(uintptr_t)((uint64_t)high << 32 | low); // NOLINT

	arrived(NULL, &c->back, &c->back_size);
	c->fn(c->arg);
	leave_for(NULL, c->back, c->back_size);
}

static int
call_on(char *stack, size_t size, struct call *c)
{
	ucontext_t here, there;
	uint64_t address = (uintptr_t)c;
	void *fake = NULL;
	int rc;

	if (getcontext(&there) < 0)
		return -errno;
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = size;
	there.uc_link = &here;
	makecontext(&there, (void (*)(void))enter, 2, (unsigned)(address >> 32),
		    (unsigned)address);
	leave_for(&fake, stack, size);
	rc = swapcontext(&here, &there) < 0 ? -errno : 0;
	arrived(fake, NULL, NULL);
	return rc;
}

int
stack_call(void (*fn)(void *arg), void *arg)
{
	size_t guard = (size_t)sysconf(_SC_PAGESIZE), size = guard + STACK_NEEDED;
	struct call c = {.fn = fn, .arg = arg};
	struct rlimit rl;
	char *map;
	int rc;

	if (getrlimit(RLIMIT_STACK, &rl) < 0 || rl.rlim_cur >= STACK_NEEDED) {
		fn(arg);
		return 0;
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	/* Deeper still is a fault, not somebody else's memory. */
	rc = mprotect(map, guard, PROT_NONE) < 0 ? -ENOMEM : 0;
	if (rc == 0)
		rc = call_on(map + guard, STACK_NEEDED, &c);
	munmap(map, size);
	return rc;
}
