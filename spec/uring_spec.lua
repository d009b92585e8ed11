-- What is particular about receiving by io_uring; that it does what epoll does, all other specs show when
-- they are run with MOONPORT_LOOP=io_uring.
local host = require("support.host")
local scarce = require("support.scarce")
local sys = host.sys

local ECHO = "scripts/echo.lua"

-- Reads nothing until a second connection has come; then says how much there was, and whether it was in order.
local SLOW = [[
  local moonport = require "moonport"
  local go
  local function count(self)
    local n, ok = 0, true
    repeat
      local part = self.request:recv(65536)
      for i = 1, part and #part or 0, 997 do ok = ok and part:byte(i) == (n + i - 1) % 251 end
      n = n + (part and #part or 0)
    until not part
    self.wfile:write(n, " ", tostring(ok), "\n")
  end
  return { handle = function(self)
    if not go then
      go = moonport.event()
      go:wait()
      count(self)
    else
      go:set()
    end
  end }
]]

local pattern = {}
for i = 0, 250 do pattern[i + 1] = string.char(i) end
pattern = table.concat(pattern):rep(400)

-- Sends until the socket has taken nothing for a while; how much.
local function fill(c)
  local n = 0
  while sys.poll(c.fd, "w", 0.2) do
    local took = sys.send(c.fd, pattern:sub(n % 251 + 1))
    n = n + (took or 0)
  end
  return n
end

local function calls(path, name)
  local _, n = host.read(path):gsub("%f[%w]" .. name .. "%(", "")
  return n
end

-- Whether the kernel has one; the system may not allow it.
local probe = host.start(ECHO, { loop = "auto" })
probe:stop()
local missing = probe:find("no io_uring here: epoll it is")[1]
host.cleanup()

describe("io_uring", function()
  after_each(host.cleanup)

  local it = function(what, f) -- luacheck: ignore it
    if missing then
      pending(what .. ": " .. missing.why)
    else
      it(what, f)
    end
  end

  -- A program, and a file that its system calls go to.
  local function traced(loop, url)
    local path = host.folder() .. "/calls"
    return host.start(ECHO, {
      loop = loop,
      listen = url,
      args = { "--busy-poll=off" },
      wrap = { "strace", "-f", "-qq", "-e", "trace=recvfrom,epoll_wait,io_uring_enter", "-o", path },
      env = { host.traced() },
    }), path
  end

  it("receives without a call for each request", function()
    for _, url in ipairs { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } do
      local p, path = traced("io_uring", url)
      local c = host.connect(p:url())
      for i = 1, 100 do assert.are.equal(tostring(i), (c:ask(tostring(i)))) end
      c:close()
      p:stop()
      assert.is_true(calls(path, "recvfrom") < 10)
      assert.is_true(calls(path, "epoll_wait") < 20)
      assert.is_true(calls(path, "io_uring_enter") < 220)
    end
  end)

  it("is left to connections that stay with --loop auto", function()
    local p, path = traced("auto")
    for i = 1, 20 do
      local c = host.connect(p:url())
      for k = 1, 5 do assert.are.equal(tostring(k), (c:ask(tostring(k)))) end
      c:close()
      if i == 20 then host.eventually("no ring", function() return calls(path, "io_uring_enter") == 0 end) end
    end
    local c = host.connect(p:url())
    for i = 1, 300 do assert.are.equal(tostring(i), (c:ask(tostring(i)))) end
    c:close()
    p:stop()
    assert.is_true(calls(path, "io_uring_enter") > 280)
    assert.is_true(calls(path, "recvfrom") < 20 * 6 + 30 + 10)
  end)

  it("leaves bytes that nobody reads to the kernel, and loses none", function()
    for _, url in ipairs { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } do
      local p = host.start(host.write(SLOW), { loop = "io_uring", listen = url })
      local before = p:memory()
      local c = host.connect(p:url(), { send = 65536 })
      local sent = fill(c)
      assert.is_true(sent > 0)
      assert.is_true(p:memory() - before < 2048, "it holds what nobody reads")
      host.connect(p:url()):close()
      while sent < 3000000 do
        assert(c:send(pattern:sub(sent % 251 + 1)))
        sent = sent + #pattern - sent % 251
      end
      c:finish()
      assert.are.equal(sent .. " true", (c:line()))
      c:close()
      p:stop()
    end
  end)

  it("raises where there was no memory for bytes that nobody read", function()
    if not scarce.works() then return pending("nothing can be preloaded here") end
    local lack = scarce.new()
    local p = host.start(host.write [[
      local go
      return { handle = function(self)
        for line in self.rfile:lines() do
          if line == "go" then go:set() end
          if line == "wait" then break end
          self.wfile:write(line, "\n")
        end
        go = require("moonport").event()
        self.wfile:write("ready\n"):flush()
        go:wait()
        local ok, why = pcall(self.rfile.read, self.rfile, "a")
        self.wfile:write(tostring(ok), " ", tostring(why), "\n")
      end }
    ]], { loop = "io_uring", env = lack.env })
    for which = 1, 2 do
      local c, other = host.connect(p:url()), host.connect(p:url())
      for i = 1, 10 do assert.are.equal(tostring(i), (c:ask(tostring(i)))) end
      assert.are.equal("hello", (other:ask("hello")))
      assert.are.equal("ready", (c:ask("wait")))
      lack:arm(which)
      c:send("lost")
      host.eventually("a lack of memory", function() return select(2, lack:counts()) == 1 end)
      lack:disarm()
      other:send("go\n")
      assert.is_truthy((c:line() or ""):find("^false .*memory"))
      c:close()
      other:close()
    end
    p:stop()
  end)

  it("gives back all that came in pieces of any size", function()
    local p = host.start(ECHO, { loop = "io_uring" })
    local c = host.connect(p:url())
    for _, size in ipairs { 1, 2047, 2048, 2049, 10, 4096, 3, 65535, 1, 40000, 2048 } do
      local line = ("abcdefg"):rep(size // 7 + 1):sub(1, size)
      for _ = 1, 20 do
        assert.are.equal(line, (c:ask(line)))
      end
    end
    c:close()
    p:stop()
  end)

  -- On a Unix socket the end may come together with the last bytes, and the ring does not say so.
  it("hears of every end", function()
    for _, url in ipairs { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } do
      local p = host.start(host.write [[
        return { handle = function(self)
          local n = 0
          for part in function() return (self.request:recv(500)) end do n = n + #part end
          self.wfile:write(n, "\n")
        end }
      ]], { loop = "io_uring", listen = url })
      for i = 1, 3000 do
        local c = host.connect(p:url())
        for _ = 0, i % 3 do assert(c:send(("x"):rep(400))) end
        c:finish()
        assert.are.equal(tostring(400 * (i % 3 + 1)), (c:line()))
        c:close()
      end
      p:stop()
    end
  end)

  it("hears of a reset that comes with the last bytes", function()
    local p = host.start(host.write [[
      return { handle = function(self)
        local ok, data, why
        repeat data, why = self.request:recv(100) until not data
        require("moonport").log("info", why)
      end }
    ]], { loop = "io_uring" })
    for _ = 1, 300 do
      local c = host.connect(p:url())
      for _ = 1, 3 do assert(c:send(("x"):rep(100))) end
      c:reset()
    end
    host.eventually("the end of all", function() return #p:find("script") == 300 end)
    p:stop()
  end)

  it("hears of it also while nobody reads", function()
    local p = host.start(host.write [[
      local moonport = require "moonport"
      return { handle = function(self)
        self.rfile:readline()
        self.wfile:write("ready\n")
        self.rfile:readline()
        moonport.event():wait()
      end }
    ]], { loop = "io_uring" })
    for _ = 1, 200 do
      local c = host.connect(p:url())
      assert.are.equal("ready", (c:ask("x")))
      assert(c:send("y\n"))
      c:reset()
    end
    host.eventually("the end of all", function() return #p:find("cancelled") == 200 end)
    p:stop()
  end)

  it("forgets connections that are closed while much is on the way", function()
    local p = host.start(host.write [[
      return { handle = function(self)
        self.rfile:readline()
        self.wfile:write("bye\n")
      end }
    ]], { loop = "io_uring" })
    for _ = 1, 300 do
      local c = host.connect(p:url())
      assert(c:send("one\ntwo\nthree\n" .. ("x"):rep(5000)))
      assert.are.equal("bye", (c:line()))
      c:close()
    end
    p:stop()
  end)

  it("leaves a handler alone that has closed a connection which was reset", function()
    local log = host.folder() .. "/went-on"
    local p = host.start(host.write(([[
      local moonport = require "moonport"
      return { handle = function(self)
        self.rfile:readline()
        self.wfile:write("here\n") -- goes out when the receive waits
        pcall(self.request.recv, self.request, 100)
        self.request:close()
        moonport.sleep(0.05)
        local f <close> = io.open(%q, "a")
        f:write("it went on\n")
      end }
    ]]):format(log)), { loop = "io_uring" })
    for i = 1, 20 do
      local c = host.connect(p:url())
      assert.are.equal("here", (c:ask("x")))
      c:reset()
      host.eventually("the end of handler " .. i, function()
        return select(2, (host.read(log) or ""):gsub("\n", "")) == i
      end)
    end
    p:stop()
  end)

  it("hears of resets also when it had no buffers left", function()
    local folder = host.folder()
    local p = host.start(host.write(([[
      local moonport = require "moonport"
      local n = 0
      return { handle = function(self)
        self.rfile:readline()
        self.wfile:write("here\n")
        local ok, err = pcall(function() moonport.event():wait() end)
        n = n + 1
        local f <close> = io.open(%q, "w")
        f:write(n)
        if not ok then error(err, 0) end
      end }
    ]]):format(folder .. "/n")), { loop = "io_uring" })
    local all = {}
    for i = 1, 30 do
      all[i] = host.connect(p:url())
      assert.are.equal("here", (all[i]:ask("x")))
    end
    assert(p:kill("STOP"))
    for _, c in ipairs(all) do sys.send(c.fd, ("x"):rep(60000)) end
    assert(p:kill("CONT"))
    -- It has handled what came before this.
    local c = host.connect(p:url())
    assert.are.equal("here", (c:ask("x")))
    all[#all + 1] = c
    for _, one in ipairs(all) do one:reset() end
    host.eventually("the end of all", function() return host.read(folder .. "/n") == "31" end)
    p:stop()
  end)

  it("is an error where the kernel has none, and epoll with --loop auto", function()
    for _, fault in ipairs { "ENOSYS", "EPERM" } do
      local inject = { "io_uring_setup:error=" .. fault }
      local p = host.start(ECHO, { loop = "auto", inject = inject })
      local c = host.connect(p:url())
      assert.are.equal("x", (c:ask("x")))
      c:close()
      p:stop()
      assert.are.equal(1, #p:find("no io_uring here: epoll it is"))
    end
    local ok, said = pcall(host.start, ECHO, { loop = "io_uring", inject = { "io_uring_setup:error=EPERM" } })
    assert.is_false(ok)
    assert.matches("ended with 111", said)
    assert.matches("moonport: %-%-loop io_uring: the kernel does not give one %(Operation not permitted%); use auto",
      said)
  end)

  it("is for a loop that serves by itself", function()
    local function rings(...)
      local p = host.start(ECHO, { loop = false, args = { ... } })
      local n = 0
      for _, fd in ipairs(sys.list("/proc/" .. p.pid .. "/fd")) do
        if (sys.readlink("/proc/" .. p.pid .. "/fd/" .. fd) or ""):find("io_uring", 1, true) then n = n + 1 end
      end
      p:stop()
      return n
    end
    assert.are.equal(1, rings())
    assert.are.equal(1, rings("--loop=auto", "--busy-poll=off"))
    assert.are.equal(0, rings("--loop=epoll", "--busy-poll=auto"))
    assert.are.equal(1, rings("--loop=auto", "--mixin=sync"))
    assert.are.equal(0, rings("--loop=auto", "--mixin=threading"))
    assert.are.equal(0, rings("--loop=auto", "--mixin=forking"))
    assert.are.equal(0, rings("--loop=auto", "--workers=1")) -- the master's own
  end)

  it("is one of three choices", function()
    local code, _, err = host.run { "serve", ECHO, "--loop", "kqueue" }
    assert.are.equal(100, code)
    assert.are.equal("moonport: --loop kqueue: it must be auto, epoll or io_uring\n", err)
  end)
end)
