--- Random calls of table.sort, and what they give.  Run by spec/sort_spec.lua in its own Lua and in a handler, with the
--- same seed: the results must be the same.
---
--- Lists are so short that Lua's sort, too, draws no random pivot.

local M = {}

local R = math.random

local MOST = 250

local VALUES = {
  integers = function(n) return R(n) end,
  ["few integers"] = function() return R(4) end,
  numbers = function(n) return R(2) == 1 and R(n) or R() * n end,
  ["numbers and NaN"] = function() return R(20) == 1 and 0 / 0 or R(9) end,
  strings = function(n) return ("%x"):format(R(n * 100)) end,
  ["strings and numbers"] = function(n) return R(n + 2) == 1 and "x" or R(n) end,
  ["with nil"] = function(n) if R(2 * n) > 1 then return R(n) end end,
  equal = function() return 7 end,
}

local ORDERS = {
  less = function(a, b) return a < b end,
  greater = function(a, b) return a > b end,
  ["as strings"] = function(a, b) return tostring(a) < tostring(b) end,
  ["by the last digit"] = function(a, b) return tostring(a):byte(-1) < tostring(b):byte(-1) end,
  ["not greater"] = function(a, b) return a <= b end,
  ["any"] = function() return R(2) == 1 end,
  ["seldom"] = function() return R(20) == 1 end,
  ["always"] = function() return 0 end,
  ["never"] = function() return nil end,
  ["fails"] = function(a, b) if R(50) == 1 then error("no order", 0) end return a < b end,
}

local function names(t)
  local out = {}
  for name in pairs(t) do out[#out + 1] = name end
  table.sort(out)
  return out
end

local VALUE_NAMES, ORDER_NAMES = names(VALUES), names(ORDERS)

local SHAPES = {
  function() end,
  function(t, n) for i = 1, n do if type(t[i]) == "number" then t[i] = i end end end,
  function(t, n) for i = 1, n do if type(t[i]) == "number" then t[i] = n - i end end end,
  function(t, n) for i = 1, n // 2 do t[n - i + 1] = t[i] end end,
}

local function list(n, value)
  local t = {}
  for i = 1, n do t[i] = value(n) end
  SHAPES[R(#SHAPES)](t, n)
  return t
end

-- A list that tells of each access; one outside of 1 to n raises.
local function proxy(t, n, seen)
  local function check(i)
    seen.n = seen.n + 1
    seen.sum = (seen.sum * 31 + i) & 0xffffffff
    if math.type(i) ~= "integer" or i < 1 or i > n then error("element " .. i .. " of " .. n, 0) end
  end
  return setmetatable({}, {
    __len = function() return n end,
    __index = function(_, i) check(i) return t[i] end,
    __newindex = function(_, i, v) check(i) t[i] = v end,
  })
end

-- The elements, whatever their order.
local function bag(t, n)
  local out = {}
  for i = 1, n do out[i] = tostring(t[i]) end
  local s = 0
  for i = 1, n do
    local h = 5381
    for at = 1, #out[i] do h = (h * 33 + out[i]:byte(at)) & 0xffffffff end
    s = s + h * h
  end
  return s, table.concat(out, " ")
end

local function one()
  local n = R(3) == 1 and R(0, 8) or R(0, MOST)
  local what = VALUE_NAMES[R(#VALUE_NAMES)]
  local order = R(3) > 1 and ORDER_NAMES[R(#ORDER_NAMES)]
  local t, calls = list(n, VALUES[what]), 0
  local seen = { n = 0, sum = 0 }
  local through = R(3) == 1
  local before = bag(t, n)
  -- nil in a list is its end, or not: only a proxy's length is certain.
  local sorted = (through or what == "with nil") and proxy(t, n, seen) or t
  local ok, why = pcall(table.sort, sorted, order and function(a, b)
    calls = calls + 1
    return ORDERS[order](a, b)
  end or nil)
  local after, text = bag(t, n)
  return ("%d %s by %s"):format(n, what, order or "<"),
    ("%s %s; calls %d, accesses %d %d; %s; %s"):format(ok, why, calls, seen.n, seen.sum,
      before == after and "all there" or "not what was there", text)
end

---@return string[] results
---@return string[] calls what was sorted
function M.run(seed, count)
  local results, calls = {}, {}
  for i = 1, count do
    math.randomseed(seed, i)
    calls[i], results[i] = one()
  end
  return results, calls
end

return M
