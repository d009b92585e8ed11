#include "script/lsort.h"

#include "script/slice.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>

/* A continuation that slice_pause() has called at once returns this: it was no pause. */
enum { GO_ON = -1 };

/* The Lua stack: KEPT is nil until there was a pause; then the elements at hand. */
enum { LIST = 1, LESS, KEPT, FIRST, SECOND, THIRD, PIVOT = FIRST };

/* Elements between two looks at the clock.  A comparison may be a call of Lua. */
enum { ELEMENTS = 8 };

/* A split is uneven where one part is larger by this factor; so many, and it is a heap's.
 */
enum { UNEVEN = 128, LARGE = 100, PATIENCE = 8 };

/* The smaller part goes first: what waits halves each time. */
enum { WAITING = sizeof(unsigned) * CHAR_BIT };

enum step {
	BEGIN, /* with a range */
	UP,    /* looks for an element that is not less than the pivot */
	DOWN,  /* has that one on the stack; looks for one that is not greater */
	HEAP,
	DONE,
};

struct range {
	unsigned lo, up; /* inclusive */
	unsigned uneven; /* splits on the way to it */
};

/* A sort between two comparisons; elements that it holds are on the Lua stack. */
struct sort {
	bool by_function; /* there is a LESS */
	enum step step;
	struct range now;
	unsigned i,
	    j; /* in a heap: elements that are no heap yet, and how many are in it */
	unsigned nwaiting;
	struct range waiting[WAITING];
};

static inline bool
less(lua_State *L, const struct sort *s, int a, int b)
{
	bool is;

	if (!s->by_function)
		return lua_compare(L, a, b, LUA_OPLT);
	lua_pushvalue(L, LESS);
	lua_pushvalue(L, a);
	lua_pushvalue(L, b);
	lua_call(L, 2, 1);
	is = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return is;
}

/* Pops two values into the list: the upper one to `a`, the other to `b`. */
static void
put(lua_State *L, unsigned a, unsigned b)
{
	lua_seti(L, LIST, a);
	lua_seti(L, LIST, b);
}

/* Swaps elements a, which is the first on the stack and popped, and b if b is less. */
static void
order(lua_State *L, const struct sort *s, unsigned a, unsigned b)
{
	lua_geti(L, LIST, b);
	if (less(L, s, SECOND, FIRST))
		put(L, a, b);
	else
		lua_pop(L, 2);
}

static void
next_range(struct sort *s)
{
	s->step = s->nwaiting > 0 ? BEGIN : DONE;
	if (s->nwaiting > 0)
		s->now = s->waiting[--s->nwaiting];
}

/* Puts the first, the last and one between in order: that one will do as a pivot.  False:
 * there are no others. */
static bool
order_three(lua_State *L, const struct sort *s, unsigned lo, unsigned p, unsigned up)
{
	if (lo >= up)
		return false;
	lua_geti(L, LIST, lo);
	order(L, s, lo, up);
	if (up - lo == 1)
		return false;
	lua_geti(L, LIST, p);
	lua_geti(L, LIST, lo);
	if (less(L, s, FIRST, SECOND))
		put(L, p, lo);
	else {
		lua_pop(L, 1);
		order(L, s, p, up);
	}
	return up - lo > 2;
}

/* Where the pivot comes from: the middle is right for what is sorted either way. */
static unsigned
place_of_pivot(const struct range *r)
{
	unsigned quarter = (r->up - r->lo) / 4;

	if (r->uneven == 0 || r->up - r->lo < LARGE)
		return r->lo + (r->up - r->lo) / 2;
	return r->lo + quarter + (r->lo ^ r->up) * 2654435761U % (2 * quarter);
}

static void
begin(lua_State *L, struct sort *s)
{
	unsigned lo = s->now.lo, up = s->now.up, p = place_of_pivot(&s->now);

	if (s->now.uneven >= PATIENCE) {
		s->i = (up - lo + 1) / 2;
		s->j = up - lo + 1;
		s->step = HEAP;
		return;
	}
	if (!order_three(L, s, lo, p, up)) {
		next_range(s);
		return;
	}
	/* The pivot changes places with the last but one, so that something ends each scan.
	 */
	lua_geti(L, LIST, p);
	lua_pushvalue(L, PIVOT);
	lua_geti(L, LIST, up - 1);
	put(L, p, up - 1);
	s->i = lo;
	s->j = up - 1;
	s->step = UP;
}

static void
refuse(lua_State *L)
{
	luaL_error(L, "invalid order function for sorting");
}

/* Pushes the next element that is not less than the pivot.  False: it is to be paused. */
static bool
scan_up(lua_State *L, struct sort *s)
{
	for (;;) {
		if (s->i % ELEMENTS == 0 && slice_over(L))
			return false;
		lua_geti(L, LIST, ++s->i);
		if (!less(L, s, SECOND, PIVOT))
			return true;
		if (s->i == s->now.up - 1) /* this one is the pivot */
			refuse(L);
		lua_pop(L, 1);
	}
}

/* Likewise the next from above that is not greater. */
static bool
scan_down(lua_State *L, struct sort *s)
{
	for (;;) {
		if (s->j % ELEMENTS == 0 && slice_over(L))
			return false;
		lua_geti(L, LIST, --s->j);
		if (!less(L, s, PIVOT, THIRD))
			return true;
		if (s->j < s->i) /* it was found to be less */
			refuse(L);
		lua_pop(L, 1);
	}
}

/* The pivot is at i: the smaller part is the next one, the other waits. */
static void
split(struct sort *s)
{
	struct range below = s->now, above = s->now, *small = &below, *large = &above;

	below.up = s->i - 1;
	above.lo = s->i + 1;
	if (s->i - s->now.lo >= s->now.up - s->i) {
		small = &above;
		large = &below;
	}
	if ((large->up - large->lo) / UNEVEN > small->up + 1 - small->lo)
		large->uneven++;
	s->now = *small;
	s->waiting[s->nwaiting++] = *large;
	s->step = BEGIN;
}

/* False: it is to be paused. */
static bool
partition(lua_State *L, struct sort *s)
{
	for (;;) {
		if (s->step == UP && !scan_up(L, s))
			return false;
		s->step = DOWN;
		if (!scan_down(L, s))
			return false;
		if (s->j < s->i)
			break;
		put(L, s->i, s->j);
		s->step = UP;
	}
	lua_pop(L, 1);
	put(L, s->now.up - 1, s->i);
	split(s);
	return true;
}

/* Lets element k of the n in the heap sink to its place. */
static void
sink(lua_State *L, const struct sort *s, unsigned k, unsigned n)

{
	unsigned lo = s->now.lo;

	for (unsigned child; (child = 2 * k + 1) < n; k = child) {
		lua_geti(L, LIST, lo + k);
		lua_geti(L, LIST, lo + child);
		if (child + 1 < n) {
			lua_geti(L, LIST, lo + child + 1);
			if (less(L, s, SECOND, THIRD)) {
				lua_replace(L, -2);
				child++;
			} else
				lua_pop(L, 1);
		}
		if (!less(L, s, FIRST, SECOND)) {
			lua_pop(L, 2);
			return;
		}
		put(L, lo + k, lo + child);
	}
}

/* Makes the range a heap, and takes the greatest from it again and again.  False: it is to
 * be paused. */
static bool
heap(lua_State *L, struct sort *s)
{
	unsigned lo = s->now.lo;

	while (s->i > 0 || s->j > 1) {
		if (slice_over(L))
			return false;
		if (s->i > 0)
			s->i--;
		else {
			s->j--;
			lua_geti(L, LIST, lo);
			lua_geti(L, LIST, lo + s->j);
			put(L, lo, lo + s->j);
		}
		sink(L, s, s->i, s->j);
	}
	next_range(s);
	return true;
}

/* False: it is to be paused. */
static bool
advance(lua_State *L, struct sort *s)
{
	for (;;) {
		switch (s->step) {
		case BEGIN:
			begin(L, s);
			break;
		case UP:
		case DOWN:
			if (!partition(L, s))
				return false;
			break;
		case HEAP:
			if (!heap(L, s))
				return false;
			break;
		case DONE:
			return true;
		}
	}
}

static int sort_k(lua_State *L, int status, lua_KContext ctx);

/* Before its first pause a sort is on the C stack, which does not outlive that. */
static struct sort *
keep(lua_State *L, struct sort *s)
{
	struct sort *kept = lua_touserdata(L, KEPT);

	if (!kept) {
		kept = lua_newuserdatauv(L, sizeof(*kept), 0);
		*kept = *s;
		lua_replace(L, KEPT);
	}
	return kept;
}

static int
sort(lua_State *L, struct sort *s)
{
	while (!advance(L, s)) {
		s = keep(L, s);
		int rc = slice_pause(L, 0, sort_k);
		if (rc != GO_ON)
			return rc;
	}
	return 0;
}

static int
sort_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	return status == LUA_OK ? GO_ON : sort(L, lua_touserdata(L, KEPT));
}

int
lsort(lua_State *L, lua_Integer n)
{
	struct sort s;

	if (n < 2)
		return 0;
	luaL_argcheck(L, n < INT_MAX, 1, "array too big");
	if (!lua_isnoneornil(L, LESS))
		luaL_checktype(L, LESS, LUA_TFUNCTION);
	lua_settop(L, KEPT - 1);
	lua_pushnil(L);
	s.by_function = !lua_isnil(L, LESS);
	s.step = BEGIN;
	s.now = (struct range){.lo = 1, .up = (unsigned)n};
	s.nwaiting = 0;
	return sort(L, &s);
}
