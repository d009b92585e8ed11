local case = require("support.case")
local host = require("support.host")
local plain = require("support.plain")

local p

-- Lua for a piece: what it returns notes this word in kept.log when it is closed.
local NOTE = "kept.log = {} local function note(s) return setmetatable({}, "
  .. "{ __close = function() table.insert(kept.log, s) end }) end "

-- The only events of that name, without waiting for one.
local function events(program, name)
  local out = {}
  for i, e in ipairs(program:find(name)) do out[i] = e.error end
  return out
end

describe("moonport.atomically", function()
  after_each(host.cleanup)

  -- Two tasks add to a counter in two steps, each for many slices; "atomically" is what they do it by.
  local SCRIPT = [[
    local moonport = require("moonport")
    local n, over, done = 0, 0, moonport.event()
    local function add() local was = n for _ = 1, 50 do end n = was + 1 end
    local function many()
      for _ = 1, 200000 do %s end
      over = over + 1
      done:set()
    end
    function handle(self)
      for _ = 1, 3 do moonport.spawn(many) end
      while over < 3 do done:wait() end
      self.wfile:write(n, "\n")
    end]]

  local function count(how)
    local program = host.start(host.write(SCRIPT:format(how)), { args = { "-o", "time_slice=0.001" } })
    local c <close> = host.connect(program:url())
    local got = tonumber(c:line())
    program:stop()
    return got
  end

  it("lets no other task in", function()
    assert.is_true(count("add()") < 600000) -- else this shows nothing
    assert.are.equal(600000, count("moonport.atomically(add)"))
  end)

  it("passes arguments, results and errors, and may not wait", function()
    local program = case.start()
    local got = case.run(program, [[
      local a, b = moonport.atomically(function(...) return (...), select("#", ...) end, 1, nil)
      local _, e = pcall(moonport.atomically, error, "no", 0)
      local _, w = pcall(moonport.atomically, moonport.sleep, 0)
      return a, b, e, tostring(w), (pcall(moonport.atomically, 1))]])
    assert.are.same({ 1, 2, "no" }, { got[1], got[2], got[3] })
    assert.is_truthy(got[4]:find("cannot wait inside moonport.atomically", 1, true), got[4])
    assert.is_false(got[5])
    program:stop()
  end)
end)

describe("moonport.spawn", function()
  setup(function() p = case.start { args = { "-o", "cpu_limit=1" } } end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for what, piece in pairs {
    ["begins soon, never at once, and in order"] = { [[
      local out = {}
      for i = 1, 3 do moonport.spawn(function() out[#out + 1] = i end) end
      local at_once = #out
      moonport.sleep(0)
      return at_once, table.concat(out)]], 0, "123" },
    ["passes arguments on, and returns nothing"] = { [[
      local got
      local n = select("#", moonport.spawn(function(...) got = table.pack(...) end, 1, nil, "x", nil))
      moonport.sleep(0)
      return n, got.n, got[1], got[3] ]], 0, 4, 1, "x" },
    ["is possible beside a spawned one, and in a coroutine"] = { [[
      local e, out = moonport.event(), {}
      moonport.spawn(function()
        coroutine.wrap(function() moonport.spawn(function() out[1] = "deep" e:set() end) end)()
        out[2] = "end"
      end)
      e:wait()
      return out[1], out[2] ]], "deep", "end" },
    ["goes on when the one that spawned it has ended"] = { [[
      local e = moonport.event()
      moonport.spawn(function() moonport.spawn(function() moonport.sleep(0.005) e:set() end) end)
      return e:wait(5)]], true },
    ["is possible inside C that cannot wait"] = { [[
      local e = moonport.event()
      table.sort({ 1, 2 }, function() moonport.spawn(e.set, e) return false end)
      return e:wait(5)]], true },
    ["lets the others run while it computes"] = { [[
      local turns = 0
      moonport.spawn(function() local x = 0 for i = 1, 3e6 do x = x + i % 7 end turns = -1000 end)
      while turns >= 0 do moonport.sleep(0.001) turns = turns + 1 end
      return turns > -1000 or turns == -999]], true },
    ["has a main coroutine of its own"] = { [[
      local e, is_main, why = moonport.event()
      moonport.spawn(function()
        is_main = select(2, coroutine.running())
        why = select(2, pcall(coroutine.yield))
        e:set()
      end)
      e:wait()
      return is_main, why]], true, "attempt to yield from outside a coroutine" },
    ["takes functions only"] = { [[
      local _, why = pcall(moonport.spawn, {})
      return why]], "bad argument #1 to 'moonport.spawn' (function expected, got table)" },
  } do
    it(what, function()
      local got = case.run(p, piece[1])
      assert.are_not.equal("raised", got[1], got[2])
      for i = 1, 4 do assert.are.equal(piece[i + 1], got[i]) end
    end)
  end

  it("writes beside handle, which reads: a heartbeat", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece [[
      moonport.spawn(function() while true do moonport.sleep(0.005) wfile:write("beat\n") end end)
      for line in rfile:lines() do wfile:write(line, "\n") end]])
    for _ = 1, 3 do assert.are.equal("beat", c:line()) end
    c:send("x\n")
    local line
    repeat line = c:line() until line ~= "beat"
    assert.are.equal("x", line)
    c:finish()
    c:all()
  end)

  it("reads beside handle, which writes", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece [[
      local e, got = moonport.event(), {}
      moonport.spawn(function()
        for line in rfile:lines() do got[#got + 1] = line e:set() end
        got.over = true
        e:set()
      end)
      while not got.over do wfile:write("!") e:wait() end
      return table.concat(got, " ")]])
    for _, line in ipairs { "a\n", "b\n" } do
      assert.are.equal("!", c:receive(1))
      c:send(line)
    end
    assert.are.equal("!", c:receive(1))
    c:finish()
    assert.are.same({ "a b", n = 1 }, (case.results((c:all()))))
  end)

  it("ends with its request: closed, the youngest first, innermost first", function()
    case.run(p, NOTE .. [[
      moonport.spawn(function()
        local _ <close> = note("old outer")
        coroutine.wrap(function() local _ <close> = note("old inner") moonport.sleep(100) end)()
      end)
      moonport.spawn(function() local _ <close> = note("young") moonport.event():wait() end)
      moonport.spawn(function() local _ <close> = note("done") end)
      moonport.spawn(function()
        local _ <close> = setmetatable({}, { __close = function()
          moonport.spawn(function() note("late"):nothing() end)
          table.insert(kept.log, tostring(pcall(moonport.sleep, 0)))
        end })
        moonport.sleep(100)
      end)
      moonport.sleep(0)
      moonport.spawn(function() local _ <close> = note("never begun") end)]])
    assert.are.same({ { "done", "false", "young", "old inner", "old outer" }, n = 1 }, case.run(p, "return kept.log"))
  end)

  it("may write when it is closed: that goes out, too", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece [[
      moonport.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() wfile:write("bye") end })
        moonport.sleep(100)
      end)
      moonport.sleep(0)]])
    c:finish()
    assert.matches("bye$", (c:all()))
  end)

  it("gets an error when another one reads already; that one gets all", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece [[
      local tries = { function() return rfile:read() end, function() return request:recv() end,
        function() return rfile:readexactly(1) end, rfile:lines("n") }
      moonport.spawn(function()
        for _, try in ipairs(tries) do wfile:write(select(2, pcall(try)), "\n") end
      end)
      return rfile:read()]])
    c:send("par")
    for _ = 1, 4 do assert.matches("another task is reading from this connection: only one can", c:line()) end
    c:send("tial\n")
    assert.are.same({ "partial", n = 1 }, (case.results((c:all()))))
  end)

  it("does not read into a long read of another one, which yields in between", function()
    local c <close> = host.connect(p:url(), { send = 1 << 22 })
    c:send(case.piece [[
      local wrong, over = 0, false
      moonport.spawn(function()
        while not over do
          if pcall(rfile.readexactly, rfile, 1) then wrong = wrong + 1 end
          moonport.sleep(0)
        end
      end)
      local data = rfile:readexactly(8 << 20)
      over = true
      return #data, wrong]])
    c:send(("x"):rep(8 << 20))
    assert.are.same({ 8 << 20, 0, n = 2 }, (case.results((c:all()))))
  end)

  it("gets an error when another one is stuck in a write", function()
    local c <close> = host.connect(p:url(), { receive = 1 })
    c:send(case.piece [[
      moonport.spawn(function() request:sendall(("x"):rep(16 << 20)) kept.sent = true end)
      moonport.sleep(0)
      local _, why = pcall(request.sendall, request, "y")
      kept.why = why
      while not kept.sent do moonport.sleep(0.01) end]])
    local reply = c:all()
    assert.are.equal(16 << 20, #reply:match("^x*"))
    assert.is_nil(reply:find("y", 1, true))
    assert.matches("another task is writing to this connection", case.run(p, "return kept.why")[1])
  end)

  it("that is ended in the middle of a write ends the connection there", function()
    local c <close> = host.connect(p:url(), { receive = 1 })
    c:send(case.piece [[
      moonport.spawn(function() request:sendall(("x"):rep(16 << 20)) end)
      moonport.sleep(0)]])
    assert.matches("^x+$", (c:all()))
  end)

  it("may close the connection under its handler, and the other way round", function()
    local closed = { false, "the connection was closed during a read", n = 2 }
    case.run(p, [[
      moonport.spawn(function() moonport.sleep(0) request:close() end)
      kept.got = table.pack(pcall(rfile.read, rfile))]], nil, true)
    assert.are.same(closed, case.run(p, "return table.unpack(kept.got)"))
    case.run(p, [[
      moonport.spawn(function() kept.got = table.pack(pcall(rfile.read, rfile)) end)
      moonport.sleep(0)
      request:close()
      moonport.sleep(0)]], nil, true)
    assert.are.same(closed, case.run(p, "return table.unpack(kept.got)"))
  end)

  it("ends when its request is killed for computing", function()
    local q = case.start { args = { "-o", "cpu_limit=0.1" } }
    case.run(q, NOTE .. [[
      moonport.spawn(function() local _ <close> = note("closed") moonport.sleep(100) end)
      moonport.sleep(0)
      while true do end]])
    assert.are.same({ { "closed" }, n = 1 }, case.run(q, "return kept.log"))
    q:stop()
  end)

  describe("10,000 times", function()
    it("leaves no memory behind", function()
      local function spawn()
        assert.are.same({ 10000, n = 1 }, case.run(p, [[
          local n = 0
          for i = 1, 10000 do
            moonport.spawn(function() n = n + 1 end)
            if i % 100 == 0 then moonport.sleep(0) end
          end
          collectgarbage() -- it may be far from its next round
          return n]]))
      end
      for _ = 1, 5 do spawn() end -- until the collector has found its pace
      local before = p:memory()
      for _ = 1, 5 do spawn() end
      if not host.sanitizer() then assert.is_true(p:memory() - before < 1024, p:memory() - before) end
    end)

    it("at once ends all of them with the request", function()
      assert.are.same({ 0, n = 1 }, case.run(p, [[
        for _ = 1, 10000 do moonport.spawn(moonport.sleep, 100) end
        moonport.sleep(0)
        return 0]]))
      assert.are.same({ 1, n = 1 }, case.run(p, "return self.server:stats().tasks"))
    end)
  end)
end)

describe("an error in a spawned task", function()
  local q
  before_each(function() q = case.start { args = { "-o", "cpu_limit=0.1" } } end)
  after_each(function()
    if q then q:stop() end
    host.cleanup()
  end)

  it("is one event, with traceback; the request goes on", function()
    assert.are.same({ "x", n = 1 }, case.run(q, [[
      moonport.spawn(function() local function deep() error("oops") end deep() end)
      moonport.sleep(0)
      return rfile:read()]], "x\n"))
    local found = q:find("error in a spawned task")
    assert.are.equal(1, #found)
    assert.matches("case:1: oops$", found[1].error)
    assert.matches("^stack traceback:.*in .*deep", found[1].traceback)
    assert.matches("^127.0.0.1:%d+$", found[1].client)
    assert.are.equal(1, found[1].generation)
    assert.are.equal("case", found[1].server)
    assert.are.same({}, q:find("handler error"))
    assert.are.same({ 1, n = 1 }, case.run(q, "return self.server:stats().errors"))
  end)

  for what, t in pairs {
    ["a table"] = { "error({})", "(error object is a table value)" },
    ["nil"] = { "error()", "nil" },
    ["one of the host's"] = { "self.request:settimeout(-1)",
      "case:1: bad argument #1 to 'settimeout' (seconds must not be negative)" },
    ["in a coroutine"] = { "coroutine.wrap(function() error('x', 0) end)()", "case:1: x" },
    ["in a __close after it"] =
      { "local _ <close> = setmetatable({}, { __close = function() error('y', 0) end }) error('x')", "y" },
    ["in a __close, which waits before"] =
      { "local _ <close> = setmetatable({}, { __close = function() moonport.sleep(0) error('y', 0) end })", "y" },
    ["in a __close when it is ended"] =
      { "local _ <close> = setmetatable({}, { __close = function() error('z', 0) end }) moonport.sleep(100)",
        "z" },
  } do
    it("may be " .. what, function()
      case.run(q, "moonport.spawn(function() " .. t[1] .. " end) moonport.sleep(0.01)")
      assert.are.same({ t[2] }, events(q, "error in a spawned task"))
    end)
  end

  it("may be that it computes for too long, also when it is ended", function()
    assert.are.same({ "fine", n = 1 }, case.run(q, [[
      local e = moonport.event()
      moonport.spawn(function() local _ <close> = setmetatable({}, { __close = function() e:set() end })
        while true do pcall(function() while true do end end) end end)
      e:wait()
      return "fine"]]))
    case.run(q, [[
      moonport.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() while true do end end })
        moonport.sleep(100)
      end)
      moonport.sleep(0)]])
    local found = events(q, "error in a spawned task")
    assert.are.equal(2, #found)
    for _, e in ipairs(found) do assert.matches("case:%d: it has computed for .* longer than cpu_limit allows", e) end
    assert.are.same({ 2, 2, n = 2 }, case.run(q, "local s = self.server:stats() return s.errors, s.cpu_limit"))
  end)

  it("is not that the peer is gone: that is one line", function()
    local c = host.connect(q:url())
    c:send(case.piece [[
      moonport.spawn(function() while true do wfile:write("x") moonport.sleep(0.001) end end)
      moonport.sleep(100)]])
    c:receive(1)
    c:reset()
    host.eventually("the end", function() return #q:find("peer gone") + #q:find("cancelled") > 0 end)
    q:stop()
    assert.are.same({}, events(q, "error in a spawned task"))
    q = nil
  end)

  it("is the only thing that goes wrong for want of memory", function()
    q:stop()
    q = case.start { args = { "-o", "memory_limit=4M" } }
    local got = case.run(q, [[
      local n = 0
      local ok, why = pcall(function() while true do moonport.spawn(moonport.sleep, 100) n = n + 1 end end)
      return ok, tostring(why), n > 100]])
    assert.are.same({ false, "not enough memory", true, n = 3 }, got)
    assert.are.same({ "again", n = 1 }, case.run(q, [[
      local e = moonport.event()
      moonport.spawn(function() e:set() end)
      e:wait()
      return "again"]]))
    case.run(q, "moonport.spawn(function() local s = ('x'):rep(64 << 20) end) moonport.sleep(0)")
    assert.matches("not enough memory", events(q, "error in a spawned task")[1])
  end)
end)

describe("a spawned task is cancelled with its request:", function()
  after_each(host.cleanup)

  -- All three raise; two of them clean up, which takes time.
  local PIECE = [[
    kept.why, kept.cleaned = {}, 0
    local function wait()
      local ok, e = pcall(moonport.sleep, 100)
      table.insert(kept.why, tostring(e))
      moonport.sleep(0.001)
      kept.cleaned = kept.cleaned + 1
    end
    moonport.spawn(wait)
    moonport.spawn(function()
      local e = moonport.event()
      table.insert(kept.why, tostring(select(2, pcall(e.wait, e))))
    end)
    wfile:write("!")
    wait()
    moonport.sleep(0.02)]]

  local function check(q, why)
    assert.are.same({ { why, why, why }, 2, n = 2 }, host.eventually("two that have cleaned up", function()
      local got = case.run(q, "return kept.why, kept.cleaned")
      return got[2] == 2 and got
    end))
    assert.are.same({}, q:find("error in a spawned task"))
  end

  it("by request_timeout", function()
    local q = case.start { args = { "-o", "request_timeout=0.05" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece(PIECE))
    c:all()
    check(q, "cancelled: request_timeout")
    c:close()
    q:stop()
  end)

  it("by a peer that is gone", function()
    local q = case.start()
    local c = host.connect(q:url())
    c:send(case.piece(PIECE))
    c:receive(1)
    c:reset()
    check(q, "cancelled: the peer is gone")
    q:stop()
  end)

  it("by a drain", function()
    local q = case.start { args = { "-o", "drain_timeout=0.05" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece(PIECE .. " wfile:write(table.concat(kept.why, ';'))"))
    c:receive(1)
    q:kill("TERM")
    assert.matches("^cancelled: [^;]*;cancelled: [^;]*;cancelled: [^;]*", (c:all()))
    c:close()
    assert.are.equal(0, q:wait())
    assert.are.equal(0, q:find("stopped")[1].tasks)
  end)

  it("and closed with it when its grace is over", function()
    local q = case.start { args = { "-o", "request_timeout=0.05", "-o", "cancel_grace=0.05" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece(NOTE .. [[
      local function stay(s) local _ <close> = note(s) while true do pcall(moonport.sleep, 100) end end
      moonport.spawn(stay, "beside")
      stay("request")]]))
    c:all()
    c:close()
    local log = case.run(q, "table.sort(kept.log) return kept.log")
    assert.are.same({ { "beside", "request" }, n = 1 }, log)
    q:stop()
  end)

  it("while it cleans up, too, it may spawn; that has the same end", function()
    local q = case.start { args = { "-o", "request_timeout=0.05", "-o", "cancel_grace=0.1" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece [[
      pcall(moonport.sleep, 100)
      local e = moonport.event()
      moonport.spawn(function() moonport.sleep(0.001) e:set() end)
      kept.ok = e:wait()
      moonport.spawn(function() while true do pcall(moonport.sleep, 100) end end)
      moonport.sleep(100)]])
    c:all()
    c:close()
    assert.are.same({ true, 1, n = 2 }, case.run(q, "return kept.ok, self.server:stats().tasks"))
    q:stop()
  end)
end)

describe("moonport.spawn", function()
  after_each(host.cleanup)

  local SCRIPT = [[
    local moonport = require("moonport")
    local Beside = {}
    function Beside:handle()
      local e, n = moonport.event(), 0
      moonport.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() self.wfile:write(".") end })
        for _ = 1, 3 do moonport.sleep(0.001) n = n + 1 end
        self.wfile:write("beside ")
        e:set()
        moonport.sleep(100)
      end)
      e:wait()
      self.wfile:write(tostring(n))
    end
    return Beside]]

  for _, mixin in ipairs { "sync", "async", "threading", "forking" } do
    for _, listen in ipairs { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" } do
      it("works under " .. mixin .. " at " .. listen:sub(1, 3), function()
        local q = host.start(host.write(SCRIPT), { listen = listen, args = { "--mixin=" .. mixin } })
        for _ = 1, 3 do
          local c <close> = host.connect(q:url())
          if listen:find("udp") then
            c:send("x")
            assert.are.equal("beside 3.", c:some())
          else
            c:finish()
            assert.are.equal("beside 3.", (c:all()))
          end
        end
        q:stop()
      end)
    end
  end

  it("raises one clear error where no request runs", function()
    local q = host.start(host.write [[
      local moonport = require("moonport")
      local _, why = pcall(moonport.spawn, print)
      function handle(self)
        local late
        setmetatable({}, { __gc = function() late = select(2, pcall(moonport.spawn, print)) end })
        collectgarbage()
        self.wfile:write(why, "\n", late, "\n")
      end]])
    local c <close> = host.connect(q:url())
    c:finish()
    local text = c:all()
    for line in text:gmatch("[^\n]+") do
      assert.matches("^moonport.spawn is for a running request: it was called while none was running", line)
    end
    assert.are.equal(2, select(2, text:gsub("\n", "")))
    q:stop()
  end)

  it("stays with the code that its request began with", function()
    local script = host.write [[
      local moonport = require("moonport")
      function handle(self)
        moonport.spawn(function()
          for line in self.rfile:lines() do self.wfile:write("old ", line, "\n") end
          self.over = true
        end)
        self.wfile:write("ready\n")
        while not self.over do moonport.sleep(0.005) end
      end]]
    local q = host.start(script)
    local c <close> = host.connect(q:url())
    assert.are.equal("ready", c:line())
    host.write("function handle(self) self.wfile:write('new') end", script)
    q:kill("HUP")
    q:find("reloaded", true)
    local d <close> = host.connect(q:url())
    d:finish()
    assert.are.equal("new", (d:all()))
    assert.are.equal("old x", c:ask("x"))
    c:finish()
    c:all()
    q:stop()
  end)

  it("that is still writing when its request is over is cut, and the peer is not blamed", function()
    local q = host.start(host.write [[
      local moonport = require("moonport")
      function handle(self)
        moonport.spawn(function() self.wfile:write(("a"):rep(20000000)) end)
        moonport.sleep(0)
        self.server:shutdown()
      end]])
    local c <close> = host.connect(q:url())
    local told = q:find("cancelled", true)[1]
    assert.matches("spawned task", told.why, 1, true)
    assert.is_true(#c:all() < 20000000)
    assert.are.same({}, q:find("peer gone"))
    assert.are.equal(0, q:wait())
  end)

  it("shows up when the host is asked what runs", function()
    local q = case.start()
    local c <close> = host.connect(q:url())
    c:send(case.piece [[
      moonport.spawn(function() moonport.event():wait() end)
      moonport.sleep(0)
      wfile:write("!")
      rfile:read()]])
    c:receive(1)
    q:kill("USR1")
    local tasks = host.eventually("two tasks", function()
      local found = q:find("task")
      return #found == 2 and found
    end)
    assert.is_nil(tasks[1].spawned)
    assert.are.equal("yes", tasks[2].spawned)
    assert.are.equal(tasks[1].client, tasks[2].client)
    assert.matches("in method 'wait'", tasks[2].traceback)
    c:finish()
    c:all()
    c:close()
    q:stop()
  end)
end)

describe("moonport.spawn in a plain Lua", function()
  after_each(plain.cleanup)

  it("lives as long as run's function", function()
    assert.matches("^false moonport.spawn is for a running request.-\nbeside\nclosed\n7\n$", plain.run [[
      say(pcall(moonport.spawn, print))
      say(moonport.run(function()
        local e = moonport.event()
        moonport.spawn(function()
          local _ <close> = setmetatable({}, { __close = function() say("closed") end })
          say("beside")
          e:set()
          moonport.sleep(100)
        end)
        e:wait()
        return 7
      end))]])
  end)

  it("ends with it when it raises, and tells its own errors", function()
    local q = plain.start [[
      say(pcall(moonport.run, function()
        moonport.spawn(function() local _ <close> = setmetatable({}, { __close = function() say("closed") end })
          moonport.sleep(100) end)
        moonport.spawn(function() error("beside", 0) end)
        moonport.sleep(0.001)
        error("oops", 0)
      end))]]
    assert.are.equal("closed\nfalse oops\n", q:done())
    assert.matches("error in a spawned task error=beside traceback=", q:log() .. q:text())
  end)

  for _, class in ipairs { "TCPServer", "AsyncTCPServer", "ForkingTCPServer" } do
    it("works in handlers of " .. class, function()
      local q = plain.start(([[
        local H = socketserver.class("H", socketserver.StreamRequestHandler)
        function H:handle()
          local e = moonport.event()
          moonport.spawn(function()
            local _ <close> = setmetatable({}, { __close = function() self.wfile:write(".") end })
            self.wfile:write("beside ") e:set() moonport.sleep(100)
          end)
          e:wait()
          self.wfile:write("handle")
        end
        until_told(socketserver.%s({ "127.0.0.1", 0 }, H))]]):format(class))
      local c <close> = host.connect(q:url())
      c:finish()
      assert.are.equal("beside handle.", (c:all()))
      c:close()
      q:stop()
    end)
  end
end)
