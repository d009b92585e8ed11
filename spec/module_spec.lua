local case = require("support.case")
local host = require("support.host")
local sys = host.sys

-- A listening socket of the spec's own: its descriptor and URL.
local function listener(url, backlog)
  local fd = assert(sys.socket(url))
  assert(sys.bind(fd, url))
  assert(sys.listen(fd, backlog or 16))
  if url:find("^unix") then return fd, url end
  local _, port = sys.name(fd)
  return fd, "tcp://127.0.0.1:" .. port
end

local function accept(fd)
  assert(sys.poll(fd, "r", host.LIMIT), "nobody connects")
  return assert(sys.accept(fd))
end

local function read_all(fd)
  local parts = {}
  while true do
    assert(sys.poll(fd, "r", host.LIMIT), "the end does not come")
    local s = assert(sys.recv(fd))
    if s == "" then return table.concat(parts) end
    parts[#parts + 1] = s
  end
end

describe("moonport", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    case.run(p, "collectgarbage()")
    p:stop()
    host.cleanup()
  end)

  it("is a module and knows its version", function()
    assert.are.same({ true, true, true, n = 3 },
      case.run(p, "return moonport == require('moonport'), package.loaded.moonport == moonport, "
        .. "moonport.version:find('^%d+%.%d+%.%d+') ~= nil"))
  end)

  describe("sleep", function()
    it("waits as long as it was told, and others run meanwhile", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece("local t = moonport.monotonic() kept.asleep = true moonport.sleep(0.2) "
        .. "return moonport.monotonic() - t"))
      c:finish()
      host.eventually("the sleep", function() return case.run(p, "return kept.asleep")[1] end)
      assert.is_false(sys.poll(c.fd, "r", 0))
      local took = case.results((c:all()))[1]
      assert.is_true(took >= 0.2 and took < host.SOON, tostring(took))
    end)

    it("takes 0, which lets the others run first", function()
      assert.are.equal(0, case.run(p, "for _ = 1, 100 do moonport.sleep(0) end").n)
    end)

    it("refuses what is no time", function()
      for code, why in pairs {
        ["moonport.sleep()"] = "number expected",
        ["moonport.sleep(-1)"] = "must not be negative",
        ["moonport.sleep(0/0)"] = "must not be negative",
        ["moonport.sleep('soon')"] = "number expected",
        ["moonport.sleep({})"] = "number expected",
      } do
        local got = case.run(p, code)
        assert.are.equal("raised", got[1], code)
        assert.matches("bad argument #1 to 'sleep' .*" .. why, got[2])
      end
    end)

    it("may be endless: then only cancelling ends it", function()
      local q = case.start { args = { "-o", "request_timeout=0.05" } }
      assert.are.same({ false, "cancelled", "cancelled: request_timeout", n = 3 },
        case.run(q, "local ok, e = pcall(moonport.sleep, math.huge) return ok, e.code, e.message"))
      q:stop()
    end)

    it("cannot be used while a script is loaded", function()
      local code, out, err = host.run { "check", host.write "require('moonport').sleep(0)\nreturn {}" }
      assert.are.equal(100, code)
      assert.are.equal("", out)
      assert.matches("^moonport: [^\n]*script%.lua:1: [^\n]*only a request can[^\n]*\n$", err)
    end)
  end)

  describe("monotonic and time", function()
    it("are seconds with a fraction; monotonic never goes back", function()
      local before = os.time()
      local got = case.run(p, [[
        local last = moonport.monotonic()
        for _ = 1, 1000 do
          local now = moonport.monotonic()
          if now < last then return "back" end
          last = now
        end
        return "forward", math.type(last), moonport.time()]])
      assert.are.same({ "forward", "float" }, { got[1], got[2] })
      assert.is_true(got[3] >= before and got[3] <= os.time() + 1)
      assert.are_not.equal(got[3], math.floor(got[3]))
    end)
  end)

  describe("log", function()
    it("writes an event of each level", function()
      case.run(p, "moonport.log('info', 'one') moonport.log('warn', 'two') moonport.log('error', 'three') "
        .. "moonport.log('debug', 'unseen') moonport.log('info', 42) moonport.log('info', nil) "
        .. "moonport.log('info', '\\0\\xff\\n\"')")
      local got = {}
      for _, e in ipairs(p:find("script", true)) do got[#got + 1] = e.level .. " " .. e.message end
      assert.are.same({ "info one", "warn two", "error three", "info 42", "info nil",
        "info \0\xc3\xbf\n\"" }, got)
    end)

    it("knows its levels", function()
      assert.matches("invalid option 'loud'", case.run(p, "moonport.log('loud', 'x')")[2])
    end)

    it("can be used while a script is loaded", function()
      local q = host.start(host.write "require('moonport').log('warn', 'loading') return { handle = print }")
      assert.are.equal("loading", q:find("script", true)[1].message)
      q:stop()
    end)
  end)

  describe("connect", function()
    it("makes a connection over TCP and Unix sockets, with all methods of a request", function()
      local folder = host.folder()
      for _, url in ipairs { "tcp://127.0.0.1:0", "unix://" .. folder .. "/s", "unix://@mp-" .. folder } do
        local fd, to = listener(url)
        local c <close> = host.connect(p:url())
        c:send(case.piece(([[
          local s <close> = assert(moonport.connect(%q, 5))
          s:sendall("ping\n")
          local answer = s:makefile("r"):read()
          s:makefile("w"):write(answer, "!"):flush()
          return answer, tostring(s):sub(1, 3) ~= nil, s:fileno() > 2, tostring(s:getpeername())]]):format(to)))
        c:finish()
        local conn = accept(fd)
        assert.is_true(sys.poll(conn, "r", host.LIMIT))
        assert.are.equal("ping\n", sys.recv(conn))
        sys.send(conn, "pong\n")
        assert.are.equal("pong!", read_all(conn))
        local got = case.results((c:all()))
        assert.are.same({ "pong", true, true, (to:gsub("^%w+://", "")), n = 4 }, got)
        sys.close(conn)
        sys.close(fd)
      end
    end)

    it("has TCP_NODELAY set", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      assert.are.same({ true, n = 1 },
        case.run(p, ("local s <close> = moonport.connect(%q) return s:getsockopt('tcp_nodelay')"):format(to)))
      sys.close(fd)
    end)

    it("says nil and why when nobody listens", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      sys.close(fd)
      assert.are.same({ nil, "Connection refused", 111, n = 3 },
        case.run(p, ("return moonport.connect(%q)"):format(to)))
      assert.are.same({ nil, "No such file or directory", 2, n = 3 },
        case.run(p, ("return moonport.connect('unix://%s/none')"):format(host.folder())))
      assert.are.same({ nil, "Connection refused", 111, n = 3 },
        case.run(p, "return moonport.connect('unix://@moonport-nobody-at-all')"))
    end)

    it("says nil and timeout after the time that was given", function()
      local fd, to = listener("tcp://127.0.0.1:0", 0)
      -- The queue of a listener that never accepts: what is behind it waits for ever.
      local full = {}
      repeat
        local c = assert(sys.socket(to))
        full[#full + 1] = c
        local ok = sys.connect(c, to) or sys.poll(c, "w", 0.05)
      until not ok or #full > 8
      local got = case.run(p, ("local t = moonport.monotonic() local s, why, errno = moonport.connect(%q, 0.1) "
        .. "return s, why, errno, moonport.monotonic() - t"):format(to))
      assert.are.same({ nil, "timeout" }, { got[1], got[2] })
      assert.is_true(got[4] >= 0.1 and got[4] < 2, tostring(got[4]))
      for _, c in ipairs(full) do sys.close(c) end
      sys.close(fd)
    end)

    it("raises for what is no address of a stream", function()
      for url, why in pairs {
        ["nonsense"] = "not a URL",
        ["tcp://127.0.0.1"] = "the port is missing",
        ["udp://127.0.0.1:9"] = "connect is for tcp:// and unix://",
        ["unixgram:///x"] = "connect is for tcp:// and unix://",
        ["tcp://a.host.name:80"] = "the host must be an IP address",
        ["unix://"] = "the path of the socket is missing",
        ["tcp://127.0.0.1:1\0"] = "NUL byte",
      } do
        local got = case.run(p, ("moonport.connect(%q)"):format(url))
        assert.are.equal("raised", got[1], url)
        assert.matches("bad argument #1 to 'connect'", got[2], 1, true)
        assert.is_truthy(got[2]:find(why, 1, true), got[2])
      end
      assert.matches("must not be negative", case.run(p, "moonport.connect('tcp://127.0.0.1:1', -1)")[2])
    end)

    it("takes localhost for 127.0.0.1", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      to = to:gsub("127.0.0.1", "localhost")
      assert.are.same({ "127.0.0.1", n = 1 },
        case.run(p, ("local s <close> = moonport.connect(%q) return s:getpeername().host"):format(to)))
      sys.close(fd)
    end)

    it("is closed by <close>, by an error through it, by close() and as garbage", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      for what, code in pairs {
        ["<close>"] = "do local s <close> = moonport.connect(%q) s:sendall('x') end rfile:read()",
        ["error"] = "pcall(function() local s <close> = moonport.connect(%q) s:sendall('x') error('y') end) "
          .. "rfile:read()",
        ["close()"] = "local s = moonport.connect(%q) s:sendall('x') s:close() "
          .. "assert(not pcall(s.recv, s)) rfile:read()",
        ["garbage"] = "do local s = moonport.connect(%q) s:sendall('x') end collectgarbage() rfile:read()",
        ["unsent"] = "do local s <close> = moonport.connect(%q) s:makefile('w'):write('x') end rfile:read()",
      } do
        local c <close> = host.connect(p:url())
        c:send(case.piece(code:format(to)))
        local conn = accept(fd)
        assert.are.equal("x", read_all(conn), what) -- while the handler still runs
        sys.close(conn)
        c:finish()
        assert.are.equal(0, case.results((c:all())).n, what)
      end
      sys.close(fd)
    end)

    it("closes by <close> only when the peer has all that was written", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      sys.bufsize(fd, 4096)
      local c <close> = host.connect(p:url())
      c:send(case.piece(([[
        local n, piece = 0, ("x"):rep(1000)
        do
          local s <close> = moonport.connect(%q)
          s:setsockopt("so_sndbuf", 4096)
          local w = s:makefile("w")
          local before
          repeat -- until the kernel takes no more
            before = self.server:stats().bytes_out
            w:write(piece)
            n = n + 1
            moonport.sleep(0)
          until self.server:stats().bytes_out == before
          kept.full = true
        end
        return n * 1000]]):format(to)))
      c:finish()
      local conn = accept(fd)
      host.eventually("a full socket", function() return case.run(p, "return kept.full")[1] end)
      local got = #read_all(conn)
      assert.are.same({ got, n = 1 }, (case.results((c:all()))))
      sys.close(conn)
      sys.close(fd)
    end)

    it("lives as long as a file made of it", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      local c <close> = host.connect(p:url())
      c:send(case.piece(("local r = moonport.connect(%q):makefile('r') collectgarbage() collectgarbage() "
        .. "return r:read()"):format(to)))
      c:finish()
      local conn = accept(fd)
      sys.send(conn, "there\n")
      assert.are.same({ "there", n = 1 }, (case.results((c:all()))))
      sys.close(conn)
      sys.close(fd)
    end)

    it("may be shared by requests, one after the other", function()
      local fd, to = listener("tcp://127.0.0.1:0")
      case.run(p, ("kept.socket = moonport.connect(%q)"):format(to))
      local conn = accept(fd)
      case.run(p, "kept.socket:sendall('one ')")
      case.run(p, "kept.socket:sendall('two') kept.socket:close() kept.socket = nil")
      assert.are.equal("one two", read_all(conn))
      sys.close(conn)
      sys.close(fd)
    end)

    it("waits for room in a Unix server's queue, as long as it may", function()
      local path = host.folder() .. "/full"
      local fd = assert(sys.socket("unix://" .. path))
      assert(sys.bind(fd, "unix://" .. path))
      assert(sys.listen(fd, 0))
      local first = host.connect("unix://" .. path)
      assert.are.same({ nil, "timeout", n = 2 },
        case.run(p, ("return moonport.connect('unix://%s', 0.05)"):format(path), nil, true))
      local c <close> = host.connect(p:url())
      c:send(case.piece(("kept.begun = true return moonport.connect('unix://%s') ~= nil"):format(path)))
      c:finish()
      host.eventually("the attempt", function() return case.run(p, "return kept.begun")[1] end)
      sys.close(accept(fd))
      assert.are.same({ true, n = 1 }, (case.results((c:all()))))
      first:close()
      sys.close(accept(fd))
      sys.close(fd)
    end)

    it("leaves no descriptor behind, whether it works or not", function()
      local fd, to = listener("tcp://127.0.0.1:0", 100)
      local before = p:descriptors() -- perhaps with connections that linger
      case.run(p, ("for _ = 1, 50 do moonport.connect(%q) moonport.connect('tcp://127.0.0.1:1') end collectgarbage()")
        :format(to))
      for _ = 1, 50 do sys.close(accept(fd)) end
      host.eventually("closed descriptors", function() return p:descriptors() <= before end)
      sys.close(fd)
    end)

    it("makes a proxy of a few lines", function()
      local back = host.start("scripts/upper.lua")
      local proxy = host.start(host.write(([[
        local moonport = require("moonport")
        function handle(self)
          local s <close> = assert(moonport.connect(%q, 5))
          local from, to = s:makefile("r"), s:makefile("w")
          for line in self.rfile:lines("L") do
            to:write(line)
            self.wfile:write("> ", (from:read("L")))
          end
        end]]):format(back:url())))
      local clients = {}
      for i = 1, 50 do clients[i] = host.connect(proxy:url()) end
      for round = 1, 5 do
        for i, c in ipairs(clients) do c:send("hello " .. i .. "." .. round .. "\n") end
        for i, c in ipairs(clients) do assert.are.equal("> HELLO " .. i .. "." .. round, c:line()) end
      end
      for _, c in ipairs(clients) do c:close() end
      proxy:stop()
      back:stop()
    end)
  end)
end)
