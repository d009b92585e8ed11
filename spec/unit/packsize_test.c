#include "bind/packsize.h"
#include "unit.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>

/* Packs with Lua's own string.pack; false when it refuses. */
static bool
pack(lua_State *L, const char *format, const char *arguments)
{
	lua_settop(L, 0);
	lua_pushfstring(L, "return string.pack('%s'%s%s)", format, *arguments ? ", " : "",
			arguments);
	if (luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK)
		return false;
	lua_replace(L, 1);
	lua_settop(L, 1);
	return true;
}

/* Every cut of the packed bytes must say "more", all of them "enough"; what follows does
 * not matter. */
static bool
agrees(lua_State *L, const char *format, const char *arguments)
{
	size_t n, need;
	const char *p;

	if (!pack(L, format, arguments))
		return false;
	lua_pushliteral(L, "and what comes behind");
	lua_pushvalue(L, 1);
	lua_insert(L, -2);
	lua_concat(L, 2);
	lua_tolstring(L, 1, &n);
	p = lua_tostring(L, 2);
	for (size_t i = 0; i < n; i++)
		if (packsize(format, p, i, &need) || need <= i || need > n)
			return false;
	return packsize(format, p, n, &need) && need == n &&
	       packsize(format, p, n + 7, &need) && need == n;
}

static void
lengths(void)
{
	size_t need;

	CHECK(packsize("", "", 0, &need) && need == 0);
	CHECK(!packsize(">s2", "\1\0", 2, &need) &&
	      need == 258); /* says how much it will be */
	CHECK(!packsize(">s4", "\xff\xff\xff\xff", 4, &need) &&
	      need == (size_t)0xffffffff + 4);
	CHECK(!packsize("z", "abc", 3, &need) && need == 4);
	CHECK(packsize("z", "abc\0", 4, &need) && need == 4);
	CHECK(!packsize("c10", "abc", 3, &need) && need == 10);
}

void
test_packsize(void)
{
	static const char *const cases[][2] = {
	    {"b", "1"},
	    {"BB", "1, 2"},
	    {"h", "-3"},
	    {"H", "3"},
	    {"i", "5"},
	    {"I3", "70000"},
	    {"i16", "-1"},
	    {"l", "6"},
	    {"j", "7"},
	    {"J", "7"},
	    {"T", "8"},
	    {"f", "1.5"},
	    {"d", "2.5"},
	    {"n", "3.5"},
	    {"<i4 >i4 =i4", "1, 2, 3"},
	    {"s", "\"hello\""},
	    {"s1", "\"hello\""},
	    {">s2", "\"hello\""},
	    {"<s2", "\"hello\""},
	    {">s3", "(\"x\"):rep(300)"},
	    {"<s8", "\"\""},
	    {">s8", "\"abc\""},
	    {"<s16", "\"abc\""},
	    {">s16", "\"abc\""},
	    {"z", "\"text\""},
	    {"zz", "\"\", \"a\""},
	    {"c5", "\"12345\""},
	    {"c0", "\"\""},
	    {"x", ""},
	    {"bxb", "1, 2"},
	    {"!4 b i4", "1, 2"},
	    {"!8 b d", "1, 2"},
	    {"! b j", "1, 2"},
	    {"!2 b i4", "1, 2"},
	    {"!4 b Xi4 b", "1, 2"},
	    {"!8 b s4", "1, \"abc\""},
	    {"!4 s1 i4", "\"ab\", 1"},
	    {"!8 b Xd b", "1, 2"},
	    {"!4 z Xs4 b", "'a', 2"},
	    {"!8 zz Xs b", "'', 'abc', 2"},
	    {"!8 z Xs2 s2", "'ab', 'c'"},
	    {"b s1 z d", "1, \"ab\", \"cd\", 5"},
	    {">I2 s2 z B", "1, \"two\", \"three\", 4"},
	    {"!16 b i16", "1, 2"},
	};
	/* What string.unpack refuses counts as satisfied: it gets to say why. */
	static const char *const wrong[] = {"w",
					    "i17",
					    "I0",
					    "s17",
					    "c",
					    "X",
					    "Xz",
					    "!17 i4",
					    "!3 i3",
					    "!4 I3",
					    "i99999999999999999999",
					    "s99999999999999999999",
					    "c99999999999999999999"};
	lua_State *L = luaL_newstate();
	size_t need;

	luaL_openlibs(L);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		unit_check(agrees(L, cases[i][0], cases[i][1]), cases[i][0], __FILE__,
			   __LINE__);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		unit_check(packsize(wrong[i], "", 0, &need), wrong[i], __FILE__, __LINE__);
	lengths();
	lua_close(L);
}
