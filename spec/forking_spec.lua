--- The forking mixin: a request has a process to itself.

local hammer = require("support.hammer")
local host = require("support.host")
local common = require("support.mixin")
local sys = host.sys

local script, stats, greet, close_all, has_answer =
  common.script, common.stats, common.greet, common.close_all, common.has_answer

local ECHO = script("for line in self.rfile:lines('L') do self.wfile:write(line) end")

-- Lua for a handler: a function `pid()`, this process'.
local PID = [[
  local function pid()
    local f <close> = io.open("/proc/self/stat")
    return math.tointeger(f:read("n"))
  end]]

-- A handler that obeys: "block" stays at the gate in C, "sh COMMAND" runs it ($PPID is this process), and so on;
-- anything else comes back.
local function obedient(gate)
  return script([[
    for line in self.rfile:lines() do
      local word, rest = line:match("^(%w+) ?(.*)$")
      if word == "block" then
        self.wfile:write("blocking\n"):flush()
        gate()
        self.wfile:write("let through\n")
      elseif word == "pid" then
        self.wfile:write(pid(), "\n")
      elseif word == "sh" then
        local p = io.popen(rest)
        self.wfile:write((p:read("a"):gsub("\n", " ")), "\n")
        p:close()
      elseif word == "exit" then
        os.exit(tonumber(rest))
      elseif word == "fail" then
        error("on purpose")
      elseif word == "shutdown" then
        self.server:shutdown()
        self.wfile:write("shut\n")
      elseif word == "stats" then
        local parts = {}
        for name, n in pairs(self.server:stats()) do parts[#parts + 1] = name .. "=" .. n end
        self.wfile:write(table.concat(parts, " "), "\n")
      else
        self.wfile:write(line, "\n")
      end
    end]], PID .. "\n" .. (gate and gate:code() or "")
    .. '\nfunction H:finish() moonport.log("info", "finish of " .. pid()) end')
end

local function start(text, ...)
  local args = { "--mixin=forking" }
  for _, option in ipairs { ... } do args[#args + 1] = "--option=" .. option end
  return host.start(host.write(text), { args = args })
end

-- What a new client hears.
local function ask(p, line)
  local c <close> = host.connect(p:url())
  return c:ask(line)
end

local function ask_stats(p)
  local c <close> = host.connect(p:url())
  return stats(c)
end

local function until_childless(p, seconds)
  host.eventually("no child", function() return #p:children() == 0 end, seconds)
end

-- No child, zombies included, within a second, and no descriptor more than there were.
local function until_at_rest(p, descriptors)
  until_childless(p, 1)
  host.eventually("descriptors back at " .. descriptors, function() return p:descriptors() == descriptors end, 1)
end

-- Stops it, and nothing of it is left.
local function stop(p)
  local last = p:stop()
  p:gone(1)
  return last
end

-- It ends by itself, cleanly, and nothing of it is left; the last event of its log.
local function assert_ends(p)
  assert.are.equal(0, p:wait(), host.read(p.log_path))
  p:gone(1)
  local last = assert(p:find("stopped")[1], host.read(p.log_path))
  for _, what in ipairs { "tasks", "streams", "descriptors", "timers", "buffered" } do
    assert.are.equal(0, last[what], what)
  end
  return last
end

local function said(p, text)
  local n = 0
  for _, e in ipairs(p:find("script")) do
    if e.message == text then n = n + 1 end
  end
  return n
end

-- Samples its children: how many there were at most, and since when a zombie is one.
local function watcher(p)
  local w = { most = 0, zombies = {} }
  function w.look()
    local children, now = p:children(), sys.now()
    local still = {}
    w.most = math.max(w.most, #children)
    for _, child in ipairs(children) do
      if child.state == "Z" then
        still[child.pid] = w.zombies[child.pid] or now
        assert(now - still[child.pid] < host.SOON, "a zombie that stays")
      end
    end
    w.zombies = still
  end
  return w
end

-- The sizes that a run may have: a fork under a sanitizer is ten times as slow.
local function scaled(n) return host.sanitizer() and n // 4 or n end

describe("a forked request", function()
  after_each(host.cleanup)

  it("is a process of its own: handle and finish alike", function()
    local p = start(script([[
      local p <close> = io.popen("echo $PPID")
      local me = p:read("l")
      assert(me == tostring(pid()))
      moonport.log("info", "handle of " .. me)
      self.wfile:write(me, "\n")
    ]], PID .. "\nfunction H:setup() moonport.log('info', 'setup of ' .. pid()) end"
        .. "\nfunction H:finish() moonport.log('info', 'finish of ' .. pid()) end"))
    local seen = { [tostring(p.pid)] = true }
    for _ = 1, 10 do
      local c <close> = host.connect(p:url())
      local pid = c:line()
      assert.is_nil(seen[pid], "a process served twice")
      seen[pid] = true
      for _, step in ipairs { "setup", "handle", "finish" } do
        host.eventually(step, function() return said(p, step .. " of " .. pid) == 1 end)
      end
    end
    assert.are.equal(10, stop(p).requests)
  end)

  it("changes nothing for the next one", function()
    local p = start(script([[
      count = (count or 0) + 1
      string.upper = string.lower
      self.server.visits = (self.server.visits or 0) + 1
      self.wfile:write(count, " ", self.server.visits, " ", ("x"):upper(), "\n")
    ]]))
    for _ = 1, 5 do assert.are.equal("1 1 x", ask(p, "")) end
    stop(p)
  end)

  it("that blocks delays only its own client", function()
    local gate = host.gate()
    local p = start(obedient(gate))
    local blocked = greet(p:url(), 8, "block", "blocking")
    for i = 1, 10 do
      local began = sys.now()
      assert.are.equal("here " .. i, ask(p, "here " .. i))
      assert(sys.now() - began < host.SOON, "it had to wait")
    end
    for _, c in ipairs(blocked) do assert.is_false(has_answer(c)) end
    gate:pass(8)
    for _, c in ipairs(blocked) do assert.are.equal("let through", c:line()) end
    close_all(blocked)
    stop(p)
  end)

  it("sends the whole of a reply to a client that reads late", function()
    local p = start(script("self.wfile:write(('0123456789abcdef'):rep(1 << 18))"))
    local c <close> = host.connect(p:url(), { receive = 4096 })
    assert.is_true(sys.poll(c.fd, "r", host.LIMIT))
    p:kill("TERM")
    p:find("draining", true)
    assert.is_true(c:all() == ("0123456789abcdef"):rep(1 << 18))
    c:close()
    assert_ends(p)
  end)

  it("has its time limits", function()
    local p = start(obedient(), "request_timeout=0.3")
    local busy, idle = host.connect(p:url()), host.connect(p:url())
    local began = sys.now()
    repeat local reply = busy:ask("here") until reply ~= "here"
    assert.are.equal("", (idle:all()))
    local took = sys.now() - began
    assert(took >= 0.25 and took < host.SOON, took .. " s")
    busy:close()
    idle:close()
    assert.are.equal(2, #p:find("cancelled"))
    stop(p)
  end)

  it("has its idle_timeout", function()
    local p = start(obedient(), "idle_timeout=0.2")
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    assert.are.equal("", (c:all()))
    assert.are.equal("cancelled: idle_timeout", p:find("cancelled", true)[1].why)
    c:close()
    stop(p)
  end)

  it("says what it prints, once", function()
    local N = 20
    local p = start(script([[
      local line = self.rfile:readline():sub(1, -2)
      print("printed " .. line)
      io.write("written ", line, "\n")
      if line == "7" then error("on purpose") end
      if line == "8" then os.exit() end
    ]], 'io.write("by the parent\\n")'))
    for i = 1, N do
      local c <close> = host.connect(p:url())
      assert(c:send(i .. "\n"))
      assert.are.equal("", (c:all()))
    end
    until_childless(p)
    stop(p)
    local seen = {}
    for line in host.read(p.log_path):gmatch("[^\n]+") do seen[line] = (seen[line] or 0) + 1 end
    assert.are.equal(1, seen["by the parent"])
    for i = 1, N do
      assert.are.equal(1, seen["printed " .. i], i)
      assert.are.equal(1, seen["written " .. i], i)
    end
  end)
end)

describe("many forked requests", function()
  after_each(host.cleanup)

  -- torture list 39, shorter
  it("leave no zombie, and the status of other programs is theirs", function()
    local path = host.write(script([[
      local number = self.rfile:read("n", "l")
      local status = "-"
      if number % 8 == 0 then
        local p = io.popen("exit " .. number % 100)
        local ok, how, code = p:close()
        status = ("%s %s %d"):format(tostring(ok), how, code)
      end
      self.wfile:write(number, " ", status, "\n")
    ]], [[
      local ok, how, code = io.popen("sleep 0.02; exit 3"):close()
      moonport.log("info", ("loaded: %s %s %d"):format(tostring(ok), how, code))
    ]]))
    local p = host.start(path, { listen = "unix://" .. host.folder() .. "/s", args = { "--mixin=forking" } })
    local descriptors, memory = p:descriptors(), nil
    local watch = watcher(p)
    local h = hammer.new(p:url(), 8, {
      say = function(i) return i .. "\n", i end,
      heard = function(reply, i, message)
        local status = "-"
        if i % 8 == 0 then status = i % 100 == 0 and "true exit 0" or ("nil exit %d"):format(i % 100) end
        assert.are.equal(("%d %s\n"):format(i, status), reply, message)
      end,
    })
    local reloads, due = 0, 100
    h:run(scaled(2000), function(done)
      watch.look()
      memory = memory or done >= scaled(500) and p:memory() or nil
      if done < due then return end
      due = done + 100
      reloads = reloads + 1
      p:kill("HUP")
    end)
    h:finish()
    until_at_rest(p, descriptors)
    if not host.sanitizer() then
      assert(p:memory() - memory <= 4096, ("%d KiB more"):format(p:memory() - memory))
    end
    assert(reloads >= 4)
    -- what the parent started while children ended
    local loaded = p:find("script")
    assert(#loaded >= 2)
    for _, e in ipairs(loaded) do assert.are.equal("loaded: nil exit 3", e.message) end
    assert.are.equal(scaled(2000), stop(p).requests)
    assert.are.same({}, p:find("child died"))
  end)

  -- torture list 40; max_children is 40 by default
  it("are never more than max_children at a time, and none of 500 clients is lost", function()
    local p = start(script([[
      local number = self.rfile:readline()
      moonport.sleep(0.01)
      self.wfile:write(number)
    ]]))
    local watch, got = watcher(p), {}
    local h = hammer.new(p:url(), 500, {
      say = function(i) return i .. "\n", i end,
      heard = function(reply, i, message)
        assert.are.equal(i .. "\n", reply, message)
        assert.is_nil(got[i])
        got[i] = true
      end,
    })
    h:run(600, watch.look)
    h:finish()
    assert.are.equal(600, #got)
    assert(watch.most <= 40 and watch.most > 8, watch.most .. " children")
    until_childless(p, 1)
    assert.are.equal(600, stop(p).requests)
    assert.are.same({}, p:find("accepting paused"))
  end)

  -- torture list 40
  it("100 at once wait for 40 places, and each gets one", function()
    local p = start(obedient())
    local clients = {}
    for i = 1, 100 do
      clients[i] = host.connect(p:url())
      assert(clients[i]:send(i .. "\n"))
    end
    local waiting, served = clients, {}
    local function take()
      local rest = {}
      for _, c in ipairs(waiting) do
        if has_answer(c) then
          assert(c:line())
          served[#served + 1] = c
        else
          rest[#rest + 1] = c
        end
      end
      waiting = rest
      return #served
    end
    host.eventually("40 served", function() return take() >= 40 end)
    local cpu = sys.cpu(p.pid)
    assert.is_false(sys.poll(waiting[1].fd, "r", 0.3))
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy at the ceiling")
    assert.are.equal(40, take())
    assert.are.equal(40, #p:children())
    local total = 0
    while #served > 0 do
      for _, c in ipairs(served) do c:close() end
      total, served = total + #served, {}
      if #waiting > 0 then host.eventually("the next", function() return take() > 0 end) end
      assert(#p:children() <= 40)
    end
    assert.are.equal(100, total)
    stop(p)
  end)
end)

describe("a child that dies", function()
  after_each(host.cleanup)

  -- A sanitizer's own handlers stand aside, so that the signal is what it is.
  local function start_mortal(...)
    local args = { "--mixin=forking" }
    for _, option in ipairs { ... } do args[#args + 1] = "--option=" .. option end
    return host.start(host.write(obedient()), { args = args,
      env = { "ASAN_OPTIONS=" .. (os.getenv("ASAN_OPTIONS") or "") .. ":handle_segv=0:handle_abort=0" } })
  end

  -- torture list 41
  for signal, name in pairs { SEGV = "SIGSEGV", KILL = "SIGKILL", ABRT = "SIGABRT", ALRM = "SIGALRM" } do
    it("of " .. name .. " is named and counted, and the next client is served", function()
      local p = start_mortal()
      local descriptors = p:descriptors()
      local held <close> = host.connect(p:url())
      assert.are.equal("here", held:ask("here"))
      for i = 1, 3 do
        local c <close> = host.connect(p:url())
        local pid = tonumber(c:ask("pid"))
        local _, port = sys.name(c.fd)
        assert(c:send("sh kill -" .. signal .. " $PPID\n"))
        assert.are.equal("", (c:all()))
        local died = host.eventually("the death", function() return p:find("child died")[i] end)
        assert.are.same({ "error", "script", pid, name, "127.0.0.1:" .. port },
          { died.level, died.server, died.child, died.signal, died.client })
        assert(died.age_ms >= 0)
        assert.are.equal("served", ask(p, "served"))
        assert.are.equal(i, ask_stats(p).died)
      end
      assert.are.equal("still here", held:ask("still here"))
      held:close()
      until_at_rest(p, descriptors)
      stop(p)
      assert.are.equal(3, #p:find("child died"))
    end)
  end

  it("of an error is counted as one, and not as a death", function()
    local p = start_mortal()
    for i = 1, 3 do
      local c <close> = host.connect(p:url())
      assert(c:send("fail\n"))
      assert.are.equal("", (c:all()))
      c:close()
      until_childless(p)
      assert.are.equal(i, ask_stats(p).errors)
      local e = p:find("handler error")
      assert.are.equal(i, #e)
      assert.matches("script%.lua:%d+: on purpose", e[i].error)
      assert.is_truthy(e[i].traceback)
    end
    local last = stop(p)
    assert.are.equal(3, last.errors)
    assert.are.same({}, p:find("child died"))
  end)

  -- torture list 45
  it("by os.exit leaves the path, the ready file and the log as they were", function()
    local folder = host.folder()
    local once = folder .. "/once"
    local p = host.start(host.write(obedient() .. ([[,
      (function() -- the parent has this in its buffers when it forks
        kept = io.open(%q, "w")
        kept:write("once\n")
        io.write("said once\n")
        io.stderr:write("told once\n")
      end)()]]):format(once)), { listen = "unix://" .. folder .. "/s", args = { "--mixin=forking" } })
    local ready = p.log_path:gsub("log$", "ready")
    local before, inode = host.read(ready), sys.stat(folder .. "/s").ino
    for i = 0, 9 do
      local c <close> = host.connect(p:url())
      assert(c:send("exit " .. i .. "\n"))
      assert.are.equal("", (c:all()))
      assert.are.equal("served", ask(p, "served"))
    end
    until_childless(p, 1)
    assert.are.equal(inode, sys.stat(folder .. "/s").ino)
    assert.are.equal(before, host.read(ready))
    stop(p)
    assert.are.equal("once\n", host.read(once))
    local lines, log = {}, host.read(p.log_path)
    for line in log:gmatch("[^\n]+") do
      assert.is_nil(lines[line], "twice in the log: " .. line)
      lines[line] = true
    end
    assert.is_true(lines["said once"] and lines["told once"], log)
    for _, event in ipairs { "listening", "draining", "stopped" } do assert.are.equal(1, #p:find(event)) end
    assert.are.same({}, p:find("child died"))
  end)

  it("with max_requests_per_child in the middle of a request is replaced and counted", function()
    local p = start_mortal("max_requests_per_child=100", "max_children=3")
    host.eventually("three children", function() return #p:children() == 3 end)
    for i = 1, 4 do
      local c <close> = host.connect(p:url())
      local pid = c:ask("pid")
      assert(c:send("sh kill -KILL $PPID\n"))
      assert.are.equal("", (c:all()))
      local died = host.eventually("the death", function() return p:find("child died")[i] end)
      assert.are.same({ tonumber(pid), "SIGKILL" }, { died.child, died.signal })
      host.eventually("three children again", function()
        local children = p:children()
        for _, child in ipairs(children) do assert.are_not.equal(tonumber(pid), child.pid) end
        return #children == 3
      end)
      assert.are.equal("served", ask(p, "served"))
    end
    assert.are.equal(4, ask_stats(p).died)
    stop(p)
  end)
end)

describe("without children to be had", function()
  after_each(host.cleanup)

  -- torture list 42
  for _, name in ipairs { "EAGAIN", "ENOMEM" } do
    it("the client is closed, accepting pauses, and the next one is served, " .. name, function()
      local began = sys.now()
      local p = host.start(host.write(obedient()), {
        args = { "--mixin=forking" }, inject = { "clone,fork,vfork:error=" .. name .. ":when=1..3" },
      })
      local descriptors = p:descriptors()
      for _ = 1, 3 do
        local c <close> = host.connect(p:url())
        c:send("hello\n")
        assert.are.equal("", (c:all()))
      end
      local served <close> = host.connect(p:url())
      assert.are.equal("hello", served:ask("hello"))
      assert(sys.now() - began >= 0.2, "it did not pause")
      assert.are.equal(3, stats(served).accept_errors)
      local why = name == "EAGAIN" and "Resource temporarily unavailable" or "Cannot allocate memory"
      local paused = p:find("accepting paused")
      assert.are.same({ "warn", why }, { paused[1].level, paused[1].why })
      assert(#paused <= sys.now() - began + 1, #paused .. " lines")
      served:close()
      until_at_rest(p, descriptors)
      stop(p)
    end)
  end

  it("pre-forked ones are tried again", function()
    local began = sys.now()
    local p = host.start(host.write(obedient()), {
      args = { "--mixin=forking", "--option=max_requests_per_child=5", "--option=max_children=3" },
      inject = { "clone,fork,vfork:error=EAGAIN:when=2..4" },
    })
    host.eventually("three children", function() return #p:children() == 3 end)
    assert(sys.now() - began >= 0.2, "it did not pause")
    for i = 1, 12 do assert.are.equal("here " .. i, ask(p, "here " .. i)) end
    stop(p)
  end)
end)

describe("with few descriptors", function()
  after_each(host.cleanup)

  -- torture list 1
  it("clients wait, and all are served", function()
    local p = host.start(host.write(ECHO), { nofile = 24, args = { "--mixin=forking" } })
    local descriptors, clients, left = p:descriptors(), {}, 100
    for i = 1, left do
      clients[i] = host.connect(p:url())
      assert(clients[i]:send(i .. "\n"))
    end
    host.eventually("all served", function()
      for i, c in pairs(clients) do
        if has_answer(c) then
          assert.are.equal(tostring(i), c:line())
          c:close()
          clients[i], left = nil, left - 1
        end
      end
      return left == 0
    end)
    until_at_rest(p, descriptors)
    assert.are.equal(100, stop(p).requests)
  end)
end)

describe("what a child inherits", function()
  after_each(host.cleanup)

  -- What a process' descriptors above 2 are, counted: sockets by their inode.
  local function descriptors_of(pid)
    local kinds, sockets = {}, {}
    for _, fd in ipairs(assert(sys.list("/proc/" .. pid .. "/fd"))) do
      local to = sys.readlink("/proc/" .. pid .. "/fd/" .. fd)
      if to and tonumber(fd) > 2 then
        local inode = to:match("^socket:%[(%d+)%]$")
        if inode then sockets[inode] = true end
        local kind = to:match("^anon_inode:%[?([%w_]+)") or to:match("^(%w+):") or to
        kinds[kind] = (kinds[kind] or 0) + 1
      end
    end
    return kinds, sockets
  end

  -- Starts the obedient handler with `url` under forking, an echo beside it, and holds connections to both.
  local function start_crowded(url, ...)
    local args = { "--listen=" .. url, "--mixin=forking" }
    for _, option in ipairs { ... } do args[#args + 1] = "--option=" .. option end
    for _, a in ipairs { "scripts/echo.lua", "--listen=tcp://127.0.0.1:0" } do args[#args + 1] = a end
    local p = host.start(host.write(obedient()), { listen = "", args = args })
    return p, greet(p:url("echo"), 5)
  end

  -- torture list 43
  for _, url in ipairs { "tcp://127.0.0.1:0", "unix://%s/s" } do
    it("is its connection and nothing else: " .. url:match("%w+"), function()
      local p, beside = start_crowded(url:format(host.folder()))
      local clients = greet(p:url("script"), 4)
      local seen = {}
      for _, c in ipairs(clients) do
        local pid = c:ask("pid")
        local kinds, sockets = descriptors_of(pid)
        assert.are.equal(1, kinds.socket, "sockets")
        assert.is_true((kinds.eventpoll or 0) <= 1 and (kinds.pipe or 0) <= 2)
        kinds.socket, kinds.eventpoll, kinds.pipe = nil, nil, nil
        assert.are.same({}, kinds)
        local inode = next(sockets)
        assert.is_nil(seen[inode], "the connection of another")
        seen[inode] = true
        host.eventually("the parent has closed its copy", function() -- and it is none that the parent keeps
          local _, parents = descriptors_of(p.pid)
          return not parents[inode]
        end, 1)
      end
      for i, c in ipairs(beside) do assert.are.equal("still " .. i, c:ask("still " .. i)) end
      close_all(clients)
      close_all(beside)
      stop(p)
    end)
  end

  it("is its connection and the listener, with max_requests_per_child", function()
    local p, beside = start_crowded("tcp://127.0.0.1:0", "max_requests_per_child=3", "max_children=4")
    local clients = greet(p:url("script"), 4)
    for _, c in ipairs(clients) do
      local kinds = descriptors_of(c:ask("pid"))
      assert.are.equal(2, kinds.socket, "sockets")
      assert.is_true((kinds.eventpoll or 0) <= 1 and (kinds.pipe or 0) <= 2)
      kinds.socket, kinds.eventpoll, kinds.pipe = nil, nil, nil
      assert.are.same({}, kinds)
    end
    close_all(clients)
    close_all(beside)
    stop(p)
  end)

  it("is not passed on to the programs that it runs", function()
    for _, option in ipairs { "max_requests_per_child=1", "max_requests_per_child=3" } do
      local p, beside = start_crowded("tcp://127.0.0.1:0", option)
      local c <close> = host.connect(p:url("script"))
      assert.are.equal("0 1 2 ", c:ask("sh ls /proc/$$/fd; true"))
      -- signals reach them as they reach what the spec runs; SIGINT and SIGQUIT, which a shell has its
      -- background jobs ignore, and SIGHUP, as nohup does, are the children's to answer, and default again in
      -- what they run
      local masks = "cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'"
      local function answered(text)
        return (text:gsub("(SigIgn:%s+)(%x+)", function(name, mask)
          return name .. ("%016x"):format(tonumber(mask, 16) & ~7)
        end))
      end
      local mine <close> = io.popen(masks)
      assert.are.equal(answered((mine:read("a"):gsub("\n", " "))), answered(c:ask("sh " .. masks)))
      c:close()
      close_all(beside)
      stop(p)
    end
  end)

  it("is not the parent's place on a terminal's or a service's list: its own signals", function()
    local p = start(obedient())
    local c <close> = host.connect(p:url())
    local pid = tonumber(c:ask("pid"))
    for _, signal in ipairs { "INT", "HUP", "USR1", "PIPE" } do
      assert(sys.kill(pid, signal))
      assert.are.equal("after " .. signal, c:ask("after " .. signal))
    end
    assert.are.same({}, p:find("draining"))
    assert.are.same({}, p:find("reloaded"))
    assert.are.same({}, p:find("tasks"))
    -- TERM cancels it: `finish` runs
    assert(sys.kill(pid, "TERM"))
    assert.are.equal("", (c:all()))
    c:close()
    until_childless(p)
    assert.are.equal(1, said(p, "finish of " .. pid))
    assert.are.equal(1, #p:find("cancelled"))
    assert.are.same({}, p:find("child died"))
    assert.are.equal("served", ask(p, "served"))
    stop(p)
  end)
end)

describe("threads and forks in one process", function()
  after_each(host.cleanup)

  -- torture list 44
  it("are refused in one sentence", function()
    local path = host.write(ECHO)
    for _, order in ipairs { { "threading", "forking" }, { "forking", "threading" } } do
      local code, out, err = host.run { "serve", "scripts/echo.lua", "--listen=tcp://127.0.0.1:0",
        "--mixin=" .. order[1], path, "--listen=tcp://127.0.0.1:0", "--mixin=" .. order[2] }
      assert.are.same({ 100, "" }, { code, out })
      assert.matches("^moonport: [^\n]*fork[^\n]*threads[^\n]*\n$", err)
    end
  end)
end)

describe("stopping with children", function()
  after_each(host.cleanup)

  -- torture list 46
  it("TERM: those that do not end are cancelled at the deadline, and none is left", function()
    local p = start(obedient(), "drain_timeout=0.3", "cancel_grace=2")
    local clients = greet(p:url(), 40)
    assert.are.equal(40, #p:children())
    local began = sys.now()
    p:kill("TERM")
    for _, c in ipairs(clients) do
      assert.are.equal("", (c:all()))
      c:close()
    end
    assert_ends(p)
    local took = sys.now() - began
    assert(took >= 0.25 and took < host.SOON, took .. " s")
    assert.are.equal(40, #p:find("cancelled"))
    assert.are.equal(40, #p:find("script")) -- finish
    assert.are.equal(40, #p:find("still running"))
    assert.are.same({}, p:find("child died"))
  end)

  it("TERM: those that end in time are left to it", function()
    local p = start(obedient(), "drain_timeout=60")
    local clients = greet(p:url(), 10)
    p:kill("TERM")
    p:find("draining", true)
    for i, c in ipairs(clients) do
      assert.are.equal("last " .. i, c:ask("last " .. i))
      c:finish()
      assert.are.equal("", (c:all()))
      c:close()
    end
    assert_ends(p)
    assert.are.same({}, p:find("cancelled"))
  end)

  it("TERM: those that block in C are killed after their grace", function()
    local gate = host.gate()
    local p = start(obedient(gate), "drain_timeout=0.2", "cancel_grace=0.2")
    local blocked = greet(p:url(), 10, "block", "blocking")
    local waiting = greet(p:url(), 10)
    local began = sys.now()
    p:kill("TERM")
    assert_ends(p)
    local took = sys.now() - began
    assert(took >= 0.35 and took < host.SOON, took .. " s")
    assert.are.equal(10, #p:find("cancelled"))
    assert.are.equal(10, #p:find("child died"))
    close_all(blocked)
    close_all(waiting)
  end)

  it("a second TERM ends them at once", function()
    local gate = host.gate()
    local p = start(obedient(gate), "drain_timeout=60", "cancel_grace=60")
    local blocked = greet(p:url(), 5, "block", "blocking")
    local waiting = greet(p:url(), 35)
    p:kill("TERM")
    p:find("draining", true)
    assert.are.equal("here", waiting[1]:ask("here"))
    local began = sys.now()
    p:kill("TERM")
    assert_ends(p)
    assert(sys.now() - began < host.SOON, "it took too long")
    close_all(blocked)
    close_all(waiting)
  end)

  -- torture list 46
  for _, option in ipairs { "max_requests_per_child=1", "max_requests_per_child=9" } do
    it("KILL: they end as well, and clean up, " .. option, function()
      local gate = host.gate()
      local p = start(obedient(gate), "cancel_grace=0.2", "max_children=40", option)
      local blocked = greet(p:url(), 3, "block", "blocking")
      local clients = greet(p:url(), 37)
      assert.are.equal(40, #p:children())
      p:kill("KILL")
      assert.are.equal(-9, p:wait())
      p:gone(4) -- the grace is rounded up
      assert.are.equal(37, #p:find("script"), host.read(p.log_path)) -- finish
      for _, c in ipairs(clients) do
        assert.are.equal("", (c:all()))
        c:close()
      end
      close_all(blocked)
    end)
  end

  it("block_on_close=false: they are cancelled at once", function()
    local p = start(obedient(), "block_on_close=false", "drain_timeout=60")
    local clients = greet(p:url(), 10)
    local began = sys.now()
    p:kill("TERM")
    assert_ends(p)
    assert(sys.now() - began < host.SOON, "it took too long")
    assert.are.equal(10, #p:find("cancelled"))
    assert.are.equal(10, #p:find("script")) -- finish
    close_all(clients)
  end)

  it("shutdown() in a child stops the program", function()
    local p = start(obedient(), "drain_timeout=60")
    local other = greet(p:url(), 1)[1]
    assert.are.equal("shut", ask(p, "shutdown"))
    host.eventually("connections refused", function()
      local ok, c = pcall(host.connect, p:url())
      if ok then c:close() end
      return not ok
    end)
    assert.are.equal("the last", other:ask("the last"))
    other:close()
    assert_ends(p)
  end)
end)

describe("max_requests_per_child", function()
  after_each(host.cleanup)

  it("is how many each child serves; it is replaced then", function()
    local MAX, CHILDREN = 5, 3
    local p = start(script("self.rfile:readline() self.wfile:write(me(), '\\n')",
      PID .. "\nlocal mine\nlocal function me() mine = mine or pid() return mine end"),
      "max_requests_per_child=" .. MAX, "max_children=" .. CHILDREN)
    local watch, served = watcher(p), {}
    local h = hammer.new(p:url(), 6, {
      say = function() return "?\n" end,
      heard = function(reply, _, message)
        local pid = assert(tonumber(reply), message)
        served[pid] = (served[pid] or 0) + 1
      end,
    })
    h:run(200, watch.look)
    h:finish()
    local children, most = 0, 0
    for pid, n in pairs(served) do
      assert.are_not.equal(p.pid, pid)
      children, most = children + 1, math.max(most, n)
    end
    assert.are.equal(MAX, most)
    assert(children >= 200 // MAX, children .. " children for 200 requests")
    assert(watch.most <= CHILDREN, watch.most .. " children at once")
    host.eventually("all places taken", function() return #p:children() == CHILDREN end)
    assert.are.equal(200, stop(p).requests)
    assert.are.same({}, p:find("child died"))
  end)

  it("keeps max_children ready, which serve one request at a time each", function()
    local p = start(obedient(), "max_requests_per_child=10", "max_children=4")
    host.eventually("four children", function() return #p:children() == 4 end)
    local before = {}
    for _, child in ipairs(p:children()) do before[child.pid] = true end
    local cpu = sys.cpu(p.pid)
    local clients = greet(p:url(), 4)
    for _, c in ipairs(clients) do assert.is_true(before[tonumber(c:ask("pid"))]) end
    local late <close> = host.connect(p:url())
    assert(late:send("late\n"))
    assert.is_false(sys.poll(late.fd, "r", 0.5))
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy at the ceiling")
    local child = tonumber(clients[1]:ask("pid"))
    clients[1]:close()
    assert.are.equal("late", late:line())
    assert.are.equal(child, tonumber(late:ask("pid")))
    late:close()
    close_all(clients)
    stop(p)
  end)

  -- Neither the connection nor, after it, the listener.
  it("registers nothing with the kernel for a request", function()
    local path = host.folder() .. "/calls"
    local p = host.start(host.write(ECHO), {
      args = { "--mixin=forking", "--option=max_requests_per_child=1000", "--option=max_children=1" },
      env = { host.traced() },
      wrap = { "strace", "-f", "-qq", "-e", "trace=epoll_ctl", "-o", path },
    })
    local function count()
      return select(2, host.read(path):gsub("epoll_ctl%(", ""))
    end
    assert.are.equal("first", ask(p, "first"))
    local before = count()
    for i = 1, 20 do assert.are.equal("line " .. i, ask(p, "line " .. i)) end
    assert(count() - before <= 5, count() - before .. " calls for 20 requests")
    stop(p)
  end)

  it("leaves idle children asleep", function()
    local p = start(obedient(), "max_requests_per_child=10", "max_children=4")
    assert.are.equal("here", ask(p, "here"))
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    local pids, before = { p.pid }, 0
    for _, child in ipairs(p:children()) do pids[#pids + 1] = child.pid end
    for _, pid in ipairs(pids) do before = before + sys.cpu(pid) end
    assert.are.same({ nil, "timeout", 0, n = 3 }, table.pack(c:some(0.5)))
    local after = 0
    for _, pid in ipairs(pids) do after = after + sys.cpu(pid) end
    assert(after - before <= 0.05, "busy")
    c:close()
    stop(p)
  end)

  it("drains: requests under way may end, idle children end at once", function()
    local p = start(obedient(), "max_requests_per_child=10", "max_children=6", "drain_timeout=60")
    local clients = greet(p:url(), 3)
    p:kill("TERM")
    p:find("draining", true)
    host.eventually("idle children gone", function() return #p:children() == 3 end)
    for i, c in ipairs(clients) do
      assert.are.equal("last " .. i, c:ask("last " .. i))
      c:close()
    end
    assert.are.equal(3, assert_ends(p).requests)
    assert.are.same({}, p:find("cancelled"))
  end)

  it("drains: those whom the kernel had let in have their turn, also when no child is there to accept", function()
    local p = start(obedient(), "max_requests_per_child=2", "max_children=3", "drain_timeout=60")
    host.eventually("three children", function() return #p:children() == 3 end)
    p:kill("STOP") -- so that none is replaced
    for i = 1, 6 do assert.are.equal("here " .. i, ask(p, "here " .. i)) end
    host.eventually("no child alive", function()
      for _, child in ipairs(p:children()) do
        if child.state ~= "Z" then return false end
      end
      return true
    end)
    for _, c in ipairs(common.late(p, 3, "late\n")) do
      assert.are.equal("late\n", c:all())
      c:close()
    end
    assert.are.equal(9, assert_ends(p).requests)
  end)

  for _, kind in ipairs { "tcp", "unix" } do
    it("drains: nobody is let in any more by a child that is blocked in C, " .. kind, function()
      local gate = host.gate()
      local url = kind == "tcp" and "tcp://127.0.0.1:0" or "unix://@moonport-" .. host.folder():match("[^/]+$")
      local p = host.start(host.write(obedient(gate)), { listen = url, args = {
        "--mixin=forking", "-o", "max_requests_per_child=10", "-o", "max_children=2", "-o", "drain_timeout=60",
      } })
      local blocked <close> = host.connect(p:url())
      assert.are.equal("blocking", blocked:ask("block"))
      host.eventually("both children", function() return #p:children() == 2 end)
      p:kill("TERM")
      host.eventually("the idle child gone", function() return #p:children() == 1 end)
      assert.has_error(function() host.connect(p:url()):close() end)
      gate:pass()
      assert.are.equal("let through", blocked:line())
      blocked:close()
      assert_ends(p)
    end)
  end

  it("cancels at the deadline", function()
    local p = start(obedient(), "max_requests_per_child=10", "max_children=6", "drain_timeout=0.2")
    local clients = greet(p:url(), 3)
    p:kill("TERM")
    assert_ends(p)
    assert.are.equal(3, #p:find("cancelled"))
    assert.are.equal(3, #p:find("script")) -- finish
    close_all(clients)
  end)

  it("stops accepting at once, also when a request is always there", function()
    local p = start(script([[
      for line in self.rfile:lines("L") do
        local began = os.clock()
        repeat until os.clock() - began > 0.005
        self.wfile:write(line)
      end]]), "max_requests_per_child=1000000", "max_children=2", "drain_timeout=60")
    local crowd = common.crowd(p:url(), 20, "here\n")
    host.eventually("answers", function() return crowd:is_refused() or crowd.answered > 100 end)
    p:kill("TERM")
    host.eventually("connections refused", function() return crowd:is_refused() end, host.SOON)
    crowd:close()
    assert_ends(p)
    assert.are.same({}, p:find("child died"))
  end)

  it("counts for the server: stats", function()
    local p = start(obedient(), "max_requests_per_child=4", "max_children=2")
    for i = 1, 10 do assert.are.equal("here " .. i, ask(p, "here " .. i)) end
    local c <close> = host.connect(p:url())
    assert.are.equal(11, stats(c).requests)
    c:close()
    assert.are.equal(11, stop(p).requests)
  end)
end)

-- A script whose answer is its generation's word, with what it heard; then it stays.
local function version(n)
  return script(("for line in self.rfile:lines() do self.wfile:write('v%d ', line, '\\n') end"):format(n))
end

for _, options in ipairs { { "max_requests_per_child=1" }, { "max_requests_per_child=7", "max_children=6" } } do
  describe("a reload with " .. options[1], function()
    after_each(host.cleanup)

    local function reload(p, path, text)
      local n = #p:find("reloaded")
      host.write(text, path)
      p:kill("HUP")
      host.eventually("a reload in:\n" .. host.read(p.log_path), function() return #p:find("reloaded") == n + 1 end)
    end

    local function start_version(path)
      local args = { "--mixin=forking" }
      for _, option in ipairs(options) do args[#args + 1] = "--option=" .. option end
      return host.start(path, { args = args })
    end

    it("gives new requests new code, and old ones keep theirs", function()
      local path = host.write(version(1))
      local p = start_version(path)
      local old = greet(p:url(), 2, "a", "v1 a")
      reload(p, path, version(2))
      local new = greet(p:url(), 3, "b", "v2 b")
      for _, c in ipairs(old) do assert.are.equal("v1 c", c:ask("c")) end
      reload(p, path, version(3))
      for _, c in ipairs(old) do
        assert.are.equal("v1 d", c:ask("d"))
        c:close()
      end
      for _, c in ipairs(new) do
        assert.are.equal("v2 e", c:ask("e"))
        c:close()
      end
      close_all(greet(p:url(), 5, "f", "v3 f"))
      stop(p)
    end)

    it("that changes max_children loses nobody", function()
      local function text(n) return (version(1):gsub("return H%s*$", "H.max_children = " .. n .. "\nreturn H")) end
      local path = host.write(text(2))
      local p = host.start(path, { args = { "--mixin=forking", "--option=" .. options[1] } })
      for _, n in ipairs { 6, 1, 4 } do
        reload(p, path, text(n))
        local clients = {}
        for i = 1, 8 do
          clients[i] = host.connect(p:url())
          assert(clients[i]:send(i .. "\n"))
        end
        for i, c in ipairs(clients) do
          assert.are.equal("v1 " .. i, c:line())
          c:close()
        end
      end
      stop(p)
      assert.are.same({}, p:find("accepting paused"))
    end)

    it("that fails leaves the old code everywhere", function()
      local path = host.write(version(1))
      local p = start_version(path)
      local old = greet(p:url(), 1, "a", "v1 a")[1]
      host.write("local H = {}\nfunction H:handle(\n", path)
      p:kill("HUP")
      assert.matches("script%.lua:%d+: ", p:find("reload failed", true)[1].why)
      for _ = 1, 10 do close_all(greet(p:url(), 2, "b", "v1 b")) end
      assert.are.equal("v1 c", old:ask("c"))
      old:close()
      stop(p)
    end)

    it("fails no request under load", function()
      local path = host.write(version(1))
      local p = start_version(path)
      local current, asked = 1, 1
      local h = hammer.new(p:url(), 8, {
        say = function(i) return i .. "\n", { number = i, at_least = current } end,
        heard = function(reply, tag, message)
          local v, number = reply:match("^v(%d+) (%d+)\n$")
          assert.are.equal(tostring(tag.number), number, message)
          assert(tonumber(v) >= tag.at_least and tonumber(v) <= asked, reply .. " but " .. tag.at_least)
        end,
      })
      local begin = h.begin
      function h:begin() -- it sends all at once and ends its side
        begin(self)
        for _, one in pairs(self.open) do one.client:finish() end
      end
      local due, wanted = 40, 0
      local function replace(done)
        if asked > current and #p:find("reloaded") >= asked - 1 then current = asked end
        if done < due or asked > current then return end
        due = done + 40
        asked = asked + 1
        local fresh = path .. ".new"
        host.write(version(asked), fresh)
        assert(os.rename(fresh, path))
        p:kill("HUP")
      end
      repeat -- until there were reloads enough, however long each takes here
        wanted = wanted + scaled(600)
        h:run(scaled(600), replace)
      until current >= 3 or wanted >= 20 * scaled(600)
      h:finish()
      assert(current >= 3, current .. " reloads")
      assert.are.equal(wanted, stop(p).requests)
      assert.are.same({}, p:find("child died"))
    end)
  end)
end

describe("stats() in a child", function()
  after_each(host.cleanup)

  it("knows what ended children did, and itself", function()
    local p = start(obedient())
    assert.are.equal(1, ask_stats(p).requests)
    for i = 1, 5 do assert.are.equal(("x"):rep(1000), ask(p, ("x"):rep(1000)), i) end
    host.connect(p:url()):close()
    host.eventually("seven ended", function() return #p:find("script") == 7 end)
    local c <close> = host.connect(p:url())
    local s = stats(c)
    assert.are.equal(8, s.requests)
    assert.are.equal(1, s.generation)
    assert(s.bytes_in >= 5 * 1001 and s.bytes_in < 10000, s.bytes_in .. " bytes in")
    assert(s.bytes_out >= 5 * 1001 and s.bytes_out < 20000, s.bytes_out .. " bytes out")
    c:close()
    local last = stop(p)
    assert.are.same({ 8, 0 }, { last.requests, last.errors })
  end)

  it("knows of those that run", function()
    local p = start(obedient())
    local clients = greet(p:url(), 6)
    local s = stats(clients[6])
    assert.are.equal(6, s.requests)
    assert.are.equal(6, s.active)
    close_all(clients)
    stop(p)
  end)
end)

describe("SIGUSR1", function()
  after_each(host.cleanup)

  it("logs the children with their clients", function()
    local p = start(obedient())
    local clients = greet(p:url(), 3)
    p:kill("USR1")
    assert.are.equal(3, p:find("tasks", true)[1].count)
    -- Each is told by the parent, and by itself, with its traceback.
    local tasks, own = {}, {}
    host.eventually("six events", function()
      tasks, own = {}, {}
      for _, e in ipairs(p:find("task")) do table.insert(e.child and tasks or own, e) end
      return #tasks == 3 and #own == 3
    end)
    for _, e in ipairs(own) do
      assert.are.equal("waiting", e.state)
      assert.matches("script%.lua:%d+: in function", e.traceback)
    end
    local by_client = {}
    for _, e in ipairs(tasks) do by_client[e.client] = e end
    for _, c in ipairs(clients) do
      local _, port = sys.name(c.fd)
      local e = assert(by_client["127.0.0.1:" .. port])
      assert.are.equal(tonumber(c:ask("pid")), e.child)
      assert.are.equal("script", e.server)
      assert(e.age_ms >= 0)
    end
    close_all(clients)
    stop(p)
  end)
end)

describe("forked datagrams", function()
  after_each(host.cleanup)

  local kinds = {
    { name = "UDP", url = "udp://127.0.0.1:0" },
    { name = "a Unix socket", url = "unixgram://%s/s", bind = "unixgram://%s/c" },
  }
  for _, kind in ipairs(kinds) do
    for _, option in ipairs { "max_requests_per_child=1", "max_requests_per_child=5" } do
      it("over " .. kind.name .. " get a reply each, to their own sender, " .. option, function()
        local p = host.start(host.write(script([[
          if self.packet == "stats" then
            self.wfile:write(self.server:stats().requests)
          elseif self.packet == "die" then
            os.execute("kill -KILL $PPID")
          else
            if #self.packet % 2 == 0 then moonport.sleep(0.005) end
            self.wfile:write("re ", self.packet)
          end
        ]])), { listen = kind.url:format(host.folder()), args = { "--mixin=forking", "--option=" .. option } })
        local CLIENTS, ROUNDS = 8, 5
        local clients, watch = {}, watcher(p)
        for i = 1, CLIENTS do
          clients[i] = host.connect(p:url(), kind.bind and { bind = kind.bind:format(host.folder()) })
        end
        for round = 1, ROUNDS do
          for i, c in ipairs(clients) do
            assert(c:send(("%d/%d %s"):format(i, round, ("x"):rep(i))))
            assert(c:send(("%d/%d again"):format(i, round)))
          end
          for i, c in ipairs(clients) do
            local seen = {}
            for _ = 1, 2 do seen[assert(c:some())] = true end
            assert.is_true(seen[("re %d/%d %s"):format(i, round, ("x"):rep(i))])
            assert.is_true(seen[("re %d/%d again"):format(i, round)])
          end
          watch.look()
        end
        assert(watch.most <= 40)
        if option:find("=1$") then until_childless(p, 1) end
        assert(clients[1]:send("stats"))
        assert.are.equal(tostring(CLIENTS * ROUNDS * 2 + 1), (clients[1]:some()))
        assert(clients[1]:send("die"))
        assert.are.equal("SIGKILL", p:find("child died", true)[1].signal)
        assert(clients[1]:send("alive"))
        assert.are.equal("re alive", (clients[1]:some()))
        for _, c in ipairs(clients) do assert.is_false(has_answer(c)) end
        close_all(clients)
        assert.are.equal(CLIENTS * ROUNDS * 2 + 3, stop(p).requests)
      end)
    end
  end

  it("that are under way when it stops are answered", function()
    for _, option in ipairs { "max_requests_per_child=1", "max_requests_per_child=5" } do
      local p = host.start(host.write(script([[
        moonport.log("info", "begun")
        moonport.sleep(0.3)
        self.wfile:write("late ", self.packet)
      ]])), { listen = "udp://127.0.0.1:0", args = { "--mixin=forking", "--option=" .. option } })
      local c <close> = host.connect(p:url())
      assert(c:send("answer"))
      p:find("script", true)
      p:kill("TERM")
      assert.are.equal("late answer", (c:some()))
      c:close()
      assert_ends(p)
    end
  end)
end)
