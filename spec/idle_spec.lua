--- Connections that do nothing cost next to nothing.

local host = require("support.host")
local sys = host.sys

local NUMBER = 15000
local PROCESSES = 2 -- that hold them; each has a limit of descriptors as the server has
local SPARE = 200   -- descriptors that a process needs for other things

-- Resident KiB that one takes: its coroutine is half of that, the rest its objects in Lua and its structs.  It was 2.09
-- when this was written, with the line of 64 bytes that the loop over lines keeps until the engine rests; the rest is
-- for other allocators.
local FRESH = 2.3
local FEW = 2000

local function limit()
  local p = io.popen("ulimit -Hn")
  local n = p:read("a")
  p:close()
  return tonumber(n) or math.huge -- "unlimited"
end

local SCRIPT = [[
  local H = {}
  function H:handle()
    for line in self.rfile:lines() do self.wfile:write(line, "\n") end
  end
  return H
]]

local function holder(p, n, line)
  local input, stop = sys.pipe()
  local out, result = sys.pipe()
  local pid = assert(sys.spawn({ "lua5.4", "spec/support/hold.lua", host.build, p:url(), tostring(n), line },
    { stdin = input, stdout = result, nofile = n + SPARE }))
  sys.close(input)
  sys.close(result)
  return {
    ready = function()
      assert(sys.poll(out, "r", 60), "the connections were not made in time")
      assert.are.equal("held\n", sys.read(out, 100))
    end,
    stop = function()
      sys.close(stop)
      sys.close(out)
      assert.are.equal(0, sys.wait(pid, host.LIMIT))
    end,
  }
end

-- most: KiB of resident memory for each.
local function measure(p, what, line, memory, descriptors, most)
  local holders = {}
  for i = 1, PROCESSES do holders[i] = holder(p, NUMBER // PROCESSES, line) end
  for _, h in ipairs(holders) do h.ready() end
  host.eventually("all connections", function() return p:descriptors() >= descriptors + NUMBER end)

  local each = (p:memory() - memory) / NUMBER
  local share = p:idle_share()
  if os.getenv("MOONPORT_SHOW") then print(("%s: %.2f KiB each, %.3f %% CPU"):format(what, each, share * 100)) end
  assert.is_truthy(host.sanitizer() or each <= most, ("%s: %.2f KiB each"):format(what, each))
  assert.is_true(share <= 0.01, ("%s: %.1f %% of a processor"):format(what, share * 100))

  local canary <close> = host.connect(p:url())
  assert.are.equal("during", canary:ask("during"))
  canary:close()
  for _, h in ipairs(holders) do h.stop() end
  host.eventually("all descriptors back", function() return p:descriptors() == descriptors end)
end

describe("an idle connection", function()
  after_each(host.cleanup)

  it("is small", function()
    if host.sanitizer() then
      pending("a sanitizer's allocator takes more for each block than the block")
      return
    end
    local p = host.start(host.write(SCRIPT), { args = { "-o", "max_connections=4000", "-o", "request_queue_size=4096",
      "--log-level=warn" } })
    local first <close> = host.connect(p:url())
    for _ = 1, 600 do assert.are.equal("once", first:ask("once")) end -- what connections share is there then
    local memory = p:memory()
    local held = holder(p, FEW, ("x"):rep(63))
    held.ready()
    local each = (p:memory() - memory) / FEW
    if os.getenv("MOONPORT_SHOW") then print(("few: %.2f KiB each"):format(each)) end
    assert.is_true(each <= FRESH, ("%.2f KiB each"):format(each))
    held.stop()
    first:close()
    p:kill("TERM")
    assert.are.equal(0, p:wait())
  end)
end)

describe("an engine that has nothing to do", function()
  after_each(host.cleanup)

  -- Lines of this size, each in the loop over lines that a handler stands in; one of them in a coroutine of its own.
  local LONG, LOOPS = 60000, [[
    local H = {}
    local function each(lines, file) for line in lines, file do coroutine.yield(line) end end
    function H:handle()
      for first in self.rfile:lines() do
        self.wfile:write(first, "\n")
        if first == "inside" then
          for line in coroutine.wrap(function() each(self.rfile:lines()) end) do self.wfile:write(line, "\n") end
        elseif first == "format" then
          for line in self.rfile.read, self.rfile, "l" do return self.wfile:write("read ", line, "\n") end
        elseif first == "formats" then
          for count, line in self.rfile:lines("n", "l") do self.wfile:write(count + #line, "\n") end
        end
      end
    end
    return H
  ]]

  it("lets go of the last lines of all connections, which go on as they were", function()
    local p = host.start(host.write(LOOPS), { args = { "-o", "max_connections=1000" } })
    local number, held = 300, {}
    do
      local first <close> = host.connect(p:url())
      for _ = 1, 300 do assert.are.equal("once", first:ask("once")) end
    end
    local memory = p:memory()
    for i = 1, number do
      held[i] = host.connect(p:url())
      if i % 3 == 0 then assert.are.equal("inside", held[i]:ask("inside")) end
      assert.are.equal(LONG, #held[i]:ask(("x"):rep(LONG)))
    end
    local inside <close> = host.connect(p:url())
    local format <close> = host.connect(p:url())
    assert.are.equal("format", format:ask("format"))
    assert.are.equal("formats", inside:ask("formats"))
    assert.are.equal("12", inside:ask("7 line"))
    if not host.sanitizer() then
      local most = number * LONG // 1024 // 4
      host.eventually("the lines gone", function() return p:memory() - memory < most end)
    end
    assert.are.equal("14", inside:ask("9 line"))
    assert.are.equal("read it", format:ask("it"))
    format:close()
    for i = 1, number do
      assert.are.equal("line " .. i, held[i]:ask("line " .. i))
      assert.are.equal("once more", held[i]:ask("once more"))
      held[i]:close()
    end
    inside:close()
    p:stop()
  end)

  it("leaves a collector alone that works in another way", function()
    local p = host.start(host.write('collectgarbage("generational")\n' .. SCRIPT))
    local c <close> = host.connect(p:url())
    for _ = 1, 600 do assert.are.equal("once", c:ask("once")) end
    local share = p:idle_share()
    assert.is_true(share <= 0.05, ("%.1f %% of a processor"):format(share * 100))
    c:close()
    p:stop()
  end)

  it("sends what finalizers write", function()
    local p = host.start(host.write [[
      local H, first = {}, nil
      function H:handle()
        first = first or self.wfile
        for line in self.rfile:lines() do
          if line == "leave" then setmetatable({}, { __gc = function() first:write("collected\n") end }) end
          self.wfile:write(line, "\n")
        end
      end
      return H]])
    local first <close> = host.connect(p:url())
    assert.are.equal("hello", first:ask("hello"))
    local c <close> = host.connect(p:url())
    for _ = 1, 300 do assert.are.equal("once", c:ask("once")) end
    assert.are.equal("leave", c:ask("leave"))
    assert.are.equal("collected", first:line())
    first:close()
    c:close()
    p:stop()
  end)
end)

describe("15,000 idle connections", function()
  after_each(host.cleanup)

  it("cost little memory and no time", function()
    local have = limit()
    if have < NUMBER + SPARE then
      pending(("this machine lets a process have %d descriptors, and %d are needed"):format(have, NUMBER + SPARE))
      return
    end
    local p = host.start(host.write(SCRIPT), {
      args = { "-o", "max_connections=20000", "-o", "memory_limit=1G", "-o", "request_queue_size=4096",
        "--log-level=warn" } })
    local memory, descriptors = p:memory(), p:descriptors()
    measure(p, "silent", nil, memory, descriptors, FRESH)
    -- what is left of those before is not all collected yet
    measure(p, "after a first line", "hello", memory, descriptors, 2 * FRESH)
    p:kill("TERM")
    assert.are.equal(0, p:wait())
  end)
end)
