-- Toxics of connections, over real sockets: live changes, and how connections with toxics end.

local host = require("support.host")
local mocks = require("support.mocks")

local m

local function start(toxics, options)
  m = mocks.start([[
    local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
    s:on("^big$", ("x"):rep(200000))
    s:on("^expect$", function(c) c:expect("^never$") end)
    s:otherwise(function(c, frame) return frame .. "!" end)]] .. "\n" .. (toxics or ""), options)
end

local function control(op, fields)
  return m:ask(("return mock.control(%q, { server = 's', %s })"):format(op, fields))
end

local function add(spec) control("toxic_add", "toxic = " .. spec) end

local function delete(name) control("toxic_delete", ("name = %q"):format(name)) end

describe("toxics of a connection", function()
  after_each(function()
    local ok, why = pcall(m.stop, m)
    host.cleanup()
    assert(ok, why)
  end)

  for _, spec in ipairs {
    "{ type = 'timeout', stream = 'upstream', timeout = 20 }",
    "{ type = 'reset_peer', stream = 'upstream', timeout = 20 }",
    "{ type = 'limit_data', stream = 'upstream', bytes = 2 }",
  } do
    it("that end it end the conversation, which gives its place back: " .. spec, function()
      start("s:toxic " .. spec, { args = { "-o", "max_connections=4" } })
      for i = 1, 6 do
        local c <close> = m:connect("s")
        c:send("abc\n")
        assert.are.equal("", c:all())
        host.eventually("the end of it", function() return #m:journal("s", "closed") == i end)
      end
      assert.are.equal(spec:find("reset") and "closed [reset]" or "closed [closed]", m:journal("s", "closed")[6])
      assert.are.same({}, m.program:find("error in a spawned task"))
    end)
  end

  it("let go what they hold when they are taken away, or become faster", function()
    start("s:toxic { name = 'slow', type = 'bandwidth', rate = 1 }")
    local c <close> = m:connect("s")
    c:send("big\n")
    m:await("s", "received big")
    local t = host.sys.now()
    control("toxic_patch", "name = 'slow', toxic = { rate = 0 }")
    delete("slow")
    assert.are.equal(200000, #c:receive(200000))
    assert.is_true(host.sys.now() - t < 5)
  end)

  it("let go what they hold also when the client has ended", function()
    start("s:toxic { name = 'slow', type = 'bandwidth', rate = 0 }")
    local c <close> = m:connect("s")
    c:send("a\n")
    c:finish()
    m:await("s", "received a")
    delete("slow")
    assert.are.equal("a!", c:all())
    m:await("s", "closed [fin]")
  end)

  it("begin and end on a connection that waits", function()
    start()
    local c <close> = m:connect("s")
    c:send("a\n")
    assert.are.equal("a!", c:receive(2))
    add("{ name = 'up', type = 'latency', stream = 'upstream', latency = 200 }")
    local t = host.sys.now()
    c:send("b\n")
    assert.are.equal("b!", c:receive(2))
    assert.is_true(host.sys.now() - t >= 0.19)
    control("toxic_patch", "name = 'up', toxic = { latency = 60000 }")
    delete("up")
    c:send("c\n")
    assert.are.equal("c!", c:receive(2))
    add("{ name = 'cut', type = 'timeout', timeout = 50 }")
    assert.are.equal("", c:all())
    m:await("s", "closed [closed]")
  end)

  describe("that slice", function()
    local SIZE = 200000

    -- Each client sends a line of SIZE bytes at a time and is told how many have come.
    local function lost(clients, rounds)
      local out, all = {}, {}
      for i = 1, clients do all[i] = m:connect("count") end
      for _ = 1, rounds do
        for at = 1, SIZE, 20000 do
          for _, c in ipairs(all) do c:send(("x"):rep(20000) .. (at + 20000 > SIZE and "\n" or "")) end
        end
        for _, c in ipairs(all) do
          local came = tonumber((c:receive(#tostring(SIZE))))
          if came ~= SIZE then out[#out + 1] = SIZE - (came or 0) end
        end
      end
      for _, c in ipairs(all) do c:close() end
      return out
    end

    local COUNT = [[
      local count = mock.server { "tcp://127.0.0.1:0", name = "count", frame = { line = "\n", max = 8 << 20 } }
      count:otherwise(function(_, frame) return ("%06d"):format(#frame) end)
      count:toxic { type = "slicer", stream = "upstream", average_size = 16 }]]

    it("lose nothing though slices of computing are short", function()
      start(COUNT, { args = { "-o", "time_slice=0.001" } })
      assert.are.same({}, lost(4, 4))
    end)

    it("let four million bytes through", function()
      start([[
        s:on("^huge$", function(c) c:send(("x"):rep(4000000)) c:close() end)
        s:toxic { type = "slicer", average_size = 64 }]], { args = { "-o", "cpu_limit=2" } })
      local c <close> = m:connect("s", { timeout = 60 })
      c:send("huge\n")
      assert.are.equal(4000000, #c:all())
    end)
  end)

  for name, spec in pairs {
    latency = "{ type = 'latency', latency = 60000 }", bandwidth = "{ type = 'bandwidth', rate = 0 }",
    ["slow_close"] = "{ type = 'slow_close', delay = 60000 }",
  } do
    it("that hold something do not hold up the end: " .. name, function()
      start("s:toxic " .. spec)
      local c <close> = m:connect("s")
      c:send("a\n")
      m:await("s", "received a")
      c:reset()
      m:await("s", "closed [rst]")
      local d <close> = m:connect("s")
      d:send("b\n")
      m:await("s", "received b")
      d:finish()
      local t = host.sys.now()
      m:stop()
      assert.is_true(host.sys.now() - t < 1.9)
      start()
    end)
  end

  it("that draw lots tell their seed, and a run with it gives the same", function()
    local function run(seed)
      start(("s:toxic { name = 'bad', type = 'corrupt', rate = 0.2%s }"):format(seed and ", seed = " .. seed or ""))
      local got = {}
      for i = 1, 3 do
        local c <close> = m:connect("s")
        c:send(("abcdefgh"):rep(20) .. "\n")
        got[i] = c:receive(161)
      end
      return got
    end
    local first = run()
    local seed = m:journal("s", "toxic")[1]:match("^toxic bad applies, seed (%d+)$")
    assert.are_not.equal(first[1], first[2])
    local c <close> = m:connect("s")
    c:send("expect\nx\n")
    c:all()
    local code, log = m:finish()
    assert.are.equal(1, code)
    assert.truthy(log:find("toxic bad drew lots: seed = " .. seed, 1, true), log)
    assert.are.same(first, run(seed))
    assert.are_not.same(first, (function() m:stop() return run(seed + 1) end)())
  end)
end)
