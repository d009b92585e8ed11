-- How long a handler may compute: slices, cpu_limit, and that nothing gets round them.

local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

local LIMIT = 0.3

-- The signal comes in steps of the kernel's clock, and one call of a C function may have to end first; a sanitizer
-- makes such a call several times as long.
local LATE = LIMIT / 10 + (host.sanitizer() and 0.2 or 0.05)

-- A machine that is shared can make any computation dearer for a while: a limit is kept if it is in one of these.
local TRIES = 5

-- Half a million levels of calls: Lua walks them all for every hook, and to free them.
local DEEP = host.sanitizer() and 3 or 1

local LIMITED = { "-o", "cpu_limit=" .. LIMIT }

local function fixture(args) return host.start("spec/fixtures/slice.lua", { args = args or LIMITED }) end

local function begin(p, code)
  local c = host.connect(type(p) == "string" and p or p:url())
  assert(c:send((">s4"):pack("local self, moonport = ... " .. code)))
  return c
end

-- What the client gets.
local function run(p, code)
  local c <close> = begin(p, code)
  return c:all()
end

local function stats(p)
  local out = {}
  for name, n in run(p, "for k, v in pairs(self.server:stats()) do self.wfile:write(k, '=', tostring(v), '\\n') end")
    :gmatch("(%S+)=(%S+)\n") do out[name] = tonumber(n) end
  return out
end

-- Seconds of CPU time that an error or warning names: not less than the limit, and not for good.
local function seconds(text)
  local used = tonumber(text:match("it has computed for ([%d.]+) s without a wait, longer than cpu_limit allows"))
  assert.is_truthy(used, text)
  assert.is_true(used >= LIMIT and used < host.SOON, text)
  return used
end

local function nth(p, event, n)
  return host.eventually(function() return event .. " " .. n .. " in:\n" .. host.read(p.log_path) end,
    function() return p:find(event)[n] end)
end

local function is_empty(p)
  local text = run(p, "self.wfile:write('well\\n')")
  assert.are.equal("well\nended\nfinish\n", text)
end

-- That `code` is ended by the limit, once, and all goes on: the CPU time that the error names, and that it took.
local function ended_by_limit(p, code)
  local n = #p:find("handler error")
  local before, began = stats(p), sys.cpu(p.pid)
  local text, why = run(p, code)
  local used = sys.cpu(p.pid) - began
  assert.are.same({ "finish\n" }, { text, why })
  local e = nth(p, "handler error", n + 1)
  assert.is_truthy(e.traceback:find("^stack traceback:"), e.traceback)
  is_empty(p)
  local after = stats(p)
  assert.are.equal(before.cpu_limit + 1, after.cpu_limit)
  assert.are.equal(before.errors + 1, after.errors)
  assert.are.equal(n + 1, #p:find("handler error"))
  return seconds(e.error), used
end

describe("computing without end", function()
  local p

  setup(function() p = fixture() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for where, code in pairs {
    ["in a loop"] = "while true do end",
    ["by goto"] = "::again:: goto again",
    ["in pcall"] = "pcall(function() while true do end end)",
    ["by pcall again and again"] = "while true do pcall(error) end",
    ["by a pcall that catches"] = "while true do pcall(function() while true do end end) end",
    ["by xpcall again and again"] = "while true do xpcall(error, function() end) end",
    ["in a message handler"] = "xpcall(error, function() while true do end end)",
    ["in the message handler of that error"] =
      "while true do xpcall(function() while true do end end, function() while true do end end) end",
    ["in a message handler that fails"] = "while true do xpcall(error, function() error('x') end) end",
    ["in a message handler where nothing can be suspended"] = "tostring(setmetatable({}, { __tostring = function() "
      .. "while true do xpcall(function() while true do end end, function() while true do end end) end end }))",
    ["in coroutine.wrap"] = "coroutine.wrap(function() while true do end end)()",
    ["by coroutine.wrap again and again"] = "while true do coroutine.wrap(function() end)() end",
    ["by coroutine.wrap that fails"] = "while true do pcall(coroutine.wrap(error)) end",
    ["in coroutine.resume"] =
      "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    ["by coroutine.resume again and again"] = "local co = coroutine.create(function() while true do "
      .. "coroutine.yield() end end) while true do coroutine.resume(co) end",
    ["in a coroutine that is older"] = "while true do coroutine.resume(self:older_coroutine()) end",
    ["in three generators in each other"] = "local w, y = coroutine.wrap, coroutine.yield "
      .. "local a = w(function() local i = 0 while true do i = i + 1 y(i) end end) "
      .. "local b = w(function() while true do y(a() * 2) end end) "
      .. "local c = w(function() while true do y(b() + 1) end end) while true do c() end",
    ["in the third of three coroutines"] = "local function within(n) if n == 0 then while true do end end "
      .. "return pcall(coroutine.wrap(within), n - 1) end within(3)",
    ["in a comparison of table.sort"] = "while true do pcall(table.sort, { 1, 2, 3 }, function() while true do end "
      .. "end) end",
    ["by table.sort again and again"] = "local t = {} for i = 1, 100 do t[i] = -i end "
      .. "while true do table.sort(t, function(a, b) return a < b end) end",
    ["in a replacement of string.gsub"] = "while true do pcall(string.gsub, 'aaa', 'a', function() while true do end "
      .. "end) end",
    ["in __tostring"] = "while true do pcall(tostring, setmetatable({}, { __tostring = function() while true do end "
      .. "end })) end",
    ["in table.concat's __index"] = "while true do pcall(table.concat, setmetatable({}, { __len = function() "
      .. "return 2 end, __index = function() while true do end end })) end",
    ["in an iterator"] = "for _ in function() return 1 end do end",
    ["in __pairs"] = "for _ in pairs(setmetatable({}, { __pairs = function() while true do end end })) do end",
    ["in a reader of load"] = "while true do pcall(load, function() while true do end end) end",
    ["by a reader of load"] = "while true do pcall(load, function() return 'x = 1 ' end) end",
    ["in what load gave"] = "load('while true do end')()",
    ["by recursion"] = "local function f() return 1 + f() end while true do pcall(f) end",
    ["by tail calls"] = "local function f() return f() end f()",
    ["by building strings"] = "while true do local s = '' for i = 1, 300 do s = s .. i end end",
    ["by making tables"] = "while true do local t = {} for i = 1, 100 do t[i] = {} end end",
    ["by making coroutines"] = "while true do coroutine.create(function() end) end",
    ["by collecting"] = "while true do collectgarbage('step') end",
    ["in __close"] = "local x <close> = setmetatable({}, { __close = function() while true do end end })",
    ["in __close after an error"] = "pcall(function() local x <close> = setmetatable({}, { __close = function() "
      .. "while true do end end }) error('x') end)",
    ["by <close> variables again and again"] = "while true do local x <close> = setmetatable({}, { __close = "
      .. "function() end }) end",
    ["by objects whose __gc computes, too"] = "while true do setmetatable({}, { __gc = function() while true do end "
      .. "end }) end",
    ["after debug.sethook"] = "pcall(debug.sethook) while true do end",
    ["in a coroutine after debug.sethook"] = "coroutine.wrap(function(co) pcall(debug.sethook, co) while true do end "
      .. "end)(coroutine.running())",
    ["by a reader of load that is a coroutine"] = "local spaces = (' '):rep(1000000) "
      .. "load(coroutine.wrap(function() while true do coroutine.yield(spaces) end end)) while true do end",
    ["in __close of a coroutine that was ended, where nothing can be suspended"] = "table.sort({ 1, 2, 3 }, function() "
      .. "coroutine.wrap(function() local x <close> = setmetatable({}, { __close = function() while true do end end }) "
      .. "while true do end end)() end)",
    ["by reading what is there already"] = "local s = ('x'):rep(1000) while true do s:byte(1, 100) end",
  } do
    it("is ended at the limit: " .. where, function()
      local limit = LIMIT + LATE + (where == "by recursion" and DEEP or 0)
      local told, used
      for _ = 1, TRIES do
        told, used = ended_by_limit(p, code)
        -- What is closed, and collected, comes on top.
        if told <= limit and used <= limit + 0.4 then return end
      end
      error(("it says %.3f s, and took %.3f s of CPU time"):format(told, used))
    end)
  end

  for name, metamethod in pairs {
    __index = "return t.x", __newindex = "t.x = 1", __call = "t()", __add = "return t + 1", __unm = "return -t",
    __concat = "return t .. 'x'", __len = "return #t", __eq = "return t == setmetatable({}, getmetatable(t))",
    __lt = "return t < t", __le = "return t <= t", __idiv = "return t // 1", __shl = "return t << 1",
    __tostring = "return tostring(t)", __name = "return string.format('%s', t)",
  } do
    it("is ended at the limit: in " .. name, function()
      local n = #p:find("handler error")
      local field = name == "__name" and "__tostring" or name
      assert.are.equal("finish\n", run(p, ("local t = setmetatable({}, { %s = function() while true do end end }) "
        .. "while true do pcall(function() %s end) end"):format(field, metamethod)))
      seconds(nth(p, "handler error", n + 1).error)
    end)
  end

  it("names the place, in the innermost coroutine, with the tracebacks of all", function()
    local n = #p:find("handler error")
    run(p, "\ncoroutine.wrap(function()\n  local function hog()\n    while true do end\n  end\n  hog()\nend)()")
    local e = nth(p, "handler error", n + 1)
    assert.is_truthy(e.error:find("^piece:4: it has computed"), e.error)
    assert.is_truthy(e.traceback:find("piece:[34]: in .*hog.*stack traceback:.*slice%.lua:%d+: in function"),
      e.traceback)
  end)

  it("closes variables of all coroutines, the innermost first; then comes finish", function()
    assert.are.equal("close 4\nclose 3\nclose 2\nclose 1\nfinish\n", run(p, [[
      local one <close> = self:closing("1")
      pcall(coroutine.wrap(function()
        local two <close> = self:closing("2")
        coroutine.resume(coroutine.create(function()
          local three <close> = self:closing("3")
          local four <close> = self:closing("4")
          while true do end
        end))
        self.wfile:write("not reached")
      end))
      self.wfile:write("not reached")]]))
  end)

  it("is bounded in what is closed after that, too", function()
    local began = sys.cpu(p.pid)
    -- They share what there is: the last of them may not even begin.
    assert.is_truthy(run(p, [[
      local function hog() while true do pcall(function() while true do end end) end end
      local one <close> = self:closing("1", hog)
      local two <close> = self:closing("2", hog)
      local three <close> = self:closing("3", hog)
      while true do end]]):find("^close 3\n.*finish\n$"))
    assert.is_true(sys.cpu(p.pid) - began < host.SOON)
    is_empty(p)
  end)

  it("has sent what it had written before", function()
    assert.are.equal("before\nfinish\n", run(p, "self.wfile:write('before\\n') while true do end"))
  end)

  it("refuses debug.sethook in one sentence", function()
    local text = run(p, "self.wfile:write(select(2, pcall(debug.sethook, print, 'c')), '\\n')")
    assert.are.equal("debug.sethook is not for handlers: by its hook the host stops code that computes too long\n"
      .. "ended\nfinish\n", text)
  end)

  it("warns once of a __gc that computes, fails or waits, and goes on", function()
    for _, case in ipairs {
      { "while true do end", "it has computed for" },
      { "while true do pcall(function() while true do end end) end", "it has computed for" },
      { "coroutine.wrap(function() while true do end end)()", "it has computed for" },
      { "error('no luck')", "no luck" },
      { "coroutine.yield()", "attempt to yield inside __gc" },
      { "moonport.sleep(1)", "cannot wait inside __gc" },
    } do
      local q = fixture()
      local descriptors = q:descriptors()
      local text = run(q, ([[
        local f = io.open("/dev/null")
        setmetatable({ f }, { __gc = function() %s end })
        f = nil
        collectgarbage() collectgarbage()
        self.wfile:write("collected\n")]]):format(case[1]))
      assert.are.equal("collected\nended\nfinish\n", text)
      local e = nth(q, "warning", 1)
      assert.is_truthy(e.what:find(case[2], 1, true), e.what)
      if case[2]:find("computed") then seconds(e.what) end
      assert.are.equal(1, #q:find("warning"))
      assert.are.same({}, q:find("handler error"))
      host.eventually("descriptors back", function() return q:descriptors() == descriptors end)
      is_empty(q)
      q:stop()
    end
  end)

  for what, gc in pairs {
    ["a table that can be called"] = "setmetatable({}, { __call = function() while true do end end })",
    ["a coroutine"] = "coroutine.wrap(function() while true do end end)",
  } do
    it("reaches a __gc that is " .. what, function()
      local q = fixture()
      assert.are.equal("ended\nfinish\n", run(q, "setmetatable({}, { __gc = " .. gc .. " }) collectgarbage()"))
      seconds(nth(q, "warning", 1).what)
      q:stop()
    end)
  end

  it("reaches a __gc that is put into the metatable later", function()
    local q = fixture()
    assert.are.equal("ended\nfinish\n", run(q, "local m = { __gc = true } setmetatable({}, m) "
      .. "m.__gc = function() while true do end end collectgarbage()"))
    seconds(nth(q, "warning", 1).what)
    q:stop()
  end)

  for what, object in pairs {
    ["of the handler's instances"] = "return self",
    ["of addresses"] = "return self.client_address",
    ["of errors"] = "self.request:settimeout(0) return select(2, pcall(self.rfile:lines()))",
    ["of the server"] = "return self.server",
  } do
    it("reaches a __gc that is put into the metatable " .. what, function()
      local q = fixture()
      local code = "local function get() " .. object .. " end "
      assert.are.equal("ended\nfinish\n", run(q, code .. [[
        local meta = getmetatable(get())
        if meta then meta.__gc = function() while true do end end end]]))
      for _ = 1, 2 do
        assert.are.equal("ended\nfinish\n", run(q, code .. "pcall(get) self.handle = nil collectgarbage()"))
      end
      q:stop()
    end)
  end

  it("bounds what C would search and format for long, and asks no searchpath of the script's own", function()
    assert.are.equal("path too long, format too long, module 'zz' not found\nended\nfinish\n", run(p, [[
      local _, path = pcall(package.searchpath, "x", ("/?;"):rep(100000))
      local _, format = pcall(os.date, ("%%"):rep(100000))
      local own = package.searchpath
      package.searchpath = function() return true end
      local _, module = pcall(require, "zz")
      package.searchpath = own
      self.wfile:write(path:match("%((.-)%)"), ", ", format:match("%((.-)%)"), ", ", module:match("^[^:]+"), "\n")]]))
  end)

  it("leaves a __gc that the script calls itself as it is: arguments, results, waits", function()
    assert.are.equal("1 2 3\nended\nfinish\n", run(p, [[
      local m = { __gc = function(...) moonport.sleep(0) return ... end }
      setmetatable({}, m)
      self.wfile:write(table.concat({ m.__gc(1, 2, 3) }, " "), "\n")]]))
  end)

  it("is ended in a __gc of an object that is left when the program ends", function()
    local q = fixture()
    run(q, "kept = setmetatable({}, { __gc = function() while true do end end })")
    local began = sys.cpu(q.pid)
    q:kill("TERM")
    assert.are.equal(0, q:wait())
    assert.is_true(began >= 0)
    seconds(nth(q, "warning", 1).what)
  end)
end)

describe("a handler that waits now and then", function()
  after_each(host.cleanup)

  it("may compute for ever", function()
    local p = fixture { "-o", "cpu_limit=0.2" }
    local c <close> = begin(p, [[
      while true do
        local till = os.clock() + 0.03
        while os.clock() < till do end
        self.wfile:write("x")
        moonport.sleep(0)
      end]])
    assert.is_truthy(c:receive(60)) -- 1.8 s
    c:close()
    assert.are.same({}, p:find("handler error"))
    p:stop()
  end)

  it("may read what is always there, and answer", function()
    local p = fixture { "-o", "cpu_limit=0.2" }
    local c <close> = begin(p, [[
      local till = os.clock() + 1
      while os.clock() < till do self.wfile:write(self.rfile:read("L")) end]])
    local text = ("x"):rep(98) .. "\n"
    local lines = text:rep(50)
    local got
    repeat
      assert(c:send(lines))
      got = c:receive(1) == "x" and c:receive(#lines - 1)
    until not got or got:find("ended") or #p:find("handler error") > 0 or c.held:find("ended")
      or sys.cpu(p.pid) > 1.2
    c:close()
    assert.are.same({}, p:find("handler error"))
    p:stop()
  end)
end)

-- A script, its module `hog`, which computes without end when it is loaded, and a request's reply.
local function script(text)
  local folder = host.folder()
  host.write("while true do end", folder .. "/hog.lua")
  return host.write('local moonport = require("moonport") local H = { server = {} } ' .. text .. " return H",
    folder .. "/script.lua")
end

describe("cpu_limit", function()
  after_each(plain.cleanup)

  for _, mixin in ipairs { "sync", "async", "threading", "forking" } do
    for where, case in pairs {
      setup = { "function H:setup() while true do end end function H:handle() end", "finish" },
      handle = { "function H:handle() while true do end end", "finish" },
      verify_request = { "function H.server.verify_request() while true do end end function H:handle() end", "finish" },
      finish = { "function H:handle() self.wfile:write('handle') end function H:finish() while true do end end",
        "handle" },
      ["handle and finish"] = { "function H:handle() self.wfile:write('handle') while true do end end "
        .. "function H:finish() self.wfile:write('finish') while true do end end", "handlefinish" },
      handle_error = { "function H.server.handle_error() while true do end end function H:handle() error('x') end",
        "finish" },
      ["a module"] = { "function H:handle() pcall(require, 'hog') self.wfile:write('not reached') end", "finish" },
    } do
      it("holds under " .. mixin .. " in " .. where, function()
        local p = host.start(script("function H:finish() self.wfile:write('finish') end " .. case[1]),
          { args = { "--mixin=" .. mixin, table.unpack(LIMITED) } })
        for i = 1, 2 do
          local c <close> = host.connect(p:url())
          assert.are.same({ case[2] }, { c:all() })
          local e = nth(p, "handler error", i)
          seconds(e.error)
        end
        p:stop()
      end)
    end
  end

  it("gives handle_error the error value", function()
    local p = host.start(script("function H:handle() while true do end end "
      .. "function H.server.handle_error(_, _, _, e) moonport.log('info', e.code .. ' ' .. tostring(e) "
      .. ".. (e.traceback:match('^stack traceback') or '')) end"), { args = LIMITED })
    local c <close> = host.connect(p:url())
    c:all()
    local told = nth(p, "script", 1).message
    assert.is_truthy(told:find("^cpu_limit .*script%.lua:1: it has computed .*stack traceback$"), told)
    assert.are.same({}, p:find("handler error"))
    p:stop()
  end)

  for _, command in ipairs { "serve", "check", "try" } do
    it("holds while a script is loaded, by " .. command, function()
      for _, text in ipairs { "while true do end", "while true do pcall(error) end", "require('hog')" } do
        local code, _, said = host.run { command, script(text), table.unpack(LIMITED) }
        assert.are.equal(100, code)
        seconds(said)
      end
    end)
  end

  it("holds in `moonport try`", function()
    local code, out, said = host.run({ "try", script("function H:handle() self.wfile:write('a') while true do end end"),
      table.unpack(LIMITED) })
    assert.are.same({ 1, "a" }, { code, out })
    seconds(said)
  end)

  it("holds while a script is loaded again, in save and in init; the old one serves, meanwhile as well", function()
    local lines = "function H:handle() for l in self.rfile:lines('L') do self.wfile:write(l) end end "
    local old = lines .. "function H.save() return {} end "
    local path = script(old)
    local p = host.start(path, { args = LIMITED })
    local c <close> = host.connect(p:url())
    local n = 0
    local function refused(with, was)
      host.write(host.read(script((was or old) .. with)), path)
      n = n + 1
      p:kill("HUP")
      local asked = 0
      local e = host.eventually("reload failed", function()
        assert.are.equal("well", c:ask("well"))
        asked = asked + 1
        return p:find("reload failed")[n]
      end)
      seconds(e.why)
      assert.is_true(asked > 3, "round trips meanwhile: " .. asked)
    end
    refused("while true do end")
    refused("require('hog')")
    refused("function H.init() while true do end end")
    local saves = lines .. "function H.save() while true do end end "
    host.write(host.read(script(saves)), path)
    p:kill("HUP")
    nth(p, "reloaded", 1)
    refused("", saves)
    c:close()
    p:stop()
  end)

  it("and time_slice may be none", function()
    local spin = "local till = os.clock() + 0.4 while os.clock() < till do end self.wfile:write('well')"
    for _, args in ipairs { { "cpu_limit=none" }, { "time_slice=none", "cpu_limit=1" }, { "cpu_limit=none",
      "time_slice=none" } } do
      local argv = {}
      for _, a in ipairs(args) do argv[#argv + 1] = "-o" argv[#argv + 1] = a end
      local p = host.start(script("function H:handle() " .. spin .. " end"), { args = argv })
      local c <close> = host.connect(p:url())
      assert.are.equal("well", (c:all()))
      c:close()
      p:stop()
    end
    local p = host.start("spec/fixtures/slice.lua", { args = { "-o", "time_slice=none", table.unpack(LIMITED) } })
    assert.are.equal("finish\n", run(p, "while true do end"))
    seconds(nth(p, "handler error", 1).error)
    p:stop()
  end)

  it("is checked", function()
    for _, option in ipairs { "cpu_limit=0", "cpu_limit=-1", "time_slice=0", "cpu_limit=x" } do
      local code, _, said = host.run { "serve", script("function H:handle() end"), "-o", option }
      assert.are.equal(100, code)
      assert.is_truthy(said:find(option:match("^[^=]+"), 1, true), said)
    end
  end)

  for _, mixin in ipairs { "async", "threading" } do
    it("holds in a plain Lua process, under " .. mixin, function()
      local p = plain.start([[
        local server = moonport.start(arg[2], { mixin = arg[3], options = { cpu_limit = 0.3 } })
        say("at", server.url)
        io.read()
        server:shutdown()]], "spec/fixtures/slice.lua", mixin)
      for _ = 1, 2 do
        assert.are.equal("finish\n", run(p:url(), "while true do pcall(function() while true do end end) end"))
      end
      assert.are.equal("well\nended\nfinish\n", run(p:url(), "self.wfile:write('well\\n')"))
      p:tell("")
      p:done()
    end)
  end
end)

describe("a slice", function()
  after_each(host.cleanup)

  for _, hogs in ipairs { 2, 20 } do
    it("is all that " .. hogs .. " hogs get before others have their turn", function()
      local p = fixture { "-o", "cpu_limit=20" }
      local clients = {}
      for i = 1, 64 do
        clients[i] = begin(p, "for l in self.rfile:lines('L') do self.wfile:write(l) end")
      end
      local greedy = {}
      for i = 1, hogs do
        greedy[i] = begin(p, i % 2 == 0 and "while true do pcall(error) end" or "while true do end")
      end
      -- All conversations at once, again and again, while no hog has ended: each round would last for a hog's whole
      -- limit if one had to end first.
      local began, rounds = sys.now(), 0
      while rounds < 20 do
        for _, c in ipairs(clients) do assert(c:send("a line\n")) end
        for _, c in ipairs(clients) do assert.are.equal("a line", c:line()) end
        rounds = rounds + 1
      end
      assert.are.same({}, p:find("handler error"), "after " .. sys.now() - began .. " s")
      local preempted = stats(p).preempted -- a round or two may find room between two slices
      assert.is_true(preempted >= 10, preempted)
      for _, c in ipairs(greedy) do c:reset() end
      for _, c in ipairs(clients) do c:close() end
      p:kill("KILL") -- the hogs would go on for long
      p:wait()
    end)
  end

  -- Each hog counts itself when it begins; how many have begun when somebody who waits for time has a turn again.
  for what, rouse in pairs {
    ["are spawned together"] = [[for _ = 1, 40 do moonport.spawn(hog) end]],
    ["are woken together"] = [[
      local e = moonport.event()
      for _ = 1, 40 do moonport.spawn(function() e:wait() hog() end) end
      moonport.sleep(0)
      e:set()]],
  } do
    it("is had by one of those that " .. what .. " before others have their turn", function()
      local p = fixture()
      local c <close> = begin(p, [[
        begun = 0
        self.wfile:write("!")
        while begun == 0 do moonport.sleep(0) end
        self.wfile:write(begun, "\n") ]])
      assert.are.equal("!", c:receive(1))
      local hogs <close> = begin(p, [[
        local function hog() begun = begun + 1 while true do end end ]] .. rouse .. [[
        self.rfile:read("a")]])
      local first = tonumber(c:line())
      assert.is_true(first > 0 and first <= 4, first)
      hogs:close()
      p:kill("KILL") -- the hogs would go on for long
      p:wait()
    end)
  end

  -- Asks until some answer has a task like that, for the first may come before it has run at all.
  local function seen(p, what, is_it)
    host.eventually(function() return what .. " in:\n" .. host.read(p.log_path) end, function()
      p:kill("USR1")
      for _, e in ipairs(p:find("task")) do
        if is_it(e) then return true end
      end
    end)
  end

  it("leaves who computes to be seen: SIGUSR1 tells of it, with its place", function()
    local p = fixture { "-o", "cpu_limit=1" }
    local c <close> = begin(p, "\nself.wfile:write('x') self.wfile:flush()\nwhile true do end")
    assert.are.equal("x", c:receive(1))
    seen(p, "a task that computes", function(e) return e.state == "computing" and e.traceback:find("piece:%d: in") end)
    c:all()
    p:stop()
  end)

  it("leaves a script that is loaded to be seen, too", function()
    local path = script("function H:handle() end")
    local p = host.start(path, { args = { "-o", "cpu_limit=1" } })
    host.write("while true do end", path)
    p:kill("HUP")
    seen(p, "a task that loads", function(e)
      return e.script == path and e.traceback:find("script.lua:1: in", 1, true)
    end)
    nth(p, "reload failed", 1)
    p:stop()
  end)
end)
