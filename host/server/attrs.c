#include "server/attrs.h"

#include "base/nearest.h"
#include "script/slice.h"

#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { COUNT, SIZE, MODE, FLAG, SECONDS, OPTIONAL };

struct attr {
	const char *name;
	enum kind kind;
	size_t offset;
	double initial, min, max;
	const char *about;
};

static const struct attr table[] = {
    {"request_queue_size", COUNT, offsetof(struct attrs, request_queue_size), 511, 1, 65535,
     "connections the kernel keeps waiting (511)"},
    {"max_connections", COUNT, offsetof(struct attrs, max_connections), 1024, 1, 10000000,
     "requests at once; more wait in the kernel's queue (1024)"},
    {"max_threads", COUNT, offsetof(struct attrs, max_threads), 256, 1, 65535,
     "threading: requests at once, and the most threads (256)"},
    {"thread_idle_timeout", SECONDS, offsetof(struct attrs, thread_idle_timeout), 60, 0,
     1e9, "threading: seconds after which an idle thread and its Lua state end (60)"},
    {"max_children", COUNT, offsetof(struct attrs, max_children), 40, 1, 65535,
     "forking: children at once (40)"},
    {"max_requests_per_child", COUNT, offsetof(struct attrs, max_requests_per_child), 1, 1,
     1e12, "forking: more than 1 keeps max_children pre-forked, each for so many (1)"},
    {"daemon_threads", FLAG, offsetof(struct attrs, daemon_threads), 0, 0, 1,
     "threading: requests are not waited for when the server stops (false)"},
    {"block_on_close", FLAG, offsetof(struct attrs, block_on_close), 1, 0, 1,
     "threading, forking: wait for requests when the server stops (true)"},
    {"max_packet_size", SIZE, offsetof(struct attrs, max_packet_size), 8192, 1, 65536,
     "longest datagram kept whole (8K)"},
    {"max_line", SIZE, offsetof(struct attrs, max_line), 65536, 1, 1 << 30,
     "longest line or delimited part that rfile reads (64K)"},
    {"memory_limit", SIZE, offsetof(struct attrs, memory_limit), 256.0 * 1024 * 1024,
     1 << 20, 1e15, "memory of a script's Lua state (256M)"},
    {"rbufsize", SIZE, offsetof(struct attrs, rbufsize), -1, -1, 65536,
     "most bytes a receive asks for; 0: one at a time; -1: 64K (-1)"},
    {"wbufsize", SIZE, offsetof(struct attrs, wbufsize), -1, -1, 65536,
     "written bytes collected before a send; 0: none; -1: 64K (-1)"},
    {"socket_mode", MODE, offsetof(struct attrs, socket_mode), 0600, 0, 0777,
     "permissions of a Unix socket's path, octal (600)"},
    {"allow_reuse_address", FLAG, offsetof(struct attrs, allow_reuse_address), 1, 0, 1,
     "SO_REUSEADDR on TCP listeners (true)"},
    {"allow_reuse_port", FLAG, offsetof(struct attrs, allow_reuse_port), 0, 0, 1,
     "SO_REUSEPORT on IP listeners (false)"},
    {"ipv6_v6only", FLAG, offsetof(struct attrs, ipv6_v6only), 0, 0, 1,
     "an IPv6 listener takes no IPv4 clients (false)"},
    {"disable_nagle_algorithm", FLAG, offsetof(struct attrs, disable_nagle_algorithm), 1, 0,
     1, "TCP_NODELAY on connections (true)"},
    {"timeout", OPTIONAL, offsetof(struct attrs, timeout), ATTR_NONE, 0, 1e9,
     "seconds for each read or write of a request (none)"},
    {"idle_timeout", OPTIONAL, offsetof(struct attrs, idle_timeout), ATTR_NONE, 0, 1e9,
     "seconds without a byte either way, then the request is cancelled (none)"},
    {"request_timeout", OPTIONAL, offsetof(struct attrs, request_timeout), ATTR_NONE, 0,
     1e9, "seconds for a whole request, then it is cancelled (none)"},
    {"cpu_limit", OPTIONAL, offsetof(struct attrs, cpu_limit), LIMIT_MS / 1000.0, 0.01, 1e9,
     "seconds of CPU time between two waits, then the request is ended (5)"},
    {"time_slice", OPTIONAL, offsetof(struct attrs, time_slice), SLICE_MS / 1000.0, 0.001,
     1e9, "seconds of CPU time before other requests have their turn (0.01)"},
    {"retire_timeout", SECONDS, offsetof(struct attrs, retire_timeout), 60, 0, 1e9,
     "seconds that requests of replaced code may go on; 0: for ever (60)"},
    {"drain_timeout", SECONDS, offsetof(struct attrs, drain_timeout), 15, 0, 1e9,
     "seconds that requests get to end when the host stops (15)"},
    {"cancel_grace", SECONDS, offsetof(struct attrs, cancel_grace), 5, 0, 1e9,
     "seconds that a cancelled request gets to clean up (5)"},
};

enum { ATTRS = sizeof(table) / sizeof(*table) };

_Static_assert(ATTRS <= 32, "`fixed` has a bit for each");

/* Functions that a handler's `server` table may hold as well. */
static const char *const hooks[] = {"verify_request", "handle_error", "handle_timeout"};

enum { HOOKS = sizeof(hooks) / sizeof(*hooks) };

static void
store(struct attrs *a, const struct attr *t, double v)
{
	void *p = (char *)a + t->offset;

	if (t->kind == FLAG)
		*(bool *)p = v != 0;
	else if (t->kind == SECONDS || t->kind == OPTIONAL)
		*(double *)p = v;
	else
		*(int64_t *)p = (int64_t)v;
}

static double
fetch(const struct attrs *a, const struct attr *t)
{
	const void *p = (const char *)a + t->offset;

	if (t->kind == FLAG)
		return *(const bool *)p;
	if (t->kind == SECONDS || t->kind == OPTIONAL)
		return *(const double *)p;
	return (double)*(const int64_t *)p;
}

void
attrs_init(struct attrs *a)
{
	*a = (struct attrs){0};
	for (size_t i = 0; i < ATTRS; i++)
		store(a, &table[i], table[i].initial);
}

static const struct attr *
find(const char *name)
{
	for (size_t i = 0; i < ATTRS; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

static const char *
nearest(const char *name, bool with_hooks)
{
	const char *best = table[0].name;

	for (size_t i = 1; i < ATTRS; i++)
		if (nearest_distance(name, table[i].name) < nearest_distance(name, best))
			best = table[i].name;
	for (size_t i = 0; with_hooks && i < HOOKS; i++)
		if (nearest_distance(name, hooks[i]) < nearest_distance(name, best))
			best = hooks[i];
	return best;
}

/* What would be right, for the end of a sentence. */
static void
describe(const struct attr *t, char *out, size_t size)
{
	if (t->kind == FLAG)
		snprintf(out, size, "true or false");
	else if (t->kind == MODE)
		snprintf(out, size, "an octal number from 0 to 777, such as 660");
	else if (t->kind == SECONDS)
		snprintf(out, size, "a number of seconds from %g to %g", t->min, t->max);
	else if (t->kind == OPTIONAL)
		snprintf(out, size, "a number of seconds from %g to %g, or none", t->min,
			 t->max);
	else if (t->kind == SIZE)
		snprintf(out, size,
			 "a number of bytes from %.0f to %.0f (K, M and G are understood)",
			 t->min, t->max);
	else
		snprintf(out, size, "a whole number from %.0f to %.0f", t->min, t->max);
}

static bool
in_range(const struct attr *t, double v)
{
	if (t->kind == OPTIONAL && v == ATTR_NONE)
		return true;
	if (!(v >= t->min && v <= t->max))
		return false;
	return t->kind == SECONDS || t->kind == OPTIONAL || v == floor(v);
}

static bool
parse(const struct attr *t, const char *s, double *out)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;

	if (t->kind == FLAG) {
		*out = strcmp(s, "true") == 0;
		return *out != 0 || strcmp(s, "false") == 0;
	}
	if (t->kind == OPTIONAL && (strcmp(s, "none") == 0 || strcmp(s, "false") == 0)) {
		*out = ATTR_NONE;
		return true;
	}
	if (*s != '-' && *s != '.' && (*s < '0' || *s > '9'))
		return false;
	if (strpbrk(s, "xXpP")) /* strtod() would take hexadecimal */
		return false;
	*out = t->kind == MODE ? (double)strtol(s, &end, 8) : strtod(s, &end);
	if (t->kind == SIZE && *end && (unit = strchr(units, *end))) {
		for (const char *u = units; u <= unit; u++)
			*out *= 1024;
		end++;
	}
	return *end == 0 && (t->kind != OPTIONAL || *out >= 0);
}

int
attrs_set_text(struct attrs *a, const char *name, const char *value, char *why, size_t size)
{
	const struct attr *t = find(name);
	char right[160];
	double v;

	if (!t) {
		snprintf(why, size, "unknown option %s; did you mean %s?", name,
			 nearest(name, false));
		return -EINVAL;
	}
	if (!parse(t, value, &v) || !in_range(t, v)) {
		describe(t, right, sizeof(right));
		snprintf(why, size, "option %s=%s: it must be %s", name, value, right);
		return -EINVAL;
	}
	store(a, t, v);
	a->fixed |= 1u << (t - table);
	return 0;
}

/* Takes the value on top of the stack, and pops it. */
static void
read_value(struct attrs *a, lua_State *L, const struct attr *t, const char *where)
{
	char right[160];
	double v = 0;
	int ok = 1;

	if (t->kind == FLAG && lua_isboolean(L, -1))
		v = lua_toboolean(L, -1);
	else if (t->kind == OPTIONAL && lua_isboolean(L, -1) && !lua_toboolean(L, -1))
		v = ATTR_NONE;
	else if (t->kind != FLAG && lua_type(L, -1) == LUA_TNUMBER)
		ok = (v = lua_tonumber(L, -1)) != ATTR_NONE || t->kind != OPTIONAL;
	else if (lua_type(L, -1) == LUA_TSTRING)
		ok = parse(t, lua_tostring(L, -1), &v);
	else
		ok = 0;
	if (!ok || !in_range(t, v)) {
		describe(t, right, sizeof(right));
		luaL_error(L, "%s%s: it must be %s", where, t->name, right);
	}
	if (!(a->fixed & 1u << (t - table)))
		store(a, t, v);
	lua_pop(L, 1);
}

static bool
is_hook(const char *name)
{
	for (size_t i = 0; i < HOOKS; i++)
		if (strcmp(hooks[i], name) == 0)
			return true;
	return false;
}

static void
read_server_table(struct attrs *a, lua_State *L)
{
	for (lua_pushnil(L); lua_next(L, -2);) {
		const char *name =
		    lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
		const struct attr *t = find(name);
		if (t)
			read_value(a, L, t, "server.");
		else if (is_hook(name) && lua_isfunction(L, -1))
			lua_pop(L, 1);
		else if (is_hook(name))
			luaL_error(L, "server.%s: it must be a function", name);
		else
			luaL_error(L, "server.%s: no such attribute; did you mean %s?",
				   name, nearest(name, true));
	}
}

void
attrs_read(struct attrs *a, lua_State *L, int idx)
{
	idx = lua_absindex(L, idx);
	for (size_t i = 0; i < ATTRS; i++) {
		if (lua_getfield(L, idx, table[i].name) == LUA_TNIL)
			lua_pop(L, 1);
		else
			read_value(a, L, &table[i], "");
	}
	if (lua_getfield(L, idx, "server") == LUA_TTABLE)
		read_server_table(a, L);
	else if (!lua_isnil(L, -1))
		luaL_error(L, "server: it must be a table of server attributes");
	lua_pop(L, 1);
}

bool
attrs_push(const struct attrs *a, lua_State *L, const char *name)
{
	const struct attr *t = find(name);
	double v;

	if (!t)
		return false;
	v = fetch(a, t);
	if (t->kind == FLAG)
		lua_pushboolean(L, v != 0);
	else if (t->kind == OPTIONAL && v == ATTR_NONE)
		lua_pushnil(L);
	else if (t->kind == SECONDS || t->kind == OPTIONAL)
		lua_pushnumber(L, v);
	else
		lua_pushinteger(L, (lua_Integer)v);
	return true;
}

const char *
attrs_name(size_t i, const char **about)
{
	if (i >= ATTRS)
		return NULL;
	*about = table[i].about;
	return table[i].name;
}
