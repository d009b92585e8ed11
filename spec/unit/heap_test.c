#include "loop/heap.h"
#include "loop/loop.h"
#include "unit.h"

enum { N = 2000 };

static struct loop_timer timers[N];

static unsigned seed = 42;

static int64_t
random_time(void)
{
	return (int64_t)((seed = seed * 1103515245 + 12345) >> 12 & 0xffff);
}

static bool
is_sound(const struct heap *h)
{
	for (size_t i = 1; i <= h->len; i++)
		if (h->at[i].timer->slot != i ||
		    (i > 1 && h->at[i / 2].when > h->at[i].when))
			return false;
	return true;
}

void
test_heap(void)
{
	struct heap h = {0};
	int64_t last = -1;
	size_t left;
	bool sound = true, sorted = true;

	CHECK(!heap_top(&h) && heap_soonest(&h) == CLOCK_NEVER);
	CHECK(heap_reserve(&h, N) && h.cap >= N && heap_reserve(&h, 1));
	for (int i = 0; i < N; i++)
		heap_add(&h, &timers[i], random_time());
	CHECK(h.len == N && is_sound(&h));
	for (int i = 0; i < N; i += 3) {
		heap_move(&h, &timers[i], random_time());
		sound = sound && is_sound(&h);
	}
	CHECK(sound);
	for (int i = 1; i < N; i += 3) {
		heap_remove(&h, &timers[i]);
		sound = sound && is_sound(&h) && timers[i].slot == 0;
	}
	CHECK(sound);
	for (left = h.len; left > 0; left--) {
		sorted = sorted && heap_soonest(&h) >= last;
		last = heap_soonest(&h);
		heap_remove(&h, heap_top(&h));
	}
	CHECK(sorted);
	CHECK(h.len == 0 && !heap_top(&h));
	heap_free(&h);
}
