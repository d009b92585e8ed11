#include "base/stack.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

struct call {
	void (*fn)(void *arg);
	void *arg;
};

/* makecontext() passes ints only: here, the halves of an address. */
static void
enter(unsigned high, unsigned low)
{
	uintptr_t address = (uintptr_t)((uint64_t)high << 32 | low);
	const struct call *c = (const struct call *)address; // NOLINT

	c->fn(c->arg);
}

static int
call_on(char *stack, size_t size, struct call *c)
{
	ucontext_t here, there;
	uint64_t address = (uintptr_t)c;

	if (getcontext(&there) < 0)
		return -errno;
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = size;
	there.uc_link = &here;
	makecontext(&there, (void (*)(void))enter, 2, (unsigned)(address >> 32),
		    (unsigned)address);
	return swapcontext(&here, &there) < 0 ? -errno : 0;
}

int
stack_call(void (*fn)(void *arg), void *arg)
{
	size_t guard = (size_t)sysconf(_SC_PAGESIZE), size = guard + STACK_NEEDED;
	struct call c = {fn, arg};
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
