#include "server/ask.h"

#include "base/clock.h"
#include "script/task.h"
#include "server/children.h"
#include "server/crew.h"
#include "server/reload.h"
#include "server/seat.h"
#include "server/server.h"
#include "server/unit.h"
#include "server/worker.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
push_outcome(lua_State *L, unsigned number, const char *why)
{
	if (number > 0) {
		lua_pushinteger(L, number);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, why);
	return 2;
}

/* ---- on the server's own engine ---- */

/* A userdata on the request's stack, which lives as long as the wait. */
struct here {
	struct reload_ask ask;
	struct task *task;
	unsigned number;
	char why[SCRIPT_ERROR];
};

static void
told_here(struct reload_ask *a, unsigned number, const char *why)
{
	struct here *h = LIST_ENTRY(a, struct here, ask);

	h->number = number;
	snprintf(h->why, sizeof(h->why), "%s", why ? why : "");
	task_wake_soon(h->task);
}

static void
withdraw(void *arg)
{
	reload_withdraw(&((struct here *)arg)->ask);
}

static int
here_k(lua_State *L, int status, lua_KContext ctx)
{
	struct here *h = lua_touserdata(L, 2);

	(void)status, (void)ctx;
	task_woke(L);
	return push_outcome(L, h->number, h->why);
}

int
ask_unit(lua_State *L, struct unit *u, const char *text, size_t n)
{
	struct task *t = task_current(L);
	struct here *h = lua_newuserdatauv(L, sizeof(*h), 0);

	*h = (struct here){.task = t, .ask.told = told_here};
	list_init(&h->ask.link);
	if (!text)
		reload_ask(u, &h->ask);
	else if (reload_text(u, &h->ask, text, n) < 0)
		return luaL_error(L, "not enough memory");
	lua_insert(L, 2);
	lua_settop(L, 2);
	return task_park(L, CLOCK_NEVER, withdraw, h, 0, here_k);
}

int
ask_here(lua_State *L, struct server *s)
{
	if (!s->unit)
		return luaL_error(L, ASK_NO_SCRIPT);
	lua_settop(L, 1);
	return ask_unit(L, s->unit, NULL, 0);
}

/* ---- from a seat ---- */

/* It goes from the seat's thread to the server's, and back; the crew's mutex guards it.
 * Who comes last frees it. */
struct question {
	struct list link; /* in the crew's questions, or the seat's answers */
	struct reload_ask ask;
	struct crew *crew;
	struct seat *seat;
	struct here *here; /* NULL: nobody waits any more */
	bool answered;
	unsigned number;
	char why[SCRIPT_ERROR];
};

static void
told_crew(struct reload_ask *a, unsigned number, const char *why)
{
	struct question *q = LIST_ENTRY(a, struct question, ask);
	struct crew *c = q->crew;

	pthread_mutex_lock(&c->mutex);
	if (q->here) {
		q->answered = true;
		q->number = number;
		snprintf(q->why, sizeof(q->why), "%s", why ? why : "");
		list_append(&q->seat->answers, &q->link);
		q->seat->inbox.answered = true;
		workers_enqueue(c, q->seat);
	} else
		free(q);
	pthread_mutex_unlock(&c->mutex);
}

static void
give_up(void *arg)
{
	struct question *q = arg;
	struct crew *c = q->crew;

	pthread_mutex_lock(&c->mutex);
	q->here = NULL;
	if (q->answered) {
		list_remove(&q->link);
		free(q);
	}
	pthread_mutex_unlock(&c->mutex);
}

int
ask_crew(lua_State *L, struct seat *s)
{
	struct task *t = task_current(L);
	struct crew *c = s->crew;
	struct question *q;
	struct here *h;

	lua_settop(L, 1);
	h = lua_newuserdatauv(L, sizeof(*h), 0);
	*h = (struct here){.task = t};
	q = malloc(sizeof(*q));
	if (!q)
		return luaL_error(L, "not enough memory");
	*q = (struct question){.crew = c, .seat = s, .here = h, .ask.told = told_crew};
	list_init(&q->ask.link);
	pthread_mutex_lock(&c->mutex);
	list_append(&c->questions, &q->link);
	workers_tell(c);
	pthread_mutex_unlock(&c->mutex);
	return task_park(L, CLOCK_NEVER, give_up, q, 0, here_k);
}

void
ask_take(struct server *s, struct list *questions)
{
	while (!list_empty(questions)) {
		struct question *q = LIST_ENTRY(questions->next, struct question, link);
		list_remove(&q->link);
		if (s && s->unit)
			reload_ask(s->unit, &q->ask);
		else
			told_crew(&q->ask, 0, "this server runs no script");
	}
}

void
ask_answer(struct seat *s)
{
	struct list answers;

	pthread_mutex_lock(&s->crew->mutex);
	list_take(&answers, &s->answers);
	pthread_mutex_unlock(&s->crew->mutex);
	while (!list_empty(&answers)) {
		struct question *q = LIST_ENTRY(answers.next, struct question, link);
		struct here *h = q->here;
		list_remove(&q->link);
		h->number = q->number;
		snprintf(h->why, sizeof(h->why), "%s", q->why);
		free(q);
		task_wake_soon(h->task);
	}
}

void
ask_drop(struct list *questions)
{
	while (!list_empty(questions)) {
		struct question *q = LIST_ENTRY(questions->next, struct question, link);
		list_remove(&q->link);
		free(q);
	}
}

/* ---- from a child ---- */

/* How often it looks. */
static const int64_t LOOK = 10 * CLOCK_MS;

/* Its outcome, if it began after that; false: there is none yet. */
static bool
read_outcome(struct shared *shared, int64_t asked, unsigned *number, char *why)
{
	unsigned before = shared->reloads;

	if (before % 2 == 1 || shared->began < asked)
		return false;
	*number = shared->number;
	memcpy(why, shared->why, SCRIPT_ERROR);
	return atomic_fetch_add(&shared->reloads, 0) == before; /* after what was read */
}

/* Stack: the server, the shared memory, when it asked. */
static int
parent_k(lua_State *L, int status, lua_KContext ctx)
{
	char why[SCRIPT_ERROR];
	unsigned number;

	(void)status;
	task_woke(L);
	if (!read_outcome(lua_touserdata(L, 2), lua_tointeger(L, 3), &number, why))
		return task_park(L, clock_now() + LOOK, NULL, NULL, ctx, parent_k);
	return push_outcome(L, number, why);
}

int
ask_parent(lua_State *L, const struct children *c, pid_t parent)
{
	task_current(L);
	lua_settop(L, 1);
	lua_pushlightuserdata(L, c->shared);
	lua_pushinteger(L, clock_now());
	if (getppid() != parent || kill(parent, SIGHUP) < 0)
		return push_outcome(L, 0, "the server is gone");
	return task_park(L, clock_now() + LOOK, NULL, NULL, 0, parent_k);
}
