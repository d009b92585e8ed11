-- Toxics of datagram mocks, over real sockets: what they do to several datagrams, whichever request each belongs to.

local host = require("support.host")
local mocks = require("support.mocks")

local m

local function names(n) return "unixgram://@mock-datagram-spec-" .. n .. host.sys.now() end

local TRANSPORTS = {
  udp = { url = "udp://127.0.0.1:0" },
  unixgram = { url = names("server"), client = function() return { bind = names("client") } end },
}

-- Starts an echo that sends "<" in front; each line of toxics is one.
local function script(transport, ...)
  local lines = { ('local s = mock.server { %q, name = "s" }'):format(transport.url),
    's:on("^sleep$", function(c) c:send("<before") c:sleep(0.5) c:note("half") c:sleep(30) end)',
    's:otherwise(function(c, f) return "<" .. f end)' }
  for _, toxic in ipairs { ... } do lines[#lines + 1] = "s:toxic " .. toxic end
  return table.concat(lines, "\n")
end

local function start(...) m = mocks.start(script(...)) end

local function connect(transport) return m:connect("s", transport.client and transport.client()) end

local function send(c, ...)
  for _, datagram in ipairs { ... } do
    assert(host.sys.poll(c.fd, "w", host.LIMIT))
    assert(host.sys.send(c.fd, datagram))
  end
end

-- The next n datagrams.
local function take(c, n)
  local out = {}
  for i = 1, n do out[i] = c:some() end
  return out
end

-- What came in, or was sent, in the journal's order.
local function journal(kind)
  local out = {}
  for i, line in ipairs(m:journal("s", kind)) do out[i] = line:gsub("^%a+ ", "") end
  return out
end

local function control(op, fields)
  return m:ask(("return mock.control(%q, { server = 's', %s })"):format(op, fields or ""))
end

for name, transport in pairs(TRANSPORTS) do
  describe("toxics of datagrams over " .. name, function()
    after_each(function()
      local ok, why = pcall(m.stop, m)
      host.cleanup()
      assert(ok, why)
    end)

    for _, stream in ipairs { "upstream", "downstream" } do
      it("reorder changes the places of two, " .. stream, function()
        start(transport, ("{ type = 'reorder', stream = '%s', rate = 1, delay = 60000 }"):format(stream))
        local c <close> = connect(transport)
        send(c, "a", "b", "c", "d")
        assert.are.same({ "<b", "<a", "<d", "<c" }, take(c, 4))
        local want = stream == "upstream" and { "b", "a", "d", "c" } or { "a", "b", "c", "d" }
        assert.are.same(want, journal("received"))
      end)

      it("duplicate gives two, " .. stream, function()
        start(transport, ("{ type = 'duplicate', stream = '%s', rate = 1 }"):format(stream))
        local c <close> = connect(transport)
        send(c, "a", "b")
        assert.are.same({ "<a", "<a", "<b", "<b" }, take(c, 4))
        assert.are.equal(stream == "upstream" and 4 or 2, #journal("received"))
      end)

      it("packet_loss of 1 loses all, " .. stream, function()
        start(transport,
          ("{ name = 'loss', type = 'packet_loss', stream = '%s', loss_rate = 1, seed = 1 }"):format(stream))
        local c <close> = connect(transport)
        send(c, "a", "bc")
        m:await("s", "toxic loss drops a datagram of 2 bytes")
        assert.are.equal(stream == "upstream" and 0 or 2, #journal("received"))
        assert.are.same({}, journal("sent"))
        control("toxic_delete", "name = 'loss'")
        send(c, "x")
        assert.are.same({ "<x" }, take(c, 1))
      end)

      it("latency delays all by the same, and holds up nothing behind, " .. stream, function()
        start(transport, ("{ type = 'latency', stream = '%s', latency = 300 }"):format(stream))
        local c <close> = connect(transport)
        local t = host.sys.now()
        send(c, "a", "b", "c")
        assert.are.same({ "<a", "<b", "<c" }, take(c, 3))
        local took = host.sys.now() - t
        assert.is_true(took >= 0.299 and took < 0.85, took)
      end)

      it("a chance of a half with a seed meets the same ones in every run, " .. stream, function()
        local got = {}
        for run = 1, 2 do
          start(transport, ("{ type = 'packet_loss', stream = '%s', loss_rate = 0.5, seed = 7 }"):format(stream))
          local c <close> = connect(transport)
          for i = 1, 40 do send(c, "d" .. i) end
          local kind = stream == "upstream" and "received" or "sent"
          host.eventually("all 40", function()
            return #m:journal("s", kind) + #m:journal("s", "toxic") == 41 -- one tells that the toxic applies
          end)
          got[run] = journal(kind)
          if run == 1 then m:stop() end
        end
        assert.are.same(got[1], got[2])
        assert.is_true(#got[1] > 5 and #got[1] < 35)
      end)
    end

    it("nth and first count the server's datagrams; toxicity is each one's", function()
      start(transport, "{ type = 'packet_loss', name = 'second', loss_rate = 1, nth = 2, stream = 'upstream' }",
        "{ type = 'packet_loss', name = 'some', loss_rate = 1, toxicity = 0.5, seed = 3 }")
      local c <close> = connect(transport)
      local d <close> = connect(transport)
      for i = 1, 20 do send(i % 2 == 0 and d or c, "d" .. i) end
      host.eventually("all", function() return #m:journal("s", "received") == 19 end)
      assert.are.equal("d3", journal("received")[2])
      assert.is_true(#journal("sent") > 3 and #journal("sent") < 16)
      m:await("s", "toxic some applies to each at a chance of 0.5, seed 3")
    end)

    it("bandwidth is shared by all, and what it holds goes when it is taken away", function()
      start(transport, "{ name = 'slow', type = 'bandwidth', rate = 0 }")
      local c <close> = connect(transport)
      local d <close> = connect(transport)
      send(c, "a", "b")
      send(d, "c")
      host.eventually("three", function() return #m:journal("s", "received") == 3 end)
      assert.are.same({}, journal("sent"))
      control("toxic_patch", "name = 'slow', toxic = { rate = 0.02 }") -- 20 bytes a second
      assert.are.same({ "<a" }, take(c, 1))
      local t = host.sys.now()
      assert.are.same({ "<b" }, take(c, 1))
      assert.are.same({ "<c" }, take(d, 1))
      assert.is_true(host.sys.now() - t >= 0.19)
      control("toxic_patch", "name = 'slow', toxic = { rate = 0 }")
      send(c, "x", "y")
      host.eventually("two more", function() return #m:journal("s", "received") == 5 end)
      control("toxic_delete", "name = 'slow'")
      assert.are.same({ "<x", "<y" }, take(c, 2))
    end)

    it("what waits goes in time, whatever became of the request that was first", function()
      start(transport, "{ type = 'latency', latency = 100 }")
      local c <close> = connect(transport)
      send(c, "sleep") -- its request goes on for long
      assert.are.same({ "<before" }, take(c, 1))
      local t = host.sys.now()
      send(c, "a")
      assert.are.same({ "<a" }, take(c, 1))
      assert.is_true(host.sys.now() - t < 5)
    end)

    it("another request sees to what waits when the first is cancelled", function()
      m = mocks.start(script(transport, "{ type = 'latency', latency = 700 }"),
        { args = { "-o", "request_timeout=1" } })
      local c <close> = connect(transport)
      send(c, "sleep")
      m:await("s", "note half")
      send(c, "a") -- its reply is due after the first request's time is over
      assert.are.same({ "<before", "<a" }, take(c, 2))
    end)

    it("a sender is one connection, also after a reload and many others, and a new one after a reset", function()
      start(transport)
      local c <close> = connect(transport)
      send(c, "a")
      assert.are.same({ "<a" }, take(c, 1))
      m:ask([[local s = require("moonport.mock.registry").get("s") for i = 1, 1100 do s:count_datagram("x" .. i) end]])
      m.program:kill("HUP")
      m.program:find("reloaded", true)
      m.door:close()
      m.door = nil
      send(c, "b")
      assert.are.same({ "<b" }, take(c, 1))
      assert.are.equal(1101, #m:journal("s", "open"))
      control("reset")
      send(c, "d")
      assert.are.same({ "<d" }, take(c, 1))
      assert.are.equal(1102, #m:journal("s", "open"))
    end)

    it("a drain and a reset drop what waits", function()
      start(transport, "{ type = 'latency', latency = 60000 }",
        "{ type = 'latency', name = 'up', latency = 60000, stream = 'upstream', first = 1 }")
      local c <close> = connect(transport)
      send(c, "a", "b", "c")
      host.eventually("two overtake the first", function() return #m:journal("s", "received") == 2 end)
      control("reset")
      control("toxic_delete", "name = 'up'")
      send(c, "d", "e")
      host.eventually("both have come", function() return #m:journal("s", "received") == 4 end)
      assert.are.same({ "b", "c", "d", "e" }, journal("received"))
      local t = host.sys.now()
      m:stop()
      assert.is_true(host.sys.now() - t < 1.9)
      m = mocks.start('mock.server { "udp://127.0.0.1:0", name = "s" }')
    end)

    it("are lost past a bound, which the journal tells", function()
      start(transport, "{ name = 'slow', type = 'bandwidth', rate = 0 }")
      local c <close> = connect(transport)
      for i = 1, 1005 do
        send(c, tostring(i))
        if i % 50 == 0 then
          host.eventually(i .. " have come", function() return #m:journal("s", "received") == i end)
        end
      end
      m:await("s", "toxic 1000 datagrams wait: one of 5 bytes is lost")
      assert.are.equal(0, #journal("sent"))
    end)
  end)
end
