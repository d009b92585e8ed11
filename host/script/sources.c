#include "script/sources.h"

#include "script/sandbox.h"
#include "script/text.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { WHY = 1024 };

struct source {
	struct source *next;
	char *name; /* of the module, or NULL */
	char *file;
	struct text text;
};

struct sources {
	_Atomic unsigned refs;
	bool record, strict;
	struct source *list;
};

static const char KEY = 0;

struct sources *
sources_new(bool strict)
{
	struct sources *s = calloc(1, sizeof(*s));

	if (s) {
		s->refs = 1;
		s->strict = strict;
	}
	return s;
}

struct sources *
sources_hold(struct sources *s)
{
	s->refs++;
	return s;
}

static void
free_source(struct source *x)
{
	free(x->name);
	free(x->file);
	free(x->text.p);
	free(x);
}

void
sources_release(struct sources *s)
{
	if (!s || --s->refs > 0)
		return;
	while (s->list) {
		struct source *next = s->list->next;
		free_source(s->list);
		s->list = next;
	}
	free(s);
}

void
sources_attach(lua_State *L, struct sources *s, bool record)
{
	if (record)
		s->record = true;
	lua_pushlightuserdata(L, s);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
}

void
sources_seal(struct sources *s)
{
	if (s->record) /* else it is sealed, and others read it */
		s->record = false;
}

static struct sources *
of_state(lua_State *L)
{
	struct sources *s;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
	s = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return s;
}

bool
sources_strict(lua_State *L)
{
	const struct sources *s = of_state(L);

	return s && s->strict;
}

const char *
sources_module(lua_State *L, const char *name)
{
	const struct sources *s = of_state(L);

	for (const struct source *x = s ? s->list : NULL; x; x = x->next)
		if (x->name && strcmp(x->name, name) == 0)
			return x->file;
	return NULL;
}

size_t
sources_files(const struct sources *s, struct stamped *files, size_t n)
{
	size_t i = 0;

	for (const struct source *x = s->list; x; x = x->next, i++)
		if (i < n)
			files[i] =
			    (struct stamped){.path = x->file, .stamp = x->text.stamp};
	return i;
}

bool
sources_put(struct sources *s, const char *name, const char *file, struct text *text)
{
	struct source *x = calloc(1, sizeof(*x));

	if (!x) {
		free(text->p);
		return false;
	}
	x->text = *text;
	x->file = strdup(file);
	x->name = name ? strdup(name) : NULL;
	if (!x->file || (name && !x->name)) {
		free_source(x);
		return false;
	}
	x->next = s->list;
	s->list = x;
	return true;
}

/* Compiles a text; its name is on top of the stack, and is replaced.  Does not raise.  As
 * Lua's own loader does: a byte order mark and a first line that begins with # are no part
 * of the program, but the latter's newline is. */
static int
compile(lua_State *L, const struct text *text)
{
	const char *p = text->p, *nl;
	size_t n = text->len;
	int status;

	if (n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3, n -= 3;
	if (n > 0 && *p == '#') {
		nl = memchr(p, '\n', n);
		n = nl ? n - (size_t)(nl - p) : 0;
		p = nl ? nl : p;
	}
	status = luaL_loadbufferx(L, p, n, lua_tostring(L, -1), "t");
	lua_remove(L, -2);
	return status;
}

static uint64_t
hash_bytes(uint64_t h, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
	return h;
}

uint64_t
sources_hash(const struct sources *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const struct source *x = s ? s->list : NULL; x; x = x->next) {
		h = hash_bytes(h, x->file, strlen(x->file) + 1);
		h = hash_bytes(h, x->text.p, x->text.len);
	}
	return h;
}

/* Pushes why a file was not read. */
static void
push_failure(lua_State *L, const char *file, int rc, const char *why)
{
	if (*why)
		lua_pushstring(L, why);
	else if (rc == -EXDEV)
		lua_pushfstring(L, SANDBOX_OUTSIDE, file);
	else if (rc == -ENOMEM)
		lua_pushliteral(L, "not enough memory");
	else
		lua_pushfstring(L, "cannot read %s: %s", file, strerror(-rc));
}

/* record: the set that keeps the text, or NULL. */
static int
load_file(lua_State *L, struct sources *record, const char *name, const char *file)
{
	struct text text;
	char why[WHY] = "";
	int fd, rc, status;

	lua_pushfstring(L, "@%s", file); /* now: this may raise */
	fd = sandbox_open(L, file, name ? O_RDONLY | O_NONBLOCK : O_RDONLY,
			  name ? SANDBOX_MODULES : SANDBOX_FILES);
	rc = fd < 0 ? fd : text_read(fd, file, sources_strict(L), &text, why, sizeof(why));
	if (rc < 0) {
		lua_pop(L, 1);
		push_failure(L, file, rc, why);
		return LUA_ERRFILE;
	}
	status = compile(L, &text);
	if (!record)
		free(text.p);
	else if (!sources_put(record, name, file, &text)) {
		lua_pop(L, 1);
		lua_pushliteral(L, "not enough memory");
		return LUA_ERRMEM;
	}
	return status;
}

int
sources_load(lua_State *L, const char *name, const char *file)
{
	struct sources *s = of_state(L);
	const struct source *x = s ? s->list : NULL;

	while (x && strcmp(x->file, file) != 0)
		x = x->next;
	if (!x)
		return load_file(L, s && s->record ? s : NULL, name, file);
	lua_pushfstring(L, "@%s", file);
	return compile(L, &x->text);
}

int
sources_loadfile(lua_State *L, const char *file)
{
	return load_file(L, NULL, NULL, file);
}
