local case = require("support.case")
local host = require("support.host")

describe("request", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  it("is the connection, too, and says what it is", function()
    assert.are.same({ true, "request (fd", n = 2 },
      case.run(p, "return rawequal(request, self.connection), tostring(request):sub(1, 11)"))
  end)

  describe("waitend", function()
    it("waits for the peer's end, and reads nothing", function()
      assert.are.same({ true, "abc", true, n = 3 },
        case.run(p, "local ended = request:waitend() return ended, request:recv(), request:waitend(0)", "abc"))
    end)

    it("gives up after so many seconds, or raises when the connection is closed meanwhile", function()
      assert.are.same({ nil, "timeout", n = 2 }, case.run(p, "return request:waitend(0.01)", nil, true))
      case.run(p, "require('moonport').spawn(request.close, request) "
        .. "kept.waited = select(2, pcall(request.waitend, request))", nil, true)
      local why = host.eventually("the wait to be over", function()
        return case.run(p, "return kept.waited and tostring(kept.waited)")[1]
      end)
      assert.truthy(why:find("the connection was closed during a waitend", 1, true), why)
    end)
  end)

  describe("needpeer", function()
    it("has the peer's end cancel the request, as long as that is wanted", function()
      local function piece(code, told)
        local c <close> = host.connect(p:url())
        assert(c:send(case.piece("local told = tostring(request:needpeer(true)) " .. code)))
        assert.are.equal(told, c:receive(#told))
        c:finish()
        return case.results((c:all()))
      end
      piece("wfile:write(told) wfile:flush() kept.code = select(2, pcall(moonport.sleep, 30)).code", "true")
      assert.are.same({ "cancelled", n = 1 }, case.run(p, "return kept.code"))
      assert.are.same({ true, false, n = 2 }, piece("request:needpeer(false) wfile:write(told) "
        .. "return request:waitend(), request:needpeer(false)", "true"))
    end)

    it("says if the end is there already, and cancels nothing then", function()
      assert.are.same({ false, "x", n = 2 }, case.run(p, "request:waitend() local there = request:needpeer(true) "
        .. "moonport.sleep(0.01) return there, request:recv()", "x"))
    end)

    it("sees an end behind data that nobody has read", function()
      local c <close> = host.connect(p:url())
      assert(c:send(case.piece("request:needpeer(true) wfile:write('!') wfile:flush() "
        .. "kept.why = select(2, pcall(moonport.sleep, 30)).code")))
      assert.are.equal("!", c:receive(1))
      assert(c:send("pipelined"))
      c:finish()
      c:all()
      assert.are.same({ "cancelled", n = 1 }, case.run(p, "return kept.why"))
    end)
  end)

  it("knows whether it is closed", function()
    case.run(p, "kept.old, kept.answer = request, { request:isclosed() } request:close() "
      .. "kept.answer[2] = request:isclosed()")
    assert.are.same({ false, true, true, false, n = 4 },
      case.run(p, "return kept.answer[1], kept.answer[2], kept.old:isclosed(), (pcall(request.isclosed, io.stdout))"))
  end)

  it("is not taken for what it is not, whoever has its metatable", function()
    local closed = "rfile (closed) wfile (closed) request (closed)"
    assert.are.same({ closed, closed, n = 2 }, case.run(p, [[
      local scan = require("moonport.resp.scan")
      local bare = scan.bare(100, print)
      bare("ping\r\n", 1)
      local _, number = debug.getupvalue(bare, 3) -- begins with a number where a handle has an address
      local function told(what)
        local out = {}
        for i, object in ipairs { rfile, wfile, request } do
          out[i] = debug.getmetatable(object).__tostring(what)
        end
        return table.concat(out, " ")
      end
      return told(number), told(io.stdout)]]))
  end)

  it("interrupt has a recv return that another task waits in, and nothing else", function()
    assert.are.same({ nil, "interrupted", nil, "timeout", n = 4 },
      case.run(p, "request:interrupt() require('moonport').spawn(request.interrupt, request) "
        .. "local a, b = request:recv() request:settimeout(0.01) return a, b, request:recv()", nil, true))
  end)

  describe("recv", function()
    it("gives what is there, at most so much, then nil and closed", function()
      assert.are.same({ "abc", "de", nil, "closed", n = 4 },
        case.run(p, "local a = request:recv(3) request:recv(0) local b = request:recv(100) "
          .. "return a, b, request:recv(1)", "abcde"))
    end)

    it("takes what rfile has read ahead", function()
      assert.are.same({ "line", "rest", n = 2 },
        case.run(p, "return rfile:read(), request:recv()", "line\nrest"))
    end)

    it("gives the empty string for 0 bytes, at once", function()
      assert.are.same({ "", n = 1 }, case.run(p, "return request:recv(0)", nil, true))
    end)

    it("refuses a negative size", function()
      assert.are.equal("raised", case.run(p, "request:recv(-1)")[1])
    end)

    it("gives nil, message, errno for a connection that was reset", function()
      local c = host.connect(p:url())
      c:send(case.piece "wfile:write('x'):flush() kept.reset = table.pack(request:recv())")
      assert.are.equal("x", c:receive(1))
      c:reset()
      host.eventually("the end of recv", function() return case.run(p, "return kept.reset ~= nil")[1] end)
      assert.are.same({ nil, "Connection reset by peer", 104, n = 3 },
        case.run(p, "return table.unpack(kept.reset, 1, kept.reset.n)"))
    end)
  end)

  describe("recvfrom", function()
    it("gives the sender's address as well", function()
      assert.are.same({ "abc", true, n = 2 },
        case.run(p, "local s, a = request:recvfrom(10) return s, tostring(a) == tostring(self.client_address)", "abc"))
    end)
  end)

  describe("send and sendall", function()
    it("send takes a part and says how much, sendall takes all", function()
      local got, raw = case.run(p,
        "return request:send('abc'), request:sendall(('x'):rep(2000000)), request:sendall('')")
      assert.are.same({ 3, true, true, n = 3 }, got)
      assert.are.equal("abc" .. ("x"):rep(2000000), raw)
    end)

    it("come after what wfile has collected", function()
      local _, raw = case.run(p, "wfile:write('1') request:send('2') wfile:write('3') request:sendall('4')")
      assert.are.equal("1234", raw)
    end)

    it("raise once the peer is gone", function()
      local c = host.connect(p:url())
      c:send(case.piece [[
        local _, e = pcall(function() while true do request:sendall(("x"):rep(65536)) end end)
        local ok, e2 = pcall(request.send, request, "x")
        kept.sendall = { e.code, ok, e2.code }]])
      assert.is_truthy(c:receive(1))
      c:reset()
      host.eventually("the end", function() return case.run(p, "return kept.sendall ~= nil")[1] end)
      local got = case.run(p, "return kept.sendall")[1]
      assert.is_true(got[1] == "ECONNRESET" or got[1] == "EPIPE")
      assert.are.same({ got[1], false, got[1] }, got)
    end)

    it("raise timeout for a peer that does not read", function()
      local c <close> = host.connect(p:url(), { receive = 4096 })
      c:send(case.piece [[
        request:settimeout(0.05)
        local ok, e = pcall(request.sendall, request, ("x"):rep(32 << 20))
        kept.sendtime = { ok, e.code, e.message }]])
      host.eventually("the timeout", function() return case.run(p, "return kept.sendtime ~= nil")[1] end)
      assert.are.same({ { false, "timeout", "send: timeout" }, n = 1 }, case.run(p, "return kept.sendtime"))
    end)

    it("want a string", function()
      for _, method in ipairs { "send", "sendall" } do
        assert.matches("string expected", case.run(p, "request:" .. method .. "({})")[2])
      end
    end)

    it("sendto is for datagrams", function()
      assert.matches("sendto is for datagrams", case.run(p, "request:sendto('x', self.client_address)")[2])
    end)
  end)

  describe("timeouts", function()
    it("have none at first, seconds with fractions after settimeout, none again after nil", function()
      assert.are.same({ nil, 1.5, 0.0, nil, n = 4 }, case.run(p, [[
        local a = request:gettimeout()
        request:settimeout(1.5) local b = request:gettimeout()
        request:settimeout(0) local c = request:gettimeout()
        request:settimeout() return a, b, c, request:gettimeout()]]))
    end)

    it("end a recv with nil and timeout, after the time that was set", function()
      local got = case.run(p, [[
        request:settimeout(0.1)
        local from = moonport.monotonic()
        local s, why, errno = request:recv(1)
        return s, why, errno, moonport.monotonic() - from]], nil, true)
      assert.are.same({ nil, "timeout", nil }, { table.unpack(got, 1, 3) })
      assert.is_true(got[4] >= 0.1 and got[4] < 1, tostring(got[4]))
    end)

    it("must not be negative or another type", function()
      assert.matches("must not be negative", case.run(p, "request:settimeout(-1)")[2])
      assert.matches("must not be negative", case.run(p, "request:settimeout(0/0)")[2])
      assert.matches("number expected", case.run(p, "request:settimeout('soon')")[2])
    end)

    it("come from the attribute", function()
      local q = case.start { args = { "-o", "timeout=0.05" } }
      assert.are.same({ 0.05, nil, "timeout", n = 3 },
        case.run(q, "local t = request:gettimeout() return t, request:recv()", nil, true))
      q:stop()
    end)
  end)

  describe("names", function()
    it("are addresses of both sides", function()
      local c <close> = host.connect(p:url())
      local _, port = host.sys.name(c.fd)
      c:send(case.piece "return tostring(request:getpeername()), tostring(request:getsockname()), request:fileno() > 2")
      c:finish()
      assert.are.same({ "127.0.0.1:" .. port, p:url():sub(7), true, n = 3 }, (case.results((c:all()))))
    end)
  end)

  describe("shutdown", function()
    it("write: the peer sees the end and can still send", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece "wfile:write('bye') local ok = request:shutdown('write') kept.shut = { ok, rfile:read() }")
      assert.are.equal("bye", c:all())
      c:send("heard\n")
      c:finish()
      host.eventually("the end", function() return case.run(p, "return kept.shut ~= nil")[1] end)
      assert.are.same({ { true, "heard" }, n = 1 }, case.run(p, "return kept.shut"))
    end)

    it("read: reads end, writes go on", function()
      assert.are.same({ true, nil, "closed", n = 3 },
        case.run(p, "return request:shutdown('read'), request:recv()", nil, true))
    end)

    it("takes the words that it knows", function()
      assert.matches("invalid option 'half'", case.run(p, "request:shutdown('half')")[2])
    end)
  end)

  describe("close", function()
    it("sends what was written, ends the connection, and every use after it raises", function()
      local _, raw = case.run(p, [[
        wfile:write("all of it")
        local out = { request:close() }
        for name, f in pairs { close = request.close, recv = request.recv, fileno = request.fileno } do
          local ok, e = pcall(f, request)
          out[#out + 1] = not ok and e:find("connection is closed", 1, true) and name
        end
        for _, f in ipairs { rfile.read, rfile.lines, rfile.close } do out[#out + 1] = pcall(f, rfile) end
        for _, f in ipairs { wfile.write, wfile.flush, wfile.close } do out[#out + 1] = pcall(f, wfile, "x") end
        out[#out + 1] = tostring(request)
        table.sort(out, function(a, b) return tostring(a) < tostring(b) end)
        kept.all = out]])
      assert.are.equal("all of it", raw)
      assert.are.same({ { "close", false, false, false, false, false, false, "fileno", "recv",
        "request (closed)", true }, n = 1 }, case.run(p, "return kept.all"))
    end)

    it("carries a large reply whole to a slow reader before it returns", function()
      local c <close> = host.connect(p:url(), { receive = 4096 })
      c:send(case.piece "wfile:write(('y'):rep(1 << 20), 'end') request:close() kept.sent = true")
      local all = c:all()
      assert.are.equal((1 << 20) + 3, #all)
      assert.are.equal("end", all:sub(-3))
      assert.are.same({ true, n = 1 }, case.run(p, "return kept.sent"))
    end)
  end)

  describe("socket options", function()
    it("are known by the names of socket(7), in lower case", function()
      assert.are.same({ true, true, false, true, true, n = 5 }, case.run(p, [[
        return request:getsockopt("tcp_nodelay"), request:setsockopt("tcp_nodelay", false),
          request:getsockopt("tcp_nodelay"), request:setsockopt("so_rcvbuf", 20000),
          request:getsockopt("so_rcvbuf") >= 20000]]))
      assert.are.same({ "number", "string", true, 45, n = 4 }, case.run(p, [[
        return math.type(request:getsockopt("so_sndbuf")) and "number", type(request:getsockopt("tcp_congestion")),
          request:setsockopt("tcp_keepidle", 45), request:getsockopt("tcp_keepidle")]]))
    end)

    it("so_linger is false or seconds", function()
      assert.are.same({ false, true, 3, true, false, n = 5 }, case.run(p, [[
        return request:getsockopt("so_linger"), request:setsockopt("so_linger", 3),
          request:getsockopt("so_linger"), request:setsockopt("so_linger", false), request:getsockopt("so_linger")]]))
    end)

    it("so_linger 0 makes closing a reset", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece "request:setsockopt('so_linger', 0) request:close()")
      local _, _, errno = c:all()
      assert.are.equal(104, errno)
    end)

    it("suggest the nearest name", function()
      local got = case.run(p, "request:getsockopt('tcp_nodely')")
      assert.matches("no socket option 'tcp_nodely'; did you mean 'tcp_nodelay'%?", got[2])
      assert.matches("no socket option 'SO_RCVBUF'", case.run(p, "request:setsockopt('SO_RCVBUF', 1)")[2])
    end)

    it("report what the system refuses", function()
      assert.are.same({ nil, "Protocol not available", 92, n = 3 },
        case.run(p, "return request:setsockopt('so_type', 1)"))
    end)

    it("so_peercred tells who is behind a Unix socket", function()
      local q = case.start { listen = "unix://" .. host.folder() .. "/s" }
      local got = case.run(q, "local c = request:getsockopt('so_peercred') return c.pid, c.uid, c.gid")
      local status = host.read("/proc/self/status")
      assert.are.same({ tonumber(status:match("\nPid:%s+(%d+)")), tonumber(status:match("\nUid:%s+%d+%s+(%d+)")),
        tonumber(status:match("\nGid:%s+%d+%s+(%d+)")), n = 3 }, got)
      q:stop()
    end)
  end)

  describe("makefile", function()
    it("gives readers and writers of the same connection", function()
      local got, raw = case.run(p, [[
        local r, w = request:makefile("r"), request:makefile("wb")
        local a, b = r:read(), rfile:read()
        w:write(b, a)
        return request:makefile():read(), tostring(r):sub(1, 5), tostring(w):sub(1, 5)]], "1\n2\n3\n")
      assert.are.same({ "3", "rfile", "wfile", n = 3 }, got)
      assert.are.equal("21", raw)
      assert.matches("invalid option", case.run(p, "request:makefile('rw')")[2])
    end)
  end)
end)

describe("request of a datagram", function()
  local p
  setup(function() p = case.start { listen = "udp://127.0.0.1:0" } end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  it("is the packet and a socket", function()
    assert.are.same({ true, true, true, 2, nil, n = 5 }, case.ask(p:url(),
      "return request[1] == self.packet, request[2] == self.socket, rfile:read('a') == self.packet, #request, "
      .. "self.connection"))
  end)

  it("has a socket that sends", function()
    local c <close> = host.connect(p:url())
    c:send("local self = ... return self.socket:sendto('one', self.client_address), self.socket:sendto('', "
      .. "{ self.client_address.host, self.client_address.port })")
    assert.are.equal("one", c:some())
    assert.are.equal("", (host.sys.poll(c.fd, "r", 5) and host.sys.recv(c.fd)))
    assert.are.equal("3, 0", c:some())
  end)

  it("has a socket that does not receive, and says why", function()
    for _, method in ipairs { "recv", "recvfrom" } do
      local got = case.ask(p:url(), ("return pcall(self.socket.%s, self.socket)"):format(method))
      assert.is_false(got[1])
      assert.matches("the server receives on this socket", got[2])
    end
  end)

  it("has a socket with a name and options", function()
    assert.are.same({ p:url():sub(7), true, "socket (fd", n = 3 }, case.ask(p:url(),
      "return tostring(self.socket:getsockname()), self.socket:getsockopt('so_rcvbuf') > 0 "
      .. "and self.socket:fileno() > 2, tostring(self.socket):sub(1, 10)"))
  end)

  it("raises for what cannot be sent", function()
    local got = case.ask(p:url(), "local ok, e = pcall(self.socket.sendto, self.socket, ('x'):rep(65508), "
      .. "self.client_address) return ok, e.code, e.errno")
    assert.are.same({ false, "EMSGSIZE", 90, n = 3 }, got)
  end)
end)
