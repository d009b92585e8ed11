#include "base/nearest.h"

#include <string.h>

enum { LONGEST = 64 };

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

unsigned
nearest_distance(const char *a, const char *b)
{
	unsigned row[LONGEST + 1], before, up;
	size_t la = strlen(a), lb = strlen(b);

	if (la > LONGEST || lb > LONGEST)
		return 255;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		before = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			up = row[j];
			row[j] =
			    min3(up + 1, row[j - 1] + 1, before + (a[i - 1] != b[j - 1]));
			before = up;
		}
	}
	return row[lb];
}
