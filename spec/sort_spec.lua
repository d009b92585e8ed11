--- The host's own table.sort does what Lua's does, and can be paused.

local case = require("support.case")
local host = require("support.host")
local sorts = require("support.sorts")

local p

-- An order that makes a quicksort's pivots as bad as can be: it decides what is less when it is asked (McIlroy, "A
-- killer adversary for quicksort").  `list` holds 1 to n; `value` gets what it has settled.
local ADVERSARY = [[
  local n <const> = %d
  local gas <const> = n + 1
  local list, value, solid, candidate, calls = {}, {}, 0, 0, 0
  for i = 1, n do list[i], value[i] = i, gas end
  local function settle(i) value[i], solid = solid, solid + 1 end
  local function less(a, b)
    calls = calls + 1
    if value[a] == gas and value[b] == gas then settle(a == candidate and a or b) end
    if value[a] == gas then candidate = a elseif value[b] == gas then candidate = b end
    return value[a] < value[b]
  end
  -- What is in the list, if it is 1 to n in any order.
  local function all_there()
    local seen = {}
    for _, i in ipairs(list) do seen[i] = true end
    return #list == n and #seen == n
  end
]]

local function adversary(n, code) return ADVERSARY:format(n) .. code end

describe("table.sort", function()
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for _, seed in ipairs { 1, 2, 3, os.time() } do
    it("makes the comparisons and accesses that Lua's own makes, and gives what that gives; seed " .. seed, function()
      local results, calls = sorts.run(seed, 2000)
      local got = case.run(p, ([[
        package.path = "./spec/?.lua;" .. package.path
        return table.concat((require("support.sorts").run(%d, 2000)), "\n")]]):format(seed))
      local i = 0
      for line in (got[1] .. "\n"):gmatch("(.-)\n") do
        i = i + 1
        assert.are.equal(results[i], line, calls[i])
        assert.matches("; all there; ", line, 1, true)
      end
      assert.are.equal(#results, i)
    end)
  end

  for what, code in pairs {
    ["what it refuses"] = [[
      local out = {}
      local function long(n) return setmetatable({}, { __len = function() return n end }) end
      for _, a in ipairs { {}, { 1 }, { "list" }, { { 1, 2 }, 1 }, { { 1, 2 }, {} }, { { 1, 2 }, "<" }, { { 1 }, 1 },
          { {}, "<" }, { { 1, "x" } }, { { {}, {} } }, { { 1, 2, nil, 4 } }, { long((1 << 31) - 1) }, { long(1 << 40) },
          { long(math.mininteger) }, { long(-1) }, { long(1) }, { long("x") }, { long(2.5) },
          { setmetatable({}, { __lt = 1 }) }, { print }, { { 3, 2, 1 }, rawequal, 1 }, { { 1, 2 }, false } } do
        out[#out + 1] = select(2, pcall(table.sort, table.unpack(a))) or "fine"
        out[#out + 1] = select(2, pcall(function() table.sort(table.unpack(a)) end)) or "fine"
      end
      return table.concat(out, "\n")]],
    ["an order function that contradicts itself"] = [[
      local out = {}
      for n = 0, 130 do
        local t = {}
        for i = 1, n do t[i] = i end
        local _, why = pcall(table.sort, t, function(a, b) assert(a and b) return true end)
        out[#out + 1] = tostring(why)
      end
      return table.concat(out, "\n")]],
    ["a list that is something else"] = [[
      local log, values = {}, { "c", "a", "b" }
      local list = setmetatable({}, {
        __len = function() return 3 end,
        __index = function(_, i) log[#log + 1] = "get " .. i return values[i] end,
        __newindex = function(_, i, v) log[#log + 1] = "set " .. i .. v values[i] = v end })
      table.sort(list)
      return select("#", table.sort(list)), values, table.concat(log, " ")]],
    ["elements with an order of their own"] = [[
      local mt = {}
      mt.__lt = function(a, b) return a[1] < b[1] end
      local list = {}
      for i = 1, 300 do list[i] = setmetatable({ i * 7919 % 301 }, mt) end
      table.sort(list)
      for i = 1, 300 do list[i] = list[i][1] end
      return list]],
    ["a list that an order function empties"] = [[
      local list = {}
      for i = 1, 50 do list[i] = i * 7 % 51 end
      return pcall(table.sort, list, function(a, b)
        for i = 1, 50 do list[i] = nil end
        return a < b
      end)]],
    ["a sort inside a sort"] = [[
      local list = { 3, 1, 2, 5, 4 }
      table.sort(list, function(a, b)
        local two = { b, a }
        table.sort(two)
        return a ~= b and two[1] == a
      end)
      return list]],
    ["a coroutine that an order function would suspend"] = [[
      return coroutine.resume(coroutine.create(function() table.sort({ 1, 2 }, coroutine.yield) end))]],
  } do
    it("is as Lua's own: " .. what, function()
      local here = table.pack(pcall(assert(load("local self, moonport, rfile, wfile, request " .. code, "=case"))))
      assert.are.same(table.pack(table.unpack(here, 2, here.n)), (case.run(p, code)))
    end)
  end

  it("sorts long lists of all shapes", function()
    local got = case.run(p, [[
      local shapes = {
        random = function() return math.random(1 << 40) end,
        ["few values"] = function() return math.random(5) end,
        ["a saw"] = function(i) return i % 100 end,
        ["up and down"] = function(i, n) return math.min(i, n - i) end,
        sorted = function(i) return i end,
        reversed = function(i) return -i end,
        ["nearly sorted"] = function(i) return i % 1000 == 0 and 0 or i end,
        equal = function() return 1 end,
      }
      for shape, value in pairs(shapes) do
        local list, sum, calls, n = {}, 0, 0, 50000
        for i = 1, n do
          list[i] = value(i, n)
          sum = sum + list[i]
        end
        table.sort(list, function(a, b) calls = calls + 1 return a < b end)
        for i, v in ipairs(list) do
          sum = sum - v
          if i > 1 and v < list[i - 1] then error(shape .. " is not sorted") end
        end
        if sum ~= 0 then error(shape .. " has other elements") end
        if calls > 40 * n then error(shape .. " took " .. calls .. " comparisons") end
      end
      return "sorted"]])
    assert.are.same({ "sorted", n = 1 }, got)
  end)

  it("needs no more than n log n comparisons, whoever chooses them", function()
    local got = case.run(p, adversary(50000, [==[
      table.sort(list, less)
      for i = 2, n do if value[list[i]] < value[list[i - 1]] then error("not sorted at " .. i) end end
      local numbers = value
      table.sort(numbers)
      for i = 2, n do if numbers[i] < numbers[i - 1] then error("not sorted without a function at " .. i) end end
      return all_there(), calls < 50 * n or calls]==]))
    assert.are.same({ true, true, n = 2 }, got)
  end)

  it("stays in the list, and loses nothing, when the order turns to nonsense or fails at any time", function()
    local got = case.run(p, adversary(700, [[
      local outside
      local proxy = setmetatable({}, {
        __len = function() return n end,
        __index = function(_, i) if i < 1 or i > n then outside = i end return list[i] end,
        __newindex = function(_, i, v) if i < 1 or i > n then outside = i end list[i] = v end })
      for round = 1, 300 do
        for i = 1, n do list[i], value[i] = i, gas end
        solid, candidate, calls = 0, 0, 0
        local sane, fails = math.random(20 * n), round % 3 == 0
        local ok, why = pcall(table.sort, proxy, function(a, b)
          if calls < sane then return less(a, b) end
          if fails then error("no order", 0) end
          return math.random(2) == 1
        end)
        if outside then return "outside", outside end
        if not all_there() then return "lost", round end
        if not ok and why ~= "no order" and not why:find("invalid order function for sorting", 1, true) then
          return why
        end
      end
      return "well"]]))
    assert.are.same({ "well", n = 1 }, got)
  end)

  it("finds what others have made of the list while it was paused", function()
    assert.are.same({ 400000, n = 1 }, case.run(p, [[
      kept.list = {}
      for i = 1, 400000 do kept.list[i] = i * 7919 % 400009 end
      return #kept.list]]))
    local c <close> = host.connect(p:url())
    c:send(case.piece("kept.sorts = true return pcall(table.sort, kept.list)"))
    assert.are.same({ true, n = 1 }, case.run(p, [[
      while not kept.sorts do moonport.sleep(0.001) end
      local list = kept.list
      for i = #list, 1, -1 do list[i] = nil end
      return #list == 0]]))
    c:finish()
    local got = case.results((c:all()))
    assert.is_false(got[1])
    assert.matches("^attempt to compare ", got[2])
  end)
end)
