/* threading.h - the policy that runs each request on a thread. */
#ifndef HOST_SERVER_THREADING_H
#define HOST_SERVER_THREADING_H

extern const struct policy policy_threading;

#endif
