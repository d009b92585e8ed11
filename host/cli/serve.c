#include "cli/serve.h"

#include "cli/mock.h"
#include "cli/options.h"
#include "cli/parent.h"
#include "cli/ready.h"
#include "cli/watching.h"
#include "loop/signals.h"
#include "script/script.h"
#include "server/admin.h"
#include "server/control.h"
#include "server/host.h"
#include "server/master.h"
#include "server/server.h"
#include "server/stats.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What `serve` holds besides the host. */
struct serving {
	struct host host;
	struct master *master; /* NULL: no workers */
	struct signals signals;
	struct parent parent;      /* --exit-with-parent */
	struct watching *watching; /* NULL: not asked for */
	struct control control;
	char *token; /* of the control API, or NULL */
};

int
complain(int rc, const char *why)
{
	if (*why)
		fprintf(stderr, "moonport: %s\n", why);
	return rc == -EINVAL || rc == -EISDIR ? EXIT_USAGE : EXIT_SYSTEM;
}

int
cannot_start(int rc)
{
	char why[160];

	snprintf(why, sizeof(why), "cannot start: %s", strerror(-rc));
	return complain(rc, why);
}

/* ---- the host, or its workers ---- */

static void
drain(struct serving *sv)
{
	if (sv->master)
		master_drain(sv->master);
	else
		host_drain(&sv->host);
}

static void
stop(struct serving *sv)
{
	if (sv->master)
		master_stop(sv->master);
	else
		host_stop(&sv->host);
}

static void
log_tasks(struct serving *sv)
{
	if (sv->master)
		master_log_tasks(sv->master);
	else
		host_log_tasks(&sv->host);
}

static void
on_signal(void *arg, int signo)
{
	struct serving *sv = arg;

	switch (signo) {
	case SIGHUP:
		host_reload(&sv->host);
		break;
	case SIGUSR1:
		log_tasks(sv);
		break;
	default:
		if (sv->host.draining)
			stop(sv);
		else
			drain(sv);
	}
}

static void
on_parent_gone(struct parent *p)
{
	drain(LIST_ENTRY(p, struct serving, parent));
}

/* As many descriptors as the system allows; scripts' own limits come from attributes. */
static void
raise_descriptor_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static void
log_listening(struct host *h)
{
	char url[ADDR_TEXT];

	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		const struct server *s = LIST_ENTRY(l, struct server, link);
		addr_url(&s->site.view.addr, s->site.view.transport, url, sizeof(url));
		struct log_field f[] = {log_str("server", s->site.view.name),
					log_str("class", s->class_name),
					log_str("url", url),
					log_str("script", s->site.script->path),
					{0}};
		log_event(h->engine.log, LOG_INFO, "listening", f);
	}
}

/* What is still alive after a drain: all zero, or something has leaked. */
static void
log_stopped(struct serving *sv)
{
	static const struct leftovers none;
	const struct leftovers *left =
	    sv->master ? &sv->master->boards.memory->left : &none;
	struct host *h = &sv->host;
	struct counters all = {0}, one;

	for (struct list *l = h->servers.next; l != &h->servers; l = l->next) {
		stats_count(LIST_ENTRY(l, struct server, link), &one);
		counters_add(&all, &one);
	}
	struct log_field f[] = {
	    log_int("requests", (int64_t)count_get(&all.requests)),
	    log_int("errors", (int64_t)count_get(&all.errors)),
	    log_int("tasks", (int64_t)(h->engine.sched.ntasks + left->tasks)),
	    log_int("streams", (int64_t)(h->engine.io.streams.taken + left->streams)),
	    log_int("descriptors",
		    (int64_t)(loop_live_fds(h->engine.loop) + left->descriptors)),
	    log_int("timers", (int64_t)(engine_timers(&h->engine) + left->timers)),
	    log_int("buffered", (int64_t)(h->engine.io.gathered + left->buffered)),
	    {0},
	};
	log_event(h->engine.log, LOG_INFO, "stopped", f);
}

static int
add_scripts(struct host *h, const struct options *o, char *why, size_t size)
{
	struct server *s;
	int rc;

	for (int i = 0; i < o->nentries; i++) {
		const struct entry *e = &o->entries[i];
		for (int k = 0; k < e->listens.n; k++) {
			rc = host_add(h, e->script, &e->listens.urls[k], e->policy,
				      &e->attrs, &s, why, size);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

/* The control API, if it is asked for. */
static int
add_admin(struct serving *sv, const struct options *o, char *why, size_t size)
{
	const struct admin_choice *a = &o->admin;
	struct control_options c = {.how = "--admin-token-file PATH, or "
					   "MOONPORT_ADMIN_TOKEN in the environment",
				    .hosts = a->hosts,
				    .nhosts = (size_t)a->nhosts,
				    .allow_script_upload = a->allow_script_upload};
	int rc = admin_read_token(a, &sv->token, why, size);

	c.token = sv->token;
	if (rc < 0 || !a->on)
		return rc;
	return admin_open(&sv->host, &sv->control, &c, &o->common.attrs, &a->url, why,
			  size);
}

static int
add_all(struct serving *sv, const struct options *o, char *why, size_t size)
{
	int rc = add_admin(sv, o, why, size);

	if (rc < 0)
		return rc;
	return o->command == COMMAND_MOCK ? mock_add_all(&sv->host, o, why, size)
					  : add_scripts(&sv->host, o, why, size);
}

static void
on_reloaded(struct host *h, struct unit *u, const struct sources *tried)
{
	watching_reloaded(LIST_ENTRY(h, struct serving, host)->watching, u, tried);
}

static int
tell_ready(struct serving *sv, const struct options *o, char *why, size_t size)
{
	int rc = o->ready_file ? ready_write(&sv->host, o->ready_file) : 0;

	if (rc < 0) {
		snprintf(why, size, "cannot write the ready file %s: %s", o->ready_file,
			 strerror(-rc));
		return -EIO;
	}
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !o->ready_file)
		ready_greet(&sv->host);
	return 0;
}

static void
stop_watching(struct serving *sv)
{
	sv->host.reloaded = NULL;
	watching_end(sv->watching);
	sv->watching = NULL;
}

static int
catch_signals(struct serving *sv, char *why, size_t size)
{
	static const int signos[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
	int rc = signals_open(&sv->signals, sv->host.engine.loop, signos,
			      sizeof(signos) / sizeof(*signos), on_signal, sv);

	if (rc < 0)
		snprintf(why, size, "cannot start: %s", strerror(-rc));
	return rc;
}

/* Every listener accepts. */
static int
announce(struct serving *sv, const struct options *o, char *why, size_t size)
{
	int rc;

	log_listening(&sv->host);
	if (o->watch) {
		rc = watching_begin(&sv->watching, &sv->host, why, size);
		if (rc < 0)
			return rc;
		sv->host.reloaded = on_reloaded;
	}
	rc = tell_ready(sv, o, why, size);
	if (rc < 0)
		return rc;
	if (o->exit_with_parent)
		parent_watch(&sv->parent, sv->host.engine.loop, on_parent_gone);
	return 0;
}

static void
finish(struct serving *sv)
{
	stop_watching(sv);
	parent_forget(&sv->parent);
	signals_close(&sv->signals);
	log_stopped(sv);
}

/* Serves in this process. */
static int
serve(struct serving *sv, const struct options *o, char *why, size_t size)
{
	int rc = catch_signals(sv, why, size); /* before there are children */

	if (rc == 0)
		rc = host_begin(&sv->host, why, size);
	if (rc == 0)
		rc = announce(sv, o, why, size);
	if (rc < 0)
		return rc;
	host_run(&sv->host);
	finish(sv);
	return 0;
}

/* Has workers serve.  Returns in each of them as well, when it has ended. */
static int
serve_by_workers(struct serving *sv, const struct options *o, char *why, size_t size)
{
	struct master m;
	int rc = master_init(&m, &sv->host, (unsigned)o->workers, why, size);

	sv->master = &m;
	if (rc == 0)
		rc = catch_signals(sv, why, size);
	if (rc == 0)
		rc = master_start(&m, why, size);
	if (rc == 0 && !m.draining)
		rc = announce(sv, o, why, size);
	if (rc == 0)
		rc = master_run(&m);
	if (rc == MASTER_FORKED) {
		sv->signals.pipe.fd = -1; /* the master's */
		parent_reborn(&sv->parent);
		sv->host.reloaded = NULL;
		watching_forget(sv->watching);
		sv->watching = NULL;
		rc = member_run(&m.member);
		*why = 0; /* the master knows */
	} else if (rc == 0)
		finish(sv);
	master_free(&m);
	return rc;
}

/* Whose sockets' paths go away when a handler ends the process by os.exit: there is no
 * other way to find them then.  NULL: they are gone. */
static struct host *_Atomic served;

/* In whichever thread; the others go on.  A forked child's copy stands for nothing. */
static void
at_exit(void)
{
	struct host *h = served;

	if (!h || h->pid != getpid())
		return;
	for (struct list *l = h->servers.next; l != &h->servers; l = l->next)
		listener_remove_path(&LIST_ENTRY(l, struct server, link)->listener);
}

int
serve_command(const struct options *o, struct log *log, const char *lua_path)
{
	struct serving sv = {.signals.pipe.fd = -1};
	char why[SCRIPT_ERROR];
	int rc, code = EXIT_DONE;

	parent_init(&sv.parent);
	raise_descriptor_limit();
	signal(SIGCHLD, SIG_DFL); /* ignored, it would hide how children end */
	rc = host_init(&sv.host, log, lua_path);
	if (rc < 0)
		return cannot_start(rc);
	served = &sv.host;
	(void)atexit(at_exit);
	sv.host.sandbox = o->sandbox;
	sv.host.strict = o->strict;
	sv.host.tuning = o->tuning;
	rc = add_all(&sv, o, why, sizeof(why));
	if (rc == 0)
		rc = o->workers ? serve_by_workers(&sv, o, why, sizeof(why))
				: serve(&sv, o, why, sizeof(why));
	if (sv.signals.pipe.fd >= 0) /* the start has failed */
		signals_close(&sv.signals);
	stop_watching(&sv);
	if (rc == 0 && o->command == COMMAND_MOCK)
		code = mock_verdict(&sv.host);
	served = NULL;
	host_free(&sv.host);
	free(sv.token);
	if (sv.host.left_behind) /* nothing that they use may go away */
		_exit(code);
	return rc < 0 ? complain(rc, why) : code;
}
