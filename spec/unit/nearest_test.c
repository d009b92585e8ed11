#include "base/nearest.h"
#include "unit.h"

void
test_nearest(void)
{
	char longest[66];

	for (int i = 0; i < 65; i++)
		longest[i] = 'a';
	longest[65] = 0;
	CHECK(nearest_distance("", "") == 0);
	CHECK(nearest_distance("same", "same") == 0);
	CHECK(nearest_distance("", "abc") == 3);
	CHECK(nearest_distance("abc", "") == 3);
	CHECK(nearest_distance("kitten", "sitting") == 3);
	CHECK(nearest_distance("sitting", "kitten") == 3);
	CHECK(nearest_distance("lisen", "listen") == 1);
	CHECK(nearest_distance("listne", "listen") == 2);
	CHECK(nearest_distance("x", "y") == 1);
	CHECK(nearest_distance(longest + 1, longest + 1) == 0);
	CHECK(nearest_distance(longest, "a") == 255); /* too long to bother */
	CHECK(nearest_distance("a", longest) == 255);
}
