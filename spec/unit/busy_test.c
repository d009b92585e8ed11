#include "base/clock.h"
#include "loop/busy.h"
#include "unit.h"

static const int64_t US = CLOCK_MS / 1000;

/* So many waits of this length in a row, all slept through; how many were polled first. */
static int
waits(struct busy *b, int64_t *now, int n, int64_t length)
{
	int polled = 0;

	for (int i = 0; i < n; i++) {
		int64_t spin = busy_begin(b, *now, 1);
		if (spin > 0) {
			polled++;
			for (int64_t left = spin; left > 0; left -= US)
				CHECK(busy_go_on(b, *now += US));
			busy_missed(b);
		}
		*now += length;
		busy_slept(b, length);
	}
	return polled;
}

static void
test_fixed(void)
{
	struct busy b;

	busy_init(&b, 0);
	CHECK(busy_begin(&b, 5, 1) == 0);
	busy_init(&b, 30 * US);
	for (int i = 0; i < 100; i++) {
		CHECK(busy_begin(&b, 5, 1) == 30 * US &&
		      busy_begin(&b, 5, 1000) == 30 * US);
		CHECK(busy_go_on(&b, CLOCK_SECOND * (i + 1)));
		busy_missed(&b);
		busy_slept(&b, CLOCK_SECOND);
	}
}

static void
test_backs_off(struct busy *b)
{
	int64_t now = CLOCK_SECOND;
	int polled;

	CHECK(waits(b, &now, 1000, CLOCK_MS) == 0);
	polled = waits(b, &now, 10000, 100 * US); /* short, but never short enough */
	CHECK(polled > 5 && polled < 30);
	CHECK(waits(b, &now, 1, CLOCK_MS) + waits(b, &now, 3, 100 * US) == 0);
}

static void
test_pays(struct busy *b)
{
	int64_t now = CLOCK_SECOND;
	int polled = 0;

	waits(b, &now, 4, 60 * US);
	for (int i = 0; i < 1000; i++) {
		if (busy_begin(b, now, 1) == 0)
			continue;
		polled++;
		CHECK(busy_go_on(b, now += US));
		busy_found(b);
		now += 10 * US;
	}
	CHECK(polled == 1000);
	CHECK(busy_begin(b, now, 1000) == 0 && busy_begin(b, now, 2) > 0);
	busy_begin(b, now, 1); /* one that finds nothing costs two waits, not more */
	busy_missed(b);
	busy_slept(b, 100 * US);
	CHECK(busy_begin(b, now, 1) == 0 && busy_begin(b, now, 1) == 0);
	CHECK(busy_begin(b, now, 1) > 0);
}

/* Somebody else ran on the core while it polled. */
static void
test_leaves(struct busy *b)
{
	int64_t now = 100 * CLOCK_SECOND, first;

	waits(b, &now, 4, 60 * US);
	CHECK(busy_begin(b, now, 1) > 0);
	CHECK(!busy_go_on(b, now += 3 * CLOCK_MS));
	first = now;
	while (waits(b, &now, 1, 60 * US) == 0)
		;
	CHECK(now - first >= 100 * CLOCK_MS && now - first < 102 * CLOCK_MS);
	while (busy_begin(b, now, 1) == 0)
		now += US;
	CHECK(!busy_go_on(b, now += 3 * CLOCK_MS));
	first = now;
	while (waits(b, &now, 1, 60 * US) == 0)
		;
	CHECK(now - first >= 200 * CLOCK_MS && now - first < 202 * CLOCK_MS);
}

void
test_busy(void)
{
	struct busy b;

	test_fixed();
	busy_init(&b, BUSY_AUTO);
	if (b.spin == 0) { /* a single core */
		CHECK(busy_begin(&b, CLOCK_SECOND, 1) == 0);
		b.spin = 50 * US;
	}
	test_backs_off(&b);
	busy_init(&b, BUSY_AUTO);
	b.spin = 50 * US;
	test_pays(&b);
	busy_init(&b, BUSY_AUTO);
	b.spin = 50 * US;
	test_leaves(&b);
}
