/* serve.h - the commands that load and run scripts.  Each returns the exit code. */
#ifndef HOST_CLI_SERVE_H
#define HOST_CLI_SERVE_H

#include <stddef.h>

struct log;
struct options;

int serve_command(const struct options *o, struct log *log, const char *lua_path);
int check_command(const struct options *o, struct log *log, const char *lua_path);
int try_command(const struct options *o, struct log *log, const char *lua_path);

/* Writes "moonport: WHY" to standard error; returns the exit code that fits rc. */
int complain(int rc, const char *why);

/* The same for a host that cannot be made: what the system says. */
int cannot_start(int rc);

#endif
