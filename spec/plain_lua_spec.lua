local host = require("support.host")

-- `require "moonport"` in a plain lua5.4, not in this process: a program built with a
-- sanitizer cannot be loaded into busted.
local function lua(code)
  local folder = host.folder()
  host.write(("package.cpath = %q\nlocal moonport = require('moonport')\n%s"):format(host.build .. "/?.so", code),
    folder .. "/main.lua")
  local out = assert(host.sys.open(folder .. "/out", "w"))
  local pid = assert(host.sys.spawn({ "lua5.4", folder .. "/main.lua" },
    { stdout = out, stderr = out, env = host.sanitizer() and { "LD_PRELOAD=" .. host.sanitizer(),
      "ASAN_OPTIONS=detect_leaks=0" } or nil }))
  host.sys.close(out)
  local status = host.sys.wait(pid, host.LIMIT)
  if not status then host.sys.kill(pid, "KILL") end
  return status, host.read(folder .. "/out")
end

describe("moonport.so in a plain Lua", function()
  after_each(host.cleanup)

  it("changes nothing by being loaded", function()
    local status, out = lua [[
      print(coroutine == moonport.coroutine, type(print), debug.sethook ~= nil, moonport.version:match("^%d+%."))]]
    assert.are.same({ 0, "false\tfunction\ttrue\t0.\n" }, { status, out })
  end)

  it("talks to a server inside run, and gives its results", function()
    local p = host.start("scripts/upper.lua")
    local status, out = lua(([[
      print(moonport.run(function(a, b)
        local c <close> = assert(moonport.connect(%q))
        c:sendall(a .. b .. "\n")
        moonport.sleep(0.01)
        return c:makefile("r"):read(), 2
      end, "moon", "port"))]]):format(p:url()))
    assert.are.same({ 0, "MOONPORT\t2\n" }, { status, out })
    p:stop()
  end)

  it("passes errors through, of any kind", function()
    local status, out = lua [[
      print(select(2, pcall(moonport.run, function() error("in words", 0) end)))
      print(select(2, pcall(moonport.run, function() error({ 7 }) end))[1])
      print(select(2, pcall(moonport.run)))
      print(moonport.run(function() return select("#", nil, nil) end))]]
    assert.are.equal(0, status, out)
    assert.matches("^in words\n7\nbad argument #1 to '[%a.]*run' %(function expected, got no value%)\n2\n$", out)
  end)

  it("waits only inside run, and says so", function()
    local status, out = lua [[
      print(pcall(moonport.sleep, 0))
      print(pcall(moonport.connect, "tcp://127.0.0.1:1"))
      moonport.run(function() print(pcall(moonport.run, print)) end)]]
    assert.are.equal(0, status, out)
    assert.matches("^false\tthis waits, and only a request can.-\nfalse\tthis waits.-\n"
      .. "false\t.-run is running already", out)
  end)

  it("lets its own coroutines wait, and names the way for those of Lua", function()
    local status, out = lua [[
      moonport.run(function()
        local generator = moonport.coroutine.wrap(function() moonport.sleep(0.001) moonport.coroutine.yield(1) end)
        print(generator())
        print(pcall(coroutine.wrap(function() moonport.sleep(0) end)))
      end)]]
    assert.are.equal(0, status, out)
    assert.matches("^1\nfalse\t.*moonport%.coroutine\n$", out)
  end)

  it("closes what was left open at the end of run, and survives its use afterwards", function()
    local p = host.start("scripts/upper.lua")
    local status, out = lua(([[
      local kept = moonport.run(function() return moonport.connect(%q) end)
      print(pcall(kept.recv, kept))
      moonport.run(function() return moonport.connect(%q):fileno() end)
      kept = nil
      collectgarbage()
      print("alive")]]):format(p:url(), p:url()))
    assert.are.equal(0, status, out)
    assert.matches("^false\t.-\nalive\n$", out)
    p:stop()
  end)

  it("does not stay busy while it waits", function()
    local status, out = lua [[
      local before = os.clock()
      moonport.run(function() for _ = 1, 10 do moonport.sleep(0.02) end end)
      print(os.clock() - before < 0.1)]]
    assert.are.same({ 0, "true\n" }, { status, out })
  end)

  it("knows coroutines made before a run, or in an earlier one", function()
    local status, out = lua [[
      local co = moonport.coroutine
      local before = co.create(function() moonport.sleep(0.001) return "before" end)
      local early
      moonport.run(function()
        early = co.create(function() co.yield(1) moonport.sleep(0.001) return "early" end)
        co.resume(early)
      end)
      collectgarbage()
      print(pcall(moonport.sleep, 0))
      moonport.run(function() print(co.resume(before)) print(co.resume(early)) end)]]
    assert.are.equal(0, status, out)
    assert.matches("\ntrue\tbefore\ntrue\tearly\n$", out)
  end)
end)
