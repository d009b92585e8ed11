/* sys - what the specs need of the system and Lua does not have: processes, sockets
 * with all their edges, and waiting with a limit.  A module for lua5.4; every
 * failing function returns nil, message, errno. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int
fail(lua_State *L)
{
	int err = errno;

	lua_pushnil(L);
	lua_pushstring(L, strerror(err));
	lua_pushinteger(L, err);
	return 3;
}

static int
done(lua_State *L, int rc)
{
	if (rc < 0)
		return fail(L);
	lua_pushinteger(L, rc);
	return 1;
}

static double
clock_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
l_now(lua_State *L)
{
	lua_pushnumber(L, clock_seconds());
	return 1;
}

/* Seconds of user and system time that a process (not its children) has used. */
static int
l_cpu(lua_State *L)
{
	clockid_t id;
	struct timespec t;

	if (clock_getcpuclockid((pid_t)luaL_checkinteger(L, 1), &id) != 0 || clock_gettime(id, &t) < 0)
		return fail(L);
	lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
	return 1;
}

/* ---- processes ---- */

static void
free_strings(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

static char **
strings(lua_State *L, int idx)
{
	size_t n = lua_rawlen(L, idx);
	char **v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++) {
		lua_rawgeti(L, idx, (lua_Integer)i + 1);
		v[i] = strdup(luaL_checkstring(L, -1));
		lua_pop(L, 1);
	}
	return v;
}

static long
option(lua_State *L, const char *name, long otherwise)
{
	long v;

	lua_getfield(L, 2, name);
	v = lua_isnil(L, -1) ? otherwise : (long)lua_tointeger(L, -1);
	lua_pop(L, 1);
	return v;
}

static void
child(char **argv, char **env, const int fds[3], long nofile, long mask, const char *cwd)
{
	struct rlimit rl = {(rlim_t)nofile, (rlim_t)nofile};
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a spec that dies leaves nothing behind */
	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	for (int i = 3; i < 1024; i++)
		close(i);
	if (nofile > 0)
		setrlimit(RLIMIT_NOFILE, &rl);
	if (mask >= 0)
		umask((mode_t)mask);
	if (*cwd && chdir(cwd) < 0)
		_exit(126);
	for (; *env; env++)
		putenv(*env);
	execvp(argv[0], argv);
	_exit(127);
}

/* sys.spawn(argv, {env = {"A=b"}, nofile =, umask =, cwd =, stdin = fd, stdout = fd, stderr = fd}) -> pid */
static int
l_spawn(lua_State *L)
{
	char **argv, **env;
	char cwd[4096] = "";
	int fds[3];
	long nofile, mask;
	pid_t pid;

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TTABLE);
	argv = strings(L, 1);
	lua_getfield(L, 2, "env");
	env = lua_istable(L, -1) ? strings(L, lua_gettop(L)) : calloc(1, sizeof(*env));
	lua_getfield(L, 2, "cwd");
	strncpy(cwd, lua_tostring(L, -1) ? lua_tostring(L, -1) : "", sizeof(cwd) - 1);
	fds[0] = (int)option(L, "stdin", 0);
	fds[1] = (int)option(L, "stdout", 1);
	fds[2] = (int)option(L, "stderr", 2);
	nofile = option(L, "nofile", 0);
	mask = option(L, "umask", -1);
	pid = fork();
	if (pid == 0)
		child(argv, env, fds, nofile, mask, cwd);
	free_strings(argv);
	free_strings(env);
	return done(L, pid);
}

/* sys.wait(pid, seconds) -> exit code, or -signal; nil when it still runs */
static int
l_wait(lua_State *L)
{
	pid_t pid = (pid_t)luaL_checkinteger(L, 1);
	double until = clock_seconds() + luaL_optnumber(L, 2, 0);
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got < 0)
			return fail(L);
		if (got == pid) {
			lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
			return 1;
		}
		if (clock_seconds() >= until)
			break;
		poll(NULL, 0, 2);
	}
	lua_pushnil(L);
	return 1;
}

static int
l_kill(lua_State *L)
{
	static const char *const names[] = {"TERM", "INT",	"HUP",	"USR1", "KILL", "STOP",
					    "CONT", "PIPE", "QUIT", "SEGV", "ABRT", "CHLD",	 "0",	  NULL};
	static const int numbers[] = {SIGTERM, SIGINT,	SIGHUP,	 SIGUSR1, SIGKILL, SIGSTOP,
				      SIGCONT, SIGPIPE, SIGQUIT, SIGSEGV, SIGABRT, SIGCHLD, 0};

	return done(L, kill((pid_t)luaL_checkinteger(L, 1), numbers[luaL_checkoption(L, 2, "TERM", names)]));
}

/* ---- descriptors ---- */

/* sys.pipe() -> read end, write end */
static int
l_pipe(lua_State *L)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail(L);
	lua_pushinteger(L, fds[0]);
	lua_pushinteger(L, fds[1]);
	return 2;
}

/* sys.open(path, "r" | "w" | "rw") -> fd; "rw" opens what is there */
static int
l_open(lua_State *L)
{
	static const char *const names[] = {"r", "w", "rw", NULL};
	static const int modes[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC, O_RDWR};

	return done(L, open(luaL_checkstring(L, 1), modes[luaL_checkoption(L, 2, "r", names)] | O_CLOEXEC, 0600));
}

static int
l_close(lua_State *L)
{
	return done(L, close((int)luaL_checkinteger(L, 1)));
}

/* sys.poll(fd, "r" | "w", seconds) -> true when ready, false at the limit */
static int
l_poll(lua_State *L)
{
	struct pollfd p = {.fd = (int)luaL_checkinteger(L, 1),
			   .events = *luaL_optstring(L, 2, "r") == 'w' ? POLLOUT : POLLIN};
	int n = poll(&p, 1, (int)(luaL_optnumber(L, 3, 5) * 1000));

	if (n < 0)
		return fail(L);
	lua_pushboolean(L, n > 0);
	return 1;
}

/* sys.ready({fd, ...}, seconds) -> those that can be read, at most 2048 at a time */
static int
l_ready(lua_State *L)
{
	struct pollfd p[2048];
	nfds_t count = (nfds_t)luaL_len(L, 1);
	int n, at = 0;

	luaL_argcheck(L, count <= sizeof(p) / sizeof(*p), 1, "too many");
	for (nfds_t i = 0; i < count; i++) {
		lua_rawgeti(L, 1, (lua_Integer)i + 1);
		p[i] = (struct pollfd){.fd = (int)lua_tointeger(L, -1), .events = POLLIN};
		lua_pop(L, 1);
	}
	n = poll(p, count, (int)(luaL_optnumber(L, 2, 5) * 1000));
	if (n < 0)
		return fail(L);
	lua_createtable(L, n, 0);
	for (nfds_t i = 0; i < count; i++) {
		if (!p[i].revents)
			continue;
		lua_pushinteger(L, p[i].fd);
		lua_rawseti(L, -2, ++at);
	}
	return 1;
}

/* sys.read(fd, n): also for pipes; "" at the end */
static int
l_read(lua_State *L)
{
	size_t max = (size_t)luaL_optinteger(L, 2, 65536);
	luaL_Buffer b;
	ssize_t n = read((int)luaL_checkinteger(L, 1), luaL_buffinitsize(L, &b, max), max);

	if (n < 0)
		return fail(L);
	luaL_pushresultsize(&b, (size_t)n);
	return 1;
}

static int
l_write(lua_State *L)
{
	size_t n;
	const char *p = luaL_checklstring(L, 2, &n);

	return done(L, (int)write((int)luaL_checkinteger(L, 1), p, n));
}

/* ---- sockets ---- */

/* A URL's address: tcp://HOST:PORT, udp://, unix://PATH, unix://@NAME, unixgram:// */
static socklen_t
address(lua_State *L, const char *url, struct sockaddr_storage *ss, int *type)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;
	struct sockaddr_un *un = (void *)ss;
	const char *rest = strstr(url, "://");
	char host[128];
	int port = 0;
	size_t n;

	memset(ss, 0, sizeof(*ss));
	luaL_argcheck(L, rest != NULL, 1, "not a URL");
	rest += 3;
	*type = strncmp(url, "udp", 3) == 0 || strncmp(url, "unixgram", 8) == 0 ? SOCK_DGRAM : SOCK_STREAM;
	if (strncmp(url, "unix", 4) == 0) {
		n = strlen(rest);
		if (n > sizeof(un->sun_path))
			n = sizeof(un->sun_path);
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, rest, n);
		if (*rest == '@')
			un->sun_path[0] = 0;
		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	}
	n = (size_t)(strrchr(rest, ':') - rest);
	port = atoi(rest + n + 1);
	if (*rest == '[')
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, rest + 1);
	else
		snprintf(host, sizeof(host), "%.*s", (int)n, rest);
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		return sizeof(*in);
	}
	luaL_argcheck(L, inet_pton(AF_INET6, host, &in6->sin6_addr) == 1, 1, "not an IP address");
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	return sizeof(*in6);
}

/* sys.socket(url): an unconnected, non-blocking socket of that kind */
static int
l_socket(lua_State *L)
{
	struct sockaddr_storage ss;
	int type;

	address(L, luaL_checkstring(L, 1), &ss, &type);
	return done(L, socket(ss.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

/* sys.connect(fd, url): may return nil, _, EINPROGRESS (115) */
static int
l_connect(lua_State *L)
{
	struct sockaddr_storage ss;
	int type;
	socklen_t n = address(L, luaL_checkstring(L, 2), &ss, &type);

	return done(L, connect((int)luaL_checkinteger(L, 1), (void *)&ss, n));
}

static int
l_bind(lua_State *L)
{
	struct sockaddr_storage ss;
	int type;
	socklen_t n = address(L, luaL_checkstring(L, 2), &ss, &type);

	return done(L, bind((int)luaL_checkinteger(L, 1), (void *)&ss, n));
}

static int
l_listen(lua_State *L)
{
	return done(L, listen((int)luaL_checkinteger(L, 1), (int)luaL_optinteger(L, 2, 16)));
}

static int
l_accept(lua_State *L)
{
	return done(L, accept4((int)luaL_checkinteger(L, 1), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

/* sys.send(fd, data, "oob" | nil) -> count */
static int
l_send(lua_State *L)
{
	size_t n;
	const char *p = luaL_checklstring(L, 2, &n);

	return done(L, (int)send((int)luaL_checkinteger(L, 1), p, n,
				 MSG_NOSIGNAL | (lua_toboolean(L, 3) ? MSG_OOB : 0)));
}

static int
l_recv(lua_State *L)
{
	size_t max = (size_t)luaL_optinteger(L, 2, 65536);
	luaL_Buffer b;
	ssize_t n = recv((int)luaL_checkinteger(L, 1), luaL_buffinitsize(L, &b, max), max, 0);

	if (n < 0)
		return fail(L);
	luaL_pushresultsize(&b, (size_t)n);
	return 1;
}

static int
l_sendto(lua_State *L)
{
	struct sockaddr_storage ss;
	size_t n;
	const char *p = luaL_checklstring(L, 2, &n);
	int type;
	socklen_t len = address(L, luaL_checkstring(L, 3), &ss, &type);

	return done(L, (int)sendto((int)luaL_checkinteger(L, 1), p, n, MSG_NOSIGNAL, (void *)&ss, len));
}

static void
push_name(lua_State *L, const struct sockaddr_storage *ss, socklen_t len)
{
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;
	const struct sockaddr_un *un = (const void *)ss;
	char text[64];

	if (ss->ss_family == AF_UNIX) {
		lua_pushlstring(L, un->sun_path, len - offsetof(struct sockaddr_un, sun_path));
		lua_pushinteger(L, 0);
		return;
	}
	if (ss->ss_family == AF_INET) {
		lua_pushstring(L, inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)));
		lua_pushinteger(L, ntohs(in->sin_port));
	} else {
		lua_pushstring(L, inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)));
		lua_pushinteger(L, ntohs(in6->sin6_port));
	}
}

/* sys.recvfrom(fd) -> data, host or path, port */
static int
l_recvfrom(lua_State *L)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	static char buf[70000];
	ssize_t n = recvfrom((int)luaL_checkinteger(L, 1), buf, sizeof(buf), 0, (void *)&ss, &len);

	if (n < 0)
		return fail(L);
	lua_pushlstring(L, buf, (size_t)n);
	push_name(L, &ss, len);
	return 3;
}

/* sys.name(fd) -> host or path, port */
static int
l_name(lua_State *L)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (getsockname((int)luaL_checkinteger(L, 1), (void *)&ss, &len) < 0)
		return fail(L);
	push_name(L, &ss, len);
	return 2;
}

static int
l_shutdown(lua_State *L)
{
	return done(L, shutdown((int)luaL_checkinteger(L, 1), SHUT_WR));
}

/* sys.reset(fd): closes with a reset, not a FIN */
static int
l_reset(lua_State *L)
{
	int fd = (int)luaL_checkinteger(L, 1);
	struct linger l = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	return done(L, close(fd));
}

/* sys.bufsize(fd, receive, send) */
static int
l_bufsize(lua_State *L)
{
	int fd = (int)luaL_checkinteger(L, 1), in = (int)luaL_optinteger(L, 2, 0), out = (int)luaL_optinteger(L, 3, 0);

	if (in > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &in, sizeof(in));
	if (out > 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &out, sizeof(out));
	return 0;
}

/* sys.nodelay(fd) */
static int
l_nodelay(lua_State *L)
{
	int one = 1;

	return done(L, setsockopt((int)luaL_checkinteger(L, 1), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
}

/* sys.error(fd) -> errno of the socket */
static int
l_error(lua_State *L)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt((int)luaL_checkinteger(L, 1), SOL_SOCKET, SO_ERROR, &err, &len);
	lua_pushinteger(L, err);
	return 1;
}

/* ---- files ---- */

/* sys.stat(path) -> {type =, mode =, ino =, size =} */
static int
l_stat(lua_State *L)
{
	struct stat st;

	if (lstat(luaL_checkstring(L, 1), &st) < 0)
		return fail(L);
	lua_newtable(L);
	lua_pushstring(L, S_ISSOCK(st.st_mode) ? "socket" : S_ISDIR(st.st_mode) ? "folder" : S_ISLNK(st.st_mode) ? "link" : "file");
	lua_setfield(L, -2, "type");
	lua_pushinteger(L, st.st_mode & 07777);
	lua_setfield(L, -2, "mode");
	lua_pushinteger(L, (lua_Integer)st.st_ino);
	lua_setfield(L, -2, "ino");
	lua_pushinteger(L, st.st_size);
	lua_setfield(L, -2, "size");
	return 1;
}

/* sys.list(folder) -> the names in it */
static int
l_list(lua_State *L)
{
	DIR *d = opendir(luaL_checkstring(L, 1));
	struct dirent *e;
	int n = 0;

	if (!d)
		return fail(L);
	lua_newtable(L);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		lua_pushstring(L, e->d_name);
		lua_rawseti(L, -2, ++n);
	}
	closedir(d);
	return 1;
}

static int
l_readlink(lua_State *L)
{
	char to[4096];
	ssize_t n = readlink(luaL_checkstring(L, 1), to, sizeof(to));

	if (n < 0)
		return fail(L);
	lua_pushlstring(L, to, (size_t)n);
	return 1;
}

static int
l_mkfifo(lua_State *L)
{
	return done(L, mkfifo(luaL_checkstring(L, 1), 0600));
}

static int
l_mkdtemp(lua_State *L)
{
	char path[] = "/tmp/moonport-spec-XXXXXX";

	if (!mkdtemp(path))
		return fail(L);
	lua_pushstring(L, path);
	return 1;
}

static int
l_symlink(lua_State *L)
{
	return done(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

static int
l_chmod(lua_State *L)
{
	return done(L, chmod(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)));
}

static int
l_isroot(lua_State *L)
{
	lua_pushboolean(L, geteuid() == 0);
	return 1;
}

__attribute__((visibility("default"))) int luaopen_sys(lua_State *L);

int
luaopen_sys(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"accept", l_accept}, {"bind", l_bind}, {"bufsize", l_bufsize}, {"chmod", l_chmod},
	    {"close", l_close}, {"connect", l_connect}, {"cpu", l_cpu}, {"error", l_error},
	    {"isroot", l_isroot}, {"kill", l_kill}, {"list", l_list}, {"listen", l_listen},
	    {"mkdtemp", l_mkdtemp}, {"mkfifo", l_mkfifo}, {"name", l_name}, {"nodelay", l_nodelay},
	    {"now", l_now}, {"open", l_open}, {"pipe", l_pipe}, {"poll", l_poll}, {"read", l_read},
	    {"readlink", l_readlink}, {"ready", l_ready}, {"recv", l_recv}, {"recvfrom", l_recvfrom},
	    {"reset", l_reset}, {"send", l_send}, {"sendto", l_sendto}, {"shutdown", l_shutdown},
	    {"socket", l_socket}, {"spawn", l_spawn}, {"stat", l_stat}, {"symlink", l_symlink},
	    {"wait", l_wait}, {"write", l_write}, {NULL, NULL},
	};

	luaL_newlib(L, functions);
	return 1;
}
