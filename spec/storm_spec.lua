--- A thousand signals a second: nothing that was asked for is lost, and no request hears of them.

local case = require("support.case")
local host = require("support.host")
local sys = host.sys

local SECONDS = tonumber(os.getenv("MOONPORT_STORM") or "3") -- of each storm; 60 once in a while

-- Sends these signals to the program at 1 kHz, until it is stopped.
local function storm(p, ...)
  local input, stop = sys.pipe()
  local out, result = sys.pipe()
  local argv = { "lua5.4", "spec/support/storm.lua", host.build, tostring(p.pid), "1000", ... }
  local pid = assert(sys.spawn(argv, { stdin = input, stdout = result }))
  sys.close(input)
  sys.close(result)
  assert(sys.poll(out, "r", host.LIMIT))
  assert.are.equal("begun\n", sys.read(out, 100))
  local began = sys.now()
  return function()
    local seconds = sys.now() - began
    sys.close(stop)
    assert.are.equal(0, sys.wait(pid, host.LIMIT))
    local sent = tonumber(sys.read(out, 100))
    sys.close(out)
    -- a part of it where others need the processors
    assert.is_true(sent > seconds * 100, ("only %d signals in %.2f s"):format(sent, seconds))
  end
end

local function version(word)
  return ([[
    local H = {}
    function H:handle()
      for line in self.rfile:lines() do self.wfile:write(line == "version" and "%s" or line, "\n") end
    end
    return H
  ]]):format(word)
end

local function replace(path, text)
  host.write(text, path .. ".new")
  assert(os.rename(path .. ".new", path))
end

local function live(p)
  local c <close> = host.connect(p:url())
  return c:ask("version")
end

-- Keeps connections echoing, every byte checked; calls `meanwhile` until the time is over.
local function echoing(p, seconds, meanwhile)
  local until_when, n = sys.now() + seconds, 0
  local out, result = sys.pipe()
  while sys.now() < until_when do
    local pid = assert(sys.spawn({ host.build .. "/flood", p:url(), "8", "200", "20000" }, { stdout = result }))
    local code
    repeat
      meanwhile()
      code = sys.wait(pid, 0.01)
    until code
    local said = sys.read(out, 1000)
    assert.are.equal(0, code, said)
    n = n + 1
  end
  sys.close(out)
  sys.close(result)
  return n
end

describe("a storm of signals", function()
  after_each(host.cleanup)

  for _, mixin in ipairs { "async", "threading", "forking" } do
    it("loses no reload and no byte, " .. mixin, function()
      local path = host.write(version("0"))
      local p = host.start(path, { args = { "-m", mixin, "--log-level=error" } })
      local last = 0
      local function next_version()
        last = last + 1
        replace(path, version(tostring(last)))
      end
      local quiet = storm(p, "HUP", "CHLD", "PIPE")
      assert.is_true(echoing(p, SECONDS / 2, next_version) > 0)
      p:kill("HUP") -- the storm's own may have been too early for what was written last
      quiet()
      host.eventually("what was written last", function() return live(p) == tostring(last) end)
      -- One request for a reload among many other signals.
      quiet = storm(p, "CHLD", "PIPE")
      for _ = 1, 10 do
        next_version()
        p:kill("HUP")
        host.eventually("version " .. last, function() return live(p) == tostring(last) end)
      end
      quiet()
      host.eventually("no child", function() return #p:children() == 0 end)
      p:kill("TERM")
      assert.are.equal(0, p:wait())
    end)
  end

  it("loses no child and no status", function()
    local p = case.start { args = { "-m", "forking", "-o", "max_children=10" } }
    local quiet = storm(p, "HUP", "CHLD", "PIPE")
    local until_when, n, since = sys.now() + SECONDS / 2, 0, {}
    repeat
      n = n + 1
      local got = case.run(p, ([[
        local pipe = io.popen("echo said; exit %d")
        local said = pipe:read("a")
        local _, how, code = pipe:close()
        return said, how, code, select(3, os.execute("exit %d"))]]):format(n % 256, (n + 1) % 256))
      assert.are.same({ "said\n", "exit", n % 256, (n + 1) % 256, n = 4 }, got)
      local still = {}
      for _, child in ipairs(p:children()) do
        if child.state == "Z" then
          still[child.pid] = since[child.pid] or sys.now()
          assert.is_true(sys.now() - still[child.pid] < host.SOON, "a zombie that stays")
        end
      end
      since = still
    until sys.now() > until_when
    quiet()
    host.eventually("no child", function() return #p:children() == 0 end)
    assert.are.same({}, p:find("child died"))
    assert.are.equal(0, p:stop().errors)
  end)

  it("does not disturb commands that a handler of the program itself runs", function()
    local p = case.start()
    local quiet = storm(p, "CHLD", "PIPE", "HUP")
    local until_when, n = sys.now() + SECONDS / 3, 0
    repeat
      n = n + 1
      assert.are.same({ n % 256, n = 1 },
        case.run(p, ("return select(3, os.execute('sleep 0.01; exit %d'))"):format(n % 256)))
      assert.are.same({ "exit", n % 256, n = 2 }, case.run(p, ([[
        local pipe = io.popen("cat >/dev/null; exit %d", "w")
        pipe:write(("x"):rep(300000))
        return select(2, pipe:close())]]):format(n % 256)))
    until sys.now() > until_when
    quiet()
    p:stop()
  end)
end)
