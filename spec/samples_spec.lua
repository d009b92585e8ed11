local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

-- The programs of scripts/socketserver, each run as its first lines say.

local FOLDER = "scripts/socketserver/"
local seen = {} -- samples that a spec has run

local function start(name, ...)
  seen[name] = true
  local path = FOLDER .. name
  assert.is_truthy(host.read(path):find("--   lua5.4 " .. path, 1, true), "its command is not among its first lines")
  return plain.start("arg = { [0] = arg[2], table.unpack(arg, 3) } dofile(arg[0])", path, ...)
end

-- Where it says that it listens: its first line is its class and address.
local function address(p, class) return p:expect("^" .. class .. " %((.-)%)\n") end

-- Ctrl-C.
local function interrupt(p)
  sys.kill(p.pid, "INT")
  assert.are.equal(1, (p:wait()))
  assert.matches("interrupted!", p:log())
  assert.is_nil(p:log():find(" error ", 1, true), p:log())
end

describe("the sample", function()
  after_each(plain.cleanup)

  it("tcp_echo.lua serves one after the other", function()
    local p = start("tcp_echo.lua", "0")
    local url = address(p, "TCPServer")
    local first, second = host.connect(url), host.connect(url)
    assert(second:send("second\n"))
    assert.are.equal("one", first:ask("one"))
    assert.are.equal("two", first:ask("two"))
    assert.is_false(sys.poll(second.fd, "r", 0))
    first:close()
    assert.are.equal("second", second:line())
    second:close()
    interrupt(p)
  end)

  it("tcp_upper.lua serves all at once", function()
    local p = start("tcp_upper.lua", "0")
    local url = address(p, "AsyncTCPServer")
    local first <close> = host.connect(url)
    local second <close> = host.connect(url)
    assert.are.equal("SECOND", second:ask("second"))
    assert.are.equal("FIRST", first:ask("first"))
    interrupt(p)
    assert.are.equal("", first:all())
  end)

  it("udp_upper.lua answers datagrams", function()
    local p = start("udp_upper.lua", "0")
    local url = address(p, "UDPServer")
    for i = 1, 3 do assert.are.equal("HELLO " .. i, plain.ask(url, "hello " .. i)) end
    interrupt(p)
  end)

  it("unix.lua knows its clients, and takes its path away", function()
    local path = host.folder() .. "/s"
    for _ = 1, 2 do
      local p = start("unix.lua", path)
      local c <close> = host.connect(address(p, "AsyncUnixStreamServer"))
      local me = host.read("/proc/self/stat"):match("^%d+")
      local user = host.read("/proc/self/status"):match("\nUid:%s+(%d+)")
      assert.are.equal(("process %s of user %s\n"):format(me, user), c:all())
      interrupt(p)
      assert.is_nil(sys.stat(path))
    end
  end)

  it("forking.lua has a process for each client", function()
    local p = start("forking.lua", "0")
    local url = address(p, "Server")
    local clients = {}
    for i, n in ipairs { 10, 100, 1000 } do
      clients[i] = host.connect(url)
      assert.are.equal(({ "4", "25", "168" })[i], clients[i]:ask(tostring(n)))
    end
    assert.are.equal("a number up to 5000000, please", clients[1]:ask("ten"))
    assert.are.equal(3, #p:children())
    for _, c in ipairs(clients) do c:close() end
    host.eventually("the children's end", function() return #p:children() == 0 end)
    interrupt(p)
  end)

  it("threading.lua is a server and its clients", function()
    local text = start("threading.lua"):done()
    local seconds = text:match("^ThreadingTCPServer %(tcp://127.0.0.1:%d+%)\n"
      .. "HELLO 1 from ThreadingTCPServer\nHELLO 2 from ThreadingTCPServer\nHELLO 3 from ThreadingTCPServer\n"
      .. "([%d.]+) seconds\n$")
    assert.is_truthy(seconds, text)
    assert.is_true(tonumber(seconds) < 1.5, seconds) -- each takes half a second
  end)

  it("is none that is not run here", function()
    for _, name in ipairs(sys.list(FOLDER)) do
      if name:find("%.lua$") then assert.is_true(seen[name], name) end
    end
  end)
end)

describe("docs/socketserver.md", function()
  after_each(plain.cleanup)

  it("begins with a program that does what it says", function()
    local text = host.read("docs/socketserver.md")
    local program, session = text:match("```lua\n(.-)```.-```console\n(.-)```")
    local p = plain.start((program:gsub("9999", "0")))
    local url = address(p, "AsyncTCPServer")
    local input, expected = session:match("%$ printf '(.-)' | nc %-N 127%.0%.0%.1 9999\n(.*)$")
    local c <close> = host.connect(url)
    assert(c:send((input:gsub("\\n", "\n"))))
    c:finish()
    assert.are.equal(expected, (c:all()))
    interrupt(p)
  end)
end)

describe("docs/reload.md", function()
  after_each(host.cleanup)

  -- Lines that the session sends by the connection that stays, lines by new ones, and edits, with what was printed.
  local function steps(session)
    local list = {}
    for line in session:gmatch("[^\n]+") do
      local text = line:match("^%$ echo (%w+) >&3$")
      local fresh = line:match("^%$ echo (%w+) | nc %-N 127%.0%.0%.1 9999$")
      local edit = line:match("^%$ sed %-i '(.+)' counter%.lua$")
      if text or fresh or edit then list[#list + 1] = { old = text, new = fresh, edit = edit } end
      if line:find("^%$ cat log") then break end
      if not line:find("^%$") then list[#list].prints = line end
    end
    return list
  end

  it("has a session that goes as it says, with scripts/counter.lua", function()
    local text = host.read("docs/reload.md")
    for line in text:match("```lua\n(.-)```"):gmatch("[^\n]+") do
      assert.is_truthy(host.read("scripts/counter.lua"):find(line:match("^.- end"), 1, true), line)
    end
    local list = steps(text:match("```console\n(.-)```"))
    assert.are.equal(6, #list)
    local path = host.write(host.read("scripts/counter.lua"), host.folder() .. "/counter.lua")
    local p = host.start(path, { args = { "--watch" } })
    local old <close> = host.connect(p:url())
    local outcomes = { "reloaded", "reload failed" }
    for _, step in ipairs(list) do
      if step.edit then
        assert(os.execute(("sed -i '%s' %s"):format(step.edit, path)))
        local event = p:find(table.remove(outcomes, 1), true)[1]
        local said = text:match(event.event .. " script=counter.lua generation=(%d)")
        assert.are.equal(tonumber(said), event.generation)
        if event.why then assert.is_truthy(text:find(event.why:gsub("^.*/", ""), 1, true), event.why) end
      elseif step.old then
        assert.are.equal(step.prints, old:ask(step.old))
      else
        local c <close> = host.connect(p:url())
        assert.are.equal(step.prints, c:ask(step.new))
      end
    end
    assert.are.equal(0, #outcomes)
    old:close()
    p:stop()
  end)
end)

describe("docs/limits.md", function()
  after_each(plain.cleanup)

  it("has a program that does what it says, with scripts/busy.lua", function()
    local text = host.read("docs/limits.md")
    local program, output = text:match("```lua\n(.-)```.-```console\n(.-)```")
    local p = plain.start(program)
    local printed = p:done()
    -- Its form is the page's; the numbers are the machine's.
    local form = output:match("\n(%d+ answers.*)$"):gsub("[%p]", "%%%0"):gsub("%d+", "%%d+")
    assert.matches("^" .. form .. "$", printed)
    assert.are.equal("1", printed:match("cpu_limit (%d+)"))
    assert.is_true(tonumber(printed:match("preempted (%d+)")) > 20, printed)
    assert.is_true(tonumber(printed:match("^%d+")) > 20, printed) -- without slices there are three
    assert.matches("scripts/busy.lua:12: it has computed for 2[%d.]* s without a wait", p:log())
  end)

  it("names all counters", function()
    local meta, text = host.read("lua/meta/moonport.lua"), host.read("docs/limits.md"):match("\n## Counters\n(.*)$")
    for _, class in ipairs { "Counters", "Stats: moonport.Counters" } do
      local fields = meta:match("\n%-%-%-@class moonport%." .. class .. "\n(.-)\n\n")
      for name in fields:gmatch("%-%-%-@field ([%w_]+) integer") do
        assert.is_truthy(text:find("`" .. name .. "`", 1, true), name)
      end
    end
  end)
end)
