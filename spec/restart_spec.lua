--- kill -9 at any moment, and the next one serves at once where the last one did.

local host = require("support.host")
local hammer = require("support.hammer")
local sys = host.sys

local TIMES = tonumber(os.getenv("MOONPORT_KILLS") or "80") -- 800 once in a while

local SCRIPT = [[
  local H = {}
  function H:handle() self.wfile:write(self.rfile:read(), "\n") end
  return H
]]

local function converse(url, word)
  local c <close> = host.connect(url)
  return c:ask(word)
end

-- Traffic on each of these, and in the midst of it, at another moment each time, the end.
local function kill_under_load(p, urls, random)
  local loads = {}
  for i, url in ipairs(urls) do
    loads[i] = hammer.new(url, 8, {
      say = function(n) return n % 4 == 0 and "half" or "hello\n" end, -- some wait for the rest
      heard = function(reply) assert(reply == "hello\n" or reply == "", reply) end,
    })
  end
  for _ = 1, random(60) do
    for _, load in ipairs(loads) do
      if load.nopen < load.n then load:begin() end
      load:listen(0)
    end
  end
  p:kill("KILL")
  assert.are.equal(-9, p:wait())
  return function()
    for _, load in ipairs(loads) do
      for _, one in pairs(load.open) do one.client:close() end
    end
  end
end

-- Numbers that look random and are the same in every run.
local function generator()
  local x = 1
  return function(n)
    x = x * 48271 % 2147483647
    return x % n
  end
end

describe("a program that is killed under load", function()
  after_each(host.cleanup)

  for name, args in pairs {
    async = { "-m", "async" },
    threading = { "-m", "threading" },
    forking = { "-m", "forking" },
    ["forking, pre-forked"] = { "-m", "forking", "-o", "max_requests_per_child=100", "-o", "max_children=4" },
  } do
    it("is replaced by one that serves soon, " .. name, function()
      local folder, random = host.folder(), generator()
      local script = host.write(SCRIPT)
      local p = host.start(script, { listen = { "tcp://127.0.0.1:0", "unix://" .. folder .. "/s" }, args = args })
      local urls = { p:url("script"), p:url("script-2") }
      for i = 1, TIMES // 4 do
        local close = kill_under_load(p, urls, random)
        local killed = sys.now()
        p:gone(host.SOON) -- its children have heard of it
        p = host.start(script, { listen = urls, args = args })
        for _, url in ipairs(urls) do assert.are.equal("served", converse(url, "served")) end
        assert.is_true(sys.now() - killed < host.SOON, ("%d: it took %.3f s"):format(i, sys.now() - killed))
        close()
      end
      p:stop()
      assert.are.same({}, sys.list(folder)) -- no path, no lock
    end)
  end
end)
