local host = require("support.host")
local plain = require("support.plain")

-- Which methods are called, when, and in which process, when a server's author has replaced them.

local MIXINS = { "", "Async", "Threading", "Forking" }

-- For a program: `note(name)` writes a name, and whose it is; `recorder(Base)` derives a class of which every method
-- in `METHODS` notes itself and calls the base's; `Handler` and `handler_for(mixin)` note as well.
local RECORDER = [[
local function pid() local f <close> = io.open("/proc/self/stat") return f:read("n") end
local main = pid()
function note(name) say((pid() == main and "" or "child:") .. name) end
METHODS = { "server_bind", "server_activate", "get_request", "verify_request", "process_request", "finish_request",
  "shutdown_request", "close_request", "handle_error", "handle_timeout", "server_close" }
function recorder(Base, methods)
  local Recorder = socketserver.class("Recorder", Base)
  for _, name in ipairs(methods or METHODS) do
    Recorder[name] = function(self, ...)
      note(name)
      return Base[name](self, ...)
    end
  end
  return Recorder
end
local function handler(kind)
  local Handler = socketserver.class("Handler", socketserver[kind .. "RequestHandler"])
  function Handler:setup() note("setup") end
  function Handler:finish() note("finish") end
  function Handler:handle()
    note("handle")
    local line = self.rfile:readline()
    if line == "bad\n" then error("on purpose") end
    self.wfile:write(line)
  end
  return Handler
end
Handler, Datagrams = handler("Stream"), handler("Datagram")
]]

-- The same handler for threads, whose notes come from another Lua state. One write a note: threads share the file.
local SCRIPT = [[
local socketserver = require("moonport.socketserver")
local Handler = socketserver.class("Handler", socketserver.BaseRequestHandler)
function Handler:setup() io.write("setup\n") end
function Handler:finish() io.write("finish\n") end
function Handler:handle()
  io.write("handle\n")
  local line = self.rfile:readline()
  if line == "bad\n" then error("on purpose") end
  self.wfile:write(line)
end
return Handler
]]

local IN_MAIN = '{ "server_bind", "server_activate", "get_request", "verify_request", "process_request", '
  .. '"handle_error", "server_close" }'

-- The names that were noted; of the "child" or the "parent" only.
local function words(text, whose)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local name, n = line:gsub("^child:", "")
    if name:find("^[%l_]+$") and (not whose or (whose == "child") == (n == 1)) then list[#list + 1] = name end
  end
  return table.concat(list, " ")
end

-- Has a recorder serve these lines, one client after the other; what was noted, without the words around.
local function record(server, lines, options)
  options = options or {}
  local threading = server:find("Threading") ~= nil
  local address = server:find("Unix") and 'folder .. "/socket"' or '{ "127.0.0.1", 0 }'
  local p = plain.start(RECORDER .. ([[
    local Recorder = recorder(socketserver.%s, %s)
    %s
    local server = Recorder(%s, %s)
    say("at", server.url)
    for i = 1, %d do server:handle_request() end
    server:server_close()]]):format(server, threading and IN_MAIN or "METHODS", options.more or "", address,
      threading and "arg[2]" or options.handler or "Handler", #lines), host.write(SCRIPT))
  local replies = {}
  for i, line in ipairs(lines) do replies[i] = plain.ask(p:url(), line) or "" end
  local text = p:done()
  text = text:gsub("^server_bind\nserver_activate\nat [^\n]*\n", "")
  text = text:gsub("server_close\n", "")
  return text, replies, p:log()
end

local BEGIN = "get_request verify_request process_request "
local LIFE = "setup handle finish "
local END = "shutdown_request close_request"

describe("methods that were replaced", function()
  after_each(plain.cleanup)

  for _, server in ipairs { "TCPServer", "UnixStreamServer", "AsyncTCPServer", "AsyncUnixStreamServer" } do
    it("are called where Python calls them: " .. server, function()
      local text, replies = record(server, { "good" })
      assert.are.equal(BEGIN .. "finish_request " .. LIFE .. END, words(text))
      assert.are.same({ "good" }, replies)
    end)
  end

  for _, server in ipairs { "UDPServer", "UnixDatagramServer", "AsyncUDPServer", "AsyncUnixDatagramServer" } do
    it("are called where Python calls them: " .. server, function()
      local text, replies = record(server, { "good" }, { handler = "Datagrams" })
      assert.are.equal(BEGIN .. "finish_request " .. LIFE .. END, words(text))
      assert.are.same({ "good" }, replies)
    end)
  end

  for _, server in ipairs { "ForkingTCPServer", "ForkingUnixStreamServer" } do
    it("are called in the process where Python calls them: " .. server, function()
      local text, replies = record(server, { "good" })
      assert.are.equal(BEGIN .. "close_request", words(text, "parent"))
      assert.are.equal("finish_request " .. LIFE .. END, words(text, "child"))
      assert.are.same({ "good" }, replies)
    end)
  end

  for _, server in ipairs { "ForkingUDPServer", "ForkingUnixDatagramServer" } do
    it("are called in the process where Python calls them: " .. server, function()
      local text, replies = record(server, { "good" }, { handler = "Datagrams" })
      assert.are.equal(BEGIN .. "close_request", words(text, "parent"))
      assert.are.equal("finish_request " .. LIFE .. END, words(text, "child"))
      assert.are.same({ "good" }, replies)
    end)
  end

  for _, server in ipairs { "ThreadingTCPServer", "ThreadingUDPServer", "ThreadingUnixStreamServer",
    "ThreadingUnixDatagramServer" } do
    it("are called in the server's state, and the handler's in the thread's: " .. server, function()
      local text, replies = record(server, { "good" })
      assert.are.equal(BEGIN .. "setup handle finish", words(text))
      assert.are.same({ "good" }, replies)
    end)
  end

  it("are called for an error as in Python: sync and async", function()
    for _, server in ipairs { "TCPServer", "AsyncTCPServer" } do
      local text, _, log = record(server, { "bad" })
      assert.are.equal(BEGIN .. "finish_request " .. LIFE .. "handle_error " .. END, words(text))
      assert.matches("on purpose", log)
      assert.matches("stack traceback", log)
    end
  end)

  it("are called for an error as in Python: forking", function()
    local text, _, log = record("ForkingTCPServer", { "bad" })
    assert.are.equal(BEGIN .. "close_request", words(text, "parent"))
    assert.are.equal("finish_request " .. LIFE .. "handle_error " .. END, words(text, "child"))
    assert.matches("on purpose", log)
  end)

  it("are called for an error as in Python: threading", function()
    local text, _, log = record("ThreadingTCPServer", { "bad" })
    local course = words(text)
    assert.are.equal(BEGIN .. "setup handle ", course:sub(1, #BEGIN + 13))
    assert.is_truthy(course:find("handle_error", 1, true))
    assert.matches("on purpose", log)
  end)

  it("are called for a request that verify_request refuses", function()
    for _, mixin in ipairs { "", "Async", "Forking" } do
      local text, replies = record(mixin .. "TCPServer", { "good" }, { more = [[
        local verify = Recorder.verify_request
        function Recorder:verify_request(...) return verify(self, ...) and false end]] })
      assert.are.equal("get_request verify_request " .. END, words(text))
      assert.are.same({ "" }, replies)
    end
  end)

  it("are called for an error of verify_request or process_request, and the server goes on", function()
    for _, method in ipairs { "verify_request", "process_request" } do
      local text, replies, log = record("TCPServer", { "one", "two" }, { more = ([[
        local before, calls = Recorder.%s, 0
        function Recorder:%s(...)
          calls = calls + 1
          if calls == 1 then note(%q) error("of %s") end
          return before(self, ...)
        end]]):format(method, method, method, method) })
      local first = BEGIN:match("^.-" .. method .. " ")
      assert.are.equal(first .. "handle_error " .. END .. " " .. BEGIN .. "finish_request " .. LIFE .. END, words(text))
      assert.are.same({ "", "two" }, replies)
      assert.matches("of " .. method, log)
    end
  end)

  it("interleave under async only", function()
    local p = plain.start(RECORDER .. [[
      local server <close> = recorder(socketserver.AsyncTCPServer)({ "127.0.0.1", 0 }, Handler)
      until_told(server)]])
    local a, b = host.connect(p:url()), host.connect(p:url())
    p:expect("handle\n.*handle\n")
    assert.are.equal("b", b:ask("b"))
    assert.are.equal("a", a:ask("a"))
    a:close()
    b:close()
    local course = words(p:stop():match("at [^\n]*\n(.*)server_close\n$"))
    local half = BEGIN .. "finish_request setup handle "
    assert.are.equal(half .. half .. "finish " .. END .. " finish " .. END, course)
  end)

  -- Every method by itself: the host does the rest as before.
  for _, mixin in ipairs(MIXINS) do
    it("one by one leave the rest to the host: " .. mixin .. "TCPServer", function()
      local methods = { "server_bind", "server_activate", "get_request", "verify_request", "process_request",
        "finish_request", "shutdown_request", "close_request", "service_actions", "server_close" }
      if mixin == "Threading" then
        methods = { "server_bind", "server_activate", "get_request", "verify_request", "process_request",
          "service_actions", "server_close" }
      end
      local p = plain.start(RECORDER .. ([[
        for name in arg[3]:gmatch("%%S+") do
          say("only", name)
          local server = recorder(socketserver.%sTCPServer, { name })({ "127.0.0.1", 0 }, %s)
          until_told(server)
          server:server_close()
          os.remove(folder .. "/stop")
          say("next")
        end]]):format(mixin, mixin == "Threading" and "arg[2]" or "Handler"), host.write(SCRIPT),
        table.concat(methods, " "))
      for i, name in ipairs(methods) do
        for _ = 1, 2 do assert.are.equal(name, plain.ask(p:url(i), name)) end
        host.write("", p.folder .. "/stop")
        local text = p:expect("only " .. name .. "\n(.-)next\n")
        assert.matches("%f[%w_]" .. name .. "\n", text)
        local _, handled = text:gsub("handle\n", "")
        assert.are.equal(2, handled)
      end
      p:done()
    end)
  end

  it("may be put into the library's own classes", function()
    local p = plain.start(RECORDER .. [[
      function socketserver.BaseServer:verify_request() note("verify_request") return true end
      function socketserver.TCPServer:shutdown_request(request)
        note("shutdown_request")
        self:close_request(request)
      end
      local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
      say("at", server.url)
      server:handle_request()]])
    assert.are.equal("a", plain.ask(p:url(), "a"))
    assert.are.equal("verify_request " .. LIFE .. "shutdown_request", words(p:done()))
  end)

  it("are those of the instance as well, when it begins to serve", function()
    local p = plain.start(RECORDER .. [[
      local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
      say("at", server.url)
      server:handle_request()
      function server:verify_request(request, client_address)
        assert(self == server and client_address.host == "127.0.0.1" and request:fileno() > 2)
        note("verify_request")
        return true
      end
      server:handle_request()
      server.verify_request = nil
      server:handle_request()]])
    for i = 1, 3 do assert.are.equal("x" .. i, plain.ask(p:url(), "x" .. i)) end
    assert.are.equal(LIFE .. "verify_request " .. LIFE .. LIFE:sub(1, -2), words(p:done()))
  end)

  it("reach the mixin behind them by super", function()
    local p = plain.start(RECORDER .. [[
      local Log = socketserver.class("LogMixIn")
      function Log:process_request(request, client_address)
        note("log")
        socketserver.super(Log, self).process_request(self, request, client_address)
      end
      local Server = socketserver.class("MyServer", Log, socketserver.ForkingMixIn, socketserver.TCPServer)
      local server = Server({ "127.0.0.1", 0 }, Handler)
      say("at", server.url)
      server:handle_request()
      server:server_close()]])
    assert.are.equal("a", plain.ask(p:url(), "a"))
    local text = p:done()
    assert.are.same({ "log", LIFE:sub(1, -2) }, { words(text, "parent"), words(text, "child") })
  end)
end)

describe("what nobody replaced", function()
  after_each(plain.cleanup)

  it("is nothing that the host would come to Lua for", function()
    local names = {}
    for _, mixin in ipairs(MIXINS) do
      for _, transport in ipairs { "TCPServer", "UDPServer" } do names[#names + 1] = mixin .. transport end
    end
    assert.are.equal("none\n", plain.run([[
      local hooks = require("moonport.driver").hooks
      for name in arg[3]:gmatch("%S+") do
        local Derived = socketserver.class("Derived", socketserver[name])
        function Derived:own() end
        local server <close> = Derived({ "127.0.0.1", 0 },
          name:find("Threading") and arg[2] or socketserver.BaseRequestHandler)
        assert(next(hooks(server)) == nil, name)
      end
      say("none")]], host.write(SCRIPT), table.concat(names, " ")))
  end)

  it("is left out for what somebody did", function()
    assert.are.equal([[
verify_request: drive
handle_error: handle_error
service_actions: service_actions
get_request: drive get_request
process_request: drive
finish_request: drive
shutdown_request: drive
close_request: drive
handle_timeout: none
server_close: none
]], plain.run [[
      local hooks = require("moonport.driver").hooks
      for _, name in ipairs { "verify_request", "handle_error", "service_actions", "get_request", "process_request",
        "finish_request", "shutdown_request", "close_request", "handle_timeout", "server_close" } do
        local server = socketserver.ForkingTCPServer({ "127.0.0.1", 0 }, socketserver.BaseRequestHandler)
        server[name] = function() end
        local names = {}
        for hook in pairs(hooks(server)) do names[#names + 1] = hook end
        table.sort(names)
        say(name .. ": " .. (#names > 0 and table.concat(names, " ") or "none"))
      end]])
  end)
end)

describe("a method of the loop's own", function()
  after_each(plain.cleanup)

  it("is called between requests, at least every poll_interval", function()
    local p = plain.start [[
      local server <close> = socketserver.AsyncTCPServer({ "127.0.0.1", 0 }, { handle = function() end })
      local turns, before = 0, moonport.monotonic()
      function server:service_actions()
        turns = turns + 1
        if turns == 5 then self:shutdown() end
      end
      server:serve_forever(0.01)
      say(turns, moonport.monotonic() - before < 5)]]
    assert.are.equal("5 true\n", p:done())
  end)

  it("ends serve_forever by its error, which is raised there; the server may serve on", function()
    for _, method in ipairs { "service_actions", "get_request" } do
      local p = plain.start(RECORDER .. ([[
        local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
        function server:%s() error({ "on purpose" }) end
        say("at", server.url)
        local ok, err = pcall(server.serve_forever, server, 0.01)
        say(ok, type(err) == "table" and err[1])
        server.%s = nil
        server:handle_request()]]):format(method, method))
      local c = method == "get_request" and host.connect(p:url())
      p:expect("false on purpose\n")
      c = c or host.connect(p:url())
      assert.are.equal("a", c:ask("a"))
      c:close()
      p:done()
    end
  end)

  it("may find no request after all: get_request raises what has a code", function()
    local p = plain.start(RECORDER .. [[
      local server = socketserver.TCPServer({ "127.0.0.1", 0 }, Handler)
      local calls = 0
      function server:get_request()
        calls = calls + 1
        note("get_request")
        if calls == 1 then error({ code = "EAGAIN" }) end
        return socketserver.TCPServer.get_request(self)
      end
      until_told(server)
      server:server_close()]])
    assert.are.equal("a", plain.ask(p:url(), "a"))
    assert.are.equal("get_request get_request " .. LIFE:sub(1, -2), words(p:stop()))
    assert.is_nil(p:log():find("error", 1, true), p:log())
  end)

  it("may make up requests of its own", function()
    local p = plain.start [[
      local Server = socketserver.class("MyServer", socketserver.UDPServer)
      function Server:get_request()
        local request, client_address = socketserver.UDPServer.get_request(self)
        return { request[1]:upper(), request[2] }, client_address
      end
      local server <close> = Server({ "127.0.0.1", 0 }, {
        handle = function(self) self.wfile:write(self.packet, self.rfile:readline()) end,
      })
      say("at", server.url)
      server:handle_request()]]
    local c <close> = host.connect(p:url())
    assert(c:send("abc\n"))
    assert.are.equal("ABC\nABC\n", c:some())
    p:done()
  end)
end)

describe("a handler", function()
  after_each(plain.cleanup)

  -- Serves one request with this handler, an expression; with `more` before.
  local function serve(handler, more, file)
    local p = plain.start(([[
      %s
      local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, %s)
      say("at", server.url)
      server:handle_request()]]):format(more or "", handler), file)
    local reply = plain.ask(p:url(), "hello")
    return reply, p:done():gsub("^at [^\n]*\n", "")
  end

  it("may be a class of any kind, or a plain table", function()
    for _, handler in ipairs {
      'socketserver.class("H", socketserver.StreamRequestHandler)',
      'socketserver.class("H", socketserver.BaseRequestHandler)',
      'socketserver.class("H")',
      "{}",
    } do
      for _, finish_request in ipairs { "", [[
        function socketserver.TCPServer:finish_request(...)
          return socketserver.BaseServer.finish_request(self, ...)
        end]] } do
        local reply = serve("H", finish_request .. " local H = " .. handler .. [[
          function H:handle()
            assert(self.connection == self.request and self.client_address.port > 0)
            assert(self.server.RequestHandlerClass == H)
            self.wfile:write(self.rfile:read(), "!\n")
          end]])
        assert.are.equal("hello!", reply)
      end
    end
  end)

  it("may be a function, which is called as Python calls a class", function()
    assert.are.equal("hello function", (serve([[function(request, client_address, server)
      assert(client_address.host == "127.0.0.1" and server.socket)
      request:sendall(request:makefile("r"):read() .. " function\n")
    end]])))
  end)

  it("may have a constructor of its own", function()
    assert.are.equal("hello v 7", (serve("H", [[
      local H = socketserver.class("H", socketserver.StreamRequestHandler)
      function H:__init(request, client_address, server)
        self.greeting = 7
        socketserver.StreamRequestHandler.__init(self, request, client_address, server)
      end
      function H:handle() self.wfile:write(self.rfile:read(), " v ", self.greeting, "\n") end]])))
  end)

  it("may be changed while the server is there", function()
    local p = plain.start [[
      local function replying(text) return { handle = function(self) self.wfile:write(text, "\n") end } end
      local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, replying("one"))
      say("at", server.url)
      server:handle_request()
      server.RequestHandlerClass = replying("two")
      server:handle_request()]]
    assert.are.equal("one", plain.ask(p:url(), ""))
    assert.are.equal("two", plain.ask(p:url(), ""))
    p:done()
  end)

  it("may be a script, which returns it or has a global handle; that stays the script's", function()
    for _, text in ipairs {
      "return { handle = function(self) self.wfile:write(self.rfile:read(), ' script\\n') end }",
      "function handle(self) self.wfile:write(self.rfile:read(), suffix, '\\n') end\n"
        .. "function setup() suffix = ' script' end",
      "local beside = require('beside') return { handle = beside }",
    } do
      local folder = host.folder()
      host.write("return function(self) self.wfile:write(self.rfile:read(), ' script\\n') end", folder .. "/beside.lua")
      local reply, out = serve("arg[2]", "function handle() say('not this') end local path = package.path",
        host.write(text, folder .. "/s.lua"))
      assert.are.same({ "hello script", "" }, { reply, out })
    end
  end)

  it("may not be a script that is none", function()
    for text, why in pairs {
      ["return 7"] = "has no handle: return a table with a function `handle`, or define a global function",
      ["x ="] = "cannot load the handler: .*s%.lua:1: ",
      ["\27Lua"] = "cannot load the handler: .*a binary chunk",
      ["error('at the top')"] = "s%.lua:1: at the top",
      ["return {}"] = "the handler has no function `handle`",
    } do
      local out = plain.run("function handle() end say(select(2, "
        .. "pcall(socketserver.TCPServer, { '127.0.0.1', 0 }, arg[2])))", host.write(text, host.folder() .. "/s.lua"))
      assert.matches(why, out)
    end
  end)

  it("has finish run whatever happened, in Lua as in the host", function()
    for _, finish_request in ipairs { "", "server.finish_request = socketserver.BaseServer.finish_request" } do
      for step, course in pairs {
        setup = "setup finish", handle = "setup handle finish", finish = "setup handle finish",
      } do
        local p = plain.start(([[
          local H = {}
          for _, name in ipairs { "setup", "handle", "finish" } do
            H[name] = function()
              say(name)
              if name == %q then error("of " .. name) end
            end
          end
          local server <close> = socketserver.TCPServer({ "127.0.0.1", 0 }, H)
          %s
          say("at", server.url)
          server:handle_request()]]):format(step, finish_request))
        local c <close> = host.connect(p:url())
        assert.are.equal("", c:all())
        assert.are.equal(course, words(p:done()))
        assert.matches("of " .. step, p:log())
      end
    end
  end)
end)
