local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

-- moonport.start: a server in the background of any Lua program.

local MIXINS = { "sync", "async", "threading" }
local CLASSES = { sync = "", async = "Async", threading = "Threading" }
local UPPER = "scripts/upper.lua"

-- What has the started server's handler do something, by a line: more of it where a spec needs more.
local HANDLER = [[
local moonport = require("moonport")
local Handler = {}
local commands = {}
function commands.exit() os.exit(4) end
function commands.close() os.exit(4, true) end
function commands.fail() error("on purpose") end
function commands.down(self) self.server:shutdown() end
function Handler:handle()
  for line in self.rfile:lines() do
    if commands[line] then commands[line](self) end
    self.wfile:write(line:upper(), "\n")
  end
end
return Handler]]

-- Starts a program with one server, which it keeps until it is told a line; then it runs `last`, if any.
local function serving(options, last)
  return plain.start(([[
    local server = moonport.start(arg[2], %s)
    say("at", server.url)
    io.read()
    %s]]):format(options or "nil", last or ""), host.write(HANDLER))
end

local function refused(url) return not pcall(function() host.connect(url):close() end) end

-- The program's descriptors and threads, once there are no more than `limit` of them.
local function settled(p, limit)
  return host.eventually("descriptors and threads that go away", function()
    local fds, tasks = p:count("fd"), p:count("task")
    return (not limit or fds <= limit[1] and tasks <= limit[2]) and { fds, tasks }
  end)
end

describe("moonport.start", function()
  after_each(plain.cleanup)

  it("listens on a free port of this machine, and says where", function()
    plain.run([[
      local server <close> = moonport.start(arg[2])
      assert(server.host == "127.0.0.1" and math.type(server.port) == "integer" and server.port > 0)
      assert(server.url == "tcp://127.0.0.1:" .. server.port and server.path == nil)
      assert(server.class == "AsyncTCPServer" and server.name == "upper")
      assert(tostring(server) == "AsyncTCPServer (" .. server.url .. ")")
      assert(#server.servers == 1 and server.servers[1].url == server.url)]], UPPER)
  end)

  for _, mixin in ipairs(MIXINS) do
    it("serves all transports at once, each under a name of its own: " .. mixin, function()
      local p = plain.start([[
        local server <close> = moonport.start(arg[2], { mixin = arg[3], listen = { "tcp://127.0.0.1:0",
          "udp://[::1]:0", "unix://" .. folder .. "/s", "unixgram://" .. folder .. "/d", "unix://@" .. folder } })
        for _, s in ipairs(server.servers) do
          say("at", s.url)
          say(s.name, s.class, s.host, s.path)
          assert((s.host == nil) == (s.port == nil) and (s.host == nil) ~= (s.path == nil))
        end
        assert(server.url == server.servers[1].url and server.port == server.servers[1].port)
        io.read()
        say("requests", server:stats().requests)]], UPPER, mixin)
      for i = 1, 5 do assert.are.equal("LINE " .. i, plain.ask(p:url(i), "line " .. i)) end
      p:tell("")
      local text = p:done():gsub("at [^\n]*\n", "")
      text = text:gsub(p.folder:gsub("%p", "%%%0"), "F")
      assert.are.equal((([[
upper *TCPServer 127.0.0.1 nil
upper-2 *UDPServer ::1 nil
upper-3 *UnixStreamServer nil F/s
upper-4 *UnixDatagramServer nil F/d
upper-5 *UnixStreamServer nil @F
requests 5
]]):gsub("%*", CLASSES[mixin])), text)
      assert.is_nil(sys.stat(p.folder .. "/s"))
      assert.is_nil(sys.stat(p.folder .. "/d"))
    end)
  end

  describe("that goes wrong", function()
    -- Runs `pcall(moonport.start, ...)` many times; the message, which must be one sentence, and what is left behind.
    local function wrong(call)
      local p = plain.start(([[
        collectgarbage("stop")
        local function try() return pcall(moonport.start%s) end
        local _, why = try()
        say("before")
        io.read()
        for _ = 1, 20 do assert(not try()) end
        say("after")
        io.read()
        say("why", why)]]):format(call == "" and "" or ", " .. call))
      p:expect("before\n")
      local before = settled(p)
      p:tell("")
      p:expect("after\n")
      assert.are.same(before, settled(p, before), call)
      p:tell("")
      local why = p:done():match("why (.*)\n$")
      assert.is_nil(why:find("\n", 1, true), why)
      assert.is_nil(why:find("'?'", 1, true), why)
      assert.is_nil(why:find("#-", 1, true), why)
      return why
    end

    for call, why in pairs {
      [""] = "string expected, got no value",
      ["{}"] = "string expected, got table",
      ["'no/such.lua'"] = "cannot read the script no/such.lua: No such file or directory",
      ["'scripts'"] = "cannot read the script scripts: it is a folder",
      ["'/dev/null'"] = "has no handle: return a table with a function `handle`",
      ["'spec/fixtures/syntax.lua'"] = "syntax.lua",
      ["U, 5"] = "table expected, got number",
      ["U, { mixin = 'thread' }"] = "mixin must be async, threading or sync",
      ["U, { mixin = {} }"] = "mixin",
      ["U, { mixin = 'forking' }"] = "moonport.start cannot fork: the server runs on a thread beside yours; use "
        .. 'mixin = "async" or "threading", or socketserver\'s Forking classes',
      ["U, { listen = {} }"] = "listen must name at least one URL",
      ["U, { listen = { 'tcp://127.0.0.1:0', {} } }"] = "listen",
      ["U, { listen = 'http://x' }"] = "http://x: not a URL; it must begin with tcp://, udp://, unix:// or unixgram://",
      ["U, { listen = 'unix:///no/such/folder/s' }"] = "No such file or directory",
      ["U, { listen = 'tcp://192.0.2.1:0' }"] = "cannot listen on tcp://192.0.2.1:0",
      ["U, { options = 5 }"] = "options must be a table",
      ["U, { options = { 5 } }"] = "names are strings",
      ["U, { options = { timeot = 5 } }"] = "unknown option timeot; did you mean timeout?",
      ["U, { options = { timeout = 'soon' } }"] = "timeout=soon: it must be a number of seconds",
      ["U, { options = { max_threads = 0 } }"] = "max_threads=0: it must be a whole number from 1",
      ["U, { log_level = 'loud' }"] = "log_level must be debug, info, warn or error",
      ["U, { log_level = {} }"] = "log_level",
      ["U, { mixins = 'sync' }"] = "unknown option mixins; there are listen, mixin, options and log_level",
      ["U, { 'sync' }"] = "unknown option",
    } do
      it("says so: (" .. call .. ")", function()
        local got = wrong((call:gsub("U", '"scripts/upper.lua"', 1)))
        assert.is_truthy(got:find(why, 1, true), got)
      end)
    end

    it("names the place in a script that fails, of its folder's modules too", function()
      local path = host.write("local H = {}\nfunction H:handle() end\nerror('on purpose')\nreturn H\n")
      assert.matches("script.lua:3: on purpose$", wrong(("%q"):format(path)))
      path = host.write("return require('beside')")
      host.write("local x = }\n", path:gsub("script", "beside"))
      assert.matches("beside.lua:1: ", wrong(("%q"):format(path)))
    end)

    it("leaves nothing bound when one of its addresses is taken", function()
      local folder = host.folder()
      local fd = assert(sys.socket("tcp://127.0.0.1:0"))
      assert(sys.bind(fd, "tcp://127.0.0.1:0"))
      assert(sys.listen(fd, 1))
      local _, port = sys.name(fd)
      assert.matches("cannot listen on tcp://127.0.0.1:" .. port .. ": the address is already in use$",
        wrong(("'scripts/upper.lua', { listen = { 'unix://%s/s', 'tcp://127.0.0.1:%d' } }"):format(folder, port)))
      assert.is_nil(sys.stat(folder .. "/s"))
      sys.close(fd)
    end)
  end)

  describe("options", function()
    it("go before what the script says, and take numbers, strings and booleans", function()
      local p = plain.start([[
        local server <close> = moonport.start(arg[2], { mixin = "threading", options = {
          timeout = 0.25, max_line = "8K", request_queue_size = 7, daemon_threads = true, idle_timeout = false } })
        say("at", server.url)
        io.read()]], host.write [[
          local H = { timeout = 5, idle_timeout = 6, server = { max_threads = 3, request_queue_size = 9 } }
          function H:handle()
            local s = self.server
            self.wfile:write(table.concat({ s.timeout, s.max_line, s.request_queue_size, tostring(s.daemon_threads),
              tostring(s.idle_timeout), s.max_threads, s.drain_timeout }, " "), "\n")
          end
          return H]])
      assert.are.equal("0.25 8192 7 true nil 3 1.0", plain.ask(p:url(), ""))
      p:tell("")
      p:done()
    end)

    it("log_level chooses what comes to standard error: warnings and errors if nothing is said", function()
      for level, expected in pairs { [""] = "warn error", debug = "debug info warn error", info = "info warn error",
        warn = "warn error", error = "error" } do
        local p = plain.start([[
          local server <close> = moonport.start(arg[2], { log_level = arg[3] ~= "" and arg[3] or nil })
          say("at", server.url)
          io.read()]], host.write [[
            local moonport = require("moonport")
            return { handle = function(self)
              for _, level in ipairs { "debug", "info", "warn", "error" } do moonport.log(level, "of " .. level) end
              self.wfile:write("done\n")
            end }]], level)
        assert.are.equal("done", plain.ask(p:url(), ""))
        p:tell("")
        p:done()
        local got = {}
        for word in p:log():gmatch("of (%a+)") do got[#got + 1] = word end
        assert.are.equal(expected, table.concat(got, " "))
      end
    end)
  end)

  it("gives its script a Lua state of its own, which finds its folder's modules and the program's", function()
    local path = host.write [[
      local beside, resp = require("beside"), require("moonport.resp")
      seen = (seen or 0) + 1 -- luacheck: ignore
      return { handle = function(self)
        self.wfile:write(beside, " ", type(resp.serve), " ", seen, " ", tostring(theirs), "\n")
      end }]]
    host.write("return 'beside'", path:gsub("script", "beside"))
    local p = plain.start([[
      theirs = "theirs"
      local server <close> = moonport.start(arg[2])
      say("at", server.url)
      assert(seen == nil and package.loaded.beside == nil)
      io.read()]], path)
    assert.are.equal("beside function 1 nil", plain.ask(p:url(), ""))
    p:tell("")
    p:done()
  end)

  describe("stats", function()
    it("count what all listeners have done", function()
      for _, mixin in ipairs(MIXINS) do
        local p = plain.start([[
          local server <close> = moonport.start(arg[2], { mixin = arg[3], listen = { "tcp://127.0.0.1:0",
            "unix://" .. folder .. "/s" } })
          for _, s in ipairs(server.servers) do say("at", s.url) end
          repeat
            local s = server:stats()
            say(("r%d a%d e%d i%d o%d d%d;"):format(s.requests, s.active, s.errors, s.bytes_in, s.bytes_out, s.died))
          until io.read() == "end"]], host.write(HANDLER), mixin)
        for i = 1, 2 do assert.are.equal("ABC", plain.ask(p:url(i), "abc")) end
        assert.is_nil(plain.ask(p:url(2), "fail"))
        local c <close> = host.connect(p:url(1))
        assert.are.equal("HERE", c:ask("here"))
        p:await("the counters", function(text)
          p:tell("")
          return text:find("r4 a1 e1 i18 o13 d0;", 1, true)
        end)
        c:close()
        p:tell("end")
        p:done()
        assert.matches("on purpose", p:log())
      end
    end)

    it("are there no more when it is stopped", function()
      assert.are.equal("false the server is stopped\n", plain.run([[
        local server = moonport.start(arg[2])
        server:shutdown()
        local ok, why = pcall(server.stats, server)
        say(ok, (why:gsub("^.-:%d+: ", "")))]], UPPER))
    end)
  end)

  describe("shutdown", function()
    for _, mixin in ipairs(MIXINS) do
      it("lets requests under way end, takes no more, and waits for both: " .. mixin, function()
        local p = serving(("{ mixin = %q, options = { drain_timeout = 10 } }"):format(mixin), [[
          server:shutdown()
          say("over")
          server:shutdown()
          io.read()]])
        local c <close> = host.connect(p:url())
        assert.are.equal("FIRST", c:ask("first"))
        p:tell("")
        host.eventually("no more clients", function() return refused(p:url()) end)
        assert.are.equal("LAST", c:ask("last"))
        assert.is_nil(p:text():find("over"))
        c:finish()
        assert.are.equal("", c:all())
        p:expect("over\n")
        assert.are.equal(1, p:count("task"))
        p:tell("")
        p:done()
      end)

      it("ends what has not ended within drain_timeout: " .. mixin, function()
        local p = serving(("{ mixin = %q, options = { drain_timeout = 0.05 } }"):format(mixin),
          'server:shutdown() say("over")')
        local c <close> = host.connect(p:url())
        assert.are.equal("FIRST", c:ask("first"))
        p:tell("")
        assert.are.equal("", c:all())
        p:expect("over\n")
        p:done()
      end)

      it("may be a handler's: the object stays, and can be asked: " .. mixin, function()
        local p = serving(('{ mixin = %q, listen = "unix://" .. folder .. "/s" }'):format(mixin), [[
          say("requests", server:stats().requests)
          server:shutdown()]])
        assert.are.equal("DOWN", plain.ask(p:url(), "down"))
        host.eventually("no more clients", function() return not sys.stat(p.folder .. "/s") end)
        p:tell("")
        assert.matches("\nrequests 1\n$", p:done())
        assert.are.equal("", p:log())
      end)
    end

    it("is what <close> does, with an error or without", function()
      plain.run([[
        local kept = {}
        local function bound() return os.execute("test -S " .. folder .. "/s") == true end
        for i = 1, 2 do
          local ok = pcall(function()
            local server <close> = moonport.start(arg[2], { listen = "unix://" .. folder .. "/s" })
            kept[i] = server
            assert(bound())
            if i == 2 then error("on purpose") end
          end)
          assert(ok == (i == 1) and not bound())
          assert(not pcall(kept[i].stats, kept[i]))
        end]], UPPER)
    end)

    it("is what the collector does with one that was forgotten", function()
      local p = plain.start([[
        say("before")
        io.read()
        do
          local server = moonport.start(arg[2], { mixin = "threading" })
          say("at", server.url)
          moonport.run(function()
            local c <close> = assert(moonport.connect(server.url))
            c:sendall("x\n")
            c:makefile("r"):read()
          end)
        end
        collectgarbage()
        collectgarbage()
        say("after")
        io.read()]], UPPER)
      p:expect("before\n")
      local before = settled(p)
      p:tell("")
      p:expect("after\n")
      assert.are.same(before, settled(p, before))
      assert.is_true(refused(p:url()))
      p:tell("")
      p:done()
    end)

    it("frees the address, also while a child of the program lives on", function()
      plain.run([[
        local child = io.popen("cat > /dev/null", "w")
        local address
        for _ = 1, 2 do
          local server <close> = moonport.start(arg[2], { listen = address or "tcp://127.0.0.1:0" })
          address = address or server.url
          local other = io.popen("cat > /dev/null", "w")
          server:shutdown()
          -- popen returns a moment before the kernel closes what the child is not to have.
          repeat until not moonport.run(moonport.connect, address)
          other:close()
        end
        child:close()]], UPPER)
    end)
  end)

  describe("the process's end", function()
    -- Ends a program that has a server with a client under way; its exit code.
    local function ending(mixin, how, line)
      local p = plain.start(([[
        local server = moonport.start(arg[2], { mixin = %q, listen = "unix://" .. folder .. "/s" })
        local other = moonport.start(arg[2], { mixin = %q, listen = "unix://" .. folder .. "/t" })
        say("at", server.url)
        say("at", other.url)
        io.read()
        %s]]):format(mixin, mixin, how), host.write(HANDLER))
      local c <close> = host.connect(p:url(2))
      assert.are.equal("HERE", c:ask("here"))
      if line then plain.ask(p:url(), line) else p:tell("") end
      local code = p:wait()
      assert.are.equal("", c:all())
      assert.is_nil(sys.stat(p.folder .. "/s"))
      assert.is_nil(sys.stat(p.folder .. "/t"))
      return code, p:log()
    end

    for _, mixin in ipairs(MIXINS) do
      for how, code in pairs { [""] = 0, ["os.exit(0)"] = 0, ["os.exit(0, true)"] = 0, ["os.exit(7)"] = 7,
        ["error('on purpose')"] = 1 } do
        it("waits for nobody, and removes sockets' paths: " .. mixin .. " " .. how, function()
          local got, log = ending(mixin, how)
          assert.are.equal(code, got)
          assert.are.equal(code == 1, log:find("on purpose", 1, true) ~= nil, log)
        end)
      end

      it("may be a handler's os.exit: " .. mixin, function()
        for _, line in ipairs { "exit", "close" } do assert.are.equal(4, (ending(mixin, "io.read()", line))) end
      end)
    end

    it("may be Ctrl-C, which is the program's", function()
      local p = plain.start([[
        local server <close> = moonport.start(arg[2], { listen = "unix://" .. folder .. "/s" })
        say("at", server.url)
        while true do end]], UPPER)
      assert.are.equal("A", plain.ask(p:url(), "a"))
      sys.kill(p.pid, "INT")
      assert.are.equal(1, (p:wait()))
      assert.matches("interrupted!", p:log())
      assert.is_nil(sys.stat(p.folder .. "/s"))
    end)

    it("leaves a path only when it is killed, and then the next server takes it over", function()
      local p = plain.start([[
        moonport.start(arg[2], { listen = "unix://" .. folder .. "/s" })
        say("started")
        io.read()]], UPPER)
      p:expect("started")
      sys.kill(p.pid, "KILL")
      assert.are.equal(-9, (p:wait()))
      assert.is_truthy(sys.stat(p.folder .. "/s"))
      plain.run([[moonport.start(arg[2], { listen = arg[3] }):shutdown()]], UPPER, "unix://" .. p.folder .. "/s")
      assert.is_nil(sys.stat(p.folder .. "/s"))
    end)
  end)

  it("changes nothing in the program or the process, nor does loading the module", function()
    -- In a program of its own, where nothing is loaded yet.
    local path = host.write(([[
      local function read(name)
        local f <close> = assert(io.open(name))
        return f:read("a")
      end
      local function shell(command)
        local f <close> = assert(io.popen(command))
        return f:read("a")
      end
      local function snapshot()
        local got = { read("/proc/self/limits"), shell("env | sort; pwd; umask"), os.setlocale(),
          package.path, package.cpath, tostring(debug.gethook()), collectgarbage("setpause", 200),
          collectgarbage("setstepmul", 100), tostring(getmetatable(print)), tostring(getmetatable(io.stdout)) }
        for name, mask in read("/proc/self/status"):gmatch("(Sig%%a+):%%s+(%%x+)") do
          -- 32 and 33 are the C library's own, which it has at its first thread; SIGRTMIN + 7 limits computing.
          if name ~= "SigQ" then got[#got + 1] = ("%%s %%x"):format(name, tonumber(mask, 16) & ~(3 << 31 | 1 << 40)) end
        end
        local names = {}
        for _, t in ipairs { _G, string, os, io, debug, coroutine, package, getmetatable("") } do
          for k, v in pairs(t) do names[#names + 1] = tostring(k) .. "=" .. tostring(v) end
        end
        table.sort(names)
        return got, names
      end
      package.path, package.cpath = "./lua/?.lua;" .. package.path, "%s/?.so;" .. package.cpath
      collectgarbage("setpause", 200)
      collectgarbage("setstepmul", 100)
      local before, names = snapshot()
      local function compare(when, old, new)
        for i = 1, math.max(#old, #new) do
          if old[i] ~= new[i] then
            io.write(when, ": ", tostring(old[i]), " is now ", tostring(new[i]), "\n")
            os.exit(1)
          end
        end
      end
      local function look(when)
        local now, now_names = snapshot()
        compare(when, before, now)
        compare(when, names, now_names)
      end
      local moonport = require("moonport")
      look("require")
      for _, mixin in ipairs { "sync", "async", "threading" } do
        local server = moonport.start("scripts/upper.lua", { mixin = mixin })
        look("start")
        moonport.run(function()
          local c <close> = assert(moonport.connect(server.url))
          c:sendall("x\n")
          c:makefile("r"):read()
        end)
        look("a request")
        server:shutdown()
        look("shutdown")
      end
      io.write("the same\n")]]):format(host.build))
    assert.are.equal("the same\n", plain.run([[
      local f <close> = assert(io.popen("lua5.4 " .. arg[2] .. " 2>&1"))
      io.write((f:read("a")))]], path))
  end)

  it("keeps signals for the program: its threads take none", function()
    local p = serving('{ mixin = "threading" }')
    assert.are.equal("A", plain.ask(p:url(), "a"))
    -- All but KILL and STOP, which cannot be, the C library's own two, which must not, and the timer's.
    local expected = ("%x"):format(~(1 << 8 | 1 << 18 | 3 << 31 | 1 << 40))
    local function masks()
      local list = {}
      for _, thread in ipairs(sys.list("/proc/" .. p.pid .. "/task")) do
        local status = host.read(("/proc/%d/task/%s/status"):format(p.pid, thread)) -- nil: it has ended meanwhile
        local blocked = status and status:match("SigBlk:%s+(%x+)")
        if blocked and tonumber(thread) == p.pid then
          assert.are.equal(0, tonumber(blocked, 16) & ~(3 << 31))
        elseif blocked then
          list[#list + 1] = ("%x"):format(tonumber(blocked, 16) & ~(3 << 31))
        end
      end
      return list
    end
    host.eventually("threads that take but the timer's", function() -- one that begins takes none at all
      local list = masks()
      for _, mask in ipairs(list) do
        if mask ~= expected then return false end
      end
      return #list >= 2
    end)
    p:tell("")
    p:done()
  end)

  it("runs 20 servers in one process, each with a state of its own", function()
    local p = plain.start([[
      local servers = {}
      for i = 1, 20 do
        servers[i] = moonport.start(arg[2], { mixin = ({ "sync", "async", "threading" })[i % 3 + 1] })
        say("at", servers[i].url)
      end
      io.read()
      for i, server in ipairs(servers) do
        assert(server:stats().requests == 2, i)
        server:shutdown()
      end]], host.write [[
        local n = 0
        return { handle = function(self)
          n = n + 1
          self.wfile:write(n, " ", self.server.url, "\n")
        end }]])
    for round = 1, 2 do
      for i = 1, 20 do
        local n, url = plain.ask(p:url(i), ""):match("(%d+) (.*)")
        assert.are.equal(p:url(i), url)
        assert.is_true(tonumber(n) <= round) -- each thread counts for itself
      end
    end
    p:tell("")
    p:done()
  end)

  it("leaves nothing behind, 200 times", function()
    local p = plain.start([[
      collectgarbage("generational")
      local function round(i)
        local server = moonport.start(arg[2], { mixin = ({ "sync", "async", "threading" })[i % 3 + 1],
          listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "unix://" .. folder .. "/s" } })
        moonport.run(function()
          for _, s in ipairs(server.servers) do
            if s.class:find("Stream") or s.class:find("TCP") then
              local c <close> = assert(moonport.connect(s.url))
              c:sendall(i .. "a\n")
              assert(c:makefile("r"):read() == i .. "A")
            end
          end
        end)
        server:shutdown()
      end
      for i = 1, 3 do round(i) end
      say("before")
      io.read()
      for i = 1, 200 do round(i) end
      say("after")
      io.read()]], UPPER)
    p:expect("before\n")
    local before = settled(p)
    p:tell("")
    p:expect("after\n")
    assert.are.same(before, settled(p, before))
    p:tell("")
    p:done()
    assert.are.equal("", p:log())
  end)

  describe("while the program is", function()
    -- 16 clients and some thousand lines, every byte compared.
    local function flood(url)
      local f = assert(io.popen(("%s/flood %s 16 3200 64"):format(host.build, url)))
      local text = f:read("a")
      assert(f:close(), text)
    end

    for _, mixin in ipairs(MIXINS) do
      it("busy with Lua, it serves: " .. mixin, function()
        local p = plain.start([[
          local server <close> = moonport.start(arg[2], { mixin = arg[3] })
          say("at", server.url)
          local x = 0
          repeat for i = 1, 1e6 do x = x ~ i end until exists("stop")]], "scripts/echo.lua", mixin)
        flood(p:url())
        p:stop()
      end)

      it("blocked in os.execute, it serves: " .. mixin, function()
        local gate = host.gate()
        local p = plain.start([[
          local server <close> = moonport.start(arg[2], { mixin = arg[3] })
          say("at", server.url)
          assert(os.execute("head -c 1 " .. arg[4] .. " > /dev/null"))
          say("on")
          io.read()]], "scripts/echo.lua", mixin, gate.path)
        flood(p:url())
        assert.is_nil(p:text():find("on\n"))
        gate:pass()
        p:expect("on\n")
        p:tell("")
        p:done()
      end)

      it("a client itself, by moonport.run, it serves: " .. mixin, function()
        plain.run([[
          moonport.run(function()
            local server <close> = moonport.start(arg[2], { mixin = arg[3] }) -- here as well
            for i = 1, 100 do
              local c <close> = assert(moonport.connect(server.url))
              c:sendall("line " .. i .. "\n")
              assert(c:makefile("r"):read() == "LINE " .. i)
            end
          end)]], UPPER, mixin)
      end)
    end
  end)

  it("serves a spec that busted runs", function()
    local folder = host.folder()
    host.write([[
      local moonport = require("moonport")
      describe("a client under test", function()
        local server
        setup(function() server = moonport.start("scripts/upper.lua", { mixin = "threading" }) end)
        teardown(function() server:shutdown() end)
        it("is answered", function()
          assert.are.equal("HELLO", moonport.run(function()
            local c <close> = assert(moonport.connect(server.url))
            c:sendall("hello\n")
            return c:makefile("r"):read()
          end))
        end)
      end)]], folder .. "/inner_spec.lua")
    local text = plain.run([[
      local f <close> = assert(io.popen("busted -o TAP --cpath=" .. arg[3] .. "/?.so " .. arg[2] .. " 2>&1"))
      io.write((f:read("a")))]], folder .. "/inner_spec.lua", host.build)
    assert.matches("ok 1 %- a client under test is answered", text)
  end)

  if not host.sanitizer() then
    it("serves the spec that busted runs now", function()
      local moonport = require("moonport")
      local server <close> = moonport.start(UPPER)
      assert.are.equal("HERE", plain.ask(server.url, "here"))
    end)
  end
end)
