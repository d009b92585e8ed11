/* lsort.h - `table.sort` that lets others go first.
 *
 * A quicksort as Lua's: the same comparisons, so the same result, equal elements and errors
 * included, until a split is so bad that Lua's draws random pivots.  This one draws some
 * by a fixed rule, and after a few more a heap sorts the rest: n log n comparisons at most.
 * It swaps in place, so the list has all its elements at any time, and reads and writes
 * elements 1 to n only, whatever the order function says.  Pauses between comparisons, not
 * inside one. */
#ifndef HOST_SCRIPT_LSORT_H
#define HOST_SCRIPT_LSORT_H

#include <lua.h>

/* The rest of table.sort(list [, less]), as a C function returns: the first argument is
 * known to be a list of n elements.  Raises if there are too many, if `less` is no function
 * or contradicts itself, and what comparisons and metamethods raise. */
int lsort(lua_State *L, lua_Integer n);

#endif
