local case = require("support.case")
local host = require("support.host")

local NAMES = { "request", "rfile", "wfile" }

describe("an error of a handler", function()
  local p, calm
  setup(function()
    p = host.start("spec/fixtures/errors.lua")
    calm = host.connect(p:url())
    calm:send("echo\n")
  end)
  teardown(function()
    calm:close()
    p:stop()
    host.cleanup()
  end)

  -- Runs a case of the fixture; its reply, and the events that it has logged.
  local function provoke(name, more)
    local before = #p:events()
    local c <close> = host.connect(p:url())
    c:send(name .. "\n" .. (more or ""))
    c:finish()
    local reply = c:all()
    local events
    host.eventually("the event of " .. name, function()
      events = { table.unpack(p:events(), before + 1) }
      return #events > 0
    end)
    assert.are.equal("still here", calm:ask("still here"))
    return reply, events
  end

  it("is one log event, with a traceback, and the end of that request alone", function()
    local _, events = provoke("raise")
    assert.are.equal(1, #events)
    local e = events[1]
    assert.are.equal("handler error", e.event)
    assert.are.equal("error", e.level)
    assert.are.equal("errors", e.server)
    assert.are.equal(1, e.generation)
    assert.matches("^127%.0%.0%.1:%d+$", e.client)
    assert.matches("errors%.lua:%d+: on purpose$", e.error)
    assert.matches("^stack traceback:", e.traceback)
    assert.matches("errors%.lua:%d+: in .*'?deeper'?", e.traceback)
  end)

  it("may be any value: one event, the connection closed", function()
    for name, text in pairs {
      ["raise nil"] = "nil",
      ["raise table"] = "error object is a table value",
      ["raise number"] = "42",
      ["raise function"] = "function",
      ["raise with tostring"] = "^in words$",
      ["raise with a bad tostring"] = "a table whose __tostring failed",
      ["raise with a wrong tostring"] = "a table whose __tostring failed",
      ["raise binary"] = "\xc2\xff\\?",
    } do
      local _, events = provoke(name)
      assert.are.equal(1, #events, name)
      assert.are.equal("handler error", events[1].event, name)
      if name ~= "raise binary" then assert.matches(text, events[1].error, 1, false, name) end
      assert.matches("stack traceback:", events[1].traceback, 1, true)
    end
  end)

  it("reaches __close and handle_error as the value that was raised", function()
    local q = host.start(host.write [[
      local moonport = require("moonport")
      local SENTINEL = setmetatable({}, { __tostring = function() return "a sentinel" end })
      local H = {}
      local function told(what, e)
        moonport.log("info", ("%s %s %s"):format(what, type(e), e == SENTINEL or type(e) == "table" and e.code))
      end
      function H:handle()
        local word = self.rfile:read("l")
        local guard <close> = setmetatable({}, { __close = function(_, e) told("closes", e) end })
        if word == "first" then error(SENTINEL) end
        if word == "second" then (function() error(SENTINEL) end)() end
        error({ code = "MINE" })
      end
      H.server = { handle_error = function(_, _, _, e)
        told("tells", e)
        if e == SENTINEL then error(e) end
      end }
      return H
    ]])
    local function raise(word)
      local c <close> = host.connect(q:url())
      c:send(word .. "\n")
      c:all()
    end
    raise("table")
    local told = q:find("script", true)
    assert.are.same({ "closes table MINE", "tells table MINE" }, { told[1].message, told[2].message })
    raise("first")
    raise("second")
    local events = q:find("handler error", true)
    assert.are.equal(2, #events) -- what handle_error raised again
    for i, line in ipairs { "10", "11" } do -- each where it was raised first, and not where the one before was
      assert.are.equal("tells table true", q:find("script")[2 * i + 2].message)
      assert.are.equal("a sentinel", events[i].error)
      assert.matches("script.lua:" .. line .. ": in", events[i].traceback)
    end
    q:stop()
  end)

  it("in setup or finish is an event of its own", function()
    local _, events = provoke("raise in finish")
    assert.are.equal(1, #events)
    assert.matches("finish fails", events[1].error)
    _, events = provoke("raise twice")
    assert.are.equal(2, #events)
    assert.matches("finish fails", events[1].error) -- handle's error is told when finish has run, as in Python
    assert.matches("handle fails", events[2].error)
  end)

  it("may be endless recursion", function()
    local _, events = provoke("recurse")
    assert.are.equal(1, #events)
    assert.matches("stack overflow", events[1].error)
    assert.matches("stack traceback:", events[1].traceback)
  end)

  it("may be a C stack that is too deep", function()
    local _, events = provoke("nest")
    assert.are.equal(1, #events)
    assert.matches("C stack overflow", events[1].error)
  end)

  it("may be a lack of memory", function()
    local q = host.start("spec/fixtures/errors.lua", { args = { "-o", "memory_limit=8M" } })
    local c <close> = host.connect(q:url())
    c:send("eat memory\n")
    c:all()
    assert.matches("not enough memory", q:find("handler error", true)[1].error)
    local d <close> = host.connect(q:url())
    d:send("echo\n")
    assert.are.equal("fine", d:ask("fine"))
    c:close()
    d:close()
    q:stop()
  end)

  it("is a yield to nobody", function()
    local _, events = provoke("yield")
    assert.are.equal(1, #events)
    assert.matches("attempt to yield from outside a coroutine", events[1].error)
    assert.matches("errors%.lua", events[1].traceback)
  end)

  it("is a second close of its connection", function()
    local reply, events = provoke("close twice")
    assert.are.equal("bye", reply)
    assert.are.equal(1, #events)
    assert.matches("errors%.lua:%d+: the connection is closed", events[1].error)
  end)

  it("is the use of an object whose request is over", function()
    provoke("keep self") -- its own event says that it was kept
    for _, name in ipairs(NAMES) do
      local _, events = provoke("use kept " .. name)
      assert.are.equal(1, #events, name)
      assert.matches("errors%.lua:%d+: the request is over", events[1].error)
      assert.matches("stack traceback:", events[1].traceback)
    end
    for _, name in ipairs { "lines", "print", "address", "server" } do
      local reply = provoke("use kept " .. name)
      assert.are.equal(({ lines = "over", print = "rfile (closed) wfile (closed) request (closed)",
        address = "127.0.0.1", server = "errors" })[name], reply)
    end
  end)

  it("is an object of another kind as self", function()
    local _, events = provoke("wrong self")
    assert.matches("rfile expected, got", events[1].error)
  end)

  it("of the host keeps its traceback, unless it is the peer that went away", function()
    local _, events = provoke("long line", ("x"):rep(70000))
    assert.are.equal("handler error", events[1].event)
    assert.matches("line too long", events[1].error)
    assert.matches("errors%.lua:%d+", events[1].traceback)
  end)

  it("counts: the stats say how many", function()
    local c <close> = host.connect(p:url())
    c:send("stats\n")
    assert.is_true(tonumber((c:all())) >= 10)
  end)

  it("when the peer has gone away is one info line without a traceback", function()
    local before = #p:find("peer gone")
    local c = host.connect(p:url())
    c:send("write for ever\n")
    assert.is_truthy(c:receive(1))
    c:reset()
    host.eventually("the event", function() return #p:find("peer gone") > before end)
    local e = p:find("peer gone")[before + 1]
    assert.are.equal("info", e.level)
    assert.is_nil(e.traceback)
    assert.matches("^write: ", e.why)
    assert.are.equal("errors", e.server)
  end)
end)

describe("another request's objects", function()
  it("raise in whoever waits on them when that request ends", function()
    local p = case.start()
    local a <close> = host.connect(p:url())
    a:send(case.piece "kept.other = self repeat moonport.sleep(0.005) until kept.done")
    host.eventually("the first", function() return case.run(p, "return kept.other ~= nil")[1] end)
    local b <close> = host.connect(p:url())
    b:send(case.piece [[
      kept.waiting = true
      return pcall(kept.other.rfile.read, kept.other.rfile)]])
    host.eventually("the second", function() return case.run(p, "return kept.waiting")[1] end)
    case.run(p, "kept.done = true")
    a:all()
    local reply, why = b:all(3)
    assert.is_nil(why, "the one that waits was never told")
    local got = case.results(reply)
    assert.is_false(got[1])
    assert.matches("closed", tostring(got[2]))
    a:close()
    b:close()
    p:stop()
    host.cleanup()
  end)

  it("are read by one at a time: a second reader is told so, and the first goes on", function()
    local p = case.start()
    local a <close> = host.connect(p:url())
    a:send(case.piece "kept.other = self return rfile:read()")
    host.eventually("the first", function() return case.run(p, "return kept.other ~= nil")[1] end)
    local b <close> = host.connect(p:url())
    b:send(case.piece "kept.second = true return pcall(kept.other.rfile.read, kept.other.rfile)")
    host.eventually("the second", function() return case.run(p, "return kept.second")[1] end)
    a:send("for the first\n")
    a:finish()
    local reply, why = a:all(3)
    assert.is_nil(why, "the first reader waits for ever")
    assert.are.same({ "for the first", n = 1 }, (case.results(reply)))
    reply, why = b:all(3)
    assert.is_nil(why, "the second reader waits for ever")
    assert.is_false(case.results(reply)[1])
    a:close()
    b:close()
    p:stop()
    host.cleanup()
  end)
end)

describe("an error value of the host", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  it("has a code, a message, an errno where there is one, and reads as its message", function()
    local got = case.run(p, [[
      request:settimeout(0.01)
      local _, e = pcall(function() for _ in rfile:lines() do end end)
      return type(e), e.code, e.message, e.errno, tostring(e), tostring(e) == e.message]], nil, true)
    assert.are.same({ "table", "timeout", "read: timeout", 110, "read: timeout", true, n = 6 }, got)
  end)

  it("can be raised again, and is still the same", function()
    local got = case.run(p, [[
      request:settimeout(0.01)
      local _, e = pcall(function() for _ in rfile:lines() do end end)
      local ok, again = pcall(error, e)
      return ok, rawequal(e, again), again.code]], nil, true)
    assert.are.same({ false, true, "timeout", n = 3 }, got)
  end)

  it("passes through coroutine.wrap unchanged", function()
    local got = case.run(p, [[
      request:settimeout(0.01)
      local ok, e = pcall(coroutine.wrap(function() for _ in rfile:lines() do end end))
      return ok, e.code]], nil, true)
    assert.are.same({ false, "timeout", n = 2 }, got)
  end)
end)

describe("server.handle_error", function()
  after_each(host.cleanup)

  it("gets the server, the request, the client's address and the error with its traceback", function()
    local p = host.start(host.write [[
      local moonport = require("moonport")
      local H = { server = {} }
      function H:handle() self.wfile:write("part ") error("oh no") end
      function H.server.handle_error(server, request, client_address, e)
        moonport.sleep(0.01)
        request:sendall(("%s %s %s\n%s"):format(server.name, #client_address, client_address.host, e))
      end
      function H:finish() self.wfile:write("finished") end
      return H]])
    local c <close> = host.connect(p:url())
    local reply = c:all()
    c:close()
    assert.matches("^part finishedscript 2 127%.0%.0%.1\n[^\n]*script%.lua:3: oh no\nstack traceback:", reply)
    assert.are.same({}, p:find("handler error"))
    assert.are.equal(1, p:stop().errors)
  end)

  it("that fails is logged itself", function()
    local p = host.start(host.write [[
      local H = { server = { handle_error = function() error("the hook fails") end } }
      function H:handle() error("oh no") end
      return H]])
    local c <close> = host.connect(p:url())
    assert.are.equal("", c:all())
    c:close()
    local events = p:find("handler error", true)
    assert.are.equal(1, #events)
    assert.matches("script%.lua:1: the hook fails", events[1].error)
    p:stop()
  end)
end)
