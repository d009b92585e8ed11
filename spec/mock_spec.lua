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

    it("are passed over once they are spent; the last of a sequence repeats", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line() }
        s:on("^A$", "first\n", { times = 2 })
        s:on("^A$", { "one\n", "two\n", function() return "three\n" end })]]
      assert.are.equal("first\nfirst\none\ntwo\nthree\nthree\n", talk("s", "A\nA\nA\nA\nA\nA\n"))
      m:stop()
    end)

    -- mocks.md 3: close after a reply, or keep open
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

    it("keep the connection open when nothing matches, and when one answers nothing", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("^quiet$", mock.none)
        s:on("^bye$", function(c) c:send("bye\n") c:close() end)
        s:on("^hi$", "hi\n")]]
      local c <close> = m:connect("s")
      c:send("nothing\nquiet\nhi\n")
      assert.are.equal("hi", c:line())
      c:send("bye\nhi\n")
      assert.are.equal("bye\n", c:all())
      m:await("s", "closed [closed]")
      assert.are.same({ "open", "received nothing", "unmatched nothing", "received quiet", "received hi", "sent hi\n",
        "received bye", "sent bye\n", "closed [closed]" }, (function()
          local lines = m:journal("s")
          lines[1] = lines[1]:match("^%a+")
          return lines
        end)())
      m:stop()
    end)
  end)

  -- mocks.md 1
  describe("a session", function()
    it("may speak first, push, and change the framing", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "smtp", frame = mock.line "\r\n" }
        s:session(function(c)
          c:send "220 mock ESMTP\r\n"
          c:expect "^EHLO "
          c:send "250 mock\r\n"
          local from, to = c:expect "^MAIL FROM:<(.-)> (.*)$"
          assert(to == "SIZE=3")
          c:send "354 go\r\n"
          s.state.mail = c:recv(mock.upto "\r\n.\r\n")
          local a, b
          _, a, b = c:recv(">s1B")
          c:send("250 from ", from, " ", a, b, " ", c.nth, "\r\n")
          for i = 1, 3 do c:sleep(0.01) c:send("* ", i, "\r\n") end
          return c:serve()
        end)
        s:on("^NOOP$", "250 ok\r\n")]]
      for nth = 1, 2 do
        local c <close> = m:connect("smtp")
        assert.are.equal("220 mock ESMTP\r", c:line())
        c:send("EHLO me\r\n")
        assert.are.equal("250 mock\r", c:line())
        c:send("MAIL FROM:<a@b> SIZE=3\r\nSubject: x\r\n\r\nbody\r\n.\r\n\2yo\7NOOP\r\n")
        c:finish()
        assert.are.equal(("354 go\r\n250 from a@b yo7 %d\r\n* 1\r\n* 2\r\n* 3\r\n250 ok\r\n"):format(nth), c:all())
      end
      assert.are.equal("Subject: x\r\n\r\nbody", m:ask("return mock.control('state_get', {server='smtp'}).mail"))
      m:stop()
    end)

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
      assert.are.equal(1, (m:finish()))
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

  -- mocks.md 2
  describe("frames", function()
    it("are the same however the bytes were cut", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line "\r\n" }
        s:on("(.*)", function(c, frame) return "<" .. frame .. ">" end)]]
      local text, whole = "PING\r\none\r\ntwo\r\nthree\r\n", "<PING><one><two><three>"
      assert.are.equal(whole, talk("s", text))
      for cut = 1, #text - 1 do
        local c <close> = m:connect("s")
        c:send(text:sub(1, cut))
        local n = select(2, text:sub(1, cut):gsub("\r\n", ""))
        for word in text:sub(1, cut):gmatch("(%w+)\r\n") do -- it has been read before the rest comes
          assert.are.equal("<" .. word .. ">", c:receive(#word + 2))
          n = n - 1
        end
        assert.are.equal(0, n)
        c:send(text:sub(cut + 1))
        c:finish()
        c:all()
      end
      m:ask("journal.clear()")
      talk("s", "a\r\nb\r\nhal")
      local lines = m:journal("s", "received", "partial", "closed")
      assert.are.same({ "received a", "received b", "partial hal", "closed [fin]" }, lines)
      m:stop()
    end)

    -- mocks.md 5
    it("and what matches them are bytes, not text", function()
      start [[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = ">s2" }
        for i, bytes in ipairs { "\x80", "\xff\xfe\x01", "A", "\0" } do
          s:on({ equals = bytes }, string.pack(">s2", tostring(i)))
        end
        s:on(mock.hex "08 00 .. ff *", string.pack(">s2", "hex"))
        s:otherwise(string.pack(">s2", "-"))]]
      local asked, answers = {}, {}
      for bytes, answer in pairs { ["\x80"] = "1", ["\x81"] = "-", ["\xff\xfe\x01"] = "2", ["\x80\x81\x01"] = "-",
        A = "3", a = "-", ["\0"] = "4", [""] = "-", ["\8\0\n\xff"] = "hex", ["\8\0x\xfe"] = "-",
        ["\8\0x\xffyz"] = "hex" } do
        asked[#asked + 1], answers[#answers + 1] = string.pack(">s2", bytes), string.pack(">s2", answer)
      end
      assert.are.equal(table.concat(answers), talk("s", table.concat(asked)))
      m:stop()
    end)
  end)

  -- mocks.md 6: what mountebank reordered
  it("answers a slow request before the fast one behind it", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("slow", mock.delay(0.15, "a"))
      s:on("fast", "b")
      s:on("bye", mock.close)]]
    assert.are.equal("abba", talk("s", "slow\nfast\nfast\nslow\nbye\n"))
    m:stop()
  end)

  -- mocks.md 9
  it("fails the first times, then recovers", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^SET", { mock.reset, mock.close, "+OK\n" })
      local t = mock.server { "tcp://127.0.0.1:0", name = "t" }
      t:session(function(c)
        c:expect("^hi$")
        if c.nth <= 2 then c:reset() end
        c:send("hello\n")
      end)]]
    for _, want in ipairs { 104, false, "+OK\n" } do
      local c <close> = m:connect("s")
      c:send("SET a\n")
      if want == "+OK\n" then c:finish() end
      local text, _, errno = c:all()
      assert.are.equal(want, text ~= "" and text or errno or false)
    end
    for i = 1, 3 do
      local c <close> = m:connect("t")
      c:send("hi\n")
      local text, _, errno = c:all()
      assert.are.equal(i == 3 and "hello\n" or 104, text ~= "" and text or errno)
    end
    m:stop()
  end)

  -- mocks.md 11
  it("journals connections, not only requests, so that a hidden retry shows", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^SET", { mock.reset, "+OK\n" })]]
    for _ = 1, 2 do
      local c <close> = m:connect("s")
      c:send("SET a\n")
      c:some()
    end
    host.eventually("both ends", function() return #m:journal("s", "closed") == 2 end)
    local kinds = {}
    for i, r in ipairs(m:ask("return records('s')")) do kinds[i] = r.kind .. r.conn end
    assert.are.same({ "open", "received", "closed", "open", "received", "sent", "closed" },
      (function()
        local out = {}
        for i, k in ipairs(kinds) do out[i] = k:match("%a+") end
        return out
      end)())
    assert.are.equal(kinds[1]:match("%d+"), kinds[3]:match("%d+"))
    assert.are_not.equal(kinds[1]:match("%d+"), kinds[4]:match("%d+"))
    assert.are.same({ "closed [reset]", "closed [fin]" }, m:journal("s", "closed"))
    m:stop()
  end)

  -- mocks.md 12
  it("says by which stub a frame was missed, the nearest first", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^DELETE (%S+)$", "x", { id = "delete" })
      s:on("^GET /users/(%d+)$", "x", { id = "users" })
      s:on("^PUT ", "x")
      s:on("^ONCE$", "x", { times = 1, required = true })]]
    local r = m:ask("return mock.control('match', { server = 's', data = 'GET /user/7' })")
    assert.are.equal("users", r.near_misses[1].id)
    assert.truthy(r.near_misses[1].text:find('the first 9 bytes agree, then "s/(%d+)$" was expected', 1, true),
      r.near_misses[1].text)
    assert.are.equal("delete", m:ask("return mock.control('match', { server = 's', data = 'DELETE x' })").stub.id)
    talk("s", "ONCE ")
    talk("s", "GET /\n", "ONCF\n")
    local code, log = m:finish()
    assert.are.equal(1, code)
    assert.truthy(log:find('the required stub "2" (pattern "^ONCE$"', 1, true), log)
    assert.truthy(log:find('never used; the nearest frame:\n  expected  pattern "^ONCE$"\n  received  "ONCF"', 1, true),
      log)
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
