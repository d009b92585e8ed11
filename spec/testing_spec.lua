local testing = require("moonport.testing")

-- Handlers against scripted peers, without sockets; that they see what the real program shows them is the business of
-- testing_fidelity_spec.lua.

local UPPER = "scripts/upper.lua"

describe("moonport.testing.run", function()
  it("takes no time for a timeout of 30 seconds", function()
    local began = os.clock()
    local t <close> = testing.run(UPPER, { timeout = 30 }, function(peer)
      peer:send("hello\n")
      assert.are.equal("HELLO", peer:line())
      peer:sleep(29)
      peer:send("still here\n")
      peer:expect("STILL HERE\n")
      peer:sleep(31)
      assert.are.same({ nil, "closed" }, { peer:receive() })
    end)
    assert.are.equal("timeout", t.outcome)
    assert.are.equal("timeout", t.error.code)
    assert.are.equal(60, t.time)
    assert.are.equal("read: timeout", t:events("timeout")[1].why)
    assert.is_true(os.clock() - began < 5)
  end)

  it("raises what a peer raises, and leaves nothing running", function()
    local ok, err = pcall(testing.run, UPPER, function(peer)
      peer:send("x\n")
      peer:expect("Y\n")
    end)
    assert.is_false(ok)
    assert.matches('testing_spec.lua:%d+: expected "Y\\\n", got "X\\\n"', err)
  end)

  it("says who waits for what when nobody can go on", function()
    local ok, err = pcall(testing.run, UPPER, function(peer) peer:line() end)
    assert.is_false(ok)
    assert.matches("nobody can go on", err)
    assert.matches("the handler %(upper, 127.0.0.1:49152%) waits for input at scripts/upper.lua:%d+", err)
    assert.matches("the peer waits for a line at .*testing_spec.lua:%d+", err)
  end)

  it("does not wait for ever for a handler that goes on for ever", function()
    local ok, err = pcall(testing.run, "function handle() while true do require('moonport').sleep(1) end end",
      { limit = 100 }, function() end)
    assert.is_false(ok)
    assert.matches("a request still goes on, 100 s after the last peer: the handler .* waits for its sleep of 1 s", err)
  end)

  it("gives several peers connections of their own, which go on side by side", function()
    local order = {}
    local script = [[
      local moonport = require("moonport")
      local n = 0
      function handle(self)
        n = n + 1
        local mine = n
        moonport.sleep(4 - mine)
        self.wfile:write(mine, " of ", n, "\n")
      end
    ]]
    local function peer(p)
      local line = p:line()
      order[#order + 1] = line
    end
    local t <close> = testing.run(script, {}, peer, peer, peer)
    assert.are.same({ "3 of 3", "2 of 3", "1 of 3" }, order)
    assert.are.equal(3, t.time)
    assert.are.equal(3, #t.requests)
  end)

  it("tells an error of the handler with its place and traceback", function()
    local t <close> = testing.run("local H = {}\nfunction H:handle()\n  self.nothing()\nend\nreturn H", function() end)
    assert.are.equal("error", t.outcome)
    assert.matches("^script:3: attempt to call a nil value", t.error)
    assert.matches("script:3: in ", t.requests[1].traceback)
    assert.matches("script:3: in ", t:events("handler error")[1].traceback)
  end)
end)

describe("moonport.testing.open", function()
  it("is driven from the test itself as well", function()
    local t <close> = testing.open(UPPER)
    local a, b = t:connect(), t:connect()
    a:send("first\n")
    b:send("second\n")
    assert.are.equal("SECOND", b:line())
    assert.are.equal("FIRST", a:line())
    assert.are.same({ nil, "timeout" }, { a:receive(nil, 5) })
    a:shutdown()
    assert.are.same({ "", "closed" }, { a:all() })
    assert.are.same({ "returned", "running" }, { a.request.outcome, b.request.outcome })
    local ok, err = pcall(b.line, b)
    assert.is_false(ok)
    assert.matches("the test waits for a line", err)
  end)

  it("shows each way to end a connection", function()
    local script = [[
      function handle(self)
        local how = self.rfile:read()
        self.wfile:write("a")
        if how == "reset" then self.request:setsockopt("so_linger", 0) self.request:close()
        elseif how == "half" then
          self.request:shutdown("write")
          self.seen = self.rfile:read("a")
          self.server.seen = self.seen
        elseif how == "sleep" then self.wfile:flush() require("moonport").sleep(100) end
      end
    ]]
    local t <close> = testing.open(script)
    local p = t:connect()
    p:send("reset\n")
    assert.are.same({ "a", "reset" }, { p:all() })
    p = t:connect()
    p:send("half\n")
    assert.are.same({ "a", "closed" }, { p:all() })
    p:send("after all")
    p:shutdown()
    t:finish()
    assert.are.equal("after all", t.server.seen)
    p = t:connect()
    p:send("sleep\n")
    p:expect("a")
    p:reset()
    t:finish()
    assert.are.equal("cancelled", p.request.outcome)
    assert.are.equal("cancelled: the peer is gone", tostring(p.request.error))
    assert.is_true(t.time < 100)
  end)

  it("sends what was written no later than at the next wait", function()
    local t <close> = testing.open [[
      function handle(self)
        self.wfile:write("a")
        self.wfile:write("b")
        require("moonport").sleep(5)
        self.wfile:write("c")
      end
    ]]
    local p = t:connect()
    assert.are.equal("ab", p:receive())
    assert.are.equal(0, t.time)
    assert.are.equal("c", p:receive())
    assert.are.equal(5, t.time)
  end)

  it("fills up when nobody reads, and a write times out", function()
    local t <close> = testing.open("function handle(self) self.wfile:write(('x'):rep(100000)) end",
      { window = 1000, timeout = 3 })
    local p = t:connect()
    t:finish()
    assert.are.equal("timeout", t.outcome)
    assert.are.equal("write: timeout", tostring(t.error))
    assert.are.equal(1000, #p:all())
  end)

  it("cancels by idle_timeout and request_timeout, with finish and a grace", function()
    for name, time in pairs { idle_timeout = 13, request_timeout = 10 } do
      local t <close> = testing.open([[
        local H = { server = { cancel_grace = 2 } }
        function H:handle() local ok = pcall(self.rfile.read, self.rfile, 100) error("went on: " .. tostring(ok)) end
        function H:finish() self.wfile:write("bye") require("moonport").sleep(60) end
        return H
      ]], { [name] = 10 })
      local p = t:connect()
      p:sleep(3)
      p:send("x")
      assert.are.equal("bye", p:all())
      assert.are.equal(time + 2, t.time)
      assert.are.equal("cancelled", t.outcome)
    end
  end)

  it("gives hooks what the host gives them", function()
    local t <close> = testing.open [[
      local told = {}
      local H = { server = {
        verify_request = function(server, request, address) return address.port ~= 7 end,
        handle_error = function(server, request, address, err) server.told = err end,
      } }
      function H:setup() self.ready = true end
      function H:handle() assert(self.ready) error("on purpose") end
      return H
    ]]
    assert.are.same({ "", "closed" }, { t:connect(nil, { "127.0.0.1", 7 }):all() })
    assert.are.equal("refused", t.outcome)
    local p = t:connect()
    p:all()
    t:finish()
    assert.are.equal("error", p.request.outcome)
    assert.matches("^script:7: on purpose\nstack traceback:", t.server.told)
    assert.are.same({}, t:events("handler error"))
    assert.are.equal(1, t.server:stats().refused)
    assert.are.equal(1, t.server:stats().errors)
  end)

  it("ends objects with their request", function()
    local t <close> = testing.open [[
      local kept
      function handle(self)
        if kept then local _, err = pcall(kept.write, kept, "x") self.wfile:write(err) end
        kept = self.wfile
      end
    ]]
    t:connect()
    t:finish()
    assert.are.equal("the request is over: its objects cannot be used any more", t:connect():all())
  end)

  it("runs tasks beside a request, which end with it", function()
    local t <close> = testing.open [[
      local moonport = require("moonport")
      function handle(self)
        local go, done = moonport.event(), moonport.event()
        moonport.spawn(function(word)
          local c <close> = setmetatable({}, { __close = function() self.server.closed = true end })
          go:wait()
          self.wfile:write(word)
          done:set()
          moonport.sleep(1000)
        end, "beside")
        go:set()
        assert(done:wait())
        assert(select(2, done:wait(2)) == "timeout")
      end
    ]]
    assert.are.equal("beside", t:connect():all())
    assert.are.same({ true, 2, "returned" }, { t.server.closed, t.time, t.outcome })
  end)

  it("calls functions atomically, in which they cannot wait", function()
    local t <close> = testing.open [[
      local moonport = require("moonport")
      function handle(self)
        local a, n = moonport.atomically(function(...) return ..., select("#", ...) end, 1)
        local _, no = pcall(moonport.atomically, error, "no", 0)
        local _, wait = pcall(moonport.atomically, moonport.sleep, 1)
        moonport.sleep(2)
        local _, bad = pcall(moonport.atomically, 1)
        self.wfile:write(a, n, no, "\n", wait, "\n", bad)
      end
    ]]
    local got = t:connect():all()
    assert.are.equal("11no", got:match("^[^\n]*"))
    assert.truthy(got:find("cannot wait inside moonport.atomically", 1, true), got)
    assert.truthy(got:find("function expected, got number", 1, true), got)
    assert.are.equal(2, t.time)
  end)

  it("connects handlers to scripted servers", function()
    local script = [[
      local moonport = require("moonport")
      function handle(self)
        local up <close> = assert(moonport.connect("tcp://127.0.0.1:6379", 2))
        up:sendall("PING\r\n")
        self.wfile:write(up:makefile("r"):readline())
        self.wfile:write(select(2, moonport.connect("tcp://127.0.0.1:1")), "\n")
        self.wfile:write(select(2, moonport.connect("tcp://127.0.0.1:2", 9)), "\n")
      end
    ]]
    local t <close> = testing.open(script, { upstreams = {
      ["tcp://127.0.0.1:6379"] = function(peer)
        peer:expect("PING\r\n")
        peer:send("+PONG\r\n")
      end,
      ["tcp://127.0.0.1:2"] = "silent",
    } })
    assert.are.equal("+PONG\r\nConnection refused\ntimeout\n", t:connect():all())
    assert.are.equal(9, t.time)
  end)

  it("loads a script again", function()
    local path = os.tmpname()
    local function write(text)
      local f <close> = assert(io.open(path, "w"))
      f:write(text)
    end
    write("local n = 1; return { handle = function(self) self.wfile:write(n) end, save = function() return n end }")
    local t <close> = testing.open(path)
    assert.are.equal("1", t:connect():all())
    write("local n; return { handle = function(self) self.wfile:write('now ', n) end, "
      .. "init = function(d) n = d + 1 end }")
    assert.are.equal(2, t:reload())
    assert.are.equal("now 2", t:connect():all())
    write("return nil")
    assert.matches("has no handle", select(2, t:reload()))
    assert.are.equal("now 2", t:connect():all())
    os.remove(path)
  end)

  it("takes a handler that is no script, with testing.moonport", function()
    local moonport = testing.moonport
    local t <close> = testing.run({
      handle = function(self)
        for word in moonport.coroutine.wrap(function()
          for line in self.rfile:lines() do moonport.coroutine.yield(line) end
        end) do self.wfile:write("<", word, ">") end
        moonport.sleep(7)
      end,
    }, function(peer)
      peer:send("a\nb\n")
      peer:shutdown()
      assert.are.equal("<a><b>", peer:all())
    end)
    assert.are.equal(7, t.time)
  end)

  it("does the same again with the same seed, and cuts what is sent", function()
    local script = [[
      function handle(self)
        while true do
          local data = self.request:recv()
          if not data then return end
          self.wfile:write(#data, " ")
        end
      end
    ]]
    local function once(seed)
      local out
      local _ <close> = testing.run(script, { seed = seed }, function(peer)
        for _ = 1, 20 do peer:send(("x"):rep(50)) peer:sleep(1) end
        peer:shutdown()
        out = peer:all()
      end)
      return out
    end
    assert.are.equal(("50 "):rep(20), once(nil))
    assert.are.equal(once(1), once(1))
    assert.are_not.equal(once(1), once(2))
    assert.are_not.equal(once(nil), once(1))
  end)

  it("refuses what cannot be, in one sentence", function()
    for _, case in ipairs {
      { UPPER, { timeot = 3 }, "testing: unknown option timeot; did you mean timeout?" },
      { UPPER, { timeout = "soon" }, "option timeout: it must be a number of seconds from 0 to 1e+09, or none" },
      { UPPER, { url = "http://x" }, "http://x: not a URL; it must begin with tcp://, udp://, unix:// or unixgram://" },
      { "no/such.lua", {}, "cannot load no/such.lua: cannot open no/such.lua (No such file or directory)" },
      { "return {}", {}, "the script has no handle: return a table with a function `handle`, or define a global "
        .. "function `handle(self)`" },
      { "x = = 1", {}, "script:1: unexpected symbol near '='" },
    } do
      local ok, err = pcall(testing.open, case[1], case[2])
      assert.are.same({ false, case[3] }, { ok, err })
    end
  end)
end)

describe("moonport.testing.datagram", function()
  it("gives the replies", function()
    assert.are.same({ "2023-11-14T22:13:20.000Z\n" }, (testing.datagram("scripts/udp_time.lua", "?")))
    local replies, t = testing.datagram([[
      function handle(self)
        self.socket:sendto(self.packet .. "!", self.client_address)
        self.socket:sendto("elsewhere", { "127.0.0.1", 53 })
        self.wfile:write(self.truncated or "whole", " ", self.rfile:read("a"))
      end
    ]], "hello", { max_packet_size = 4 })
    assert.are.same({ "hell!", "5 hell" }, replies)
    assert.are.same({ "elsewhere", "127.0.0.1:53" }, { t.sent[1].data, tostring(t.sent[1].to) })
    assert.are.equal(1, t.server:stats().truncated)
    replies, t = testing.datagram("function handle(self) self.wfile:write('x') end", "?", { url = "unixgram:///s" })
    assert.are.same({ {}, 1 }, { replies, t.server:stats().unanswered })
  end)
end)

describe("moonport.testing.mock", function()
  local function script(mock)
    local redis = mock.server { "tcp://127.0.0.1:0", name = "redis", frame = mock.line "\r\n" }
    redis:on("^PING$", "+PONG\r\n")
    redis:on("^SLOW$", mock.delay(5, "+SLOW\r\n"))
    redis:on("^RESET$", mock.reset)
    redis:on("^NEVER$", "x", { required = true })
    redis:toxic { type = "latency", latency = 1000 }
    mock.server({ "udp://127.0.0.1:0", name = "dns" }):on("^a", "b")
    mock.server({ "tcp://127.0.0.1:0", name = "smtp" }):session(function(c)
      c:send("220 hi\r\n")
      c:expect("^EHLO")
    end)
  end

  it("has no TLS, and says so", function()
    local ok, why = pcall(testing.mock, function(mock) mock.server { "tcp://127.0.0.1:0", tls = true } end)
    assert.is_false(ok)
    assert.matches("tls: there is none here", tostring(why))
  end)

  it("serves each of a script's mocks, with faults, toxics and the journal, by the virtual clock", function()
    local m <close> = testing.mock(script)
    local redis = m:connect("redis")
    redis:send("PING\r\n")
    redis:expect("+PONG\r\n")
    assert.are.equal(1, m.time)
    redis:send("SLOW\r\n")
    redis:expect("+SLOW\r\n")
    assert.are.equal(7, m.time)
    redis:send("RESET\r\n")
    assert.are.same({ nil, "reset" }, { redis:receive() })
    local dns = m:connect("dns")
    dns:send("abc")
    assert.are.equal("b", dns:receive())
    local kinds = {}
    for _, r in ipairs(m.journal) do
      if r.server == "redis" then kinds[#kinds + 1] = r.kind end
    end
    assert.are.equal("open toxic received sent received sent received closed", table.concat(kinds, " "))
  end)

  it("tells what is to be said against the run", function()
    local m <close> = testing.mock(script)
    local smtp = m:connect("smtp")
    smtp:expect("220 hi\r\n")
    smtp:send("HELO\r\n")
    smtp:all()
    local texts = m:verdict()
    assert.are.equal(2, #texts)
    assert.matches("expect failed", texts[1])
    assert.matches("was never used", texts[2])
  end)
end)

describe("docs/testing.md", function()
  it("has an example that runs", function()
    local f <close> = assert(io.open("docs/testing.md"))
    local example = f:read("a"):match("```lua\n(.-)```")
    local ran = 0
    local env = setmetatable({ assert = assert }, { __index = _G })
    function env.describe(_, body) body() end
    function env.it(_, body)
      ran = ran + 1
      body()
    end
    assert(load(example, "=docs/testing.md", "t", env))()
    assert.is_true(ran >= 2)
  end)
end)
