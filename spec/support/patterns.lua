--- Random calls of string.find and its like, and what they give.  Run by spec/pattern_spec.lua
--- in its own Lua and in a handler, with the same seed: the results must be the same.

local M = {}

local R = math.random

local BYTES = { "a", "b", "c", "1", " ", "(", ")", ".", "%", "[", "]", "^", "$", "-", "*", "+", "?", "\0", "\255", "x",
  "_", "\n", "B" }
local CLASSES = { "a", "c", "d", "g", "l", "p", "s", "u", "w", "x", "A", "C", "D", "G", "L", "P", "S", "U", "W", "X",
  "z", "Z", ".", "%", "-", "]", "[", "k", "1" }
local QUANTIFIERS = { "*", "+", "-", "?", "", "", "", "" }
local PIECES = { "%0", "%1", "%2", "x", "%%", "y", "%0", "%1", "z", "%", "%k", "%9" }

local function pick(t) return t[R(#t)] end

local function string_of(most, from)
  local t = {}
  for i = 1, R(0, most) do t[i] = pick(from) end
  return table.concat(t)
end

local function set()
  local t = { "[", R(3) == 1 and "^" or "" }
  for _ = 1, R(0, 4) do
    t[#t + 1] = pick { "%" .. pick(CLASSES), pick(BYTES) .. "-" .. pick(BYTES), "]", "a-z", pick(BYTES), pick(BYTES) }
  end
  if R(25) > 1 then t[#t + 1] = "]" end
  return table.concat(t)
end

local function item()
  local k = R(12)
  return k <= 4 and pick(BYTES) or k <= 7 and "%" .. pick(CLASSES) or k <= 9 and set() or "."
end

-- Most are well formed.
local function pattern()
  if R(12) == 1 then return string_of(7, BYTES) end
  local t, open = { R(6) == 1 and "^" or "" }, 0
  for _ = 1, R(0, R(2) == 1 and 3 or 8) do
    local k = R(20)
    if k <= 3 then
      t[#t + 1] = k == 1 and "()" or "("
      open = open + (k == 1 and 0 or 1)
    elseif k <= 5 and (open > 0 or R(15) == 1) then
      t[#t + 1] = ")"
      open = open - 1
    elseif k == 6 then
      t[#t + 1] = "%b" .. pick(BYTES) .. (R(15) == 1 and "" or pick(BYTES))
    elseif k == 7 then
      t[#t + 1] = "%f" .. (R(15) == 1 and item() or set())
    elseif k == 8 then
      t[#t + 1] = "%" .. R(R(4) == 1 and 0 or 1, 3)
    else
      t[#t + 1] = item() .. pick(QUANTIFIERS)
    end
  end
  while open > 0 and R(15) > 1 do
    t[#t + 1] = ")"
    open = open - 1
  end
  t[#t + 1] = R(6) == 1 and "$" or R(40) == 1 and "%" or ""
  return table.concat(t)
end

local function subject()
  if R(200) == 1 then return R(1000) end
  return string_of(R(3) == 1 and 30 or 10, R(2) == 1 and { "a", "b", "a", " " } or BYTES)
end

local function init()
  if R(3) > 1 then return nil end
  return pick { R(-12, 12), R(-12, 12), R(-12, 12), tostring(R(-3, 3)), math.maxinteger, math.mininteger, 2.0, 2.5,
    "x", {} }
end

local function answer(a)
  if a == "a" then return nil elseif a == "b" then return false elseif a == "c" then return {} end
  return a
end

local function replacement()
  return pick {
    string_of(4, PIECES), string_of(4, PIECES), string_of(4, PIECES), R(100) / 2, "",
    { a = "AA", b = 2, [" "] = false, [1] = "one", c = {} },
    setmetatable({}, { __index = function(_, k) return tostring(k):upper() end }),
    function(...) return select("#", ...) .. table.concat({ ... }, ",") end,
    answer,
    R(20) > 1 and "" or true,
  }
end

local function all_of(...)
  local out = {}
  for a, b, c in string.gmatch(...) do
    out[#out + 1] = tostring(a) .. "|" .. tostring(b) .. "|" .. tostring(c)
    if #out == 100 then break end
  end
  return table.concat(out, " ")
end

local CALLS = {
  { "find", function() return subject(), pattern(), init(), R(8) == 1 end },
  { "find", function()
    local p = pattern()
    return subject() .. p .. subject(), p, init(), true
  end },
  { "match", function() return subject(), pattern(), init() end },
  { "gmatch", function() return subject(), pattern(), init() end },
  { "gsub", function() return subject(), pattern(), replacement() end },
  { "gsub", function() return subject(), pattern(), replacement(), init() end },
  { "rep", function()
    return "a" .. subject(), pick { R(-2, 30), 0, 1, 1 << 31, math.maxinteger, "3", 2.5 }, pick { ", ", "", nil }
  end },
}

local function show(...)
  local t = table.pack(...)
  for i = 1, t.n do
    local v = t[i]
    t[i] = (type(v) == "string" or type(v) == "number") and ("%q"):format(v)
      or type(v) == "boolean" and tostring(v) or type(v)
  end
  return (table.concat(t, ", "):gsub("\n", "n"))
end

---What the calls give, one a line, and the calls themselves.
---@param seed integer
---@param count integer
---@return string[] results
---@return string[] calls
function M.run(seed, count)
  math.randomseed(seed)
  local results, calls = {}, {}
  for i = 1, count do
    local call = pick(CALLS)
    local name, arguments = call[1], table.pack(call[2]())
    local f = name == "gmatch" and all_of or string[name]
    local ok, got = pcall(function() return table.pack(f(table.unpack(arguments, 1, arguments.n))) end)
    results[i] = ok and show(table.unpack(got, 1, got.n)) or show("error", got)
    calls[i] = ("string.%s(%s)"):format(name, show(table.unpack(arguments, 1, arguments.n)))
  end
  return results, calls
end

return M
