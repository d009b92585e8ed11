local host = require("support.host")
local sys = host.sys

describe("moonport serve", function()
  after_each(host.cleanup)

  local kinds = {
    { "TCPServer", "tcp://127.0.0.1:0" },
    { "TCPServer", "tcp://[::1]:0" },
    { "UnixStreamServer", "unix://%s/s" },
    { "UnixStreamServer", "unix://@moonport-spec-%s" },
  }
  for _, mixin in ipairs { "async", "sync" } do
    for _, kind in ipairs(kinds) do
      it("echoes lines under " .. mixin .. " " .. kind[2], function()
        local url = kind[2]:format(host.folder())
        local p = host.start("scripts/echo.lua", { listen = url, args = { "--mixin=" .. mixin } })
        local _, server = next(p.ready.servers)
        assert.are.equal((mixin == "async" and "Async" or "") .. kind[1], server.class)
        local c <close> = host.connect(p:url())
        assert.are.equal("hello", c:ask("hello"))
        assert.are.equal("again", c:ask("again"))
        c:finish()
        assert.are.equal("", c:all())
        p:stop()
      end)
    end
  end
end)

describe("moonport serve while it loads a script", function()
  after_each(host.cleanup)

  -- The first time it is loaded it says so in a file, with its pid and a program's signals, and waits at a gate.
  local function slow(gate, path)
    return host.write(gate:code() .. ([[
      local H, path = {}, %q
      local function read(f) local text = f:read("a") f:close() return text end
      if not io.open(path) then
        local f = assert(io.open(path .. ".new", "w"))
        f:write(read(assert(io.open("/proc/self/stat"))):match("^%%d+"), "\n")
        f:write(read(assert(io.popen("cat /proc/self/status"))))
        f:close()
        os.rename(path .. ".new", path)
        gate()
      end
      function H:handle() self.wfile:write("here\n") end
      return H
    ]]):format(path))
  end

  local function start(args, signals, after)
    local gate, path, sent = host.gate(), host.folder() .. "/loading", false
    return path, host.start(slow(gate, path), { args = args, meanwhile = function()
      if sent or not sys.stat(path) then return end
      local pid = math.tointeger(tonumber(host.read(path):match("^%d+")))
      for _, signal in ipairs(signals) do sys.kill(pid, signal) end
      if after then after(gate) end
      sent = true
    end })
  end
  local function pass(gate) gate:pass() end

  for _, how in ipairs { "--mixin=async", "--mixin=threading", "--mixin=forking", "--workers=2" } do
    it("keeps HUP and USR1 until it is ready: " .. how, function()
      local _, p = start({ how }, { "HUP", "USR1" }, pass)
      assert.are.equal(2, p:find("reloaded", true)[1].generation)
      p:find("tasks", true)
      assert.are.equal(1, #p:find("reloaded"))
      local c <close> = host.connect(p:url())
      assert.are.equal("here", c:line())
      c:close()
      p:stop()
    end)
  end

  it("is ended by TERM and INT", function()
    for signal, number in pairs { TERM = 15, INT = 2 } do
      local ok, why = pcall(start, {}, { signal })
      assert.is_false(ok)
      assert.matches("ended with %-" .. number .. " before it was ready", why)
    end
  end)

  it("starts programs that have the signals as usual", function()
    local path, p = start({}, {}, pass)
    local status = host.read(path)
    for _, name in ipairs { "SigBlk", "SigIgn", "SigCgt" } do
      local mask = tonumber(status:match(name .. ":%s+(%x+)"), 16)
      assert.are.equal(0, mask & (1 << 0 | 1 << 9), name .. " of HUP and USR1") -- the bits of 1 and 10
    end
    p:stop()
  end)
end)
