--- `--workers`: a master over processes that share the listeners.

local hammer = require("support.hammer")
local host = require("support.host")
local common = require("support.mixin")
local sys = host.sys

local script, stats, close_all = common.script, common.stats, common.close_all

local MIXINS = { "async", "threading", "forking", "sync" }

-- A handler that obeys; `worker()` is the pid of the process that the master has started.
local function obedient(gate)
  return script([[
    local function worker()
      local f <close> = io.open("/proc/self/stat")
      local pid, parent = f:read("a"):match("^(%d+) .*%) %a (%d+)")
      return self.server.class:find("^Forking") and parent or pid
    end
    for line in self.rfile:lines() do
      if line == "worker" then
        self.wfile:write(worker(), "\n")
      elseif line == "random" then
        self.wfile:write(tostring(math.random(1 << 40)), "\n")
      elseif line == "stats" then
        local parts = {}
        for name, n in pairs(self.server:stats()) do parts[#parts + 1] = name .. "=" .. n end
        self.wfile:write(table.concat(parts, " "), "\n")
      elseif line == "shutdown" then
        self.server:shutdown()
        self.wfile:write("shut\n")
      elseif line == "block" then
        self.wfile:write("blocking\n"):flush()
        gate()
      else
        self.wfile:write(line, "\n")
      end
    end]], gate and gate:code() or "")
end

local function start(text, options)
  options = options or {}
  local args = { "--workers=" .. (options.workers or 2), "--mixin=" .. (options.mixin or "async") }
  for _, a in ipairs(options.args or {}) do args[#args + 1] = a end
  return host.start(host.write(text), { args = args, listen = options.listen, stdin = options.stdin,
    inject = options.inject })
end

-- The pids of the master's children that live.
local function workers(p)
  local out = {}
  for _, child in ipairs(p:children()) do
    if child.state ~= "Z" then out[#out + 1] = child.pid end
  end
  table.sort(out)
  return out
end

-- How many processes of the program have a parent that is neither the master nor a worker.
local function orphans(p)
  local parents, n = { [p.pid] = true }, 0
  for _, pid in ipairs(workers(p)) do parents[pid] = true end
  for _, pid in ipairs(p:processes()) do
    local parent = (host.read("/proc/" .. pid .. "/stat") or ""):match("%) %a (%d+)")
    if pid ~= p.pid and parent and not parents[tonumber(parent)] then n = n + 1 end
  end
  return n
end

local function ask(p, word, name)
  local c <close> = host.connect(p:url(name))
  return c:ask(word)
end

-- A client of each worker, and the worker's pid: { [pid] = client }.
local function one_of_each(p, n)
  local by_worker, found, spare = {}, 0, {}
  host.eventually("a client of each worker", function()
    local c = host.connect(p:url())
    local pid = math.tointeger(c:ask("worker"))
    if by_worker[pid] then
      spare[#spare + 1] = c
    else
      by_worker[pid] = c
      found = found + 1
    end
    return found == n
  end)
  close_all(spare)
  return by_worker
end

local function close_each(by_worker)
  for _, c in pairs(by_worker) do c:close() end
end

-- Waits until the figures, as a new client hears them, are as they should be.
local function until_stats(p, what, condition)
  local seen
  local ok, message = pcall(host.eventually, what, function()
    local c <close> = host.connect(p:url())
    local ok, now = pcall(stats, c) -- it may be one of those who are lost
    seen = ok and now or seen
    return ok and condition(now)
  end)
  if ok then return seen end
  local parts = {}
  for name, n in pairs(seen or {}) do parts[#parts + 1] = name .. "=" .. n end
  error(message .. "\n" .. table.concat(parts, " ") .. "\n" .. host.read(p.log_path), 2)
end

-- n workers accept, after so many have died.
local function until_full(p, n, died)
  local s = until_stats(p, n .. " workers", function(s) return s.workers == n and s.workers_died == died end)
  assert.are.equal(n, #workers(p))
  return s
end

describe("workers", function()
  after_each(host.cleanup)

  for _, mixin in ipairs(MIXINS) do
    it("serve streams with the " .. mixin .. " mixin", function()
      local p = start(obedient(), { mixin = mixin, listen = {
        "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s", "tcp://[::1]:0" } })
      local pids = workers(p)
      assert.are.equal(2, #pids)
      assert.are.equal(p.pid, p.ready.pid)
      for name in pairs(p.ready.servers) do
        local seen = {}
        host.eventually("both workers on " .. name, function()
          seen[math.tointeger(ask(p, "worker", name))] = true
          return seen[pids[1]] and seen[pids[2]]
        end)
        seen[pids[1]], seen[pids[2]] = nil, nil
        assert.is_nil(next(seen))
      end
      assert.are.equal(3, #p:find("listening"))
      local started = p:find("worker started")
      assert.are.equal(2, #started)
      for _, e in ipairs(started) do assert.is_true(e.pid == pids[1] or e.pid == pids[2]) end
      p:stop()
    end)

    it("serve datagrams with the " .. mixin .. " mixin", function()
      local p = start('function handle(self) self.wfile:write(self.packet:upper()) end', { mixin = mixin,
        listen = { "udp://127.0.0.1:0", "unixgram://" .. host.folder() .. "/d" } })
      for name, server in pairs(p.ready.servers) do
        local from = server.path and { bind = "unixgram://" .. host.folder() .. "/c" } or { bind = "udp://127.0.0.1:0" }
        local c <close> = host.connect(p:url(name), from)
        for i = 1, 20 do
          assert(c:send("datagram " .. i))
          assert.are.equal("DATAGRAM " .. i, c:some())
        end
      end
      assert.are.equal(40, p:stop().requests)
    end)

    it("add up what they count with the " .. mixin .. " mixin", function()
      local p = start(obedient(), { mixin = mixin, workers = 3 })
      for i = 1, 30 do assert.are.equal("n" .. i, ask(p, "n" .. i)) end
      local asked = 0
      local s = until_stats(p, "the sum", function(s)
        asked = asked + 1
        return s.requests >= 30 and s.requests <= 30 + asked and s.workers == 3
      end)
      assert.are.equal(0, s.workers_died)
      assert.are.equal(30 + asked, p:stop().requests)
    end)

    it("are replaced with the " .. mixin .. " mixin, and a dead one's figures stay", function()
      local p = start(obedient(), { mixin = mixin })
      for i = 1, 60 do assert.are.equal("n" .. i, ask(p, "n" .. i)) end
      local clients = one_of_each(p, 2)
      local victim, c = next(clients)
      local survivor, other = next(clients, victim)
      host.eventually("the sum", function() return stats(other).requests >= 62 end)
      sys.kill(victim, "KILL")
      c:close()
      host.eventually("the replacement", function()
        local s = stats(other)
        return s.workers_died == 1 and s.workers == 2
      end)
      repeat -- sync: the other one is taken
        c = host.connect(p:url())
        local pid = math.tointeger(c:ask("worker"))
        if pid == survivor then c:close() end
      until pid ~= survivor
      host.eventually("the sum with the dead one's", function() return stats(c).requests >= 62 end)
      c:close()
      other:close()
      p:stop()
    end)
  end

  it("may keep children of their own ready", function()
    local p = start(obedient(), { mixin = "forking",
      args = { "--option=max_children=3", "--option=max_requests_per_child=4" } })
    for i = 1, 40 do
      assert.are.equal("n" .. i, ask(p, "n" .. i))
    end
    until_stats(p, "the sum", function(s) return s.requests >= 40 end)
    local victim = workers(p)[1]
    sys.kill(victim, "KILL")
    until_full(p, 2, 1)
    host.eventually("the end of the dead one's children", function() return orphans(p) == 0 end)
    for i = 1, 20 do assert.are.equal("n" .. i, ask(p, "n" .. i)) end
    p:stop()
    p:gone()
  end)

  -- torture list 77
  it("that die take along their own clients and nobody else's", function()
    local p = start(obedient(), { workers = 3 })
    local clients = one_of_each(p, 3)
    local victim = next(clients)
    sys.kill(victim, "KILL")
    local dead = clients[victim]
    clients[victim] = nil
    assert.is_true((dead:some() or "") == "")
    dead:close()
    for pid, c in pairs(clients) do assert.are.equal(tostring(pid), c:ask("worker")) end
    local died = p:find("worker died", true)[1]
    assert.are.equal(victim, died.pid)
    assert.are.equal("SIGKILL", died.signal)
    assert.are.equal("error", died.level)
    assert(died.age_ms >= 0)
    until_full(p, 3, 1)
    for pid, c in pairs(clients) do assert.are.equal(tostring(pid), c:ask("worker")) end
    local s2 = until_stats(p, "no request of the dead", function(now) return now.active == 3 end)
    assert(s2.requests >= 3)
    close_each(clients)
    p:stop()
  end)

  it("that end in order are replaced, without their requests' harm", function()
    local p = start(obedient())
    local clients = one_of_each(p, 2)
    local leaver = next(clients)
    sys.kill(leaver, "TERM")
    host.eventually("its drain", function() return p:find("draining")[1] end)
    assert.are.equal("still here", clients[leaver]:ask("still here"))
    clients[leaver]:close()
    clients[leaver] = nil
    host.eventually("its replacement", function()
      local now = workers(p)
      return #now == 2 and now[1] ~= leaver and now[2] ~= leaver
    end)
    until_full(p, 2, 0)
    assert.are.equal(0, #p:find("worker died"))
    close_each(clients)
    p:stop()
  end)

  it("hold up to one being killed every 100 ms under 100 connections", function()
    local p = start(obedient(), { workers = 4 })
    local good, lost = 0, 0
    local h = hammer.new(p:url(), 100, {
      say = function(i) return "n" .. i .. "\n", "n" .. i .. "\n" end,
      heard = function(reply, tag)
        if reply == tag then good = good + 1 else lost = lost + 1 end
      end })
    -- each says its line and leaves when it has the answer
    local began, killed, dead, next_kill = sys.now(), 0, {}, sys.now()
    local ended, tails = false, {}
    while not ended do
      ended = sys.now() - began > 4
      while h.nopen < h.n do h:begin() end
      for fd, one in pairs(h.open) do
        if not tails[one] then
          tails[one] = true
          sys.shutdown(fd)
        end
      end
      h:listen()
      if sys.now() >= next_kill then
        next_kill = sys.now() + 0.1
        local now = workers(p)
        local victim = now[math.random(math.max(#now, 1))]
        if victim and not dead[victim] then
          dead[victim] = true
          sys.kill(victim, "KILL")
          killed = killed + 1
        end
      end
    end
    h:finish()
    assert(killed >= 10, "killed " .. killed)
    assert(good > 100, "good " .. good .. ", lost " .. lost)
    until_full(p, 4, killed)
    assert.are.equal("alive", ask(p, "alive"))
    for _, child in ipairs(p:children()) do assert.are_not.equal("Z", child.state) end
    p:stop()
  end)

  it("answer again within a second when all were killed", function()
    local p = start(obedient())
    for _ = 1, 5 do
      local killed, began = workers(p), sys.now()
      for _, pid in ipairs(killed) do sys.kill(pid, "KILL") end
      for _, pid in ipairs(killed) do -- one that dies may still accept, and takes that client along
        host.eventually("it to be dead", function()
          local state = host.state(pid)
          return not state or state == "Z"
        end)
      end
      assert.are.equal("again", ask(p, "again"))
      assert(sys.now() - began < host.SOON, "it took long") -- a second, says the item; machines are shared
    end
    p:stop()
  end)

  it("end when a request is stuck in C, and the master says where", function()
    local p = start(script(([[
      if self.rfile:read() == "stick" then
        package.cpath = "%s/?.so;" .. package.cpath
        local burn = require("burn")
        burn(30)
      end
      self.wfile:write("fine\n")]]):format(host.build)), { args = { "--option=cpu_limit=0.5" } })
    local c <close> = host.connect(p:url())
    assert(c:send("stick\n"))
    local stuck = p:find("stuck", true)[1]
    assert.are.equal("burn", stuck["in"])
    assert.are.equal("number", type(stuck.worker))
    assert.are.equal("SIGKILL", p:find("worker died", true)[1].signal)
    assert.are.equal("fine", ask(p, "x"))
    p:stop()
  end)

  it("have nothing of the master's and of each other", function()
    local p = start(obedient(), { workers = 3 })
    local function sockets(pid)
      local n, own = 0, {}
      for _, fd in ipairs(sys.list("/proc/" .. pid .. "/fd")) do
        local to = sys.readlink("/proc/" .. pid .. "/fd/" .. fd) or ""
        if to:find("^socket:") then n, own[to] = n + 1, true end
      end
      return n, own
    end
    sys.kill(workers(p)[1], "KILL")
    until_full(p, 3, 1)
    local seen = {}
    host.eventually("no client's connection", function()
      seen = {}
      for _, pid in ipairs(workers(p)) do
        local n, own = sockets(pid)
        if n ~= 2 then return false end -- the listener and the channel
        for s in pairs(own) do seen[s] = (seen[s] or 0) + 1 end
      end
      return true
    end)
    local counts = {}
    for _, n in pairs(seen) do counts[#counts + 1] = n end
    table.sort(counts)
    assert.are.same({ 1, 1, 1, 3 }, counts)
    p:stop()
  end)

  it("draw different random numbers", function()
    for _, mixin in ipairs(MIXINS) do
      local p, seen = start(obedient(), { mixin = mixin }), {}
      for _ = 1, 10 do
        local n = ask(p, "random")
        assert.is_nil(seen[n], mixin)
        seen[n] = true
      end
      p:stop()
    end
  end)

  it("log their number", function()
    local p = start(script([[require("moonport").log("info", "hello") self.rfile:read("a")]]))
    local clients = {}
    host.eventually("a word from both", function()
      clients[#clients + 1] = host.connect(p:url())
      local seen = {}
      for _, e in ipairs(p:find("script")) do seen[e.worker] = true end
      return seen[1] and seen[2]
    end)
    p:kill("USR1")
    host.eventually("the tasks of both", function()
      local seen = {}
      for _, e in ipairs(p:find("task")) do seen[e.worker] = true end
      return seen[1] and seen[2]
    end)
    close_all(clients)
    p:stop()
  end)
end)

describe("a master", function()
  after_each(host.cleanup)

  it("says that it is ready when workers accept", function()
    for _ = 1, 10 do
      local p = start(obedient(), { workers = 4 })
      assert.are.equal(4, #p:find("worker started"))
      assert.are.equal("hello", ask(p, "hello"))
      p:stop()
    end
  end)

  it("that cannot start a worker says why, and leaves nothing behind", function()
    local path = host.folder() .. "/s"
    local ok, message = pcall(start, obedient(), { listen = "unix://" .. path, inject = { "prctl:error=EPERM" } })
    assert.is_false(ok)
    assert.matches("ended with 111", message)
    assert.matches("moonport: cannot start: Operation not permitted", message, 1, true)
    assert.is_nil(sys.stat(path))
    ok, message = pcall(start, obedient(), { listen = "unix://" .. path, inject = { "prctl:signal=KILL" } })
    assert.is_false(ok)
    assert.matches("ended with 111", message)
    assert.matches("moonport: worker %d %(process %d+%) died before it accepted", message)
    assert.is_nil(sys.stat(path))
  end)

  it("takes a number of workers", function()
    for _, value in ipairs { "0", "257", "-1", "two", "2x", "" } do
      local code, _, err = host.run { "serve", "scripts/echo.lua", "--workers=" .. value }
      assert.are.equal(100, code)
      assert.are.equal("moonport: --workers " .. value .. ": it must be a number from 1 to 256\n", err)
    end
    local code, _, err = host.run { "serve", "scripts/echo.lua", "--listen=tcp://127.0.0.1:0", "--workers=2",
      "--mixin=threading", "scripts/upper.lua", "--listen=tcp://127.0.0.1:0", "--mixin=forking" }
    assert.are.equal(100, code)
    assert.matches("forks and .* runs threads", err)
  end)

  it("may have a single worker", function()
    local p = start(obedient(), { workers = 1 })
    assert.are.equal(1, #workers(p))
    assert.are.equal("hello", ask(p, "hello"))
    p:stop()
  end)

  for _, mixin in ipairs(MIXINS) do
    it("drains all, with the " .. mixin .. " mixin", function()
      local p = start(obedient(), { mixin = mixin, listen = "unix://" .. host.folder() .. "/s" })
      local clients = one_of_each(p, 2)
      p:kill("TERM")
      host.eventually("refused", function() return not sys.stat(p.ready.servers.script.path) end)
      for _, c in pairs(clients) do assert.are.equal("still here", c:ask("still here")) end
      close_each(clients)
      assert.are.equal(0, p:wait(), host.read(p.log_path))
      local last = p:find("stopped")
      assert.are.equal(1, #last)
      for _, what in ipairs { "tasks", "streams", "descriptors", "timers", "buffered" } do
        assert.are.equal(0, last[1][what], what)
      end
      assert.are.equal(0, #p:processes())
      assert.are.equal(0, #p:find("worker died"))
    end)

    it("stops all at once at the second signal, with the " .. mixin .. " mixin", function()
      local gate = host.gate()
      local p = start(obedient(gate), { mixin = mixin })
      local clients = one_of_each(p, 2)
      local blocked = select(2, next(clients))
      assert(blocked:send("block\n"))
      assert.are.equal("blocking", blocked:line())
      p:kill("TERM")
      host.eventually("the drain", function() return p:find("draining")[1] end)
      p:kill("TERM")
      assert.are.equal(0, p:wait(), host.read(p.log_path))
      p:gone()
      close_each(clients)
    end)

    it("that is killed takes its workers along, with the " .. mixin .. " mixin", function()
      local gate = host.gate()
      local p = start(obedient(gate), { mixin = mixin, args = { "--drain-timeout=0.3", "--option=cancel_grace=0.1" } })
      local clients = one_of_each(p, 2)
      local blocked = select(2, next(clients))
      assert(blocked:send("block\n"))
      assert.are.equal("blocking", blocked:line())
      p:kill("KILL")
      assert.are.equal(-9, p:wait())
      p:gone()
      close_each(clients)
    end)
  end

  it("kills what does not end in time", function()
    local gate = host.gate()
    local p = start(obedient(gate), { args = { "--drain-timeout=0.1", "--option=cancel_grace=0.1" } })
    local clients = one_of_each(p, 2)
    local blocked = select(2, next(clients))
    assert(blocked:send("block\n"))
    assert.are.equal("blocking", blocked:line())
    p:kill("TERM")
    assert.are.equal(0, p:wait(), host.read(p.log_path))
    assert.are.equal(0, #p:processes())
    close_each(clients)
  end)

  it("alone acts upon what a terminal sends to all", function()
    local p = start(obedient())
    local clients = one_of_each(p, 2)
    sys.kill(-p.pid, "HUP")
    host.eventually("the reload", function() return p:find("reloaded")[1] end)
    sys.kill(-p.pid, "INT")
    host.eventually("the drain everywhere", function() return #p:find("draining") == 3 end)
    for _, c in pairs(clients) do assert.are.equal("still here", c:ask("still here")) end
    close_each(clients)
    assert.are.equal(0, p:wait())
    assert.are.equal(1, #p:find("reloaded"))
    assert.are.equal(0, #p:processes())
  end)

  it("ends with its parent", function()
    local p = start(obedient(), { stdin = true, args = { "--exit-with-parent" } })
    sys.close(p.stdin)
    p.stdin = nil
    assert.are.equal(0, p:wait())
    assert.are.equal(0, #p:processes())
  end)

  it("has a server stopped everywhere when a script says so, and ends with the last", function()
    for _, mixin in ipairs(MIXINS) do
      local folder = host.folder()
      local p = start(obedient(), { mixin = mixin,
        listen = { "unix://" .. folder .. "/a", "unix://" .. folder .. "/b" } })
      assert.are.equal("shut", ask(p, "shutdown", "script"))
      host.eventually("the first one's path gone", function() return not sys.stat(folder .. "/a") end)
      sys.kill(workers(p)[1], "KILL") -- its replacement has the second alone
      host.eventually("the replacement", function() return #p:find("worker started") == 3 end)
      assert.are.equal("hello", ask(p, "hello", "script-2"))
      assert.are.equal("shut", ask(p, "shutdown", "script-2"))
      assert.are.equal(0, p:wait(), host.read(p.log_path))
      assert.is_nil(sys.stat(folder .. "/b"))
      assert.are.equal(0, #p:processes())
    end
  end)
end)

describe("a reload of workers", function()
  after_each(host.cleanup)

  -- Answers "worker" and "word"; "reload" asks for new code, "block" stays at the gate.
  local function version(word, extra, gate)
    return common.script(([[
      for line in self.rfile:lines() do
        local f <close> = io.open("/proc/self/stat")
        local pid, parent = f:read("a"):match("^(%%d+) .*%%) %%a (%%d+)")
        if self.server.class:find("^Forking") then pid = parent end
        if line == "worker" then
          self.wfile:write(pid, "\n")
        elseif line == "reload" then
          local number, why = self.server:reload()
          self.wfile:write(tostring(number or why), "\n")
        elseif line == "block" then
          self.wfile:write("blocking\n"):flush()
          gate()
        else
          self.wfile:write(pid, " %s\n")
        end
      end]]):format(word), (extra or "") .. "\n" .. (gate and gate:code() or ""))
  end

  local function begin(text, mixin, n)
    local path = host.write(text)
    return host.start(path, { args = { "--workers=" .. (n or 2), "--mixin=" .. (mixin or "async") } }), path
  end

  -- What the workers answer, once each has.
  local function answers(p, n)
    local seen, found = {}, 0
    host.eventually("an answer of each worker", function()
      local pid, word = ask(p, "x"):match("(%d+) (%a+)")
      if not seen[pid] then found = found + 1 end
      seen[pid] = word
      return found == n
    end)
    local words = {}
    for _, word in pairs(seen) do words[#words + 1] = word end
    return words
  end

  local function failures(p, n)
    host.eventually(n .. " failures", function() return #p:find("reload failed") == n end)
    return p:find("reload failed")
  end

  for _, mixin in ipairs(MIXINS) do
    it("gives new code to all, and to replacements, with the " .. mixin .. " mixin", function()
      local p, path = begin(version("one"), mixin)
      assert.are.same({ "one", "one" }, answers(p, 2))
      host.write(version("two"), path)
      p:kill("HUP")
      assert.are.equal(2, p:find("reloaded", true)[1].generation)
      assert.are.same({ "two", "two" }, answers(p, 2))
      sys.kill(workers(p)[1], "KILL")
      host.eventually("the replacement", function() return #p:find("worker started") == 3 end)
      assert.are.same({ "two", "two" }, answers(p, 2))
      assert.are.equal(1, #p:find("reloaded"))

      host.write("this is no Lua", path)
      p:kill("HUP")
      assert.matches("script.lua:1:", failures(p, 1)[1].why)
      assert.are.same({ "two", "two" }, answers(p, 2))
      p:stop()
      assert.are.equal(1, #p:find("reload failed"))
    end)

    it("may be asked for by a script, with the " .. mixin .. " mixin", function()
      local p, path = begin(version("one"), mixin)
      host.write(version("two"), path)
      assert.are.equal("2", ask(p, "reload"))
      assert.are.same({ "two", "two" }, answers(p, 2))
      host.write("this is no Lua", path)
      assert.matches("script.lua:1:", ask(p, "reload"))
      assert.are.same({ "two", "two" }, answers(p, 2))
      host.write(version("three"), path)
      assert.are.equal("3", ask(p, "reload"))
      assert.are.same({ "three", "three" }, answers(p, 2))
      p:stop()
    end)
  end

  it("is none when a single worker cannot", function()
    local p, path = begin(version("one"), "async", 3)
    local odd = workers(p)[2]
    host.write(version("two", ([[
      local f <close> = io.open("/proc/self/stat")
      if f:read("n") == %d then error("not here") end]]):format(odd)), path)
    p:kill("HUP")
    assert.matches("not here %(in worker %d%)", failures(p, 1)[1].why)
    assert.are.same({ "one", "one", "one" }, answers(p, 3))
    host.write(version("three"), path)
    p:kill("HUP")
    assert.are.equal(2, p:find("reloaded", true)[1].generation)
    assert.are.same({ "three", "three", "three" }, answers(p, 3))
    p:stop()
  end)

  it("is none when not all have read the same", function()
    local p, path = begin(version("one"))
    host.write(version("two", [[
      local name = debug.getinfo(1, "S").source:match("^@(.*/)") .. "other.lua"
      local f = io.open(name, "w")
      f:write("return ", math.random(1 << 60))
      f:close()
      require("other")]]), path)
    p:kill("HUP")
    for _, e in ipairs(failures(p, 2)) do assert.matches("files have changed while they were being loaded", e.why) end
    assert.are.same({ "one", "one" }, answers(p, 2))
    host.write(version("three"), path)
    p:kill("HUP")
    assert.are.equal(2, p:find("reloaded", true)[1].generation)
    assert.are.equal(2, #p:find("reload failed")) -- it is not tried for ever
    p:stop()
  end)

  it("waits for a worker that is blocked, and goes on without it when it dies", function()
    local gate = host.gate()
    local p, path = begin(version("one", nil, gate))
    local clients = one_of_each(p, 2)
    local pid, blocked = next(clients)
    local _, other = next(clients, pid)
    assert.are.equal("blocking", blocked:ask("block"))
    host.write(version("two", nil, gate), path)
    p:kill("HUP")
    assert.matches("one", other:ask("x"))
    assert.are.equal(0, #p:find("reloaded"))
    gate:pass()
    assert.are.equal(2, p:find("reloaded", true)[1].generation)
    assert.are.same({ "two", "two" }, answers(p, 2))

    local again <close> = host.connect(p:url())
    local victim = math.tointeger(again:ask("worker"))
    assert.are.equal("blocking", again:ask("block"))
    host.write(version("three"), path)
    p:kill("HUP")
    sys.kill(victim, "KILL")
    host.eventually("the reload of the rest", function() return #p:find("reloaded") == 2 end)
    host.eventually("the replacement", function() return #p:find("worker started") == 3 end)
    assert.are.same({ "three", "three" }, answers(p, 2))
    close_each(clients)
    p:stop()
  end)

  it("holds up under workers that are killed", function()
    local p, path = begin(version("a"), "async", 3)
    for i = 2, 12 do
      host.write(version(string.char(96 + i)), path)
      p:kill("HUP")
      local now = workers(p)
      if now[1] then sys.kill(now[math.random(#now)], "KILL") end
      host.eventually("a reload", function()
        local last
        for _, e in ipairs(p:find("reloaded")) do if not e.worker then last = e.generation end end
        return last == i
      end)
    end
    host.eventually("all workers", function() return #workers(p) == 3 end)
    assert.are.same({ "l", "l", "l" }, answers(p, 3))
    p:stop()
  end)
end)
