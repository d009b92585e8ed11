#include "bind/ljournal.h"

#include "base/clock.h"
#include "bind/diary.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/task.h"

#include <errno.h>
#include <string.h>

static struct diary *
check_here(lua_State *L)
{
	struct sched *s = sched_of(L);
	struct io *io = s ? s->io : NULL;

	if (!io || !io->journals)
		luaL_error(L,
			   "moonport.journal: there is no journal here, where requests do "
			   "not run on the host's own thread; mocks run under async");
	if (!io->diary && !diary_make(io))
		luaL_error(L, "not enough memory");
	return io->diary;
}

static struct journal *
check(lua_State *L)
{
	return check_here(L)->journal;
}

static int
no_such_kind(lua_State *L, int arg, const char *name)
{
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	for (int k = 0; k < JOURNAL_KINDS; k++) {
		luaL_addstring(&b, k ? ", " : "");
		luaL_addstring(&b, journal_kind_name((enum journal_kind)k));
	}
	luaL_pushresult(&b);
	return luaL_argerror(L, arg,
			     lua_pushfstring(L, "there is no kind '%s'; the kinds are %s",
					     name, lua_tostring(L, -1)));
}

/* The server's name at idx, or nil. */
static void
take_server(lua_State *L, int idx, struct journal_record *r)
{
	r->server = luaL_optlstring(L, idx, NULL, &r->server_len);
	luaL_argcheck(L, !r->server || r->server_len <= JOURNAL_NAME, idx,
		      "a server's name has at most 255 bytes");
}

static void
take_conn(lua_State *L, int idx, struct journal_record *r)
{
	lua_Integer n = luaL_optinteger(L, idx, 0);

	luaL_argcheck(L, n >= 0, idx, "no connection has a negative number");
	r->conn = (uint64_t)n;
}

/* journal.open(request|nil, server, client) -> conn, nth */
static int
journal_l_open(lua_State *L)
{
	struct diary *d = check_here(L);
	struct journal_record r = {.time = diary_time(d)};
	const struct handle *h = NULL;
	uint64_t nth;

	if (!lua_isnoneornil(L, 1)) {
		h = luaL_testudata(L, 1, socket_class);
		h = h ? h : luaL_checkudata(L, 1, request_class);
	}
	luaL_checkstring(L, 2);
	take_server(L, 2, &r);
	r.data = luaL_optlstring(L, 3, "", &r.data_len);
	r.conn = journal_open(d->journal, &r, &nth);
	if (nth == 0)
		return luaL_error(L,
				  "the journal has no room for one more server's name; a "
				  "reset of all forgets them");
	if (h && handle_peek(L) && stream_set_conn(handle_peek(L), r.conn) < 0)
		return luaL_error(L, "not enough memory");
	lua_pushinteger(L, (lua_Integer)r.conn);
	lua_pushinteger(L, (lua_Integer)nth);
	return 2;
}

/* journal.add(kind, server, conn, data [, detail]) -> seq */
static int
journal_l_add(lua_State *L)
{
	struct diary *d = check_here(L);
	size_t n;
	const char *kind = luaL_checklstring(L, 1, &n);
	struct journal_record r = {.time = diary_time(d), .kind = journal_kind_of(kind, n)};

	if (r.kind == JOURNAL_KINDS)
		return no_such_kind(L, 1, kind);
	take_server(L, 2, &r);
	take_conn(L, 3, &r);
	r.data = luaL_optlstring(L, 4, "", &r.data_len);
	r.detail = luaL_optlstring(L, 5, NULL, &r.detail_len);
	lua_pushinteger(L, (lua_Integer)journal_add(d->journal, &r));
	return 1;
}

/* What journal.writer made: (data [, detail]) */
static int
write_on(lua_State *L)
{
	struct diary *d = check_here(L);
	struct journal_record r =
	    *(const struct journal_record *)lua_touserdata(L, lua_upvalueindex(1));

	r.time = diary_time(d);
	r.data = luaL_checklstring(L, 1, &r.data_len);
	if (!lua_isnoneornil(L, 2))
		r.detail = luaL_checklstring(L, 2, &r.detail_len);
	journal_add(d->journal, &r);
	return 0;
}

/* journal.writer(kind, server, conn) -> a function: add with these three looked at once */
static int
journal_l_writer(lua_State *L)
{
	size_t n;
	const char *kind = luaL_checklstring(L, 1, &n);
	struct journal_record r = {.kind = journal_kind_of(kind, n)};

	if (r.kind == JOURNAL_KINDS)
		return no_such_kind(L, 1, kind);
	luaL_checkstring(L, 2);
	take_server(L, 2, &r);
	take_conn(L, 3, &r);
	*(struct journal_record *)lua_newuserdatauv(L, sizeof(r), 0) = r;
	lua_pushvalue(L, 2); /* keeps the name */
	lua_pushcclosure(L, write_on, 2);
	return 1;
}

/* journal.fail(server, conn, text) -> seq */
static int
journal_l_fail(lua_State *L)
{
	struct diary *d = check_here(L);
	struct journal_record r = {.time = diary_time(d), .kind = JOURNAL_FAILED};

	take_server(L, 1, &r);
	take_conn(L, 2, &r);
	r.data = luaL_checklstring(L, 3, &r.data_len);
	lua_pushinteger(L, (lua_Integer)journal_add(d->journal, &r));
	return 1;
}

/* journal.mark(key) */
static int
journal_l_mark(lua_State *L)
{
	size_t n;
	const char *key = luaL_checklstring(L, 1, &n);

	if (!journal_mark(check(L), key, n))
		return luaL_error(L, "not enough memory");
	return 0;
}

/* journal.marked(key) -> boolean */
static int
journal_l_marked(lua_State *L)
{
	size_t n;
	const char *key = luaL_checklstring(L, 1, &n);

	lua_pushboolean(L, journal_marked(check(L), key, n));
	return 1;
}

/* journal.mask{kind, ...} -> mask */
static int
journal_l_mask(lua_State *L)
{
	unsigned mask = 0;
	size_t n;

	luaL_checktype(L, 1, LUA_TTABLE);
	for (lua_Integer i = 1; lua_rawgeti(L, 1, i) != LUA_TNIL; i++) {
		const char *name = luaL_tolstring(L, -1, &n);
		enum journal_kind kind = journal_kind_of(name, n);
		if (kind == JOURNAL_KINDS)
			return no_such_kind(L, 1, name);
		mask |= 1u << kind;
		lua_pop(L, 2);
	}
	lua_pushinteger(L, mask);
	return 1;
}

/* A sequence number; none is below 0. */
static uint64_t
check_after(lua_State *L, int idx)
{
	lua_Integer n = luaL_checkinteger(L, idx);

	return n > 0 ? (uint64_t)n : 0;
}

/* Pushes data and detail.  Any push may run a finalizer that adds or clears: what is in the
 * journal is copied by the first one, which takes the two together. */
static void
push_bytes(lua_State *L, const struct journal_record *r)
{
	size_t n = r->data_len, more = r->detail ? r->detail_len : 0;
	const char *both =
	    lua_pushlstring(L, r->data, n + more); /* the detail follows it */

	if (!r->detail) {
		lua_pushnil(L);
		return;
	}
	lua_pushlstring(L, both, n);
	lua_pushlstring(L, both + n, more);
	lua_remove(L, -3);
}

/* journal.next(after [, kinds [, server]]) ->
 * seq, kind, server, conn, time, data, detail, length | nil, last */
static int
journal_l_next(lua_State *L)
{
	struct journal *j = check(L);
	uint64_t after = check_after(L, 1);
	lua_Integer kinds = luaL_optinteger(L, 2, JOURNAL_ALL);
	struct journal_record r = {0};
	char server[JOURNAL_NAME];

	take_server(L, 3, &r);
	if (!journal_next(j, after, (unsigned)kinds, r.server, r.server_len, &r)) {
		lua_pushnil(L);
		lua_pushinteger(L, (lua_Integer)journal_info(j).last);
		return 2;
	}
	if (r.server)
		memcpy(server, r.server, r.server_len);
	push_bytes(L, &r);
	lua_pushinteger(L, (lua_Integer)r.seq);
	lua_pushstring(L, journal_kind_name(r.kind));
	if (r.server)
		lua_pushlstring(L, server, r.server_len);
	else
		lua_pushnil(L);
	lua_pushinteger(L, (lua_Integer)r.conn);
	lua_pushnumber(L, (lua_Number)r.time / 1e9);
	lua_rotate(L, -7, -2);
	lua_pushinteger(L, (lua_Integer)r.length);
	return 8;
}

static void
detach(void *arg)
{
	list_remove(&((struct diary_waiter *)arg)->link);
}

enum { AFTER = 1, WAITER };

static int wait_k(lua_State *L, int status, lua_KContext ctx);

static int
park(lua_State *L, struct diary *d, struct diary_waiter *w)
{
	w->task = task_current(L);
	diary_wait(d, w);
	return task_park(L, w->deadline, detach, w, 0, wait_k);
}

static int
wait_k(lua_State *L, int status, lua_KContext ctx)
{
	bool late = task_woke(L) < 0;
	struct diary *d = check_here(L);
	bool has = journal_has(d->journal, check_after(L, AFTER));

	(void)status, (void)ctx;
	if (!has && !late) /* it was cleared meanwhile */
		return park(L, d, lua_touserdata(L, WAITER));
	lua_pushboolean(L, has);
	return 1;
}

/* journal.wait(after [, seconds]) -> whether there is a record past `after` */
static int
journal_l_wait(lua_State *L)
{
	struct diary *d = check_here(L);
	bool has = journal_has(d->journal, check_after(L, AFTER));
	int64_t ns = arg_seconds(L, 2), now = clock_now();
	struct diary_waiter *w;

	if (has || ns == 0) {
		lua_pushboolean(L, has);
		return 1;
	}
	lua_settop(L, AFTER);
	w = lua_newuserdatauv(L, sizeof(*w), 0);
	list_init(&w->link);
	w->deadline = ns < CLOCK_NEVER - now ? now + ns : CLOCK_NEVER;
	return park(L, d, w);
}

/* journal.last() -> the newest number; 0: none was given yet */
static int
journal_l_last(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)journal_info(check(L)).last);
	return 1;
}

/* journal.first() -> the oldest record's number; last() + 1: none is kept */
static int
journal_l_first(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)journal_info(check(L)).first);
	return 1;
}

static void
put(lua_State *L, const char *name, uint64_t n)
{
	lua_pushinteger(L, (lua_Integer)n);
	lua_setfield(L, -2, name);
}

/* Puts those of server i, if it is still there: a push may run a finalizer that clears. */
static void
put_counts(lua_State *L, const struct journal *j, size_t i)
{
	struct journal_counts c;
	const char *name;
	size_t len;

	if (i >= journal_info(j).servers)
		return;
	c = *journal_server(j, i, &name, &len);
	lua_pushlstring(L, name, len);
	lua_createtable(L, 0, JOURNAL_KINDS + 3);
	for (int k = 0; k < JOURNAL_KINDS; k++)
		put(L, journal_kind_name((enum journal_kind)k), c.kinds[k]);
	put(L, "bytes_in", c.bytes_in);
	put(L, "bytes_out", c.bytes_out);
	put(L, "dropped", c.dropped);
	lua_rawset(L, -3);
}

/* journal.info() -> a table */
static int
journal_l_info(lua_State *L)
{
	struct journal *j = check(L);
	struct journal_info i = journal_info(j);

	lua_newtable(L);
	put(L, "limit", i.limit);
	put(L, "bytes", i.bytes);
	put(L, "records", i.records);
	put(L, "first", i.first);
	put(L, "last", i.last);
	put(L, "dropped", i.dropped);
	put(L, "failures", i.failures);
	lua_createtable(L, 0, (int)i.servers);
	for (size_t s = 0; s < i.servers; s++)
		put_counts(L, j, s);
	lua_setfield(L, -2, "servers");
	return 1;
}

/* journal.failures() -> {text, ...}, and how many there were */
static int
journal_l_failures(lua_State *L)
{
	struct journal *j = check(L);
	const char *text;
	size_t len;

	lua_newtable(L);
	for (size_t i = 0; (text = journal_failure(j, i, &len)); i++) {
		lua_pushlstring(L, text, len);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_pushinteger(L, (lua_Integer)journal_info(j).failures);
	return 2;
}

/* journal.limit([bytes]) -> the bound */
static int
journal_l_limit(lua_State *L)
{
	struct journal *j = check(L);
	lua_Integer n;
	int rc;

	if (!lua_isnoneornil(L, 1)) {
		n = luaL_checkinteger(L, 1);
		rc = n < 0 ? -EINVAL : journal_limit(j, (size_t)n);
		luaL_argcheck(L, rc != -EINVAL, 1,
			      "the least bound is 131072 bytes (128 KiB)");
		if (rc < 0)
			return luaL_error(L, "not enough memory");
	}
	lua_pushinteger(L, (lua_Integer)journal_info(j).limit);
	return 1;
}

/* journal.clear([what, ...]): "records", "counts", "verdict"; all */
static int
journal_l_clear(lua_State *L)
{
	static const char *const names[] = {"records", "counts", "verdict", NULL};
	struct journal *j = check(L);
	unsigned what = 0;

	for (int i = lua_gettop(L); i > 0; i--) /* the masks are in that order */
		what |= 1u << luaL_checkoption(L, i, NULL, names);
	journal_clear(j, what ? what : JOURNAL_EVERYTHING);
	return 0;
}

int
open_journal(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"add", journal_l_add},       {"clear", journal_l_clear},
	    {"fail", journal_l_fail},     {"failures", journal_l_failures},
	    {"first", journal_l_first},   {"info", journal_l_info},
	    {"last", journal_l_last},     {"limit", journal_l_limit},
	    {"mark", journal_l_mark},     {"marked", journal_l_marked},
	    {"mask", journal_l_mask},     {"next", journal_l_next},
	    {"open", journal_l_open},     {"wait", journal_l_wait},
	    {"writer", journal_l_writer}, {NULL, NULL},
	};

	check_here(L);
	luaL_newlib(L, functions);
	return 1;
}
