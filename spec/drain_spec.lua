--- Leaving: signals, drains, timeouts, cancelled requests, and new code for old.

local host = require("support.host")
local common = require("support.mixin")
local sys = host.sys

local LEAVING = "spec/fixtures/leaving.lua"

-- Clients with a request each that has begun.
local function begin(p, n)
  local clients = {}
  for i = 1, n do
    clients[i] = host.connect(p:url())
    assert.are.equal("here", clients[i]:ask("here"))
  end
  return clients
end

-- How often the script has said this.
local function said(p, text)
  local n = 0
  for _, e in ipairs(p:find("script")) do
    if e.message == text then n = n + 1 end
  end
  return n
end

local function count(list, test)
  local n = 0
  for _, v in ipairs(list) do
    if test(v) then n = n + 1 end
  end
  return n
end

-- Seconds until connecting is refused.
local function until_refused(p)
  local began = sys.now()
  host.eventually("connections refused", function()
    local fd = sys.socket(p:url())
    sys.connect(fd, p:url())
    sys.poll(fd, "w", 1)
    local errno = sys.error(fd)
    sys.close(fd)
    return errno == 111
  end)
  return sys.now() - began
end

-- It ends by itself, cleanly: seconds that it took.
local function assert_ends(p)
  local began = sys.now()
  assert.are.equal(0, p:wait(), host.read(p.log_path))
  local last = p:find("stopped")[1]
  for _, what in ipairs { "tasks", "streams", "descriptors", "timers", "buffered" } do
    assert.are.equal(0, last[what], what)
  end
  return sys.now() - began, last
end

describe("a drain", function()
  after_each(host.cleanup)

  -- torture list 74
  it("stops accepting at once, and ends at its deadline with 100 in flight", function()
    local p = host.start(LEAVING, { args = { "--option=drain_timeout=5" } })
    local clients = begin(p, 100)
    local began = sys.now()
    p:kill("TERM")
    assert(until_refused(p) <= 2.5, "it went on accepting") -- 0.1, says the item; machines are shared
    assert.are.equal("still here", clients[1]:ask("still here"))
    assert_ends(p)
    local took = sys.now() - began
    assert(took >= 4.9 and took <= 5 + host.SOON, took .. " s")
    for _, c in ipairs(clients) do
      assert.are.equal("bye\n", c:all())
      c:close()
    end
    assert(said(p, "finish") >= 100) -- more when an attempt to connect came just before the signal
    assert.are.equal(100, said(p, "closed code=cancelled message=cancelled: the server stops"))
    assert.are.equal(100, #p:find("cancelled"))
    assert.are.equal(100, #p:find("still running"))
    assert.are.same({}, p:find("handler error"))
  end)

  -- torture list 74
  it("a second TERM ends it at once", function()
    local p = host.start(LEAVING, { args = { "--option=drain_timeout=60" } })
    local clients = begin(p, 100)
    clients[1]:send("stubborn\n")
    p:kill("TERM")
    p:find("draining", true)
    assert.are.equal("still here", clients[2]:ask("still here"))
    p:kill("TERM")
    assert(assert_ends(p) <= host.SOON, "it took too long")
    local closed = count(p:find("script"), function(e) return e.message:find("^closed") end)
    assert.are.equal(100, closed, "variables were not closed")
    for _, c in ipairs(clients) do
      assert(c:all():find("^b?y?e?\n?$"))
      c:close()
    end
  end)

  for _, signal in ipairs { "TERM", "INT" } do
    it("lets a request end in time, " .. signal, function()
      local p = host.start(LEAVING)
      local c <close> = host.connect(p:url())
      assert.are.equal("one", c:ask("one"))
      p:kill(signal)
      assert.are.equal(1, p:find("draining", true)[1].active)
      until_refused(p)
      assert.are.equal("two", c:ask("two"))
      c:finish()
      assert.are.equal("bye\n", c:all())
      assert_ends(p)
      assert.are.equal(1, said(p, "closed without an error"))
      assert.are.same({}, p:find("cancelled"))
    end)

    it("cancels what does not, " .. signal, function()
      local p = host.start(LEAVING, { args = { "--option=drain_timeout=0.2" } })
      local c <close> = begin(p, 1)[1]
      p:kill(signal)
      assert.are.equal("bye\n", c:all())
      assert_ends(p)
      assert.are.equal(1, #p:find("cancelled"))
    end)

    it("without a request is over at once, " .. signal, function()
      local p = host.start(LEAVING, { args = { "--option=drain_timeout=60" } })
      p:kill(signal)
      assert(assert_ends(p) <= host.SOON, "it took too long")
    end)
  end

  it("INT and TERM together are a first and a second one", function()
    local p = host.start(LEAVING, { args = { "--option=drain_timeout=60" } })
    local c <close> = begin(p, 1)[1]
    p:kill("INT")
    p:find("draining", true)
    p:kill("TERM")
    assert(assert_ends(p) <= host.SOON, "it took too long")
    c:close()
  end)

  it("serves those whom the kernel had let in before", function()
    local p = host.start(LEAVING)
    p:kill("STOP")
    for _, c in ipairs(common.late(p, 300, "hello\n")) do
      assert.are.equal("hello\nbye\n", c:all())
      c:close()
    end
    assert_ends(p)
  end)

  -- Each is over before the next one is accepted.
  local function start_busy(seconds, ...)
    return host.start(host.write(common.script(([[
      local line, began = self.rfile:readline(), os.clock()
      repeat until os.clock() - began > %s
      self.wfile:write(line)]]):format(seconds))), { args = { "--mixin=sync", ... } })
  end

  it("does not serve those who come while it serves these", function()
    local p = start_busy(0.005)
    local crowd = common.crowd(p:url(), 20, "here\n")
    host.eventually("answers", function() return crowd:is_refused() or crowd.answered > 100 end)
    p:kill("TERM")
    host.eventually("connections refused", function() return crowd:is_refused() end, host.SOON)
    crowd:close()
    assert_ends(p)
  end)

  it("serves these no longer than drain_timeout allows", function()
    local p = start_busy(0.005, "--option=drain_timeout=0.2")
    p:kill("STOP")
    local clients, answered = common.late(p, 400, "hello\n"), 0
    assert_ends(p)
    for _, c in ipairs(clients) do
      if c:all() == "hello\n" then answered = answered + 1 end
      c:close()
    end
    assert(answered > 0 and answered < 200, answered .. " were served")
  end)

  it("sends the whole of a reply to a client that reads late", function()
    local p = host.start(host.write([[
      local H = {}
      function H:handle() self.wfile:write(("0123456789abcdef"):rep(1 << 18)) end -- 4 MiB
      return H
    ]]))
    local c <close> = host.connect(p:url(), { receive = 4096 })
    assert.is_true(sys.poll(c.fd, "r", host.LIMIT))
    p:kill("TERM")
    p:find("draining", true)
    local text = c:all()
    assert.are.equal(4 << 20, #text)
    assert(text == ("0123456789abcdef"):rep(1 << 18))
    c:close()
    assert_ends(p)
    assert.are.same({}, p:find("cancelled"))
  end)

  for _, scheme in ipairs { "udp", "unixgram" } do
    for _, mixin in ipairs { "async", "sync" } do
      it("answers datagrams that were being handled, " .. scheme .. " " .. mixin, function()
        local folder = host.folder()
        local p = host.start(host.write([[
          local moonport = require("moonport")
          local H = {}
          function H:handle()
            moonport.log("info", "begun")
            moonport.sleep(0.3)
            self.wfile:write("late ", self.packet)
          end
          return H
        ]]), {
          listen = scheme == "udp" and "udp://127.0.0.1:0" or "unixgram://" .. folder .. "/s",
          args = { "--mixin=" .. mixin },
        })
        local c <close> = host.connect(p:url(), scheme == "unixgram" and { bind = "unixgram://" .. folder .. "/c" })
        assert(c:send("answer"))
        p:find("script", true)
        p:kill("TERM")
        assert.are.equal("late answer", (c:some()))
        assert_ends(p)
        assert.are.same({}, p:find("reply not sent"))
      end)
    end
  end

  it("that a handler asks for (server:shutdown) ends the program like a signal", function()
    local p = host.start(host.write([[
      local H = {}
      function H:handle()
        for line in self.rfile:lines() do
          if line == "stop" then self.server:shutdown() end
          self.wfile:write(line, "\n")
        end
      end
      return H
    ]]))
    local c <close> = host.connect(p:url())
    assert.are.equal("stop", c:ask("stop"))
    until_refused(p)
    assert.are.equal("more", c:ask("more"))
    c:close()
    assert_ends(p)
  end)

  it("begins when the standard input ends, with --exit-with-parent", function()
    local p = host.start(LEAVING, { stdin = true, args = { "--exit-with-parent" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    sys.write(p.stdin, "this is not the end\n")
    for _ = 1, 3 do assert.are.equal("one", c:ask("one")) end -- so it has been read by then
    assert.are.same({}, p:find("draining"))
    sys.close(p.stdin)
    p.stdin = nil
    p:find("draining", true)
    until_refused(p)
    assert.are.equal("two", c:ask("two"))
    c:close()
    assert_ends(p)
  end)

  it("does not begin when the standard input ends, without it", function()
    local p = host.start(LEAVING, { stdin = true })
    sys.close(p.stdin)
    p.stdin = nil
    begin(p, 1)[1]:close()
    assert.are.same({}, p:find("draining"))
    p:stop()
  end)
end)

describe("a cancelled request", function()
  after_each(host.cleanup)

  local function cancelled(command, args)
    local p = host.start(LEAVING, { args = args or { "--option=drain_timeout=0.2" } })
    local c = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    assert(c:send(command .. "\n"))
    p:kill("TERM")
    return p, c
  end

  it("gets an error with the code 'cancelled'", function()
    local p, c = cancelled("look")
    assert.are.equal("bye\n", c:all())
    c:close()
    assert_ends(p)
    local e = "code=cancelled message=cancelled: the server stops"
    assert.are.equal(1, said(p, "caught false table " .. e .. " cancelled: the server stops"), host.read(p.log_path))
    assert.are.equal(1, said(p, "closed " .. e))
    assert.are.equal(1, said(p, "finish"))
  end)

  it("closes its variables, also those of coroutines of its own, and finishes", function()
    local p, c = cancelled("nested")
    assert.are.equal("bye\n", c:all())
    c:close()
    assert_ends(p)
    assert.are.equal(3, said(p, "closed code=cancelled message=cancelled: the server stops"), host.read(p.log_path))
    assert.are.equal(1, said(p, "finish"))
    assert.are.equal(1, #p:find("cancelled"))
  end)

  it("may wait while it cleans up", function()
    local p, c = cancelled("slowly")
    assert.are.equal("bye\n", c:all())
    c:close()
    assert_ends(p)
    assert.are.equal(1, said(p, "slept while it was closed"))
    assert.are.equal(1, said(p, "finish"))
  end)

  it("that does not give in is ended after cancel_grace", function()
    local began = sys.now()
    local p, c = cancelled("stubborn", { "--option=drain_timeout=0.2", "--option=cancel_grace=0.5" })
    c:all()
    c:close()
    assert_ends(p)
    local took = sys.now() - began
    assert(took >= 0.7 and took < 5, took .. " s")
    assert.are.equal(1, said(p, "ignored code=cancelled message=cancelled: the server stops"))
    assert.is_truthy(host.read(p.log_path):find("it went on after it was cancelled", 1, true))
    assert.are.equal(1, said(p, "closed without an error"), "its variables were not closed")
  end)

  it("that does not give in disturbs nobody else", function()
    local p = host.start(LEAVING, { listen = "", args = {
      "--listen=tcp://127.0.0.1:0", "--option=request_timeout=0.3", "--option=cancel_grace=0.3",
      "scripts/echo.lua", "--listen=tcp://127.0.0.1:0",
    } })
    local descriptors = p:descriptors()
    local canary <close> = host.connect(p:url("echo"))
    assert.are.equal("before", canary:ask("before"))
    local c <close> = host.connect(p:url("leaving"))
    c:send("stubborn\n")
    assert.are.equal("", (c:all():gsub("^bye\n$", "")))
    c:close()
    assert.are.equal("after", canary:ask("after"))
    local next_one <close> = host.connect(p:url("leaving"))
    assert.are.equal("here", next_one:ask("here"))
    next_one:close()
    canary:close()
    host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
    p:stop()
  end)
end)

describe("request_timeout", function()
  after_each(host.cleanup)

  it("ends a request however busy it is", function()
    local p = host.start(LEAVING, { args = { "--option=request_timeout=0.5" } })
    local c <close> = host.connect(p:url())
    local began = sys.now()
    local reply
    repeat reply = c:ask("here") until reply ~= "here" or sys.now() - began > 5
    local took = sys.now() - began
    assert.are.equal("bye", reply)
    assert(took >= 0.45 and took < host.SOON, took .. " s")
    assert.are.equal(1, said(p, "closed code=cancelled message=cancelled: request_timeout"))
    assert.are.equal("cancelled: request_timeout", p:find("cancelled")[1].why)
    c:close()
    local again <close> = host.connect(p:url())
    assert.are.equal("1", again:ask("cancelled"))
    again:close()
    p:stop()
  end)

  it("leaves alone what ends before", function()
    local p = host.start(LEAVING, { args = { "--option=request_timeout=60" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    c:finish()
    assert.are.equal("bye\n", c:all())
    assert.are.equal(0, p:stop().timers)
  end)
end)

describe("idle_timeout", function()
  after_each(host.cleanup)

  it("ends a request whose client is silent, and no other", function()
    local p = host.start(LEAVING, { args = { "--option=idle_timeout=0.5" } })
    local talker <close> = host.connect(p:url())
    local silent <close> = host.connect(p:url())
    local began, ended = sys.now(), nil
    repeat
      assert.are.equal("here", talker:ask("here"))
      if not ended and sys.poll(silent.fd, "r", 0) then ended = sys.now() - began end
    until sys.now() - began > 1.5
    assert(ended and ended >= 0.45, "after " .. tostring(ended) .. " s")
    assert.are.equal("bye\n", silent:all())
    assert.are.equal("1", talker:ask("cancelled"))
    assert.are.equal(1, said(p, "closed code=cancelled message=cancelled: idle_timeout"))
    silent:close()
    talker:close()
    p:stop()
  end)

  it("does not end a request that writes", function()
    local p = host.start(LEAVING, { args = { "--option=idle_timeout=0.5" } })
    local c <close> = host.connect(p:url())
    c:send("tick\n") -- ten ticks in a second
    assert.are.equal("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nbye\n", c:all())
    c:close()
    p:stop()
  end)
end)

describe("SIGUSR1", function()
  after_each(host.cleanup)

  it("logs every request with its traceback", function()
    local p = host.start(LEAVING)
    local reading <close> = host.connect(p:url())
    assert.are.equal("here", reading:ask("here"))
    local sleeping <close> = host.connect(p:url())
    sleeping:send("look\n")
    assert.are.equal("here", reading:ask("here")) -- the other has been read by now, or is soon
    local tasks = host.eventually("two tasks, one asleep", function()
      local before = #p:find("task")
      p:kill("USR1")
      host.eventually("tasks logged", function() return #p:find("task") == before + 2 end)
      local all = p:find("task")
      local last = { all[#all - 1], all[#all] }
      if (last[1].traceback .. last[2].traceback):find("pcall", 1, true) then return last end
    end)
    assert.are.equal(2, p:find("tasks")[1].count)
    local _, port = sys.name(reading.fd)
    for _, e in ipairs(tasks) do
      assert.are.equal("leaving", e.server)
      assert.are.equal("waiting", e.state)
      assert.are.equal(1, e.generation)
      assert(type(e.age_ms) == "number" and e.age_ms >= 0 and e.age_ms < 60000)
      assert.is_truthy(e.traceback:find("spec/fixtures/leaving%.lua:%d+"), e.traceback)
      if e.client == "127.0.0.1:" .. port then
        assert.is_falsy(e.traceback:find("pcall", 1, true), e.traceback)
      else
        assert.is_truthy(e.traceback:find("sleep", 1, true), e.traceback)
      end
    end
    assert.are_not.equal(tasks[1].client, tasks[2].client)
    assert.are.equal("undisturbed", reading:ask("undisturbed"))
    reading:close()
    sleeping:close()
    p:kill("TERM")
    p:find("draining", true)
    p:kill("TERM")
    assert_ends(p)
  end)

  it("says when there is none", function()
    local p = host.start(LEAVING)
    p:kill("USR1")
    assert.are.equal(0, p:find("tasks", true)[1].count)
    assert.are.same({}, p:find("task"))
    p:stop()
  end)
end)
