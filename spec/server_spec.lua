local case = require("support.case")
local host = require("support.host")

-- Runs pieces against a handler whose class is this text; `Case` is the fixture's table.
local function serving(text, options)
  local fixture = host.read(case.script):gsub("return Case%s*$", function() return text .. "\nreturn Case\n" end)
  return host.start(host.write(fixture, host.folder() .. "/case.lua"), options)
end

describe("self.server", function()
  after_each(host.cleanup)

  it("knows its name, class, url and address", function()
    local folder = host.folder()
    for url, class in pairs {
      ["tcp://127.0.0.1:0"] = "TCPServer",
      ["unix://" .. folder .. "/s"] = "UnixStreamServer",
      ["unix://@moonport-server-" .. folder] = "UnixStreamServer",
    } do
      for mixin, prefix in pairs { async = "Async", sync = "" } do
        local p = case.start { listen = url, args = { "--mixin=" .. mixin } }
        local got = case.run(p, "local s = self.server return s.name, s.class, s.url, tostring(s.server_address), "
          .. "tostring(s), s:fileno() > 2, s.no_such_thing")
        assert.are.same({ "case", prefix .. class, p:url(), (p:url():gsub("^%w+://", "")),
          ("%s%s (%s)"):format(prefix, class, p:url()), true, nil, n = 7 }, got)
        p:stop()
      end
    end
  end)

  it("has the attributes with their defaults", function()
    local p = case.start()
    assert.are.same({ { request_queue_size = 511, max_connections = 1024, max_packet_size = 8192, max_line = 65536,
      memory_limit = 268435456, rbufsize = -1, wbufsize = -1, socket_mode = 384, allow_reuse_address = true,
      allow_reuse_port = false, ipv6_v6only = false, disable_nagle_algorithm = true, drain_timeout = 15.0,
      cancel_grace = 5.0 }, n = 1 }, case.run(p, [[
        local out = {}
        for _, name in ipairs { "request_queue_size", "max_connections", "max_packet_size", "max_line", "memory_limit",
          "rbufsize", "wbufsize", "socket_mode", "allow_reuse_address", "allow_reuse_port", "ipv6_v6only",
          "disable_nagle_algorithm", "timeout", "idle_timeout", "request_timeout", "drain_timeout", "cancel_grace" } do
          out[name] = self.server[name]
        end
        return out]]))
    p:stop()
  end)

  it("keeps fields of the handler's own for all its requests", function()
    local p = case.start()
    for visit = 1, 3 do
      assert.are.same({ visit, n = 1 },
        case.run(p, "self.server.visits = (self.server.visits or 0) + 1 return self.server.visits"))
    end
    assert.are.same({ "mine", nil, n = 2 }, case.run(p, "self.server[7] = 'mine' local a = self.server[7] "
      .. "self.server[7] = nil return a, self.server[7]"))
    p:stop()
  end)

  it("counts: stats()", function()
    local p = case.start()
    local before = case.run(p, "return self.server:stats()")[1]
    for _, name in ipairs { "requests", "active", "errors", "peers_gone", "timeouts", "cancelled", "refused",
      "accept_errors", "truncated", "unanswered", "send_errors", "drops", "generation", "tasks", "streams",
      "descriptors", "timers", "bytes_in", "bytes_out", "log_dropped" } do
      assert.are.equal("integer", math.type(before[name]), name)
    end
    assert.are.same({ 1, 1, 1, 1, 1, 0 }, { before.requests, before.active, before.generation, before.tasks,
      before.streams, before.errors })
    local c <close> = host.connect(p:url())
    c:send(case.piece("rfile:read()"))
    host.eventually("two requests", function() return case.run(p, "return self.server:stats().active")[1] == 2 end)
    c:finish()
    c:all()
    local code = "local s = self.server:stats() return s.bytes_in, s.bytes_out"
    local first, second = case.run(p, code), case.run(p, code)
    assert.are.equal(#case.piece(code), second[1] - first[1])
    assert.is_true(second[2] > first[2])
    p:stop()
  end)

  it("cannot be had by other objects' methods", function()
    local p = case.start()
    local got = case.run(p, "self.server.stats(rfile)")
    assert.matches("server expected, got", got[2])
    p:stop()
  end)

  describe("shutdown", function()
    it("stops accepting at once, lets requests end, and the program ends", function()
      local p = case.start()
      local c = host.connect(p:url())
      c:send(case.piece("kept.here = true return rfile:read()"))
      host.eventually("the first", function() return case.run(p, "return kept.here")[1] end)
      local d = host.connect(p:url())
      d:send(case.piece("self.server:shutdown() self.server:shutdown() return self.server.name"))
      d:finish()
      assert.are.same({ "case", n = 1 }, (case.results((d:all()))))
      d:close()
      assert.has_error(function() host.connect(p:url()) end)
      c:send("the last\n")
      c:finish()
      assert.are.same({ "the last", n = 1 }, (case.results((c:all()))))
      c:close()
      assert.are.equal(0, p:wait())
      assert.are.equal(0, p:find("stopped")[1].streams)
    end)

    it("serves those that were already waiting, and its own handler goes on", function()
      local p = case.start { listen = "unix://" .. host.folder() .. "/s" }
      -- A connect to a Unix socket is done at once: this one waits in the queue.
      local got = case.run(p, [[
        local s <close> = assert(moonport.connect(self.server.url))
        self.server:shutdown()
        moonport.sleep(0)
        s:sendall(string.pack(">s4", "return 'served'"))
        return s:makefile("r"):read("a")]])
      assert.are.same({ '\0="served"', n = 1 }, got)
      assert.are.equal(0, p:wait())
    end)

    it("of one server leaves the others", function()
      local p = case.start { listen = { "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" } }
      case.run(p:url("case-2"), "self.server:shutdown()")
      assert.has_error(function() host.connect(p:url("case-2")) end)
      assert.are.same({ "case", n = 1 }, case.run(p:url("case"), "return self.server.name"))
      p:stop()
    end)
  end)
end)

describe("the life of a request", function()
  after_each(host.cleanup)

  local STORY = [[
    local moonport = require("moonport")
    local H = { server = {} }
    local story = {}
    local function tell(s) story[#story + 1] = s end
    function H.server.verify_request(server, request, client_address)
      moonport.sleep(0)
      tell(("verify %s %s %s"):format(server.name, tostring(request):sub(1, 7), client_address.host))
      return not H.refuse
    end
    function H:setup() moonport.sleep(0) tell("setup") self.mine = "set" end
    function H:handle()
      local what = self.rfile:read()
      tell("handle " .. self.mine)
      if what == "story" then self.wfile:write(table.concat(story, ", ")) story = {} return end
      if what == "refuse" then H.refuse = true return end
      if what == "error" then error("x") end
    end
    function H:finish()
      moonport.sleep(0)
      tell("finish")
      self.wfile:write("!")
    end
    return H]]

  local function ask(p, line)
    local c <close> = host.connect(p:url())
    c:send(line .. "\n")
    c:finish()
    return (c:all())
  end

  it("is verify_request, setup, handle, finish, and each may wait", function()
    local p = host.start(host.write(STORY))
    assert.are.equal("!", ask(p, "x"))
    assert.are.equal("verify script request 127.0.0.1, setup, handle set, finish, "
      .. "verify script request 127.0.0.1, setup, handle set!", ask(p, "story"))
    p:stop()
  end)

  it("has finish after an error of handle, and what was written goes out", function()
    local p = host.start(host.write(STORY))
    assert.are.equal("!", ask(p, "error"))
    assert.matches("handle set, finish, verify", ask(p, "story"))
    assert.are.equal(1, #p:find("handler error"))
    p:stop()
  end)

  it("has finish after an error of setup, and no handle", function()
    local p = host.start(host.write [[
      local story = {}
      local H = {}
      function H:setup() story[#story + 1] = "setup" if #story == 1 then error("no") end end
      function H:handle() self.wfile:write(table.concat(story, " ")) end
      function H:finish() story[#story + 1] = "finish" end
      return H]])
    assert.are.equal("", ask(p, ""))
    assert.are.equal("setup finish setup", ask(p, ""))
    assert.matches("script%.lua:3: no", p:find("handler error", true)[1].error)
    p:stop()
  end)

  it("has finish when the request is cancelled", function()
    local p = host.start(host.write [[
      local moonport = require("moonport")
      local H = { server = { request_timeout = 0.05 } }
      function H:handle() moonport.sleep(100) end
      function H:finish() self.wfile:write("cleaned up") end
      return H]])
    local c <close> = host.connect(p:url())
    assert.are.equal("cleaned up", c:all())
    c:close()
    assert.are.equal("cancelled: request_timeout", p:find("cancelled", true)[1].why)
    p:stop()
  end)

  it("ends where verify_request says no", function()
    local p = host.start(host.write(STORY))
    ask(p, "refuse")
    ask(p, "x")
    local e = p:find("refused", true)[1]
    assert.are.equal("verify_request said no", e.why)
    assert.are.equal("info", e.level)
    p:stop()
    p = host.start(host.write [[
      local n = 0
      local H = { server = {} }
      function H.server.verify_request() n = n + 1 return n > 2 end
      function H:setup() n = n + 100 end
      H.finish = H.setup
      function H:handle() self.wfile:write(n, " ", self.server:stats().refused) end
      return H]])
    assert.are.equal("", ask(p, ""))
    assert.are.equal("", ask(p, ""))
    assert.are.equal("103 2", ask(p, ""))
    p:stop()
  end)

  it("is reported when verify_request fails", function()
    local p = host.start(host.write [[
      local H = { server = { verify_request = function() error("cannot say") end } }
      function H:handle() self.wfile:write("served") end
      return H]])
    assert.are.equal("", ask(p, ""))
    assert.matches("script%.lua:1: cannot say", p:find("handler error", true)[1].error)
    p:stop()
  end)

  it("has an instance of its own, whose class is the handler", function()
    local p = host.start(host.write [[
      H = { n = 1 }
      function H:handle() self.n = self.n + 1 self.wfile:write(self.n, " ", H.n, " ", tostring(self):match("^%w+")) end
      return H]])
    assert.are.equal("2 1 script", ask(p, ""))
    assert.are.equal("2 1 script", ask(p, ""))
    p:stop()
  end)

  it("has an instance whose class may get a finalizer, or another handle, later on", function()
    local p = host.start(host.write [[
      local H, gone = {}, 0
      function H:handle()
        getmetatable(self).__gc = function() gone = gone + 1 end
        H.handle = function(h)
          collectgarbage()
          h.wfile:write(gone)
          H.handle = function(h) collectgarbage() h.wfile:write("and ", gone) end
        end
        self.wfile:write("none")
      end
      return H]])
    assert.are.equal("none", ask(p, ""))
    assert.are.equal("0", ask(p, ""))
    assert.are.equal("and 1", ask(p, ""))
    p:stop()
  end)

  it("may inherit its methods", function()
    local p = host.start(host.write [[
      local Base = { timeout = 0.05 }
      Base.__index = Base
      function Base:setup() self.wfile:write("base ") end
      function Base:handle() self.wfile:write("handle ", select(2, self.request:recv())) end
      return setmetatable({ finish = function(self) self.wfile:write(" own") end }, Base)]])
    local c <close> = host.connect(p:url())
    assert.are.equal("base handle timeout own", c:all())
    c:close()
    p:stop()
  end)

  it("may be global functions, with setup and finish", function()
    local p = host.start(host.write [[
      function setup(self) self.wfile:write("a") end
      function handle(self) self.wfile:write("b") end
      function finish(self) self.wfile:write("c") end]])
    assert.are.equal("abc", ask(p, ""))
    p:stop()
  end)

  it("finds modules in the script's own folder", function()
    local folder = host.folder()
    host.write("return { word = 'found' }", folder .. "/module_of_spec.lua")
    local p = host.start(host.write("local h = require('module_of_spec') "
      .. "function handle(self) self.wfile:write(h.word) end", folder .. "/main.lua"))
    assert.are.equal("found", ask(p, ""))
    p:stop()
  end)
end)

describe("class attributes", function()
  after_each(host.cleanup)

  it("set timeout, rbufsize, wbufsize and disable_nagle_algorithm", function()
    local p = serving "Case.timeout, Case.rbufsize, Case.wbufsize, Case.disable_nagle_algorithm = 0.5, 1, 0, false"
    assert.are.same({ 0.5, 1, 0, false, 0.5, false, 2, n = 7 }, case.run(p, [[
      local s = self.server
      local from = s:stats().bytes_out
      wfile:write("ab")
      return s.timeout, s.rbufsize, s.wbufsize, s.disable_nagle_algorithm, request:gettimeout(),
        request:getsockopt("tcp_nodelay"), s:stats().bytes_out - from]]))
    p:stop()
    p = case.start()
    assert.are.same({ nil, true, n = 2 }, case.run(p, "return request:gettimeout(), request:getsockopt('tcp_nodelay')"))
    p:stop()
  end)

  it("stand in the server table as well, which then has the last word in the script", function()
    local p = serving "Case.timeout = 1 Case.max_line = '2K' Case.server = { timeout = 2, max_connections = 7 }"
    assert.are.same({ 2.0, 2048, 7, n = 3 },
      case.run(p, "local s = self.server return s.timeout, s.max_line, s.max_connections"))
    p:stop()
  end)

  it("are overridden by the command line", function()
    local text = "Case.timeout = 1 Case.server = { max_connections = 7, allow_reuse_address = false, max_line = 10 }"
    local p = serving(text,
      { args = { "-o", "timeout=3", "--option=max_connections=8", "-o", "allow_reuse_address=true" } })
    assert.are.same({ 3.0, 8, true, 10, n = 4 }, case.run(p,
      "local s = self.server return s.timeout, s.max_connections, s.allow_reuse_address, s.max_line"))
    p:stop()
    p = serving(text, { args = { "-o", "timeout=none" } })
    assert.are.same({ nil, nil, n = 2 }, case.run(p, "return self.server.timeout, request:gettimeout()"))
    p:stop()
  end)

  it("understand sizes, times and switches written as text", function()
    local p = case.start { args = { "-o", "max_line=1K", "-o", "memory_limit=1G", "-o", "drain_timeout=0.5",
      "-o", "ipv6_v6only=true", "-o", "socket_mode=660", "-o", "idle_timeout=2.5" } }
    assert.are.same({ 1024, 1 << 30, 0.5, true, 432, 2.5, n = 6 }, case.run(p, "local s = self.server "
      .. "return s.max_line, s.memory_limit, s.drain_timeout, s.ipv6_v6only, s.socket_mode, s.idle_timeout"))
    p:stop()
  end)
end)

describe("several servers in one process", function()
  after_each(host.cleanup)

  local function ask(url, line)
    local c <close> = host.connect(url)
    return c:ask(line)
  end

  it("of one script are named after it: upper, upper-2, upper-3", function()
    local folder = host.folder()
    local p = host.start("scripts/upper.lua",
      { listen = { "tcp://127.0.0.1:0", "unix://" .. folder .. "/s", "tcp://[::1]:0" } })
    assert.matches("^tcp://127%.0%.0%.1:", p:url("upper"))
    assert.are.equal("unix://" .. folder .. "/s", p:url("upper-2"))
    assert.matches("^tcp://%[::1%]:", p:url("upper-3"))
    for _, server in pairs(p.ready.servers) do assert.are.equal("ABC", ask(server.url, "abc")) end
    p:stop()
  end)

  it("share the state of their script, not their own fields", function()
    local p = case.start { listen = { "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" } }
    case.run(p:url("case"), "kept.word = 'shared' self.server.own = 'one'")
    assert.are.same({ "shared", nil, "case-2", n = 3 },
      case.run(p:url("case-2"), "return kept.word, self.server.own, self.server.name"))
    p:stop()
  end)

  it("of several scripts take the listeners before them in turn", function()
    local p = host.start({ "-l", "tcp://127.0.0.1:0", "-l", "tcp://127.0.0.1:0", "scripts/upper.lua",
      "scripts/echo.lua" }, { listen = "" })
    assert.are.equal("ABC", ask(p:url("upper"), "abc"))
    assert.are.equal("abc", ask(p:url("echo"), "abc"))
    p:stop()
  end)

  it("take the options behind their script for themselves", function()
    local one, two = case.script, host.write(host.read(case.script), host.folder() .. "/case.lua")
    local p = host.start({ "-o", "max_line=5", one, "-l", "tcp://127.0.0.1:0", "-o", "timeout=1", "--mixin=sync",
      two, "-l", "tcp://127.0.0.1:0", "-o", "timeout=2" }, { listen = "" })
    local code = "local s = self.server return s.timeout, s.max_line, s.class, kept.x"
    case.run(p:url("case"), "kept.x = 1")
    assert.are.same({ 1.0, 5, "TCPServer", 1, n = 4 }, case.run(p:url("case"), code))
    assert.are.same({ 2.0, 5, "AsyncTCPServer", nil, n = 4 }, case.run(p:url("case-2"), code))
    p:stop()
  end)
end)
