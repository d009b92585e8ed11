#include "script/handover.h"

#include "base/list.h"
#include "script/plain.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>

static int
saved(lua_State *L, int status, lua_KContext ctx)
{
	struct handover *h = lua_touserdata(L, 1);

	(void)status, (void)ctx;
	if (!lua_isnil(L, 2))
		plain_write(L, 2, &h->data);
	return 0;
}

/* Pushes the handler's function of that name; false: it has none. */
static bool
push_function(lua_State *L, const struct script *sc, const char *name)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->handler_ref);
	if (lua_getfield(L, -1, name) == LUA_TNIL)
		return false;
	if (!lua_isfunction(L, -1))
		luaL_error(L, "%s must be a function, not a %s", name,
			   luaL_typename(L, -1));
	return true;
}

/* The chore.  Argument: the struct. */
static int
save(lua_State *L)
{
	struct handover *h = lua_touserdata(L, 1);

	if (!push_function(L, h->script, "save"))
		return 0;
	lua_replace(L, 2);
	lua_callk(L, 0, 1, 0, saved);
	return saved(L, LUA_OK, 0);
}

static int
initialized(lua_State *L, int status, lua_KContext ctx)
{
	(void)L, (void)status, (void)ctx;
	return 0;
}

/* The chore.  Argument: the struct. */
static int
init(lua_State *L)
{
	struct handover *h = lua_touserdata(L, 1);

	if (!push_function(L, h->script, "init"))
		return 0;
	plain_read(L, buf_data(&h->data), buf_len(&h->data));
	lua_callk(L, 1, 0, 0, initialized);
	return 0;
}

static void
ended(struct chore *c, lua_State *co, int status)
{
	struct handover *h = LIST_ENTRY(c, struct handover, chore);
	struct script *sc = h->script;

	if (status != LUA_OK) {
		lua_xmove(co, sc->state.L, 1);
		script_keep_error(sc->state.L, sc->path, h->why, sizeof(h->why));
	}
	h->done(h, status == LUA_OK ? 0 : -EINVAL);
}

static int
start(struct handover *h, struct script *sc, const struct allowance *a, lua_CFunction f)
{
	lua_State *L = sc->state.L;

	h->script = sc;
	h->chore = (struct chore){.done = ended};
	lua_pushcfunction(L, f);
	lua_pushlightuserdata(L, h);
	return chore_start(&h->chore, sc, a, 1);
}

int
handover_save(struct handover *h, struct script *from, const struct allowance *a)
{
	h->data = (struct buf){0};
	return start(h, from, a, save);
}

int
handover_init(struct handover *h, struct script *to, const struct allowance *a)
{
	if (buf_len(&h->data) > 0)
		return start(h, to, a, init);
	h->chore.task = NULL;
	h->done(h, 0);
	return 0;
}

void
handover_cancel(struct handover *h)
{
	chore_cancel(&h->chore);
	buf_free(&h->data);
}

struct both {
	struct handover handover;
	int rc;
};

static void
keep_outcome(struct handover *h, int rc)
{
	LIST_ENTRY(h, struct both, handover)->rc = rc;
}

int
handover_run(struct script *from, struct script *to, const struct allowance *a, char *why,
	     size_t size)
{
	struct both b = {.handover.done = keep_outcome};
	struct handover *h = &b.handover;

	snprintf(h->why, sizeof(h->why), "%s: out of memory", to->path);
	b.rc = handover_save(h, from, a);
	chore_insist(&h->chore);
	if (b.rc == 0)
		b.rc = handover_init(h, to, a);
	chore_insist(&h->chore);
	buf_free(&h->data);
	if (b.rc < 0)
		snprintf(why, size, "%s", h->why);
	return b.rc;
}
