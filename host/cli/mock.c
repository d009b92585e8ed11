#include "cli/mock.h"

#include "cli/options.h"
#include "server/mocking.h"

#include <stdio.h>

int
mock_add_all(struct host *h, const struct options *o, char *why, size_t size)
{
	int rc = mocking_journal(h, o->journal, why, size);

	for (int i = 0; rc == 0 && i < o->nentries; i++)
		rc = mocking_add(h, o->entries[i].script, &o->entries[i].attrs, why, size);
	return rc;
}

/* What has been told so far. */
struct report {
	size_t n;
	const char *from; /* of the last one; lives as long as the host */
};

static void
tell(void *arg, const char *from, const char *text)
{
	struct report *r = arg;

	if (r->n == 0 || r->from != from)
		fprintf(stderr, "\n== %s ==\n", from ? from : "conversations");
	r->from = from;
	fprintf(stderr, "\n%zu) %s\n", ++r->n, text);
}

int
mock_verdict(struct host *h)
{
	struct report r = {0};
	size_t n = mocking_verdict(h, tell, &r);

	if (n == 0)
		return EXIT_DONE;
	fprintf(stderr, "\nmoonport mock: %zu %s not met\n", n,
		n == 1 ? "expectation was" : "expectations were");
	if (n > r.n)
		fprintf(stderr, "(%zu of them are not kept)\n", n - r.n);
	return EXIT_FAILED;
}
