--- Unix sockets: whose the path is, who may use it, and senders without a name.

local host = require("support.host")
local sys = host.sys

local ECHO = [[
  local H = {}
  function H:handle()
    if self.packet then
      self.wfile:write(self.packet)
    else
      for line in self.rfile:lines("L") do self.wfile:write(line) end
    end
  end
  return H
]]

local schemes = { "unix", "unixgram" }

-- One round trip, over either kind.
local function answers(url, word)
  local c <close> = host.connect(url, url:find("^unixgram") and { bind = "unixgram://" .. host.folder() .. "/c" })
  assert(c:send(word .. "\n"))
  assert.are.equal(word .. "\n", c:some())
end

-- A socket of that kind at this address, served by the spec itself.
local function hold(url)
  local fd = assert(sys.socket(url))
  assert(sys.bind(fd, url))
  if url:find("^unix:") then assert(sys.listen(fd)) end
  return fd
end

-- Exit code 111 and one sentence.
local function assert_refused(url, reason)
  local code, out, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. url }
  assert.are.same({ 111, "" }, { code, out })
  assert.are.equal("moonport: cannot listen on " .. url:match("://(.*)") .. ": " .. reason .. "\n", err)
end

for _, scheme in ipairs(schemes) do
  describe("a path of " .. scheme, function()
    after_each(host.cleanup)

    local function new_url() return scheme .. "://" .. host.folder() .. "/s" end

    -- torture list 30
    it("that nobody serves any more is taken over", function()
      local script, url = host.write(ECHO), new_url()
      sys.close(hold(url))
      local path = url:match("://(.*)")
      local stale = sys.stat(path)
      assert.are.equal("socket", stale.type)
      local p = host.start(script, { listen = url })
      answers(url, "one")
      p:kill("KILL")
      assert.are.equal(-9, p:wait())
      assert.are.equal("socket", sys.stat(path).type)
      p = host.start(script, { listen = url })
      answers(url, "two")
      p:stop()
    end)

    -- torture list 30
    it("that is served is refused, and goes on being served", function()
      local url = new_url()
      local path = url:match("://(.*)")
      local p = host.start(host.write(ECHO), { listen = url })
      local before = sys.stat(path)
      assert_refused(url, "another process serves it")
      assert.are.same(before, sys.stat(path))
      answers(url, "still here")
      p:stop()
    end)

    it("that a socket of the other kind serves is refused", function()
      local path = host.folder() .. "/s"
      local fd = hold((scheme == "unix" and "unixgram" or "unix") .. "://" .. path)
      local before = sys.stat(path)
      assert_refused(scheme .. "://" .. path, "another process serves it")
      assert.are.same(before, sys.stat(path))
      sys.close(fd)
    end)

    -- torture list 32
    it("that is a file, a folder or a link is refused and left alone", function()
      local folder = host.folder()
      host.write("precious", folder .. "/file")
      assert(os.execute("mkdir '" .. folder .. "/folder'"))
      sys.close(hold("unix://" .. folder .. "/stale"))
      assert(sys.symlink(folder .. "/file", folder .. "/link"))
      assert(sys.symlink(folder .. "/stale", folder .. "/link to a stale socket"))
      assert(sys.symlink(folder .. "/nothing", folder .. "/dangling link"))
      for _, name in ipairs { "file", "folder", "link", "link to a stale socket", "dangling link" } do
        local path = folder .. "/" .. name
        local before = assert(sys.stat(path))
        assert_refused(scheme .. "://" .. path, "it is there and is not a socket, so it is left alone")
        assert.are.same(before, sys.stat(path))
      end
      assert.are.equal("precious", host.read(folder .. "/file"))
      assert.are.equal("socket", sys.stat(folder .. "/stale").type)
      assert.is_nil(sys.stat(folder .. "/nothing"))
    end)

    for _, how in ipairs { "--mixin=async", "--mixin=sync", "--mixin=threading" } do
      it("goes away when a handler calls os.exit: " .. how, function()
        local folder = host.folder()
        for line, code in pairs { ["os.exit(0)"] = 0, ["os.exit(7)"] = 7, ["os.exit(7, true)"] = 7 } do
          local script = host.write("local H = {} function H:handle() " .. line .. " end return H")
          local url, other = scheme .. "://" .. folder .. "/s", "unix://" .. folder .. "/t"
          local p = host.start(script, { listen = { url, other }, args = { how } })
          local c <close> = host.connect(url, scheme == "unixgram" and { bind = "unixgram://" .. folder .. "/c" })
          c:send("x")
          assert.are.equal(code, p:wait())
          assert.is_nil(sys.stat(folder .. "/s"))
          assert.is_nil(sys.stat(folder .. "/t"))
          os.remove(folder .. "/c")
        end
      end)
    end

    it("stays when a handler calls os.exit in a worker", function()
      local url = new_url()
      local script = host.write("local H = {} function H:handle() os.exit(3) end return H")
      local p = host.start(script, { listen = url, args = { "--workers=2" } })
      local before = sys.stat((url:match("://(.*)")))
      local c <close> = host.connect(url, scheme == "unixgram" and { bind = "unixgram://" .. host.folder() .. "/c" })
      c:send("x")
      p:find("worker died", true)
      assert.are.same(before.ino, sys.stat((url:match("://(.*)"))).ino)
      p:stop()
    end)

    -- torture list 33
    it("that a successor has bound stays when the old owner ends", function()
      local script, url = host.write(ECHO), new_url()
      local path = url:match("://(.*)")
      local old = host.start(script, { listen = url })
      local first = sys.stat(path).ino
      assert(os.remove(path))
      local new = host.start(script, { listen = url })
      local second = sys.stat(path).ino
      assert.are_not.equal(first, second)
      old:kill("TERM")
      assert.are.equal(0, old:wait())
      assert.are.equal(second, sys.stat(path).ino)
      answers(url, "the successor")
      new:stop()
    end)

    it("that somebody has replaced by a file is left alone at the end", function()
      local url = new_url()
      local path = url:match("://(.*)")
      local p = host.start(host.write(ECHO), { listen = url })
      assert(os.remove(path))
      host.write("precious", path)
      p:kill("TERM")
      assert.are.equal(0, p:wait())
      assert.are.equal("precious", host.read(path))
    end)

    -- torture list 34; each system call that could change the mode is drawn out, so that
    -- a mode which is there only for a moment is seen
    local slow = {}
    for _, call in ipairs { "bind", "listen", "chmod", "fchmod", "fchmodat", "umask" } do
      slow[#slow + 1] = call .. ":delay_exit=40000"
    end
    local function modes_while_starting(url, umask, args)
      local path, seen, times = url:match("://(.*)"), 0, 0
      local function look()
        local st = sys.stat(path)
        if not st then return end
        times = times + 1
        seen = seen | st.mode
      end
      local p = host.start(host.write(ECHO), {
        listen = url, umask = umask, inject = slow, meanwhile = look, args = args,
      })
      assert(times >= 2, "not seen while it started")
      look()
      answers(url, "here")
      p:stop()
      return ("%o"):format(seen)
    end
    for _, umask in ipairs { "000", "022", "077" } do
      it("is never open to others, umask " .. umask, function()
        assert.are.equal("600", modes_while_starting(new_url(), tonumber(umask, 8)))
      end)
    end

    it("is as open as socket_mode says, whatever the umask, and never more", function()
      assert.are.equal("660", modes_while_starting(new_url(), tonumber("077", 8), { "--option=socket_mode=660" }))
      assert.are.equal("620", modes_while_starting(new_url(), 0, { "--option=socket_mode=620" }))
    end)

    -- torture list 36
    it("may have 107 bytes, and one more is an error that says so", function()
      local folder = host.folder()
      local path = folder .. "/" .. ("x"):rep(107 - #folder - 1)
      local p = host.start(host.write(ECHO), { listen = scheme .. "://" .. path })
      assert.are.equal(path, p.ready.servers.script.path)
      answers(p:url(), "107")
      p:stop()
      local code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. scheme .. "://" .. path .. "x" }
      assert.are.equal(100, code)
      assert.is_truthy(err:find("the path of the socket has 108 bytes, the most is 107", 1, true), err)
      assert.is_nil(sys.stat(path))
    end)

    -- torture list 36
    it("may be abstract, up to the same length", function()
      local name = "@moonport-" .. host.folder():gsub("/", "-")
      name = name .. ("x"):rep(107 - #name)
      local url = scheme .. "://" .. name
      local p = host.start(host.write(ECHO), { listen = url })
      assert.are.equal(name, p.ready.servers.script.path)
      answers(url, "abstract")
      assert.is_nil(sys.stat(name))
      local code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. url }
      assert.are.equal(111, code)
      assert.are.equal("moonport: cannot listen on " .. url .. ": the address is already in use\n", err)
      p:stop()
      local p2 = host.start(host.write(ECHO), { listen = url })
      p2:stop()
      code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. url .. "x" }
      assert.are.equal(100, code)
      assert.is_truthy(err:find("has 108 bytes, the most is 107", 1, true), err)
    end)

    -- torture list 36
    it("that is empty is an error that says so", function()
      for _, path in ipairs { "", "@" } do
        local code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. scheme .. "://" .. path }
        assert.are.equal(100, code)
        assert.is_truthy(err:find("the path of the socket is missing", 1, true), err)
      end
    end)

    it("in a folder that is missing is an error that names it", function()
      local url = scheme .. "://" .. host.folder() .. "/missing/s"
      local code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=" .. url }
      assert.are.equal(111, code)
      assert.are.equal("moonport: cannot listen on " .. url .. ": No such file or directory\n", err)
    end)
  end)
end

describe("a path with a NUL byte", function()
  after_each(host.cleanup)

  -- torture list 36
  it("is an error that says so", function()
    local p = host.start(host.write([[
      local moonport = require("moonport")
      local H = {}
      function H:handle()
        local ok, why = pcall(moonport.connect, "unix:///tmp/a\0b")
        self.wfile:write(tostring(ok), " ", tostring(why), "\n")
      end
      return H
    ]]), { listen = "unix://" .. host.folder() .. "/s" })
    local c <close> = host.connect(p:url())
    local line = c:line()
    assert.is_truthy(line:find("^false .*NUL byte"), line)
    c:close()
    p:stop()
  end)
end)

describe("a Unix datagram", function()
  after_each(host.cleanup)

  local SCRIPT = [[
    local moonport = require("moonport")
    local H = {}
    function H:handle()
      if self.packet == "stats" then
        local s = self.server:stats()
        self.wfile:write(("unanswered=%d errors=%d active=%d"):format(s.unanswered, s.errors, s.active))
      elseif self.packet == "who" then
        self.wfile:write("[", self.client_address, "]")
        moonport.log("info", ("from [%s]"):format(self.client_address))
      elseif self.packet == "sleep" then
        moonport.sleep(1)
        self.wfile:write("slept")
      else
        self.wfile:write(self.packet)
      end
    end
    return H
  ]]

  local function ask(c, text)
    assert(c:send(text))
    return (c:some())
  end

  -- Sends the numbers from 1 to n and reads nothing.  Not connected: from a socket that is
  -- connected to the server, the kernel takes more than its queue's length.
  local function lazy_sender(url, n)
    local fd = assert(sys.socket(url))
    assert(sys.bind(fd, "unixgram://" .. host.folder() .. "/lazy"))
    for i = 1, n do
      host.eventually("room in the server's queue", function() return sys.sendto(fd, tostring(i), url) end)
    end
    return fd
  end

  -- torture list 37
  for _, mixin in ipairs { "async", "sync" } do
    it("without a sender's name is handled and not answered, " .. mixin, function()
      local folder = host.folder()
      local p = host.start(host.write(SCRIPT), {
        listen = "unixgram://" .. folder .. "/s", args = { "--mixin=" .. mixin },
      })
      local descriptors = p:descriptors()
      local nameless <close> = host.connect(p:url())
      local c <close> = host.connect(p:url(), { bind = "unixgram://" .. folder .. "/c" })
      for _ = 1, 3 do assert(nameless:send("who")) end
      assert.are.equal("[" .. folder .. "/c]", ask(c, "who"))
      assert.are.equal("unanswered=3 errors=0 active=1", ask(c, "stats"))
      assert.are.equal("from []", p:find("script")[1].message)
      assert.is_false(sys.poll(nameless.fd, "r", 0))
      assert.are.equal(descriptors, p:descriptors())
      p:stop()
    end)
  end

  -- torture list 37; the kernel lets max_dgram_qlen (10) of them wait for a receiver
  it("whose sender does not read its replies waits, and others are served meanwhile", function()
    local folder = host.folder()
    local p = host.start(host.write(SCRIPT), { listen = "unixgram://" .. folder .. "/s" })
    local other <close> = host.connect(p:url(), { bind = "unixgram://" .. folder .. "/o" })
    local lazy = lazy_sender(p:url(), 60)
    local expected = {}
    for i = 1, 60 do expected[tostring(i)] = true end
    local active = tonumber(ask(other, "stats"):match("active=(%d+)"))
    assert(active > 1, "nobody waits: the queue never was full")
    local cpu = sys.cpu(p.pid)
    assert.are.equal("slept", ask(other, "sleep"))
    assert(sys.cpu(p.pid) - cpu <= 0.1, "busy while they wait")
    for _ = 1, 60 do
      assert(sys.poll(lazy, "r", host.LIMIT), "a reply is missing")
      local reply = assert(sys.recv(lazy))
      assert(expected[reply], "twice or never sent: " .. reply)
      expected[reply] = nil
    end
    assert.is_nil(next(expected))
    assert.are.equal("unanswered=0 errors=0 active=1", ask(other, "stats"))
    sys.close(lazy)
    p:stop()
  end)

  -- torture list 37
  it("whose sender goes away with replies outstanding leaves nothing behind", function()
    local folder = host.folder()
    local p = host.start(host.write(SCRIPT), { listen = "unixgram://" .. folder .. "/s" })
    local other <close> = host.connect(p:url(), { bind = "unixgram://" .. folder .. "/o" })
    local lazy = lazy_sender(p:url(), 30)
    assert.is_nil(ask(other, "stats"):find("active=1$"), "nobody waits: the queue never was full")
    sys.close(lazy)
    host.eventually("nobody waits", function() return ask(other, "stats"):find("active=1$") end)
    assert.are.equal("unanswered=0 errors=0 active=1", ask(other, "stats"))
    p:stop()
  end)

  it("whose sender does not read does not hold up a drain", function()
    local folder = host.folder()
    local p = host.start(host.write(SCRIPT), {
      listen = "unixgram://" .. folder .. "/s", args = { "--option=drain_timeout=0.3" },
    })
    local lazy = lazy_sender(p:url(), 30)
    local began = sys.now()
    assert(p:stop().requests == 30)
    sys.close(lazy)
    assert(sys.now() - began < host.SOON, "it took too long")
  end)
end)
