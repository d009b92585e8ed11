local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

-- What CPython's Lib/test/test_socketserver.py expects of the classes, each behaviour here of ours.

local TRANSPORTS = { "TCPServer", "UDPServer", "UnixStreamServer", "UnixDatagramServer" }
local MIXINS = { "", "Async", "Threading", "Forking" }

local function kind_of(transport)
  return (transport:find("UDP") or transport:find("Datagram")) and "Datagram" or "Stream"
end

-- A Lua expression: where such a server may be bound.
local function address_of(transport)
  return transport:find("Unix") and 'folder .. "/socket"' or '{ "127.0.0.1", 0 }'
end

-- The path of a script that returns a handler class; `body` defines its methods.
local function script(kind, body)
  return host.write(([[
    local socketserver = require("moonport.socketserver")
    local Handler = socketserver.class("Handler", socketserver.%sRequestHandler)
    %s
    return Handler]]):format(kind, body))
end

local ECHO = "function Handler:handle() self.wfile:write((self.rfile:readline())) end"

describe("socketserver", function()
  after_each(plain.cleanup)

  it("has all the classes, and nothing else that is one", function()
    local expected = { "BaseServer", "BaseRequestHandler", "StreamRequestHandler", "DatagramRequestHandler",
      "AsyncMixIn", "ThreadingMixIn", "ForkingMixIn" }
    for _, mixin in ipairs(MIXINS) do
      for _, transport in ipairs(TRANSPORTS) do expected[#expected + 1] = mixin .. transport end
    end
    local got = {}
    for name in plain.run([[
      local class = require("moonport.class")
      for name, value in pairs(socketserver) do
        if class.is(value) then
          assert(class.name(value) == name)
          say(name)
        end
      end]]):gmatch("%S+") do got[#got + 1] = name end
    table.sort(expected)
    table.sort(got)
    assert.are.same(expected, got)
  end)

  it("combines them as Python does", function()
    assert.are.equal("ForkingUnixDatagramServer ForkingMixIn UnixDatagramServer UDPServer TCPServer BaseServer\n",
      plain.run [[
        local class = require("moonport.class")
        local names = {}
        for i, c in ipairs(class.mro(socketserver.ForkingUnixDatagramServer)) do names[i] = class.name(c) end
        say(table.concat(names, " "))]])
  end)

  describe("serves three clients, then no more:", function()
    for _, mixin in ipairs(MIXINS) do
      for _, transport in ipairs(TRANSPORTS) do
        it(mixin .. transport, function()
          local handler = script(kind_of(transport), ECHO)
          local p = plain.start(([[
            local path = arg[2]
            local Server = socketserver.class("MyServer", socketserver.%s)
            local server = Server(%s, %s)
            assert(server:fileno() > 2 and server.socket:fileno() == server:fileno())
            assert(tostring(server.server_address) == tostring(server.socket:getsockname()))
            assert(tostring(server) == "MyServer (" .. server.url .. ")")
            until_told(server)
            server:server_close()
            assert(server:fileno() == -1)
            if socketserver.isinstance(server, socketserver.ForkingMixIn) then
              assert(#server.active_children == 0)
            end
            server:server_close()]]):format(mixin .. transport, address_of(transport),
              mixin == "Threading" and "path" or "dofile(path)"), handler)
          local url = p:url()
          for i = 1, 3 do assert.are.equal("hello " .. i, plain.ask(url, "hello " .. i)) end
          p:stop()
          assert.is_nil(sys.stat(p.folder .. "/socket"))
          if kind_of(transport) == "Stream" then assert.has_error(function() host.connect(url) end) end
          assert.is_nil(p:log():find("error", 1, true), p:log())
        end)
      end
    end
  end)

  it("serves one at a time without a mixin, and many with one", function()
    local handler = script("Stream", ECHO)
    for _, mixin in ipairs(MIXINS) do
      local p = plain.start(([[
        local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
        until_told(server)]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"), handler)
      local first, second = host.connect(p:url()), host.connect(p:url())
      assert(second:send("second\n"))
      if mixin == "" then
        assert.is_false(sys.poll(second.fd, "r", 0.05))
        assert.are.equal("first", first:ask("first"))
        assert.are.equal("second", second:line())
      else
        assert.are.equal("second", second:line())
        assert.are.equal("first", first:ask("first"))
      end
      first:close()
      second:close()
      p:stop()
    end
  end)

  it("serves inside moonport.run as well", function()
    local p = plain.start([[
      local server <close> = socketserver.AsyncTCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
      moonport.run(function() until_told(server) end)
      say("over")]], script("Stream", ECHO))
    assert.are.equal("a", plain.ask(p:url(), "a"))
    assert.matches("over\n$", p:stop())
  end)

  describe("shutdown", function()
    it("ends serve_forever whenever it comes, of 20 servers", function()
      plain.run [[
        local servers = {}
        for i = 1, 20 do
          servers[i] = socketserver.TCPServer({ "127.0.0.1", 0 }, socketserver.StreamRequestHandler)
        end
        for _, server in ipairs(servers) do -- before it begins, as CPython's race may have it
          server:shutdown()
          server:serve_forever(0.01)
        end
        for _, server in ipairs(servers) do -- at its first turn
          function server:service_actions() self:shutdown() end
          server:serve_forever(0.01)
          server:server_close()
        end]]
    end)

    it("comes from a handler, which goes on to its end", function()
      for _, mixin in ipairs { "", "Async", "Threading" } do
        local p = plain.start(([[
          local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
          say("at", server.url)
          server:serve_forever(60)
          say("over")]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"), script("Stream", [[
            function Handler:handle()
              self.server:shutdown()
              self.wfile:write("going\n")
              self.wfile:write((self.rfile:readline()))
            end]]))
        local c <close> = host.connect(p:url())
        assert.are.equal("going", c:line())
        assert.are.equal("still there", c:ask("still there"))
        assert.matches("over\n$", p:done())
      end
    end)

    it("comes from a hook", function()
      for _, hook in ipairs { "verify_request", "process_request", "shutdown_request", "handle_error" } do
        local p = plain.start(([[
          local Server = socketserver.class("MyServer", socketserver.TCPServer)
          function Server:%s(...)
            self:shutdown()
            return socketserver.TCPServer.%s(self, ...)
          end
          local server <close> = Server({ "127.0.0.1", 0 }, dofile(arg[2]))
          say("at", server.url)
          server:serve_forever(60)]]):format(hook, hook),
          script("Stream", "function Handler:handle() self.wfile:write('x\\n'):flush() error('on purpose') end"))
        assert.are.equal("x", plain.ask(p:url(), ""))
        p:done()
      end
    end)

    it("may be followed by serve_forever again", function()
      local p = plain.start([[
        local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
        say("at", server.url)
        for i = 1, 3 do
          server:serve_forever(60)
          say("round", i)
        end]], script("Stream", "function Handler:handle() self.wfile:write('x\\n') self.server:shutdown() end"))
      for i = 1, 3 do
        assert.are.equal("x", plain.ask(p:url(), ""))
        p:expect("round " .. i)
      end
      p:done()
    end)
  end)

  describe("server_close", function()
    it("may follow the constructor at once", function()
      plain.run([[
        local Server = socketserver.class("MyServer", socketserver.ThreadingMixIn, socketserver.TCPServer)
        Server({ "127.0.0.1", 0 }, arg[2]):server_close()
        socketserver.TCPServer({ "127.0.0.1", 0 }, function() end):server_close()]], script("Stream", ECHO))
    end)

    it("is called by <close>, with an error or without, also of a derived class", function()
      assert.are.equal("closed nil\nclosed true\n", plain.run [[
        local Server = socketserver.class("MyServer", socketserver.TCPServer)
        local err
        function Server:server_close()
          socketserver.TCPServer.server_close(self)
          say("closed", err)
        end
        local address, kept
        do
          local server <close> = Server({ "127.0.0.1", 0 }, socketserver.StreamRequestHandler)
          address, kept = server.server_address, server
        end
        assert(kept:fileno() == -1)
        err = true
        assert(not pcall(function()
          local server <close> = Server(address, socketserver.StreamRequestHandler) -- the address is free
          kept = server
          error("on purpose")
        end))
        assert(kept:fileno() == -1)]])
    end)

    it("leaves a server that says so when it is used", function()
      assert.are.equal(("MyServer: it is closed\n"):rep(2), plain.run [[
        local Server = socketserver.class("MyServer", socketserver.TCPServer)
        local server = Server({ "127.0.0.1", 0 }, socketserver.StreamRequestHandler)
        server:server_close()
        say(select(2, pcall(server.serve_forever, server)))
        say(select(2, pcall(server.handle_request, server)))]])
    end)
  end)

  describe("a constructor that fails", function()
    -- Runs a program that says "before" and "after", and waits each time; what else it wrote, and its folder.
    local function without_a_leak(code)
      local p = plain.start('collectgarbage("stop") ' .. code) -- it must not be the collector that closes
      p:expect("before\n")
      local before = p:count("fd")
      p:tell("")
      p:expect("after\n")
      assert.are.equal(before, p:count("fd"))
      p:tell("")
      local text = p:done():gsub("before\n", "")
      text = text:gsub("after\n", "")
      return text, p.folder
    end

    it("leaves no descriptor, 1,024 times", function()
      without_a_leak [[
        local busy = socketserver.TCPServer({ "127.0.0.1", 0 }, socketserver.StreamRequestHandler)
        say("before")
        io.read()
        for i = 1, 1024 do
          local port = i % 2 == 0 and -1 or busy.server_address.port
          assert(not pcall(socketserver.TCPServer, { "127.0.0.1", port }, socketserver.StreamRequestHandler))
        end
        say("after")
        io.read()]]
    end)

    it("has server_close called, and raises the error", function()
      for _, method in ipairs { "server_bind", "server_activate" } do
        for _, raised in ipairs { "'on purpose'", "{ 7 }" } do
          local text, folder = without_a_leak(([[
            local what = %s
            local Server = socketserver.class("MyServer", socketserver.UnixStreamServer)
            function Server:%s()
              socketserver.UnixStreamServer.%s(self)
              error(what, 0)
            end
            function Server:server_close()
              say("server_close")
              socketserver.UnixStreamServer.server_close(self)
            end
            say("before")
            io.read()
            local ok, err = pcall(Server, folder .. "/socket", socketserver.StreamRequestHandler)
            say(not ok and err == what)
            say("after")
            io.read()]]):format(raised, method, method))
          assert.are.equal("server_close\ntrue\n", text)
          assert.is_nil(sys.stat(folder .. "/socket"))
        end
      end
    end)

    it("says in one sentence what is wrong", function()
      for call, why in pairs {
        ['TCPServer({ "127.0.0.1", -1 }, H)'] = "port",
        ['TCPServer({ "127.0.0.1", 65536 }, H)'] = "port",
        ['TCPServer({ "::1", 0 }, H)'] = "::1 is no address of address_family AF_INET",
        ['with("address_family", "AF_INET6")'] = "127.0.0.1 is no address of address_family AF_INET6",
        ['TCPServer("127.0.0.1:0", H)'] = "the address must be {host, port}",
        ['TCPServer(nil, H)'] = "the address must be {host, port}",
        ['UnixStreamServer({ "127.0.0.1", 0 }, H)'] = "the address must be the path of a socket",
        ['UnixStreamServer("/no/such/folder/s", H)'] = "No such file or directory",
        ['TCPServer({ "127.0.0.1", 0 })'] = "the handler has no function `handle`",
        ['TCPServer({ "127.0.0.1", 0 }, {})'] = "the handler has no function `handle`",
        ['TCPServer({ "127.0.0.1", 0 }, "no.such.module")'] = "there is no module no.such.module for a handler",
        ['TCPServer({ "127.0.0.1", 0 }, "no/such/script")'] = "cannot load the handler: cannot open no/such/script",
        ['ThreadingTCPServer({ "127.0.0.1", 0 }, "no.such.module")'] = "there is no module no.such.module",
        ['with("request_queue_size", "many")'] = "request_queue_size",
        ['with("max_packet_size", -1)'] = "max_packet_size",
        ['with("address_family", "AF_APPLETALK")'] = "address_family must be AF_INET, AF_INET6 or AF_UNIX",
        ['with("socket_type", "SOCK_RAW")'] = "socket_type must be SOCK_STREAM or SOCK_DGRAM",
      } do
        local text = plain.run(([[
          local H = socketserver.StreamRequestHandler
          function socketserver.with(name, value)
            local Server = socketserver.class("MyServer", socketserver.TCPServer)
            Server[name] = value
            return Server({ "127.0.0.1", 0 }, H)
          end
          local ok, err = pcall(function() return socketserver.%s end)
          say(not ok and err)]]):format(call))
        assert.is_truthy(text:find(why, 1, true), call .. ": " .. text)
        assert.matches("^[^\n]+\n$", text)
      end
    end)
  end)

  describe("an error of a handler", function()
    -- CPython's matrix: the handler writes, then ends like this; handle_error writes.
    local function matrix(mixin, ending)
      local folder = host.folder()
      local p = plain.start(([[
        local Server = socketserver.class("Server", socketserver.%sTCPServer)
        function Server:handle_error(request, client_address, err)
          local log = io.open(folder .. "/errors", "a")
          log:write("Error handled: ", tostring(err):match("^[^\n]*"), "\n")
          log:close()
        end
        local server = Server({ "127.0.0.1", 0 }, %s)
        say("at", server.url)
        server:handle_request()
        server:server_close()]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"),
        script("Stream", ([[
          function Handler:handle()
            local log = io.open(%q, "a")
            log:write("Handler called\n")
            log:close()
            %s
          end]]):format(folder .. "/calls", ending)))
      host.connect(p:url()):close()
      local code = p:wait()
      return code, host.read(folder .. "/calls"), host.read(p.folder .. "/errors")
    end

    for _, mixin in ipairs(MIXINS) do
      local name = mixin .. "TCPServer"

      it("goes to handle_error: " .. name, function()
        local code, calls, errors = matrix(mixin, "error('Test error', 0)")
        assert.are.same({ 0, "Handler called\n", "Error handled: Test error\n" }, { code, calls, errors })
      end)

      it("does not when it is the process's end: " .. name, function()
        local code, calls, errors = matrix(mixin, "os.exit(72)")
        assert.are.same({ "Handler called\n", nil, n = 2 }, { calls, errors, n = 2 })
        if mixin ~= "Threading" then assert.are.equal(mixin == "Forking" and 0 or 72, code) end
      end)
    end

    it("is logged with its traceback when nothing else is said", function()
      for _, mixin in ipairs(MIXINS) do
        local p = plain.start(([[
          local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
          until_told(server)]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"),
          script("Stream", "function Handler:handle() error('on purpose') end"))
        for _ = 1, 2 do
          local c <close> = host.connect(p:url())
          assert.are.equal("", c:all())
        end
        p:stop()
        local _, n = p:log():gsub("on purpose", "")
        assert.are.equal(2, n, p:log())
        assert.matches("stack traceback", p:log())
        assert.matches("script.lua:3", p:log())
      end
    end)

    it("leaves the server as it was when it is handle_error's own", function()
      for _, mixin in ipairs { "", "Async", "Threading" } do
        local p = plain.start(([[
          local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
          function server.handle_error() error("of handle_error") end
          until_told(server)]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"),
          script("Stream", [[
            function Handler:handle()
              local line = self.rfile:readline()
              if line == "bad\n" then error("on purpose") end
              self.wfile:write(line)
            end]]))
        assert.is_nil(plain.ask(p:url(), "bad"))
        assert.are.equal("good", plain.ask(p:url(), "good"))
        p:stop()
        assert.matches("of handle_error", p:log())
      end
    end)
  end)

  describe("wfile", function()
    it("sends at once with wbufsize = 0", function()
      local p = plain.start([[
        local Handler = socketserver.class("Handler", socketserver.StreamRequestHandler)
        Handler.wbufsize = 0
        function Handler:handle()
          self.wfile:write("write data\n")
          local limit = os.clock() + 10
          repeat until exists("seen") or os.clock() > limit -- it neither waits nor ends
          say(os.clock() <= limit, (self.rfile:read()))
        end
        local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
        say("at", server.url)
        server:handle_request()]])
      local c <close> = host.connect(p:url())
      assert.are.equal("write data", c:line())
      host.write("", p.folder .. "/seen")
      assert(c:send("client response\n"))
      assert.matches("\ntrue client response\n$", p:done())
    end)

    it("sends the whole of a big write, whatever signals come", function()
      for _, wbufsize in ipairs { 0, -1 } do
        local p = plain.start(([[
          local Handler = socketserver.class("Handler", socketserver.StreamRequestHandler)
          Handler.wbufsize = %d
          function Handler:handle()
            say(self.wfile:write(("\0"):rep(16 * 1024 * 1024)) == self.wfile)
          end
          local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
          say("at", server.url)
          server:handle_request()]]):format(wbufsize))
        local c <close> = host.connect(p:url(), { receive = 4096 })
        assert.are.equal(100, #c:receive(100))
        for _ = 1, 5 do -- the only signals that interrupt without a handler
          sys.kill(p.pid, "STOP")
          sys.kill(p.pid, "CONT")
          assert.is_truthy(c:receive(10000))
        end
        assert.are.equal(16 * 1024 * 1024 - 100 - 50000, #c:all())
        assert.matches("\ntrue\n$", p:done())
      end
    end)
  end)

  it("calls shutdown_request when verify_request says no", function()
    local p = plain.start [[
      local Server = socketserver.class("MyServer", socketserver.TCPServer)
      function Server:verify_request() return false end
      Server.shutdown_called = 0
      function Server:shutdown_request(request)
        self.shutdown_called = self.shutdown_called + 1
        socketserver.TCPServer.shutdown_request(self, request)
      end
      local server <close> = Server({ "127.0.0.1", 0 }, { handle = function() say("handle") end })
      say("at", server.url)
      server:handle_request()
      say(server.shutdown_called)]]
    local c <close> = host.connect(p:url())
    assert.are.equal("", c:all())
    assert.matches("^at [^\n]*\n1\n$", p:done())
  end)

  describe("what has ended", function()
    it("is no thread any more", function()
      local p = plain.start([[
        local server = socketserver.ThreadingTCPServer({ "127.0.0.1", 0 }, arg[2])
        say("at", server.url)
        for _ = 1, 10 do server:handle_request() end
        say("served")
        io.read()
        server:server_close()
        say("closed")
        io.read()]], script("Stream", ECHO))
      for i = 1, 10 do assert.are.equal("x" .. i, plain.ask(p:url(), "x" .. i)) end
      p:expect("served")
      assert.is_true(p:count("task") < 10)
      p:tell("")
      p:expect("closed")
      host.eventually("the threads' end", function() return p:count("task") == 1 end)
      p:tell("")
      p:done()
    end)

    it("is no child any more, while it serves on", function()
      local p = plain.start([[
        local server <close> = socketserver.ForkingTCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
        until_told(server)
        say(#server.active_children)]], script("Stream", ECHO))
      for i = 1, 10 do assert.are.equal("x" .. i, plain.ask(p:url(), "x" .. i)) end
      host.eventually("the children's end", function() return #p:children() == 0 end)
      assert.matches("\n0\n$", p:stop())
    end)

    it("is waited for by server_close", function()
      for _, mixin in ipairs { "Threading", "Forking" } do
        local p = plain.start(([[
          local server = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
          say("at", server.url)
          server:handle_request()
          say(#server.active_children)
          say("closing")
          server:server_close()
          say("closed", #server.active_children)]]):format(mixin,
            mixin == "Threading" and "arg[2]" or "dofile(arg[2])"), script("Stream", ECHO))
        local c <close> = host.connect(p:url())
        p:expect("\n1\nclosing\n")
        assert.are.equal("late", c:ask("late"))
        assert.matches("\nclosed 0\n$", p:done())
      end
    end)

    it("is not waited for without block_on_close", function()
      for _, mixin in ipairs { "Threading", "Forking" } do
        local p = plain.start(([[
          local Server = socketserver.class("MyServer", socketserver.%sTCPServer)
          Server.block_on_close, Server.daemon_threads = false, true
          local server = Server({ "127.0.0.1", 0 }, %s)
          say("at", server.url)
          server:handle_request()
          server:server_close()
          say("closed")]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"),
          script("Stream", ECHO))
        local c = host.connect(p:url())
        p:expect("closed")
        p:done()
        c:close()
      end
    end)

    it("is a child of the program's own, which waits for it itself", function()
      local p = plain.start([[
        local child = io.popen("exit 72", "w")
        local server = socketserver.ForkingTCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
        until_told(server)
        server:server_close()
        say(child:close())]], script("Stream", ECHO))
      for i = 1, 3 do assert.are.equal("x" .. i, plain.ask(p:url(), "x" .. i)) end
      assert.matches("\nnil exit 72\n$", p:stop())
    end)
  end)

  describe("handle_request", function()
    it("serves one request", function()
      local p = plain.start([[
        local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
        function server.handle_timeout() say("timeout") end
        function server.service_actions() say("service_actions") end
        say("at", server.url)
        for i = 1, 2 do
          server:handle_request()
          say("handled", i)
        end]], script("Stream", ECHO))
      assert.are.equal("one", plain.ask(p:url(), "one"))
      p:expect("handled 1")
      assert.are.equal("two", plain.ask(p:url(), "two"))
      assert.matches("^at [^\n]*\nhandled 1\nhandled 2\n$", p:done())
    end)

    it("calls handle_timeout when none comes within timeout", function()
      for _, mixin in ipairs(MIXINS) do
        assert.are.equal("timeout true\n", plain.run(([[
          local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, %s)
          server.timeout = 0.05
          local before = moonport.monotonic()
          function server.handle_timeout() say("timeout", moonport.monotonic() - before >= 0.05) end
          server:handle_request()]]):format(mixin, mixin == "Threading" and "arg[2]" or "dofile(arg[2])"),
          script("Stream", ECHO)))
      end
    end)

    it("looks once with a timeout of 0", function()
      local p = plain.start([[
        local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, dofile(arg[2]))
        server.timeout = 0
        function server.handle_timeout() say("timeout") end
        server:handle_request()
        say("at", server.url)
        io.read()
        server:handle_request()]], script("Stream", ECHO))
      local c <close> = host.connect(p:url())
      assert(c:send("there\n"))
      p:tell("")
      assert.are.equal("there", c:line())
      local _, n = p:done():gsub("timeout", "")
      assert.are.equal(1, n)
    end)

    it("waits no longer than the socket's timeout says", function()
      assert.are.equal("timeout\n", plain.run [[
        local server <close> = socketserver.ForkingTCPServer({ "127.0.0.1", 0 }, socketserver.StreamRequestHandler)
        assert(server.timeout == 300)
        server.socket = { gettimeout = function() return 0.01 end }
        function server.handle_timeout() say("timeout") end
        server:handle_request()]])
    end)
  end)

  describe("the constructor", function()
    it("may be derived, and gets what else was given", function()
      local p = plain.start([[
        local Server = socketserver.class("MyServer", socketserver.ThreadingMixIn, socketserver.TCPServer)
        function Server:__init(greeting, ...)
          self.greeting = greeting
          socketserver.TCPServer.__init(self, ...)
        end
        local server <close> = Server("hello", { "127.0.0.1", 0 }, arg[2])
        assert(server.greeting == "hello" and server.RequestHandlerClass == arg[2])
        until_told(server)]], script("Stream", ECHO))
      assert.are.equal("a", plain.ask(p:url(), "a"))
      p:stop()
    end)

    it("leaves binding to the caller if told so, who may set attributes before", function()
      local p = plain.start([[
        local server = socketserver.TCPServer({ "localhost", 0 }, dofile(arg[2]), false)
        assert(server:fileno() == -1 and server.server_address[1] == "localhost")
        say(select(2, pcall(server.serve_forever, server)))
        server.request_queue_size = 7
        server.allow_reuse_address = false
        server:server_bind()
        assert(server.socket:getsockopt("so_reuseaddr") == false)
        assert(server.server_address.host == "127.0.0.1" and server.server_address.port > 0)
        say(select(2, pcall(server.server_bind, server)))
        server:server_activate()
        until_told(server)
        server:server_close()]], script("Stream", ECHO))
      assert.are.equal("a", plain.ask(p:url(), "a"))
      assert.matches("^TCPServer: it is not bound yet[^\n]*\nTCPServer: it is bound already\nat ", p:stop())
    end)

    it("reads attributes of the class, its bases, and the instance", function()
      local p = plain.start([[
        local Small = socketserver.class("Small", socketserver.AsyncUDPServer)
        Small.max_packet_size = 4
        local Mine = socketserver.class("Mine", Small)
        assert(Mine.max_packet_size == 4 and Mine.request_queue_size == socketserver.TCPServer.request_queue_size)
        local server <close> = Mine({ "127.0.0.1", 0 }, {
          handle = function(self) self.wfile:write(self.packet, " of ", self.truncated, "\n") end,
        })
        until_told(server)]])
      assert.are.equal("1234 of 7", plain.ask(p:url(), "123456"))
      p:stop()
    end)

    it("binds IPv6 with address_family, and takes names for any and this machine", function()
      assert.are.equal("tcp://0.0.0.0 tcp://127.0.0.1 tcp://[::] tcp://[::1]\n", plain.run [[
        local V6 = socketserver.class("V6", socketserver.TCPServer)
        V6.address_family = "AF_INET6"
        local urls = {}
        for _, Server in ipairs { socketserver.TCPServer, V6 } do
          for _, name in ipairs { "", "localhost" } do
            local server <close> = Server({ name, 0 }, socketserver.StreamRequestHandler)
            urls[#urls + 1] = server.url:match("^(.*):%d+$")
          end
        end
        say(table.unpack(urls))]])
    end)

    it("takes an abstract address, in Python's spelling too", function()
      assert.are.equal("unix://@moonport-spec unix://@moonport-spec\n", plain.run [[
        local urls = {}
        for i, name in ipairs { "@moonport-spec", "\0moonport-spec" } do
          local server <close> = socketserver.UnixStreamServer(name, socketserver.StreamRequestHandler)
          urls[i] = server.url
        end
        say(table.unpack(urls))]])
    end)
  end)

  describe("a threading server", function()
    it("tells who gives it a table of this state what to give", function()
      for _, handler in ipairs { "socketserver.StreamRequestHandler", "{ handle = print }", "print" } do
        assert.matches("^ThreadingTCPServer: each thread loads the handler into a Lua state of its own, so it cannot "
          .. "be a %l+ of this one; give the path of a script, or the name of a module, that returns it\n$",
          plain.run(([[
            local ok, err = pcall(socketserver.ThreadingTCPServer, { "127.0.0.1", 0 }, %s)
            say(not ok and err)]]):format(handler)))
      end
    end)

    it("tells who replaces what would run in the threads, at once or before it serves", function()
      for _, method in ipairs { "finish_request", "shutdown_request", "close_request", "process_request_thread" } do
        local text = plain.run(([[
          local Server = socketserver.class("MyServer", socketserver.ThreadingTCPServer)
          local server <close> = Server({ "127.0.0.1", 0 }, arg[2])
          function server.%s() end
          say(select(2, pcall(server.serve_forever, server)))
          say(select(2, pcall(server.handle_request, server)))
          function Server.%s() end
          say(select(2, pcall(Server, { "127.0.0.1", 0 }, arg[2])))]]):format(method, method), script("Stream", ECHO))
        local sentence = "MyServer: " .. method .. " would have to run in the threads, each with a Lua state of its "
          .. "own, where this one's methods are not; put it into the handler's script, in `setup`, `handle` or "
          .. "`finish`\n"
        assert.are.equal(sentence:rep(3), text)
      end
    end)

    it("finds a module by its name, as the others do", function()
      for _, mixin in ipairs(MIXINS) do
        local p = plain.start(([[
          package.path = arg[2]:gsub("script.lua$", "?.lua") .. ";" .. package.path
          local server <close> = socketserver.%sTCPServer({ "127.0.0.1", 0 }, "script")
          until_told(server)]]):format(mixin), script("Stream", ECHO))
        assert.are.equal("a", plain.ask(p:url(), "a"))
        p:stop()
      end
    end)
  end)

  describe("under moonport serve", function()
    it("makes handlers, and tells who wants a server what there is", function()
      local p = host.start(script("Stream", [[
        local Server = socketserver.class("MyServer", socketserver.ThreadingMixIn, socketserver.TCPServer)
        function Handler:handle()
          self.wfile:write(tostring(socketserver.isinstance(self, socketserver.BaseRequestHandler)), "\n")
          self.wfile:write(select(2, pcall(Server, { "127.0.0.1", 0 }, "x.lua")), "\n")
        end]]))
      local c <close> = host.connect(p:url())
      assert.are.equal("true", c:line())
      assert.are.equal("MyServer: servers are made in a plain Lua process; a script that moonport serves has one "
        .. "already: self.server", c:line())
      c:close()
      p:stop()
    end)
  end)

  describe("class", function()
    it("wants the mixin before the server, and a consistent order", function()
      local text = plain.run [[
        local function try(...) say((select(2, pcall(socketserver.class, "My", ...)))) end
        try(socketserver.TCPServer, socketserver.ThreadingMixIn)
        try(socketserver.TCPServer, socketserver.ForkingTCPServer)
        try(socketserver.TreadingMixIn, socketserver.TCPServer)
        local Own = socketserver.class("Own", socketserver.AsyncMixIn)
        try(socketserver.UDPServer, Own)
        say(socketserver.class("My", Own, socketserver.UDPServer))]]
      assert.are.equal([[
class My: ThreadingMixIn must stand before the server's class, whose methods it replaces
class My: no order suits all its bases: ForkingTCPServer comes before TCPServer in ForkingTCPServer, but ]] ..
[[TCPServer comes before ForkingTCPServer in the list of bases
class My: base 1 is no class, but nil
class My: AsyncMixIn must stand before the server's class, whose methods it replaces
class My
]], text)
    end)

    it("lets the collector have a server that was forgotten, and its descriptor", function()
      plain.run [[
        local Server = socketserver.class("MyServer", socketserver.TCPServer)
        local collected
        function Server:__gc() collected = true end
        local address
        do
          local server = Server({ "127.0.0.1", 0 }, { handle = function() end })
          address = server.server_address
        end
        collectgarbage()
        collectgarbage()
        assert(collected)
        Server(address, { handle = function() end }):server_close()]]
    end)
  end)
end)
