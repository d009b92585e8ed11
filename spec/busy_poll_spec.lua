-- Polling before a sleep: see host/loop/busy.h.  When it pays is spec/unit/busy_test.c's; how much, a benchmark's.
local host = require("support.host")

local ECHO = "scripts/echo.lua"

-- How often a program that is started with this choice waits, for so many requests in a row.
local function count_waits(choice, requests)
  local path = host.folder() .. "/calls"
  local p = host.start(ECHO, {
    loop = "epoll", -- whose waits are calls
    args = { "--busy-poll=" .. choice },
    wrap = { "strace", "-f", "-qq", "-e", "trace=epoll_wait", "-o", path },
    env = { host.traced() },
  })
  local c = host.connect(p:url())
  for i = 1, requests do
    assert(c:send(i .. "\n"))
    assert.are.equal(tostring(i), c:line())
    host.sys.poll(-1, "r", 0.002) -- a client that thinks for longer than the server polls
  end
  c:close()
  p:stop()
  local _, waits = host.read(path):gsub("epoll_wait%(", "")
  return waits
end

describe("polling before a sleep", function()
  after_each(host.cleanup)

  it("is off, or for as long as was asked", function()
    local off, long = count_waits("off", 50), count_waits("1000", 50)
    assert.is_true(off < 50 * 2 + 40, off .. " waits")
    assert.is_true(long > 2 * off, long .. " waits instead of " .. off)
  end)

  it("leaves an idle server idle, also right after requests", function()
    for _, command in ipairs { "auto", "50" } do
      local p = host.start(ECHO, { args = { "--busy-poll", command } })
      local c = host.connect(p:url())
      for _ = 1, 2000 do
        assert(c:send("x\n"))
        assert.are.equal("x", c:line())
      end
      assert.is_true(p:idle_share() < 0.01, "busy when idle, with " .. command)
      c:close()
      p:stop()
    end
  end)

  it("says what it takes", function()
    for _, wrong in ipairs { "x", "-1", "1001", "5s", "" } do
      local code, _, err = host.run { "serve", ECHO, "--busy-poll", wrong }
      assert.are.equal(100, code)
      assert.are.equal(("moonport: --busy-poll %s: it must be auto, off, or at most 1000 microseconds\n")
        :format(wrong), err)
    end
  end)
end)
