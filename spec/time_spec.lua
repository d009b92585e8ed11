--- Time that jumps: the wall clock's, and the process's own when it is stopped.

local host = require("support.host")
local sys = host.sys

-- Each connection says what to do; the answer is how long it took, or "line ..." or why there was none.
local SCRIPT = [[
  local moonport = require("moonport")
  local H = {}
  local waits = {}
  function waits:sleep(seconds) moonport.sleep(seconds) return "slept" end
  function waits:read(seconds)
    self.request:settimeout(seconds)
    local line, why = self.rfile:read()
    return line and "line " .. line or why
  end
  function waits:idle() return self.rfile:read() end
  function waits:clock()
    local before = moonport.time()
    return tostring(math.floor(math.abs(moonport.time() - before) + 0.5))
  end
  function H:handle()
    self.wfile:write("begun\n"):flush()
    local word, seconds = self.rfile:read():match("(%a+) ?(.*)")
    local began = moonport.monotonic()
    local ok, what = pcall(waits[word], self, tonumber(seconds))
    self.wfile:write(tostring(what), " ", ("%.4f"):format(moonport.monotonic() - began), "\n"):flush()
    if not ok then error(what, 0) end
  end
  return H
]]

local function begin(p, what)
  local c = host.connect(p:url())
  assert.are.equal("begun", c:line())
  assert(c:send(what .. "\n"))
  return c
end

-- What came, and after how long by the program's own monotonic clock.
local function result(c, limit)
  local what, seconds = assert(c:line(limit)):match("^(.*) (%S+)$")
  c:close()
  return what, tonumber(seconds)
end

describe("a wall clock that jumps by an hour", function()
  after_each(host.cleanup)

  for _, mixin in ipairs { "async", "threading", "forking", "sync" } do
    it("moves no timeout, " .. mixin, function()
      local p = host.start(host.write(SCRIPT), {
        env = { host.preload("clock.so") },
        args = { "-m", mixin, "-o", "idle_timeout=1.5", "-o", "thread_idle_timeout=0.2" },
      })
      local c = begin(p, "clock")
      assert.are.equal("7200", (result(c))) -- the shim is at work
      local expected = {
        ["sleep 1"] = { "slept", 1 }, ["read 0.7"] = { "timeout", 0.7 }, ["idle"] = { "cancelled: idle_timeout", 1.5 },
      }
      local clients = {}
      for what in pairs(expected) do
        if mixin == "sync" then
          clients[what] = false
        else
          clients[what] = begin(p, what)
        end
      end
      for what, want in pairs(expected) do
        local got, seconds = result(clients[what] or begin(p, what))
        assert.are.equal(want[1], got)
        -- Never early, but that idle counts from the last byte; late only as far as this machine is busy.
        local early = what == "idle" and 0.2 or 0.001
        assert.is_true(seconds >= want[2] - early and seconds < want[2] + 0.5, what .. ": " .. seconds)
      end
      p:stop()
    end)
  end
end)

-- Stops the program for so long that what waits for `seconds` is overdue; `meanwhile` runs then.
local function stopped(p, seconds, meanwhile)
  p:kill("STOP")
  host.eventually("the stop", function() return host.state(p.child or p.pid) == "T" end)
  local until_when = sys.now() + seconds
  meanwhile()
  host.eventually("enough time", function() return sys.now() > until_when end)
  p:kill("CONT")
end

describe("a program that was stopped and goes on", function()
  after_each(host.cleanup)

  for mixin, n in pairs { async = 600, threading = 200 } do
    it("reads what has come before it looks at deadlines, " .. mixin, function()
      local p = host.start(host.write(SCRIPT), { args = { "-m", mixin } })
      local talking, silent, sleeping = {}, {}, {}
      for i = 1, n do talking[i] = begin(p, "read 1") end
      for i = 1, 5 do
        silent[i] = begin(p, "read 1")
        sleeping[i] = begin(p, "sleep 1")
      end
      host.eventually("all requests", function()
        local c <close> = begin(p, "clock")
        return c:line() ~= nil
      end)
      stopped(p, 1.3, function()
        for _, c in ipairs(talking) do assert(c:send("word\n")) end
      end)
      for i, c in ipairs(talking) do
        local what, seconds = result(c)
        assert.are.equal("line word", what, i .. " of " .. n .. " after " .. seconds)
      end
      for _, c in ipairs(silent) do assert.are.equal("timeout", (result(c))) end
      for _, c in ipairs(sleeping) do assert.are.equal("slept", (result(c))) end
      p:stop()
    end)
  end

  it("ends a request that is overdue once, and serves on", function()
    local p = host.start(host.write(SCRIPT), { args = { "-o", "request_timeout=0.5" } })
    local overdue <close> = begin(p, "sleep 100")
    stopped(p, 1, function() end)
    assert.are.equal("cancelled: request_timeout", (result(overdue)))
    local c = begin(p, "clock")
    assert.are.equal("0", (result(c)))
    p:stop()
  end)
end)
