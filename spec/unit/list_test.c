#include "base/list.h"
#include "unit.h"

struct item {
	int n;
	struct list link;
};

static int
digits(const struct list *l)
{
	int sum = 0;

	for (const struct list *p = l->next; p != l; p = p->next)
		sum = sum * 10 + LIST_ENTRY(p, const struct item, link)->n;
	return sum;
}

static int
backwards(const struct list *l)
{
	int sum = 0;

	for (const struct list *p = l->prev; p != l; p = p->prev)
		sum = sum * 10 + LIST_ENTRY(p, const struct item, link)->n;
	return sum;
}

void
test_list(void)
{
	struct list a, b;
	struct item items[4];

	list_init(&a);
	CHECK(list_empty(&a));
	list_take(&b, &a);
	CHECK(list_empty(&a) && list_empty(&b));
	for (int i = 0; i < 4; i++) {
		items[i].n = i + 1;
		list_init(&items[i].link);
		list_append(&a, &items[i].link);
	}
	CHECK(digits(&a) == 1234 && backwards(&a) == 4321);
	list_remove(&items[1].link);
	list_remove(&items[1].link); /* harmless when repeated */
	CHECK(digits(&a) == 134 && backwards(&a) == 431 && list_empty(&items[1].link));
	list_take(&b, &a);
	CHECK(list_empty(&a) && digits(&b) == 134 && backwards(&b) == 431);
	list_append(&a, &items[1].link);
	CHECK(digits(&a) == 2);
	list_remove(&items[3].link);
	list_prepend(&a, &items[3].link);
	CHECK(digits(&a) == 42 && backwards(&a) == 24);
	list_remove(&items[3].link);
	list_remove(&items[0].link);
	list_remove(&items[2].link);
	CHECK(list_empty(&b));
}
