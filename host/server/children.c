#include "server/children.h"

#include "base/clock.h"
#include "script/script.h"
#include "server/engine.h"
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often children without a pidfd are looked at. */
static const int64_t LOOK = 20 * CLOCK_MS;

static struct loop *
loop_of(const struct children *c)
{
	return c->server->site.engine->loop;
}

/* The counters of all that is over. */
static struct counters *
over(const struct children *c)
{
	return &c->shared->slots[c->max];
}

static size_t
shared_size(unsigned max)
{
	return sizeof(struct shared) + (max + 1) * sizeof(struct counters);
}

static void
log_death(struct children *c, const struct child *child, int signo)
{
	const char *name = sigabbrev_np(signo);
	char client[ADDR_TEXT] = "", text[32];

	if (child->client.len > 0 || addr_is_unix(&child->client))
		addr_text(&child->client, client, sizeof(client));
	snprintf(text, sizeof(text), name ? "SIG%s" : "%s%d", name ? name : "signal ",
		 signo);
	struct log_field f[] = {log_str("server", c->server->site.view.name),
				log_int("child", child->pid),
				log_str("client", client),
				log_str("signal", text),
				log_int("age_ms", (clock_now() - child->began) / CLOCK_MS),
				{0}};
	log_event(c->server->site.engine->log, LOG_ERROR, "child died", f);
}

/* status: of waitpid(2), or -1 when somebody else has taken it. */
static void
gone(struct child *child, int status)
{
	struct children *c = child->set;
	struct counters *slot = &c->shared->slots[child->slot], counted = {0};

	if (watchdog_log(&c->shared->stuck, c->server->site.engine->log, 0))
		count_add(&over(c)->stuck, 1);
	loop_close_fd(&child->fd);
	list_remove(&child->link);
	c->n--;
	counters_add(&counted, slot);
	count_set(&slot->ended, count_get(&slot->requests)); /* one way or another */
	counters_add(over(c), slot);
	*slot = (struct counters){0};
	c->spare[c->nspare++] = child->slot;
	if (status >= 0 && WIFSIGNALED(status) && !child->killed) {
		count_add(&over(c)->died, 1);
		log_death(c, child, WTERMSIG(status));
	}
	if (c->gone)
		c->gone(c, child, &counted);
	free(child);
}

/* True: it has ended, and child is freed. */
static bool
reap(struct child *child, int flags)
{
	int status = -1;
	pid_t pid;

	do
		pid = waitpid(child->pid, &status, flags);
	while (pid < 0 && errno == EINTR);
	if (pid == 0)
		return false;
	gone(child, pid > 0 ? status : -1);
	return true;
}

static void
on_exit_of_child(struct loop_op *op)
{
	struct child *child = LIST_ENTRY(op, struct child, op);

	if (!reap(child, WNOHANG))
		loop_poll(&child->fd, op, false);
}

static void
on_look(struct loop_timer *t)
{
	struct children *c = LIST_ENTRY(t, struct children, look);
	bool more = false;

	for (struct list *l = c->list.next, *next; l != &c->list; l = next) {
		struct child *child = LIST_ENTRY(l, struct child, link);
		next = l->next;
		if (child->fd.fd < 0 && !reap(child, WNOHANG))
			more = true;
	}
	if (more)
		loop_timer_set(loop_of(c), t, clock_now() + LOOK);
}

static void
on_give_up(struct loop_timer *t)
{
	children_signal(LIST_ENTRY(t, struct children, give_up), SIGKILL);
}

int
children_init(struct children *c, struct server *s, unsigned max,
	      void (*told)(struct children *c, const struct child *child,
			   const struct counters *counted))
{
	*c = (struct children){.server = s, .max = max, .nspare = max, .gone = told};
	list_init(&c->list);
	c->spare = calloc(max, sizeof(*c->spare));
	c->shared = mmap(NULL, shared_size(max), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!c->spare || c->shared == MAP_FAILED)
		goto fail;
	for (unsigned i = 0; i < max; i++)
		c->spare[i] = max - 1 - i;
	if (loop_timer_init(loop_of(c), &c->look, on_look) < 0)
		goto fail;
	if (loop_timer_init(loop_of(c), &c->give_up, on_give_up) < 0)
		goto fail_look;
	s->tally = c->shared->slots;
	s->ntally = max + 1;
	s->site.counters = over(c);
	return 0;

fail_look:
	loop_timer_done(loop_of(c), &c->look);
fail:
	free(c->spare);
	if (c->shared != MAP_FAILED)
		munmap(c->shared, shared_size(max));
	return -ENOMEM;
}

static void
track(struct children *c, struct child *child)
{
	int fd = (int)syscall(SYS_pidfd_open, child->pid, 0);

	child->fd.fd = -1;
	list_append(&c->list, &child->link);
	c->n++;
	if (fd >= 0 && loop_add(loop_of(c), &child->fd, fd, 0) == 0) {
		child->op.done = on_exit_of_child;
		loop_poll(&child->fd, &child->op, false);
		return;
	}
	if (fd >= 0)
		close(fd);
	if (!c->look.slot)
		loop_timer_set(loop_of(c), &c->look, clock_now() + LOOK);
}

pid_t
children_fork(struct children *c, const struct addr *client, struct counters **slot)
{
	struct child *child = c->nspare > 0 ? malloc(sizeof(*child)) : NULL;
	sigset_t all, old;
	pid_t pid;

	if (!child)
		return -ENOMEM;
	child->set = c;
	child->began = clock_now();
	child->killed = false;
	child->generation = c->server->site.script->number;
	child->client.len = 0;
	child->client.ss.ss_family = AF_UNSPEC;
	if (client)
		child->client = *client;
	child->slot = c->spare[c->nspare - 1];
	fflush(NULL); /* what is buffered is the parent's to write */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0) {
		*slot = &c->shared->slots[child->slot];
		free(child);
		return 0;
	}
	if (pid < 0)
		pid = -errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid < 0) {
		free(child);
		return pid;
	}
	c->nspare--;
	child->pid = pid;
	track(c, child);
	return pid;
}

void
children_unblock(void)
{
	sigset_t none;

	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
}

void
children_reap(struct children *c)
{
	for (struct list *l = c->list.next, *next; l != &c->list; l = next) {
		next = l->next;
		(void)reap(LIST_ENTRY(l, struct child, link), WNOHANG);
	}
}

void
children_wait(struct children *c)
{
	while (!list_empty(&c->list))
		(void)reap(LIST_ENTRY(c->list.next, struct child, link), 0);
}

void
children_kill(struct children *c)
{
	for (struct list *l = c->list.next; l != &c->list; l = l->next)
		LIST_ENTRY(l, struct child, link)->killed = true;
	children_signal(c, SIGKILL);
}

void
children_signal(const struct children *c, int signo)
{
	for (struct list *l = c->list.next; l != &c->list; l = l->next)
		kill(LIST_ENTRY(l, struct child, link)->pid, signo);
}

unsigned
children_running(const struct children *c, unsigned generation)
{
	unsigned n = 0;

	for (const struct list *l = c->list.next; l != &c->list; l = l->next)
		n += LIST_ENTRY(l, struct child, link)->generation == generation;
	return n;
}

void
children_retire(struct children *c, unsigned generation, int signo)
{
	for (struct list *l = c->list.next; l != &c->list; l = l->next) {
		struct child *child = LIST_ENTRY(l, struct child, link);
		if (child->generation != generation)
			continue;
		child->killed = true;
		kill(child->pid, signo);
	}
}

void
children_give_up(struct children *c, int64_t after)
{
	int64_t now = clock_now();

	loop_timer_set(loop_of(c), &c->give_up,
		       after < CLOCK_NEVER - now ? now + after : CLOCK_NEVER);
}

void
children_count(const struct children *c, struct counters *sum)
{
	for (struct list *l = c->list.next; l != &c->list; l = l->next)
		counters_add(sum,
			     &c->shared->slots[LIST_ENTRY(l, struct child, link)->slot]);
}

void
children_log(const struct children *c, const char *event)
{
	char client[ADDR_TEXT];

	for (struct list *l = c->list.next; l != &c->list; l = l->next) {
		const struct child *child = LIST_ENTRY(l, struct child, link);
		addr_text(&child->client, client, sizeof(client));
		struct log_field f[] = {
		    log_str("server", c->server->site.view.name),
		    log_int("child", child->pid),
		    log_str("client", client),
		    log_int("age_ms", (clock_now() - child->began) / CLOCK_MS),
		    {0}};
		log_event(c->server->site.engine->log, LOG_INFO, event, f);
	}
}

void
children_close(struct children *c)
{
	struct server *s = c->server;

	c->gone = NULL;
	children_kill(c);
	children_wait(c);
	loop_timer_done(loop_of(c), &c->look);
	loop_timer_done(loop_of(c), &c->give_up);
	counters_add(&s->counters, over(c));
	s->site.counters = &s->counters;
	s->tally = NULL;
	s->ntally = 0;
	munmap(c->shared, shared_size(c->max));
	free(c->spare);
}
