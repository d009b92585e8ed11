/* Servers that come and go on a running host, and what takes hold of them from outside. */
#include "server/listening.h"
#include "server/roster.h"

#include "base/clock.h"
#include "bind/stream.h"
#include "script/plain.h"
#include "script/script.h"
#include "server/calls.h"
#include "server/connection.h"
#include "server/host.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/unit.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CYCLES = 1000, BIG = 4 << 20 };

static char path[] = "/tmp/moonport-unit-XXXXXX";
static char why[SCRIPT_ERROR];
static struct host h;
static struct unit *u;
static struct attrs attrs;

static const char FIRST[] =
    "local M = { n = 0 }\n"
    "function M.control(op, data)\n"
    "  if op == 'fail' then error('no such thing', 0) end\n"
    "  if op == 'table' then error({ status = 404, message = data }) end\n"
    "  M.n = M.n + 1\n"
    "  return { op = op, data = data, n = M.n, server = kept and pcall(function() return "
    "kept:stats() end) "
    "}\n"
    "end\n"
    "package.loaded['moonport.mock'] = M\n"
    "local H = {}\n"
    "function H:handle()\n"
    "  kept = self.server\n"
    "  if self.packet then self.wfile:write(self.packet) return end\n"
    "  for line in self.rfile:lines('L') do\n"
    "    if line == 'big\\n' then self.request:sendall(('x'):rep(4 * 1024 * 1024))\n"
    "    else self.wfile:write(line) end\n"
    "  end\n"
    "end\n"
    "function H.save() return { n = M.n } end\n"
    "function H.init(data) M.n = data.n end\n"
    "return H\n";

static void
turn(void)
{
	loop_turn(h.engine.loop, clock_after(clock_now(), 0.001));
}

static void
turns(int n)
{
	while (n-- > 0)
		turn();
}

static int
open_server(const char *name, const char *text, struct server **s)
{
	struct url url;

	*why = 0;
	CHECK(url_parse(text, strlen(text), &url, why, sizeof(why)) == 0);
	return host_open(&h, u, name, &url, policy_find("async"), &attrs, s, why,
			 sizeof(why));
}

/* A client's descriptor, or -errno. */
static int
join(const struct addr *a, int type)
{
	int fd = socket(a->ss.ss_family, type | SOCK_CLOEXEC, 0);
	int rc = connect(fd, addr_sa(a), a->len) < 0 ? -errno : 0;

	if (rc < 0) {
		close(fd);
		return rc;
	}
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Reads n bytes while the host runs; how many came before the end, or -errno. */
static ssize_t
take(int fd, char *p, size_t n)
{
	size_t got = 0;
	ssize_t rc;

	for (int i = 0; i < 3000 && got < n; i++) {
		rc = recv(fd, p + got, n - got, MSG_DONTWAIT);
		if (rc == 0)
			break;
		if (rc < 0 && errno != EAGAIN)
			return -errno;
		if (rc > 0)
			got += (size_t)rc;
		turn();
	}
	return (ssize_t)got;
}

static bool
echoes(int fd)
{
	char back[8];

	return send(fd, "hello!\n", 7, MSG_NOSIGNAL) == 7 && take(fd, back, 7) == 7 &&
	       memcmp(back, "hello!\n", 7) == 0;
}

static size_t
descriptors(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- coming and going ---- */

static void
names(void)
{
	struct server *a, *b;
	struct addr was;
	char url[ADDR_TEXT];
	int fd;

	CHECK(open_server("a", "tcp://127.0.0.1:0", &a) == 0);
	CHECK(host_server(&h, "a") == a && host_next(&h, NULL) == a);
	CHECK(open_server("a", "tcp://127.0.0.1:0", &b) == -EEXIST &&
	      strcmp(why, "there is a server named a already") == 0);
	addr_url(&a->site.view.addr, TRANSPORT_TCP, url, sizeof(url));
	CHECK(open_server("b", url, &b) == -EADDRINUSE && strstr(why, url));
	was = a->site.view.addr;
	fd = join(&was, SOCK_STREAM);
	CHECK(echoes(fd));
	host_close(a);
	CHECK(!host_server(&h, "a") && !host_next(&h, NULL));
	CHECK(join(&was, SOCK_STREAM) == -ECONNREFUSED);
	CHECK(open_server("a", url, &b) == 0 && b != a);
	CHECK(take(fd, url, 1) == 0); /* an orderly end */
	close(fd);
	host_close(b);
	host_close(b);
	turns(3);
	CHECK(list_empty(&h.servers));
}

/* The same again and again: nothing grows. */
static void
cycles(void)
{
	static const char *const urls[] = {"tcp://127.0.0.1:0", "udp://127.0.0.1:0",
					   "unix://@%s/c", "unixgram://@%s/d"};
	size_t fds = 0, timers = 0, memory = 0, used;
	struct server *s;
	char text[128];
	int fd = -1;

	for (int i = 0; i < CYCLES; i++) {
		snprintf(text, sizeof(text), urls[i % 4], path);
		if (open_server("cycle", text, &s) < 0) {
			CHECK(!"opening");
			return;
		}
		if (i % 8 == 0)
			fd = join(&s->site.view.addr, SOCK_STREAM);
		if (i % 8 == 0 && i % 16 == 0)
			CHECK(echoes(fd));
		if (i % 3 == 0)
			CHECK(listening_enable(s, false, why, sizeof(why)) == 0);
		host_close(s);
		turns(1 + i % 3);
		if (i % 8 == 0)
			close(fd);
		if (i % 100 != 99)
			continue;
		turns(3);
		lua_gc(u->script->state.L, LUA_GCCOLLECT);
		used = u->script->state.alloc.used;
		if (i < 200) {
			memory = used;
			fds = descriptors();
			timers = engine_timers(&h.engine);
		}
		CHECK(used < memory + 8192 && descriptors() == fds &&
		      engine_timers(&h.engine) == timers);
	}
	CHECK(list_empty(&h.servers) && h.engine.sched.ntasks == 0);
}

/* ---- refusing ---- */

static void
enables(const char *format, bool stream)
{
	int type = stream ? SOCK_STREAM : SOCK_DGRAM, fd, other;
	struct server *s;
	struct addr a;
	char text[128];

	snprintf(text, sizeof(text), format, path);
	CHECK(open_server("door", text, &s) == 0);
	a = s->site.view.addr;
	fd = join(&a, type);
	CHECK(!stream || echoes(fd));
	for (int i = 0; i < 2; i++) {
		CHECK(listening_enable(s, false, why, sizeof(why)) == 0);
		CHECK(listening_enable(s, false, why, sizeof(why)) == 0);
		turns(2);
		other = join(&a, type);
		if (s->site.view.transport == TRANSPORT_UDP)
			CHECK(other >= 0 && send(other, "x", 1, 0) == 1 &&
			      recv(other, text, 1, 0) < 0 && errno == ECONNREFUSED);
		else
			CHECK(other == -ECONNREFUSED);
		if (other >= 0)
			close(other);
		CHECK(!stream || echoes(fd));
		CHECK(listening_enable(s, true, why, sizeof(why)) == 0);
		other = join(&a, type);
		CHECK(other >= 0 && (addr_is_unix(&a) && !stream ? true : echoes(other)));
		close(other);
	}
	close(fd);
	host_close(s);
	turns(3);
}

/* ---- reloads ---- */

struct outcome {
	struct reload_ask ask;
	int n;
	unsigned number;
	char why[SCRIPT_ERROR];
};

static void
told(struct reload_ask *a, unsigned number, const char *text)
{
	struct outcome *o = LIST_ENTRY(a, struct outcome, ask);

	o->n++;
	o->number = number;
	snprintf(o->why, sizeof(o->why), "%s", text ? text : "");
}

static void
settle(struct outcome *o)
{
	for (int i = 0; i < 1000 && o->n == 0; i++)
		turn();
	CHECK(o->n == 1);
}

/* One server goes and another comes in the middle of each reload, ever later in it. */
static void
between(void)
{
	struct outcome o;
	struct server *s, *keep;
	int fd;

	CHECK(open_server("keep", "tcp://127.0.0.1:0", &keep) == 0);
	for (int late = 0; late < 6; late++) {
		CHECK(open_server("goes", "tcp://127.0.0.1:0", &s) == 0);
		fd = join(&s->site.view.addr, SOCK_STREAM);
		CHECK(echoes(fd));
		o = (struct outcome){.ask.told = told};
		reload_ask(u, &o.ask);
		turns(late);
		host_close(s);
		CHECK(open_server("goes", "tcp://127.0.0.1:0", &s) == 0);
		settle(&o);
		CHECK(o.number == u->script->number);
		CHECK(s->site.script == u->script && keep->site.script == u->script);
		close(fd);
		fd = join(&s->site.view.addr, SOCK_STREAM);
		CHECK(echoes(fd));
		close(fd);
		host_close(s);
		turns(3);
	}
	host_close(keep);
	turns(100);
	CHECK(list_empty(&h.servers) && list_empty(&u->retired));
}

static void
texts(void)
{
	static const char bad[] = "-- one\n\nreturn nothing.here\n",
			  good[] = "return { handle = function() end, name = 'given' }\n";
	struct outcome o = {.ask.told = told}, p = {.ask.told = told}, q = o;
	char place[64];

	CHECK(reload_text(u, &o.ask, bad, sizeof(bad) - 1) == 0);
	settle(&o);
	snprintf(place, sizeof(place), "%s:3:", path);
	CHECK(o.number == 0 && strstr(o.why, place));
	o = q;
	CHECK(reload_text(u, &o.ask, good, sizeof(good) - 1) == 0);
	CHECK(reload_text(u, &p.ask, bad, sizeof(bad) - 1) == 0);
	reload_ask(u, &q.ask);
	settle(&o);
	CHECK(o.number > 0 && p.n == 0 && q.n == 0);
	settle(&p);
	CHECK(p.number == 0 && u->script->number == o.number);
	settle(&q);
	CHECK(q.number == o.number + 1); /* the file again */
	lua_rawgeti(u->script->state.L, LUA_REGISTRYINDEX, u->script->handler_ref);
	CHECK(lua_getfield(u->script->state.L, -1, "name") == LUA_TNIL);
	lua_pop(u->script->state.L, 2);
}

/* ---- calls ---- */

struct answer {
	int n;
	bool failed;
	struct buf data;
	char why[SCRIPT_ERROR];
};

static void
answered(struct call *c)
{
	struct answer *a = c->asker;

	a->n++;
	a->failed = c->failed;
	a->data = c->data;
	c->data = (struct buf){0};
	snprintf(a->why, sizeof(a->why), "%s", c->why);
}

static struct call *
ask(lua_State *L, const char *op, struct answer *a)
{
	struct buf data = {0};

	*a = (struct answer){0};
	lua_pushstring(L, "what");
	plain_write(L, -1, &data);
	lua_pop(L, 1);
	return call_ask(u, op, &data, answered, a);
}

/* Leaves the answer on the stack. */
static void
await(lua_State *L, struct answer *a)
{
	for (int i = 0; i < 1000 && a->n == 0; i++)
		turn();
	CHECK(a->n == 1 && !*a->why);

	if (a->n == 1 && !*a->why)
		plain_read(L, buf_data(&a->data), buf_len(&a->data));
	buf_free(&a->data);
}

static void
calls(void)
{
	lua_State *L = luaL_newstate();
	struct answer a[4];
	struct outcome o = {.ask.told = told};
	struct call *c;

	(void)ask(L, "fail", a);
	(void)ask(L, "table", a + 1);
	(void)ask(L, "one", a + 2);
	c = ask(L, "never", a + 3);
	call_withdraw(c);
	await(L, a);
	CHECK(a[0].failed && strcmp(lua_tostring(L, -1), "no such thing") == 0);
	await(L, a + 1);
	CHECK(a[1].failed && lua_getfield(L, -1, "status") == LUA_TNUMBER);
	await(L, a + 2);
	CHECK(!a[2].failed && lua_getfield(L, -1, "n") == LUA_TNUMBER);
	CHECK(a[3].n == 0);
	/* What a call changes in the middle of a reload is not lost. */
	for (int late = 0; late < 8; late++) {
		lua_Integer before = lua_tointeger(L, -1);
		o = (struct outcome){.ask.told = told};
		reload_ask(u, &o.ask);
		turns(late);
		(void)ask(L, "count", a);
		await(L, a);
		settle(&o);
		(void)ask(L, "count", a);
		await(L, a);
		lua_getfield(L, -1, "n");
		CHECK(lua_tointeger(L, -1) == before + 2);
	}
	(void)ask(L, "cut off", a);
	calls_end(u, "the server stops");
	CHECK(a[0].n == 1 && strcmp(a[0].why, "the server stops") == 0);
	buf_free(&a[0].data);
	lua_close(L);
}

/* An object that outlives its server says so. */
static void
objects(void)
{
	lua_State *L = luaL_newstate();
	struct server *s;
	struct answer a;
	int fd;

	CHECK(open_server("short", "tcp://127.0.0.1:0", &s) == 0);
	fd = join(&s->site.view.addr, SOCK_STREAM);
	CHECK(echoes(fd));
	(void)ask(L, "alive", &a);
	await(L, &a);
	CHECK(lua_getfield(L, -1, "server") == LUA_TBOOLEAN && lua_toboolean(L, -1));
	host_close(s);
	turns(3);
	(void)ask(L, "dead", &a);
	await(L, &a);
	CHECK(lua_getfield(L, -1, "server") == LUA_TBOOLEAN && !lua_toboolean(L, -1));
	close(fd);
	lua_close(L);
}

/* ---- connections ---- */

static struct request *
only(struct server *s)
{
	struct request *r = LIST_ENTRY(s->site.requests.next, struct request, link);

	stream_set_conn(request_stream(r), 7);
	return r;
}

static void
pushes(struct server *s)
{
	char *big = malloc(BIG + 16);
	int fd = join(&s->site.view.addr, SOCK_STREAM);
	size_t at = 0;

	CHECK(big && echoes(fd));
	only(s);
	CHECK(host_connection(&h, 7) && !host_connection(&h, 8));
	CHECK(connection_push(host_connection(&h, 7), "now", 3, why, sizeof(why)) == 0);
	CHECK(take(fd, big, 3) == 3 && memcmp(big, "now", 3) == 0);
	/* In the middle of a write: behind it. */
	CHECK(send(fd, "big\n", 4, 0) == 4);
	while (!stream_writer(request_stream(only(s))))
		turn();
	CHECK(connection_push(only(s), "pushed", 6, why, sizeof(why)) == 0);
	CHECK(send(fd, "next\n", 5, 0) == 5);
	CHECK(take(fd, big, BIG + 11) == BIG + 11);
	while (at < BIG && big[at] == 'x')
		at++;
	CHECK(at == BIG && memcmp(big + BIG, "pushednext\n", 11) == 0);
	/* A peer that does not read: bounded. */
	for (at = 0; at < 64 && connection_push(only(s), big, BIG, why, sizeof(why)) == 0;
	     at++)
		;
	CHECK(at >= 3 && at < 16 && strstr(why, "connection 7 has"));
	connection_kill(only(s), true);
	turns(3);
	CHECK(list_empty(&s->site.requests));
	while (recv(fd, big, BIG, 0) > 0)
		;
	CHECK(errno == ECONNRESET);
	close(fd);
	free(big);
}

static void
kills(struct server *s)
{
	char c;
	int fd = join(&s->site.view.addr, SOCK_STREAM);

	CHECK(echoes(fd));
	connection_kill(only(s), false);
	CHECK(take(fd, &c, 1) == 0);
	turns(2);
	CHECK(list_empty(&s->site.requests));
	close(fd);
	fd = join(&s->site.view.addr, SOCK_STREAM);
	CHECK(echoes(fd));
	connection_kill(only(s), true);
	CHECK(take(fd, &c, 1) == -ECONNRESET);
	turns(2);
	CHECK(list_empty(&s->site.requests));
	close(fd);
}

static void
connections(void)
{
	struct server *s;

	CHECK(open_server("peer", "tcp://127.0.0.1:0", &s) == 0);
	pushes(s);
	kills(s);
	host_close(s);
	turns(3);
}

void
test_roster(void)
{
	struct log log = {.fd = STDERR_FILENO, .level = LOG_ERROR + 1};
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, FIRST, sizeof(FIRST) - 1) < 0 ||
	    host_init(&h, &log, "") < 0) {
		CHECK(!"a host");
		return;
	}
	close(fd);
	attrs_init(&attrs);
	CHECK(host_unit_load(&h, path, &attrs, &u, why, sizeof(why)) == 0);
	CHECK(host_begin(&h, why, sizeof(why)) == 0);
	names();
	cycles();
	enables("tcp://127.0.0.1:0", true);
	enables("udp://127.0.0.1:0", false);
	enables("unix://%s.s", true);
	enables("unixgram://%s.d", false);
	between();
	texts();
	calls();
	objects();
	connections();
	host_free(&h);
	CHECK(unlink(path) == 0);
}
