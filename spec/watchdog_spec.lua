-- A request that is stuck in C, where no hook can interrupt it.

local host = require("support.host")
local mixin = require("support.mixin")

-- Compiling a long text takes Lua some tenths of a second, and asks nobody.
local SCRIPT = mixin.script([[
  for line in self.rfile:lines() do
    if line == "stuck" then
      local text = ("x=1 "):rep(4 << 20)
      moonport.sleep(0)
      load(text)
    elseif line == "stats" then
      for k, v in pairs(self.server:stats()) do self.wfile:write(k, "=", tostring(v), " ") end
    end
    self.wfile:write("well\n")
  end]])
local LINE = "script.lua:9"

local function start(name)
  return host.start(host.write(SCRIPT), { args = { "--mixin=" .. name, "-o", "cpu_limit=0.05",
    "-o", "memory_limit=1G" } })
end

local function check(e, client)
  assert.are.same({ "error", "script", "string" }, { e.level, e.server, type(e["in"]) })
  assert.is_truthy(e.at:find(LINE, 1, true), e.at)
  assert.is_truthy(e.client:find("^127%.0%.0%.1:%d+$"), e.client)
  assert.is_true(e.cpu_ms >= 150, e.cpu_ms)
  assert(client)
end

describe("the watchdog", function()
  after_each(host.cleanup)

  for _, name in ipairs { "async", "threading" } do
    it("tells once of what is stuck under " .. name .. ", and the others are served after it", function()
      local p = start(name)
      local c <close> = host.connect(p:url())
      c:send("stuck\n")
      check(p:find("stuck", true)[1], c)
      local other <close> = host.connect(p:url())
      assert.are.equal("well", other:ask("hello"))
      -- Once it is back, the limit ends it.
      c:all()
      assert.are.equal(1, #p:find("handler error", true))
      assert.are.equal(1, #p:find("stuck"))
      other:close()
      p:stop()
    end)
  end

  it("has a child that is stuck replaced, which is told and counted once", function()
    local p = start("forking")
    local c <close> = host.connect(p:url())
    c:send("stuck\n")
    check(p:find("stuck", true)[1], c)
    c:all()
    local other <close> = host.connect(p:url())
    assert.are.equal("well", other:ask("hello"))
    local stats = host.eventually("the child's end to be counted", function()
      local s = mixin.stats(other)
      return s.stuck == 1 and s
    end)
    assert.are.same({ 1, 1 }, { stats.stuck, stats.died })
    assert.are.equal(1, #p:find("stuck"))
    other:close()
    p:stop()
  end)
end)
