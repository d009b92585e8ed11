/* rare.h - marks a function as off the usual path: it is not made a part of its caller,
 * which stays short. */
#ifndef HOST_BASE_RARE_H
#define HOST_BASE_RARE_H

#define RARE __attribute__((cold, noinline))

#endif
