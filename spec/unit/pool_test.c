#include "base/pool.h"
#include "unit.h"

#include <stdint.h>
#include <string.h>

enum { MANY = 1000 };

struct thing {
	void *link; /* the pool's */
	uint32_t serial;
	char rest[29];
};

void
test_pool(void)
{
	static struct thing *all[MANY];
	struct pool p;
	struct thing *t;
	bool zero = true, apart = true, aligned = true;

	pool_init(&p, sizeof(struct thing));
	for (int i = 0; i < MANY; i++) {
		all[i] = pool_take(&p);
		zero = zero && all[i] && !all[i]->link && all[i]->serial == 0 &&
		       all[i]->rest[28] == 0;
		aligned = aligned && (uintptr_t)all[i] % 16 == 0;
		memset(all[i], i, sizeof(struct thing));
		all[i]->serial = (uint32_t)i;
	}
	for (int i = 0; i < MANY; i++)
		apart =
		    apart && all[i]->serial == (uint32_t)i && all[i]->rest[28] == (char)i;
	CHECK(zero);
	CHECK(apart);
	CHECK(aligned);
	CHECK(p.taken == MANY);
	pool_give(&p, all[7]);
	t = pool_take(&p);
	CHECK(t == all[7] && !t->link && t->serial == 7 &&
	      t->rest[28] == 7); /* keeps its bytes */
	for (int i = 0; i < MANY; i++)
		pool_give(&p, all[i]);
	CHECK(p.taken == 0);
	for (int i = 0; i < MANY; i++)
		all[i] = pool_take(&p);
	CHECK(p.taken == MANY);
	pool_free(&p);
	pool_init(&p, 1); /* smaller than the pointer that the pool needs */
	t = pool_take(&p);
	CHECK(t != NULL && pool_take(&p) != t);
	pool_free(&p);
}
