/* scarce - makes chosen allocations of a program fail, while it runs.
 *
 * The file that SCARCE names holds a struct orders, which all processes that inherit the
 * variable map: a spec arms it, runs something, and reads what has come of it, at any
 * time and without a signal.  While armed, allocations count from 1; those from `first`
 * to `last` fail, and of these only every `every`-th where that is not 0.
 *
 * Preloaded (LD_PRELOAD=build/scarce.so) it replaces malloc() and its kin.  Compiled with
 * SCARCE_WRAP it is linked into the program itself, by -Wl,--wrap: `make scarce`. That works
 * beside a sanitizer, and reaches the allocator of the Lua states as well, whose blocks
 * mostly are no malloc()'s. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct orders {
	_Atomic uint64_t armed; /* written last by the spec */
	uint64_t first, last, every;
	_Atomic uint64_t calls, failed;
};

static struct orders *orders;

__attribute__((constructor)) static void
begin(void)
{
	const char *path = getenv("SCARCE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		orders = p;
}

static int
refuse(void)
{
	struct orders *o = orders;
	uint64_t n;

	if (!o || !o->armed)
		return 0;
	n = ++o->calls;
	if (n < o->first || n > o->last || (o->every && (n - o->first) % o->every))
		return 0;
	o->failed++;
	errno = ENOMEM;
	return 1;
}

#ifdef SCARCE_WRAP

#define NEW(name) __wrap_##name
#define REAL(name) __real_##name
#define EXPORT

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__real_alloc_realloc(void *ud, void *p, size_t old, size_t n);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_asprintf(char **out, const char *format, ...);
void *__wrap_alloc_realloc(void *ud, void *p, size_t old, size_t n);

char *
__wrap_strdup(const char *s)
{
	return refuse() ? NULL : __real_strdup(s);
}

char *
__wrap_strndup(const char *s, size_t n)
{
	return refuse() ? NULL : __real_strndup(s, n);
}

int
__wrap_asprintf(char **out, const char *format, ...)
{
	va_list args;
	int n;

	if (refuse())
		return -1;
	va_start(args, format);
	n = vasprintf(out, format, args);
	va_end(args);
	return n;
}

/* Of a Lua state.  To shrink or to free never fails. */
void *
__wrap_alloc_realloc(void *ud, void *p, size_t old, size_t n)
{
	if (n > (p ? old : 0) && refuse())
		return NULL;
	return __real_alloc_realloc(ud, p, old, n);
}

#else

#define NEW(name) name
#define REAL(name) __libc_##name
#define EXPORT __attribute__((visibility("default")))
#define __libc_aligned_alloc __libc_memalign

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

#endif

EXPORT void *
NEW(malloc)(size_t n)
{
	return refuse() ? NULL : REAL(malloc)(n);
}

EXPORT void *
NEW(calloc)(size_t n, size_t size)
{
	return refuse() ? NULL : REAL(calloc)(n, size);
}

EXPORT void *
NEW(realloc)(void *p, size_t n)
{
	return refuse() ? NULL : REAL(realloc)(p, n);
}

EXPORT void *
NEW(aligned_alloc)(size_t align, size_t n)
{
	return refuse() ? NULL : REAL(aligned_alloc)(align, n);
}
