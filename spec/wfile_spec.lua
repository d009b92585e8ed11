local case = require("support.case")
local host = require("support.host")

describe("wfile", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  -- How many bytes have left the host since the piece began.
  local SENT = "local from = self.server:stats().bytes_out "
    .. "local function sent() return self.server:stats().bytes_out - from end "

  describe("write", function()
    it("takes strings and numbers, and returns itself", function()
      local got, raw = case.run(p, "return wfile:write('a', 1, ' ', 2.5, '', '\\0b\\n'):write('c') == wfile, "
        .. "wfile:write() == wfile")
      assert.are.same({ true, true, n = 2 }, got)
      assert.are.equal("a1 2.5\0b\nc", raw)
    end)

    it("raises for anything else, and then has written nothing of it", function()
      for value, kind in pairs { ["nil"] = "nil", ["{}"] = "table", ["true"] = "boolean", ["print"] = "function" } do
        local got, raw = case.run(p, ("wfile:write('before', %s, 'after')"):format(value))
        assert.are.equal("raised", got[1])
        assert.matches("bad argument #2 to 'write' %(string expected, got " .. kind, got[2])
        assert.are.equal("", raw)
      end
    end)

    it("takes itself only", function()
      assert.matches("wfile expected, got moonport.rfile", case.run(p, "wfile.write(rfile, 'x')")[2])
    end)

    it("carries all sizes byte for byte", function()
      local _, raw = case.run(p, [[
        local n = 0
        for i = 1, 400 do
          local size = i * i % 9001
          wfile:write(string.char(i % 256):rep(size), ("-"):rep(i % 3))
        end]])
      local expected = {}
      for i = 1, 400 do expected[#expected + 1] = string.char(i % 256):rep(i * i % 9001) .. ("-"):rep(i % 3) end
      assert.are.equal(table.concat(expected), raw)
    end)

    it("waits for a slow reader and keeps little meanwhile", function()
      local c <close> = host.connect(p:url(), { receive = 4096 })
      local before = p:memory()
      c:send(case.piece "local part = ('0123456789abcdef'):rep(4096) for _ = 1, 256 do wfile:write(part) end")
      c:send("x")
      host.eventually("data", function() return host.sys.poll(c.fd, "r", 0) end)
      assert.is_true(p:memory() - before < (host.sanitizer() and 16384 or 2048))
      c:finish()
      local _, raw = case.results((c:all()))
      assert.are.equal(16 << 20, #raw)
      assert.are.equal(("0123456789abcdef"):rep(1 << 20), raw)
    end)

    it("collects small writes until the handler waits", function()
      local got = case.run(p, SENT .. [[
        for i = 1, 5 do wfile:write(i) end
        local before = sent()
        moonport.sleep(0)
        return before, sent()]])
      assert.are.same({ 0, 5, n = 2 }, got)
    end)

    it("sends before a read waits", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece "wfile:write('name? ') return rfile:read()")
      assert.are.equal("name? ", c:receive(6))
      c:send("moon\n")
      assert.are.same({ "moon", n = 1 }, (case.results((c:all()))))
    end)

    it("sends by itself when 64 KiB have been collected", function()
      local got = case.run(p, SENT .. "for _ = 1, 70 do wfile:write(('x'):rep(1000)) end return sent() >= 64000")
      assert.are.same({ true, n = 1 }, got)
    end)

    it("raises once the peer is gone, and again for each write after it", function()
      local c = host.connect(p:url())
      c:send(case.piece [[
        local function try() return pcall(function() while true do wfile:write(("x"):rep(8192)) end end) end
        local a, e = try()
        local b, e2 = try()
        kept.gone = { a, e.code, e.errno > 0, b, e2.code == e.code, tostring(e) }]])
      assert.is_truthy(c:receive(1))
      c:reset()
      host.eventually("the handler's end", function() return case.run(p, "return kept.gone ~= nil")[1] end)
      local got = case.run(p, "return kept.gone")[1]
      assert.is_true(got[2] == "ECONNRESET" or got[2] == "EPIPE")
      assert.are.same({ false, got[2], true, false, true }, { table.unpack(got, 1, 5) })
      assert.matches("^write: ", got[6])
    end)

    it("raises timeout when the peer does not read", function()
      local c <close> = host.connect(p:url(), { receive = 4096 })
      c:send(case.piece [[
        request:settimeout(0.05)
        local ok, e = pcall(function() while true do wfile:write(("x"):rep(65536)) end end)
        local again, e2 = pcall(wfile.write, wfile, "more")
        kept.slow = { ok, e.code, tostring(e), again, e2.code }]])
      host.eventually("the timeout", function() return case.run(p, "return kept.slow ~= nil")[1] end)
      assert.are.same({ { false, "timeout", "write: timeout", false, "timeout" }, n = 1 },
        case.run(p, "return kept.slow"))
    end)
  end)

  describe("flush", function()
    it("sends at once and returns itself", function()
      local got = case.run(p, SENT .. "local same = wfile:write('abc'):flush() == wfile return same, sent()")
      assert.are.same({ true, 3, n = 2 }, got)
      assert.are.same({ true, n = 1 }, case.run(p, "return wfile:flush() == wfile"))
    end)
  end)

  describe("setvbuf", function()
    it("no: each write is sent at once", function()
      local got = case.run(p, SENT .. "local ok = wfile:setvbuf('no') wfile:write('a', 'b') return ok, sent()")
      assert.are.same({ true, 2, n = 2 }, got)
    end)

    it("line: a newline sends", function()
      local got = case.run(p, SENT .. [[
        wfile:setvbuf("line")
        wfile:write("ab")
        local before = sent()
        wfile:write("c\nd")
        local after = sent()
        return before, after]])
      assert.are.same({ 0, 5, n = 2 }, got)
    end)

    it("full: with a size of its own", function()
      local got = case.run(p, SENT .. [[
        wfile:setvbuf("full", 4)
        wfile:write("abc")
        local before = sent()
        wfile:write("def")
        return before, sent() >= 3]])
      assert.are.same({ 0, true, n = 2 }, got)
    end)

    it("sends what had been collected when buffering ends", function()
      local got = case.run(p, SENT .. "wfile:write('abc') wfile:setvbuf('no') return sent()")
      assert.are.same({ 3, n = 1 }, got)
    end)

    it("refuses other modes and sizes", function()
      assert.matches("invalid option 'some'", case.run(p, "wfile:setvbuf('some')")[2])
      assert.matches("must not be negative", case.run(p, "wfile:setvbuf('full', -1)")[2])
      assert.are.equal("raised", case.run(p, "wfile:setvbuf()")[1])
    end)
  end)

  describe("close", function()
    it("returns true, flushes, and ends writing alone", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece [[
        wfile:write("last words")
        local closed = wfile:close()
        local a, why = pcall(wfile.write, wfile, "x")
        local b, why2 = pcall(wfile.close, wfile)
        kept.closed = { closed, a, why, b, why2, tostring(wfile), rfile:read() }]])
      assert.are.equal("last words", c:receive(10))
      c:send("still reads\n")
      assert.are.equal("", c:all())
      assert.are.same({ { true, false, "attempt to write to a closed wfile", false,
        "attempt to close a closed wfile", "wfile (closed)", "still reads" }, n = 1 },
        case.run(p, "return kept.closed"))
    end)
  end)

  it("says what it is", function()
    assert.matches("^wfile %(0x%x+%)$", case.run(p, "return tostring(wfile)")[1])
  end)

  it("collects nothing with wbufsize 0, and as much as wbufsize says", function()
    local q = case.start { args = { "-o", "wbufsize=0" } }
    assert.are.same({ 2, n = 1 }, case.run(q, SENT .. "wfile:write('ab') return sent()"))
    q:stop()
    q = case.start { args = { "-o", "wbufsize=10" } }
    assert.are.same({ 0, true, n = 2 },
      case.run(q, SENT .. "wfile:write('12345678') local a = sent() wfile:write('90ab') return a, sent() >= 8"))
    q:stop()
  end)

  it("sends what was written before an error, too", function()
    local script = host.write("function handle(self) self.wfile:write('before') error('then') end")
    local q = host.start(script)
    local c <close> = host.connect(q:url())
    assert.are.equal("before", c:all())
    c:close()
    q:stop()
  end)

  it("makes one datagram of all that a datagram's handler writes", function()
    local q = case.start { listen = "udp://127.0.0.1:0" }
    local c <close> = host.connect(q:url())
    c:send("self.wfile = ... ; return 1")
    assert.are.equal("'raised'", (c:some()):sub(1, 8))
    assert.are.same({ "a", "b", true, n = 3 },
      case.ask(q:url(), "wfile:setvbuf('no') wfile:write('\"a\", '):flush():write('\"b\", ') return true"))
    q:stop()
  end)
end)
