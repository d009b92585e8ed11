/* stack.h - a stack that is deep enough for Lua.
 *
 * Lua allows 200 calls through C before it raises "C stack overflow", and some of its
 * functions have more than a kilobyte on the stack: below STACK_NEEDED the stack may
 * overflow first, and that ends the process.  Threads of the host ask for STACK_NEEDED
 * when they are made; the process's first one has what `ulimit -s` allows, and it
 * goes through stack_call().  The stack belongs to stack_call() and goes with it.
 * One thread; forked children have their own copy. */
#ifndef HOST_BASE_STACK_H
#define HOST_BASE_STACK_H

#include <stddef.h>

#define STACK_NEEDED ((size_t)1024 * 1024)

/* Runs fn(arg), on another stack if the one of the process is limited to less than
 * STACK_NEEDED.  0, or -ENOMEM: fn was not called. */
int stack_call(void (*fn)(void *arg), void *arg);

#endif
