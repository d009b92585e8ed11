local case = require("support.case")
local host = require("support.host")
local plain = require("support.plain")

local p

describe("moonport.event", function()
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for what, piece in pairs {
    ["wakes a task that waits"] = { [[
      local e, out = moonport.event(), {}
      moonport.spawn(function() out[1] = "set" e:set() end)
      return e:wait(), out[1] ]], true, "set" },
    ["that was set before lets one wait go on at once"] = { [[
      local e, others = moonport.event(), 0
      moonport.spawn(function() others = others + 1 end)
      e:set()
      e:set()
      local first, seen = e:wait(), others
      return first, seen, e:wait(0)]], true, 0, nil, "timeout" },
    ["wakes all that wait, and is not set by that"] = { [[
      local e, n = moonport.event(), 0
      for _ = 1, 3 do moonport.spawn(function() e:wait() n = n + 1 end) end
      moonport.sleep(0)
      e:set()
      local ok, why = e:wait(0.01)
      return n, ok, why]], 3, nil, "timeout" },
    ["gives up after the time that it is given"] = { [[
      local e, began = moonport.event(), moonport.monotonic()
      local ok, why = e:wait(0.02)
      return ok, why, moonport.monotonic() - began >= 0.02]], nil, "timeout", true },
    ["can be waited for in a coroutine"] = { [[
      local e = moonport.event()
      moonport.spawn(function() moonport.sleep(0.001) e:set() end)
      return coroutine.wrap(function() return e:wait() end)()]], true },
    ["forgets a waiter whose time was over"] = { [[
      local e = moonport.event()
      e:wait(0)
      e:set()
      return e:wait(0)]], true },
    ["is collected when nobody has it"] = { [[
      local weak = setmetatable({}, { __mode = "v" })
      weak[1] = moonport.event()
      weak[1]:set()
      collectgarbage()
      return weak[1] ]], nil },
    ["lives while somebody waits for it"] = { [[
      local weak = setmetatable({}, { __mode = "v" })
      moonport.spawn(function() moonport.event():wait() end)
      moonport.spawn(function() local e = moonport.event() weak[1] = e e:wait() e = nil kept.woke = true end)
      moonport.sleep(0)
      collectgarbage() collectgarbage()
      weak[1]:set()
      moonport.sleep(0)
      return kept.woke]], true },
    ["may be set where nothing can wait"] = { [[
      local e = moonport.event()
      moonport.spawn(function() table.sort({ 1, 2 }, function() e:set() end) end)
      return e:wait()]], true },
    ["may be set by a finalizer"] = { [[
      local e = moonport.event()
      moonport.spawn(function() setmetatable({}, { __gc = function() e:set() end }) collectgarbage() end)
      return e:wait()]], true },
    ["says where nothing can wait"] = { [[
      local e = moonport.event()
      local ok, why = pcall(table.sort, { 1, 2 }, function() e:wait() end)
      e:set()
      return ok, why:match("cannot wait inside table.sort") ~= nil, e:wait(0)]], false, true, true },
    ["passes between a producer and a consumer, losing nothing"] = { [[
      local more, room, queue, sum = moonport.event(), moonport.event(), {}, 0
      moonport.spawn(function()
        for i = 1, 2000 do
          while #queue >= 3 do room:wait() end
          queue[#queue + 1] = i
          more:set()
        end
      end)
      for _ = 1, 2000 do
        while #queue == 0 do more:wait() end
        sum = sum + table.remove(queue, 1)
        room:set()
      end
      return sum]], 2001000 },
  } do
    it(what, function()
      local got = case.run(p, piece[1])
      assert.are_not.equal("raised", got[1], got[2])
      for i = 1, 4 do assert.are.equal(piece[i + 1], got[i]) end
    end)
  end

  it("takes no number of seconds below zero, and no other self", function()
    local got = case.run(p, [[
      local e = moonport.event()
      local _, a = pcall(e.wait, e, -1)
      local _, b = pcall(e.wait, {})
      return a, b]])
    assert.matches("seconds must not be negative", got[1])
    assert.matches("moonport.event expected", got[2])
  end)

  it("wakes tasks of other requests", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece("kept.shared = moonport.event() wfile:write('!') return kept.shared:wait()"))
    assert.are.equal("!", c:receive(1))
    case.run(p, "kept.shared:set()")
    c:finish()
    assert.are.same({ true, n = 1 }, (case.results((c:all()))))
  end)

  it("survives waiters that are cancelled, killed, or gone", function()
    local q = case.start { args = { "-o", "request_timeout=0.1", "-o", "cancel_grace=0.1" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece [[
      kept.e = moonport.event()
      moonport.spawn(function() kept.e:wait() kept.wrong = true end)
      moonport.spawn(function() while true do pcall(kept.e.wait, kept.e) end end)
      kept.e:wait()]])
    assert.are.same({ "raised", "cancelled: request_timeout", n = 2 }, (case.results((c:all()))))
    c:close()
    assert.are.same({ true, n = 2 }, case.run(q, "kept.e:set() return kept.e:wait(0.01), kept.wrong"))
    q:stop()
  end)

  it("refuses to be waited for by what closes a task that was about to run", function()
    local q = case.start()
    local piece = [[
      local e = moonport.event()
      for _ = 1, 3 do
        moonport.spawn(function()
          local _ <close> = setmetatable({}, { __close = function() kept.why = select(2, pcall(e.wait, e)) end })
          e:wait()
        end)
      end
      moonport.sleep(0)
      e:set()]]
    for _ = 1, 20 do assert.are.same({ n = 0 }, case.run(q, piece)) end
    assert.matches("cannot", case.run(q, "return kept.why")[1])
    q:stop()
  end)

  it("cannot be waited for while a script is loaded, but be set", function()
    local script = host.write [[
      local moonport = require("moonport")
      local e = moonport.event()
      local ok, why = pcall(e.wait, e)
      e:set()
      function handle(self) self.wfile:write(tostring(ok), " ", why, " ", tostring(e:wait(0))) end]]
    local q = host.start(script)
    local c <close> = host.connect(q:url())
    assert.matches("^false this waits, and only a request can.* true$", (c:all()))
    c:close()
    q:stop()
  end)
end)

describe("moonport.event in a plain Lua", function()
  after_each(plain.cleanup)

  it("works inside run; outside it can be set", function()
    assert.matches("^false this waits.-\ntrue true nil timeout\n$", plain.run [[
      local e = moonport.event()
      say(pcall(e.wait, e))
      e:set()
      say(moonport.run(function()
        moonport.spawn(function() moonport.sleep(0.01) e:set() end)
        return e:wait(), e:wait(5), e:wait(0)
      end))]])
  end)
end)
