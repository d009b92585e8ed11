local host = require("support.host")
local mocks = require("support.mocks")

local m

local function start(text, options)
  m = mocks.start(text, options)
  return m
end

-- All that comes until the end, after these bytes and our own end.
local function talk(name, ...)
  local c <close> = m:connect(name)
  for _, bytes in ipairs { ... } do assert(c:send(bytes)) end
  c:finish()
  return c:all()
end

describe("moonport.mock", function()
  after_each(host.cleanup)

  describe("stubs", function()
    it("answer what matches first, with captures as arguments", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "redis", frame = mock.line "\r\n" }
        s:on("^PING$", "+PONG\r\n")
        s:on("^GET (%S+)$", function(c, key) c:send("$", #key, "\r\n", key, "\r\n") end)
        s:on("^GET", "-ERR arguments\r\n")
        s:on("^ECHO", function(c, frame) return frame .. "\r\n" end)
        s:on({ equals = "\0\255" }, "zero\r\n")
        s:on(mock.hex "80 .. 01", "hex\r\n")
        s:on(function(frame) return frame:find("add") and true, 1, 2 end, function(c, a, b) return a + b .. "\r\n" end)
        s:otherwise "-ERR unknown\r\n"]]
      assert.are.equal("+PONG\r\n$3\r\nabc\r\n-ERR arguments\r\nECHO x\r\nzero\r\nhex\r\n3\r\n-ERR unknown\r\n",
        talk("redis", "PING\r\nGET abc\r\nGET\r\nECHO x\r\n\0\255\r\n\x80a\x01\r\nadd\r\nping\r\n"))
      m:stop()
    end)

    it("may refer to what their pattern has captured, also in a set's neighbourhood", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("^((.)%2)()%1[%1]%%1$", function(c, twice, once, at) return twice .. once .. at .. "\n" end)
        s:on(("()"):rep(32) .. "^", "32\n")
        s:otherwise "?\n"]]
      assert.are.equal("aaa3\n?\n32\n", talk("s", "aaaa1%1\naaab1%1\n^\n"))
      m:stop()
    end)

    it("are passed over once they are spent; the last of a sequence repeats", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line() }
        s:on("^A$", "first\n", { times = 2 })
        s:on("^A$", { "one\n", "two\n", function() return "three\n" end })]]
      assert.are.equal("first\nfirst\none\ntwo\nthree\nthree\n", talk("s", "A\nA\nA\nA\nA\nA\n"))
      m:stop()
    end)

    it("answer by what they are now, also a frame that was answered before", function()
      start [[
        local s, odd = mock.server { "tcp://127.0.0.1:0", name = "s" }, false
        s:on("A", "plain\n")
        s:on("^B$", "later\n")
        s:on("C", function()
          s:on("A", "new\n", { at = 1 })
          s:on(function(frame) odd = not odd return frame == "B" and odd end, "odd\n", { at = 1 })
          return "changed\n"
        end)]]
      assert.are.equal("plain\nplain\nlater\nchanged\nnew\nnew\n", talk("s", "A\nA\nB\nC\nA\nA\n"))
      assert.are.equal("odd\nlater\nodd\nlater\n", talk("s", "B\nB\nB\nB\n"))
      m:stop()
    end)

    it("are asked again with what they captured, however often a frame comes", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        local n = 0
        local function count(c, ...)
          n = n + 1
          local given = table.concat({ ... }, ",")
          if given == "none" then return end
          if given == "sequence" then return { delay = 1, reply = "later\n" } end
          return n .. " " .. given .. "\n"
        end
        s:on("^one (%w+)$", count)
        s:on("^two (%w+) (%w+)$", count)
        s:on("^at ()", count)
        s:on("^all", count)
        s:on({ equals = "same" }, count)
        s:on("^(long) ", count)
        s:on("^(once)", count, { times = 2 })
        s:on("^(needed)", count, { required = true })
        s:on("^end", function(c) c:close() return "never\n" end)
        s:otherwise "?\n"]]
      local long = "long " .. ("x"):rep(100)
      local rounds = {}
      for _, line in ipairs { "one a", "one b", "two a b", "at ", "all of it", "same", long, "once", "needed",
        "one sequence", "one none" } do
        rounds[#rounds + 1] = (line .. "\n"):rep(4)
      end
      assert.are.equal("1 a\n2 a\n3 a\n4 a\n5 b\n6 b\n7 b\n8 b\n9 a,b\n10 a,b\n11 a,b\n12 a,b\n"
        .. "13 4\n14 4\n15 4\n16 4\n17 all of it\n18 all of it\n19 all of it\n20 all of it\n"
        .. "21 same\n22 same\n23 same\n24 same\n25 long\n26 long\n27 long\n28 long\n29 once\n30 once\n?\n?\n"
        .. "31 needed\n32 needed\n33 needed\n34 needed\nlater\nlater\nlater\nlater\n",
        talk("s", table.concat(rounds) .. "end\nend\nend\n"))
      for i = 1, 3 do assert.are.equal("?\n", talk("s", "x\nend\n"), i) end
      local uses = {}
      for _, stub in ipairs(m:ask("return mock.control('describe', { server = 's' }).stubs")) do
        uses[#uses + 1] = stub.uses
      end
      assert.are.same({ 16, 4, 4, 4, 4, 4, 2, 4, 4 }, uses)
      m:stop()
    end)

    it("are found for more different frames than are remembered", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("^(%d+)$", function(_, n) return n .. "\n" end)]]
      local lines = {}
      for i = 1, 1500 do lines[i] = (i .. "\n"):rep(3) end
      local all = table.concat(lines)
      for _ = 1, 2 do assert.are.equal(all, talk("s", all)) end
      m:stop()
    end)

    it("are remembered once for each frame, though sessions that read by themselves ask each time", function()
      local known = require("moonport.mock.known")
      local kept, stub = known.new(), { bytes = "x" }
      for _ = 1, 5 do known.note(kept, stub, "again", "again") end
      assert.are.same({ 1, { again = stub } }, { kept.n, kept.stubs })
    end)

    it("may be put before others", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("a", "last\n")
        s:on("a", "first\n", { at = 1, times = 1 })
        s:on("b", "far\n", { at = 9 })
        assert(not pcall(s.on, s, "c", "x", { at = 0 }))]]
      assert.are.equal("first\nlast\nfar\n", talk("s", "a\na\nb\n"))
      m:stop()
    end)
  end)

  describe("a session", function()
    it("may read by itself, and have stubs answer", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("^a", "A\n")
        s:on("^mute", mock.silence)
        s:session(function(c)
          for line in c:frames() do
            c:answer(line)
            if line:find "last" then return c:send "bye\n" end
          end
        end)]]
      assert.are.equal("A\nA\nbye\n", talk("s", "a\nb\na last\na\n"))
      assert.are.equal("A\n", talk("s", "a\nmute\na\n"))
      m:stop()
    end)

    it("that is cancelled does not wait for what toxics hold", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("", "late\n")
        s:toxic { type = "latency", latency = 3600 * 1000 }]]
      local c <close> = m:connect("s")
      c:send("x\n")
      m:await("s", "received x")
      assert.are.equal(0, m:finish())
      assert.is_nil(host.read(m.program.log_path):find("after it was cancelled", 1, true))
    end)
    it("fails by an expect that does not match: the process ends with 1, and says why", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "smtp", frame = mock.line "\r\n" }
        s:session(function(c)
          c:expect "^HELO "
          s.state.past = true
        end)]]
      assert.are.equal("", talk("smtp", "EHLO x\r\n"))
      assert.is_nil(m:ask("return mock.control('state_get', {server='smtp'})").past)
      assert.are.equal("closed [closed]", m:journal("smtp", "closed")[1])
      local code, log = m:finish()
      assert.are.equal(1, code)
      assert.truthy(log:find('script.lua:3: expect failed\n  expected  pattern "^HELO "\n'
        .. '  received  "EHLO x" (6 bytes)', 1, true), log)
    end)

    it("names the first of many matchers only", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:session(function(c)
          local list = {}
          for i = 1, 30 do list[i] = "^" .. i .. "$" end
          c:expect { any = { { all = list }, { any = { list[1], list[2] } } } }
        end)]]
      assert.are.equal("", talk("s", "x\n"))
      local code, log = m:finish()
      assert.are.equal(1, code)
      assert.truthy(log:find('any of (all of (pattern "^1$", ', 1, true), log)
      assert.truthy(log:find('pattern "^20$", and 10 more), any of (pattern "^1$", pattern "^2$"))', 1, true), log)
    end)

    for name, case in pairs {
      ["the input ends"] = { "EH", "the peer closed the connection" },
      ["nothing comes in time"] = { "EH", "no whole frame came within 0.02 seconds", true },
    } do
      it("fails by an expect when " .. name, function()
        start [[
          local s = mock.server { "tcp://127.0.0.1:0", name = "smtp" }
          s:session(function(c) c:expect("^EHLO ", { timeout = 0.02 }) end)]]
        local c <close> = m:connect("smtp")
        c:send(case[1])
        if not case[3] then c:finish() end
        assert.are.equal("", c:all())
        local code, log = m:finish()
        assert.are.equal(1, code)
        assert.truthy(log:find(case[2], 1, true), log)
        assert.truthy(log:find('a part of a frame: "EH"', 1, true), log)
      end)
    end

    it("that raises is an error with its traceback in the journal, and fails the run", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("x", function(c) local t = nil; return t.field end)]]
      assert.are.equal("", talk("s", "x\n"))
      local text = m:journal("s", "error")[1]
      assert.truthy(text:find("script.lua:2: attempt to index a nil value (local 't')", 1, true), text)
      assert.truthy(text:find("stack traceback:", 1, true), text)
      local logged = m.program:find("handler error", true)[1].traceback
      assert.are.equal(1, select(2, logged:gsub("stack traceback:", "")))
      assert.are.equal(1, (m:finish()))
    end)

    it("answers by the stubs what it reads by itself", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("^a", { "1", "2" })
        s:otherwise "?"
        s:session(function(c) for frame in c:frames() do c:answer(frame) end end)]]
      assert.are.equal("12?", talk("s", "a\na\nb\n"))
      m:stop()
    end)

    it("ends without a word when c is used after its end, or the peer is gone", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:session(function(c)
          local why = c.nth == 1 and c:close()
          local ok, err = pcall(c.send, c, "x")
          s.state.err = s.state.err or tostring(err)
          c:send("y")
          c:recv()
          for _ = 1, 100 do c:send(("z"):rep(100000)) end
          s.state.past = true
        end)]]
      assert.are.equal("", talk("s"))
      do
        local c = m:connect("s")
        assert.are.equal("xy", c:receive(2))
        c:reset()
      end
      m:await("s", "closed [rst]")
      local state = m:ask("return mock.control('state_get', {server='s'})")
      assert.are.equal("c:send: the conversation is over, by c:close()", state.err)
      assert.is_nil(state.past)
      m:stop()
    end)
  end)

  it("tells how the peer has ended the connection, also while nothing is read", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("sleep", function(c) c:note("asleep") c:sleep(60) end)]]
    local a, b, d = m:connect("s"), m:connect("s"), m:connect("s")
    a:send("x\n")
    m:await("s", "received x")
    a:close()
    m:await("s", "closed [fin]")
    b:send("y\n")
    m:await("s", "received y")
    b:reset()
    m:await("s", "closed [rst]")
    d:send("sleep\n")
    m:await("s", "note asleep")
    d:reset()
    host.eventually("another reset", function() return #m:journal("s", "closed") == 3 end)
    assert.are.equal("closed [rst]", m:journal("s", "closed")[3])
    m:stop()
  end)

  describe("on datagrams", function()
    it("answers each to its sender, counts them, and can leave the first without an answer", function()
      start [[
        local s = mock.server { "udp://127.0.0.1:0", name = "dns" }
        s:session(function(c)
          if c.nth == 1 then return end
          local frame = c:recv()
          assert(select(2, c:recv()) == "closed")
          c:send(frame, c.nth)
          c:send("more")
        end)]]
      local c <close> = m:connect("dns")
      local d <close> = m:connect("dns")
      c:send("a")
      host.eventually("the first datagram", function() return #m:journal("dns", "open") == 1 end)
      c:send("b")
      assert.are.equal("b2", c:some())
      assert.are.equal("more", c:some())
      assert(host.sys.send(d.fd, ""))
      assert.are.equal("3", d:some())
      assert.are.equal("more", d:some())
      local lines = m:journal("dns", "open")
      assert.are.equal(2, #lines)
      assert.are.same({ "received b", "sent b2", "sent more", "received", "sent 3", "sent more" },
        m:journal("dns", "received", "sent"))
      m:stop()
    end)

    it("gets them whole; one that no buffer holds is noted", function()
      start((([[
        local s = mock.server { "URL", name = "s" }
        s:otherwise(function(_, frame) return tostring(#frame) end)]]):gsub("URL", "unixgram://@mock-spec-"
        .. host.sys.now())))
      local c <close> = m:connect("s", { bind = "unixgram://@mock-spec-client-" .. host.sys.now() })
      for _, size in ipairs { 8193, 65507, 65536, 65537 } do
        c:send(("x"):rep(size))
        assert.are.equal(tostring(math.min(size, 65536)), c:some())
      end
      assert.are.same({ "note a datagram longer than max_packet_size was cut to 65536 bytes" }, m:journal("s", "note"))
      m:stop()
    end)

    it("answers by stubs", function()
      start((([[
        local s = mock.server { "URL", name = "s" }
        s:on("^ping$", { "pong", mock.truncate("0123456789", 4) })
        s:otherwise(mock.none)]]):gsub("URL", "unixgram://@mock-spec-" .. host.sys.now())))
      local c <close> = m:connect("s", { bind = "unixgram://@mock-spec-client-" .. host.sys.now() })
      for _, want in ipairs { "pong", "0123", "0123" } do
        c:send("what")
        c:send("ping")
        assert.are.equal(want, c:some())
      end
      m:stop()
    end)
  end)
end)
