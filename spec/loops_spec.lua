--- String and table functions that loop for long: they let others go first, and end at the limit.

local case = require("support.case")
local host = require("support.host")

local FOR_EVER = {
  ["string.find"] = "('a'):rep(400):find(('.-'):rep(5) .. 'b')",
  ["string.find, greedy"] = "('a'):rep(400):find(('.*'):rep(6) .. 'b')",
  ["string.find, long sets"] = "('a'):rep(1 << 20):find('[' .. ('b'):rep(1 << 20) .. ']')",
  ["string.match"] = "('a'):rep(400):match('^' .. ('(.-)'):rep(6) .. 'b')",
  ["string.match, balanced"] = "('('):rep(1 << 22):match('%b()')",
  ["string.gmatch"] = "for _ in ('a'):rep(400):gmatch(('.-'):rep(5) .. 'b') do end",
  ["string.gsub"] = "('a'):rep(400):gsub(('.-'):rep(5) .. 'b', '')",
  ["string.gsub, many matches"] = "('a'):rep(1 << 24):gsub('', ('%0'):rep(1 << 12))",
  ["table.insert"] = "table.insert(setmetatable({}, { __len = function() return 1 << 40 end }), 1, 1)",
  ["table.remove"] = "table.remove(setmetatable({}, { __len = function() return 1 << 40 end }), 1)",
  ["table.move"] = "table.move({}, 1, 1 << 40, 2)",
  ["table.move, from the end"] = "local t = {} table.move(t, 1, 1 << 40, 2, t)",
  ["table.concat"] = "table.concat(setmetatable({}, { __index = rawlen }), '', 1, 1 << 40)",
  ["table.sort"] = "table.sort(setmetatable({}, { __len = function() return (1 << 31) - 2 end, __index = rawlen, "
    .. "__newindex = rawlen }))",
  ["table.sort, one long scan"] = "table.sort(setmetatable({}, { __len = function() return (1 << 31) - 2 end, "
    .. "__index = rawlen, __newindex = rawlen }), rawequal)",
}

-- Where the call stands.
local PLACES = {
  ["by itself"] = "%s",
  ["with pcall around it, again and again"] = "while true do pcall(function() %s end) end",
  ["in a coroutine"] = "coroutine.wrap(function() %s end)()",
  ["where it cannot be suspended"] = "table.sort({ 1, 2 }, function() %s end)",
}

-- Starts them all, each in a request of its own.
local function start_all(p, place)
  local calls = {}
  for what, code in pairs(FOR_EVER) do
    local c = host.connect(p:url())
    c:send(case.piece(place:format(code)))
    calls[c] = what
  end
  return calls
end

describe("a call without an end", function()
  after_each(host.cleanup)

  it("lets others go first", function()
    local p = case.start { args = { "-o", "cpu_limit=none" } }
    local calls = start_all(p, "%s")
    for i = 1, 5 do assert.are.same({ i, n = 1 }, case.run(p, "return " .. i)) end
    for c, what in pairs(calls) do
      assert.is_nil(c:some(0), what .. " has ended")
      c:close()
    end
    p:kill("KILL")
    p:wait()
  end)

  for where, place in pairs(PLACES) do
    it("ends at the limit " .. where, function()
      local p = case.start { args = { "-o", "cpu_limit=0.1" } }
      local n = 0
      for c in pairs(start_all(p, place)) do
        n = n + 1
        c:all()
        c:close()
      end
      host.eventually("all ended", function() return #p:find("handler error") == n end)
      for _, e in ipairs(p:find("handler error")) do
        assert.matches("longer than cpu_limit allows", e.error, 1, true)
      end
      assert.are.same({ "well", n = 1 }, case.run(p, "return 'well'"))
      p:stop()
    end)
  end
end)

describe("a long call", function()
  local p

  -- Garbage of the case before, up to 130 MB, may still be there: a buffer that Lua's own library makes does not wait
  -- for the collector, and is refused at the limit.
  setup(function() p = case.start { args = { "-o", "memory_limit=1G" } } end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  local function preempted() return case.run(p, "return self.server:stats().preempted")[1] end

  -- Each takes several slices; its results are as if it had taken one.
  for what, code in pairs {
    ["string.find"] = [[
      return (("a"):rep(300) .. "x" .. ("a"):rep(260) .. "y"):find("(.-)(.-)[x]%2%1y")]],
    ["string.match"] = [[
      return (("a"):rep(300) .. "x" .. ("a"):rep(260) .. "y"):match("()(.*)(.*)[x]%3%2y")]],
    ["string.gmatch"] = [[
      local n, sum = 0, 0
      for a, at in (("x"):rep(1 << 23) .. " end "):rep(2):gmatch("(%a+)()") do n = n + #a sum = sum + at end
      return n, sum]],
    ["string.gsub"] = [[
      local s, n = ("key=value "):rep(200000):gsub("(%w+)=(%w+)", "%2:%1")
      return n, #s, s:sub(1, 30), s:sub(-30), s == ("value:key "):rep(200000)]],
    ["string.gsub with a table"] = [[
      local s, n = ("key value "):rep(200000):gsub("%w+", { key = "k" })
      return n, #s, s == ("k value "):rep(200000)]],
    ["table.insert"] = [[
      local t = table.move({ 1 }, 1, 1, 3000000)
      for i = 1, 3000000 do t[i] = i end
      table.insert(t, 1, 0)
      return #t, t[1], t[2], t[1500000], t[3000001] ]],
    ["table.remove"] = [[
      local t = {}
      for i = 1, 3000000 do t[i] = i end
      return table.remove(t, 1), #t, t[1], t[1500000], t[2999999], t[3000000] ]],
    ["table.move"] = [[
      local t = {}
      for i = 1, 3000000 do t[i] = i end
      local u = table.move(t, 1, 3000000, 11, {})
      table.move(t, 1, 3000000, 3)
      return #t, t[1], t[3], t[3000002], u[10], u[11], u[3000010] ]],
    ["table.concat"] = [[
      local t = {}
      for i = 1, 1000000 do t[i] = i end
      local s = table.concat(t, ",")
      return #s, s:sub(1, 10), s:sub(3000000, 3000020), s:sub(-10)]],
    ["table.sort"] = [[
      local t, sum = {}, 0
      for i = 1, 300000 do t[i] = i * 7919 % 300007 end
      table.sort(t)
      for i = 2, #t do sum = sum + i * (t[i] - t[i - 1]) end
      return #t, t[1], t[2], t[150000], t[300000], sum]],
    ["table.sort with a function"] = [[
      local t, sum = {}, 0
      for i = 1, 100000 do t[i] = i * 7919 % 100003 end
      table.sort(t, function(a, b) return a > b end)
      for i = 2, #t do sum = sum + i * (t[i] - t[i - 1]) end
      return #t, t[1], t[2], t[50000], t[100000], sum]],
  } do
    it("goes on where it was: " .. what, function()
      local expected = table.pack(assert(load(code))())
      local before = preempted()
      assert.are.same(expected, (case.run(p, code)))
      assert.is_true(preempted() > before, "it was not suspended")
      assert.are.same(expected, (case.run(p, "return coroutine.wrap(function() " .. code .. " end)()")))
      if expected.n > 1 then
        assert.are.same({ true, n = 1 }, (case.run(p, "local ok table.sort({ 1, 2 }, function() "
          .. "ok = select('#', (function() " .. code .. " end)()) == " .. expected.n .. " end) return ok")))
      end
    end)
  end
end)
