-- What `make tsan` runs under ThreadSanitizer, whose reports make a program end with another code than 0; it is as
-- true, and quicker, without.

local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

local function flood(url, connections, requests, size)
  local p = assert(io.popen(("%s/flood '%s' %d %d %d"):format(host.build, url, connections, requests, size)))
  local said = p:read("a")
  return p:close(), said
end

-- A script with state, modules of the host and errors now and then.
local SCRIPT = [[
  local moonport = require("moonport")
  local H, seen = {}, {}
  function H:handle()
    for line in self.rfile:lines("L") do
      seen[#seen % 100 + 1] = line
      string.last = line
      self.wfile:write(line)
    end
    if #seen == 100 then self.server:stats() end
    if #seen % 7 == 1 then error("now and then") end
  end
  return H]]

describe("threads", function()
  after_each(plain.cleanup)

  it("serve 100,000 requests of 16 connections at a time, reloads among them, then stop", function()
    local path = host.write(SCRIPT)
    local p = host.start(path, {
      listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" },
      args = { "--mixin=threading", "-o", "max_threads=16", "-o", "thread_idle_timeout=0.05" },
    })
    local null = assert(sys.open("/dev/null", "w"))
    for round = 1, 10 do
      local pid = assert(sys.spawn({ host.build .. "/flood", p:url("script"), "16", "9600", "64" }, { stdout = null }))
      for _ = 1, 3 do
        p:kill("HUP")
        p:kill("USR1")
        local ok, said = flood(p:url("script-2"), 4, 150, 64)
        assert(ok, said)
      end
      assert.are.equal(0, sys.wait(pid, 60), "round " .. round)
    end
    sys.close(null)
    host.eventually("a reload of each", function() return #p:find("reloaded") >= 10 end)
    p:stop()
  end)

  it("serve short connections, many at once, and stop among them", function()
    local p = host.start(host.write(SCRIPT), {
      args = { "--mixin=threading", "-o", "max_threads=8", "-o", "drain_timeout=0.1" },
    })
    for _ = 1, 40 do
      local clients = {}
      for i = 1, 16 do
        clients[i] = host.connect(p:url())
        clients[i]:send("hello\n")
      end
      for _, c in ipairs(clients) do
        assert.are.equal("hello", c:line())
        c:close()
      end
    end
    local c <close> = host.connect(p:url())
    assert.are.equal("last", c:ask("last"))
    p:stop()
  end)
end)

describe("moonport.start", function()
  after_each(plain.cleanup)

  it("starts and stops 200 times, with a client each", function()
    assert.are.equal("200\n", plain.run([[
      local n = 0
      for i = 1, 200 do
        local server <close> = moonport.start(arg[2], { mixin = i % 2 == 0 and "threading" or "async" })
        n = n + moonport.run(function()
          local c = assert(moonport.connect(server.url))
          c:sendall("hello\n")
          local line = c:recv(100)
          c:close()
          return line == "hello\n" and 1 or 0
        end)
        server:stats()
        if i % 3 == 0 then server:shutdown() end
      end
      say(n)]], host.write((SCRIPT:gsub("if #seen %%%% 7.-\n", "")))))
  end)
end)
