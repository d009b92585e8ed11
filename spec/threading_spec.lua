--- The threading mixin: a request has a thread and a Lua state to itself.

local hammer = require("support.hammer")
local host = require("support.host")
local common = require("support.mixin")
local sys = host.sys

local script, stats, greet, close_all, has_answer =
  common.script, common.stats, common.greet, common.close_all, common.has_answer

local ECHO = script("for line in self.rfile:lines('L') do self.wfile:write(line) end")

local function start(text, ...)
  local args = { "--mixin=threading" }
  for _, option in ipairs { ... } do args[#args + 1] = "--option=" .. option end
  return host.start(host.write(text), { args = args })
end

-- A handler that obeys: "block" stays at the gate in C, "spin" computes until the file is there,
-- "stats" and "shutdown" are the server's, anything else comes back.
local function obedient(gate)
  return script([[
    for line in self.rfile:lines() do
      if line == "block" then
        self.wfile:write("blocking\n"):flush()
        gate()
        self.wfile:write("let through\n")
      elseif line:find("^spin ") then
        self.wfile:write("spinning\n"):flush()
        local file
        repeat file = io.open(line:sub(6)) until file
        file:close()
        self.wfile:write("spun\n")
      elseif line:find("^run ") then
        self.wfile:write("running\n"):flush()
        os.execute(line:sub(5))
        self.wfile:write("ran\n")
      elseif line == "shutdown" then
        self.server:shutdown()
        self.wfile:write("shut\n")
      elseif line == "stats" then
        local parts = {}
        for name, n in pairs(self.server:stats()) do parts[#parts + 1] = name .. "=" .. n end
        self.wfile:write(table.concat(parts, " "), "\n")
      elseif line == "fail" then
        error("on purpose")
      else
        self.wfile:write(line, "\n")
      end
    end]], gate and gate:code() or "")
end

-- It ends by itself, cleanly; the last event of its log.
local function assert_ends(p)
  assert.are.equal(0, p:wait(), host.read(p.log_path))
  local last = assert(p:find("stopped")[1], host.read(p.log_path))
  for _, what in ipairs { "tasks", "streams", "descriptors", "timers", "buffered" } do
    assert.are.equal(0, last[what], what)
  end
  return last
end

-- At most one line a second for a cause.
local function assert_paced(p, event, since)
  local lines, seconds = #p:find(event), sys.now() - since
  assert(lines <= seconds + 1, ("%d x '%s' in %.1f s"):format(lines, event, seconds))
end

-- Before its first request a server may hold a state in readiness; one that has rested for long does not.
local function assert_at_rest(p, descriptors)
  host.eventually("one thread", function() return p:threads() == 1 end)
  host.eventually("descriptors back at " .. descriptors, function() return p:descriptors() <= descriptors end)
end

describe("a blocking handler", function()
  after_each(host.cleanup)

  it("in C delays only its own client", function()
    local gate = host.gate()
    local p = start(obedient(gate))
    local waiting <close> = host.connect(p:url())
    assert.are.equal("before", waiting:ask("before"))
    local blocked = greet(p:url(), 6, "block", "blocking") -- more than there are processors, on most machines
    for i = 1, 20 do
      local began = sys.now()
      assert.are.equal("here " .. i, waiting:ask("here " .. i))
      local c <close> = host.connect(p:url())
      assert.are.equal("new", c:ask("new"))
      assert(sys.now() - began < host.SOON, "they had to wait")
    end
    for _, c in ipairs(blocked) do assert.is_false(has_answer(c)) end
    gate:pass(6)
    for _, c in ipairs(blocked) do
      assert.are.equal("let through", c:line())
      assert.are.equal("after", c:ask("after"))
    end
    close_all(blocked)
    waiting:close()
    p:stop()
  end)

  it("that waits for another program delays only its own client", function()
    local flag = host.folder() .. "/flag"
    local p = start(obedient())
    local c <close> = host.connect(p:url())
    assert.are.equal("running", c:ask("run until test -e " .. flag .. "; do sleep 0.02; done"))
    for i = 1, 10 do
      local other <close> = host.connect(p:url())
      local began = sys.now()
      assert.are.equal("here " .. i, other:ask("here " .. i))
      assert(sys.now() - began < host.SOON, "it had to wait")
    end
    assert.is_false(has_answer(c))
    host.write("", flag)
    assert.are.equal("ran", c:line())
    c:close()
    p:stop()
  end)

  it("that computes delays only its own client", function()
    local flag = host.folder() .. "/flag"
    local p = start(obedient())
    local spinning = greet(p:url(), 3, "spin " .. flag, "spinning")
    for i = 1, 10 do
      local other <close> = host.connect(p:url())
      local began = sys.now()
      assert.are.equal("here " .. i, other:ask("here " .. i))
      assert(sys.now() - began < host.SOON, "it had to wait")
    end
    for _, c in ipairs(spinning) do assert.is_false(has_answer(c)) end
    host.write("", flag)
    for _, c in ipairs(spinning) do assert.are.equal("spun", c:line()) end
    close_all(spinning)
    p:stop()
  end)
end)

describe("max_threads", function()
  after_each(host.cleanup)

  it("is a ceiling for 500 clients: none is refused, none lost", function()
    local MAX = 32
    local p = start(script([[
      local number = self.rfile:readline()
      if tonumber(number) % 3 == 0 then os.execute("sleep 0.01") else moonport.sleep(0.005) end
      self.wfile:write(self.server:stats().active, " ", number)
    ]]), "max_threads=" .. MAX)
    local peak, most, memory = 0, 0, nil
    local h = hammer.new(p:url(), 500, {
      say = function(i) return i .. "\n", i end,
      heard = function(reply, i, message)
        local active, number = reply:match("^(%d+) (%d+)\n$")
        assert.are.equal(tostring(i), number, message)
        peak = math.max(peak, tonumber(active))
      end,
    })
    local function watch(done)
      most = math.max(most, p:threads())
      if done >= 600 and not memory then memory = p:memory() end
    end
    h:run(1500, watch)
    h:finish()
    assert(most > 2 and most <= MAX + 1, most .. " threads") -- and the first one
    assert(peak > 2 and peak <= MAX, peak .. " requests at once")
    if not host.sanitizer() then
      assert(p:memory() - memory <= 4096, ("%d KiB more"):format(p:memory() - memory))
    end
    assert.are.equal(1500, p:stop().requests)
    assert.are.same({}, p:find("accepting paused"))
  end)

  it("of requests that block in C: the next one waits until one has ended", function()
    local MAX = 8
    local gate = host.gate()
    local p = start(obedient(gate), "max_threads=" .. MAX)
    local blocked = greet(p:url(), MAX, "block", "blocking")
    assert.are.equal(MAX + 1, p:threads())
    local late = {}
    for i = 1, 20 do
      late[i] = host.connect(p:url())
      assert(late[i]:send(i .. "\n"))
    end
    local cpu = sys.cpu(p.pid)
    assert.is_false(sys.poll(late[1].fd, "r", 0.5))
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy at the ceiling")
    for _, c in ipairs(late) do assert.is_false(has_answer(c)) end
    assert.are.equal(MAX + 1, p:threads())
    gate:pass(1)
    local free = host.eventually("one let through", function()
      for i, c in ipairs(blocked) do
        if has_answer(c) then return table.remove(blocked, i) end
      end
    end)
    assert.are.equal("let through", free:line())
    assert.are.equal(MAX, stats(free).active)
    free:close()
    assert.are.equal("1", late[1]:line())
    for i = 1, 20 do -- each lets the next one in
      if i > 1 then assert.are.equal(tostring(i), late[i]:line()) end
      assert.are.equal(MAX, stats(late[i]).active)
      late[i]:close()
    end
    assert.are.equal(MAX + 1, p:threads())
    gate:pass(MAX - 1)
    for _, c in ipairs(blocked) do assert.are.equal("let through", c:line()) end
    close_all(blocked)
    assert.are.equal(MAX + 20, p:stop().requests)
  end)

  it("of one serves one after another", function()
    local p = start(obedient(), "max_threads=1")
    local first <close> = host.connect(p:url())
    assert.are.equal("here", first:ask("here"))
    local second <close> = host.connect(p:url())
    assert(second:send("there\n"))
    for _ = 1, 100 do assert.are.equal("here", first:ask("here")) end
    assert.is_false(has_answer(second))
    first:close()
    assert.are.equal("there", second:line())
    second:close()
    assert.is_true(p:threads() <= 2)
    p:stop()
  end)
end)

describe("thread_idle_timeout", function()
  after_each(host.cleanup)

  it("ends threads and frees their states", function()
    local gate = host.gate()
    local p = start(obedient(gate), "thread_idle_timeout=0.2")
    local descriptors, memory = p:descriptors(), nil
    for round = 1, 6 do
      local waiting = greet(p:url(), 24)
      local blocked = greet(p:url(), 8, "block", "blocking")
      assert(p:threads() >= 9)
      assert(p:descriptors() >= descriptors + 32)
      gate:pass(8)
      for _, c in ipairs(blocked) do assert.are.equal("let through", c:line()) end
      close_all(blocked)
      close_all(waiting)
      assert_at_rest(p, descriptors)
      descriptors = p:descriptors() -- from now on exactly
      if round == 3 then memory = p:memory() end
    end
    if not host.sanitizer() then
      assert(p:memory() - memory <= 4096, ("%d KiB more"):format(p:memory() - memory))
    end
    assert.are.equal(6 * 32, p:stop().requests)
  end)

  it("does not end what is not idle", function()
    local p = start(obedient(), "thread_idle_timeout=0.05")
    local descriptors = p:descriptors()
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    for _ = 1, 4 do
      assert.is_false(sys.poll(c.fd, "r", 0.1))
      assert.are.equal("still here", c:ask("still here"))
    end
    c:close()
    assert_at_rest(p, descriptors)
    p:stop()
  end)

  it("lets an idle server sleep", function()
    local p = start(obedient())
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    close_all(greet(p:url(), 16))
    c:some(0.1)
    local cpu = sys.cpu(p.pid)
    assert.are.same({ nil, "timeout", 0, n = 3 }, table.pack(c:some(1)))
    assert(sys.cpu(p.pid) - cpu <= 0.05, "busy")
    c:close()
    p:stop()
  end)
end)

describe("many requests", function()
  after_each(host.cleanup)

  -- torture list 49
  it("leave nothing behind", function()
    local p = host.start(host.write(ECHO), {
      listen = "unix://" .. host.folder() .. "/s", args = { "--mixin=threading", "--option=thread_idle_timeout=0.3",
        "--option=max_threads=4" }, -- so that each state gets its share, and is soon as large as it will be
    })
    local descriptors = p:descriptors()
    local h = hammer.new(p:url(), 16, {
      say = function(i)
        local line = ("%d %s\n"):format(i, ("x"):rep(i * 7 % 3000))
        return line, line
      end,
      heard = function(reply, line, message) assert(reply == line, message) end,
    })
    -- the client ends its side at once, so that the connection does
    local begin = h.begin
    function h:begin()
      begin(self)
      for _, one in pairs(self.open) do
        if not one.finished then one.client:finish() one.finished = true end
      end
    end
    h:run(6000)
    local memory = p:memory()
    h:run(20000)
    h:finish()
    if not host.sanitizer() then
      assert(p:memory() - memory <= 4096, ("%d KiB more"):format(p:memory() - memory))
    end
    assert_at_rest(p, descriptors)
    assert.are.equal(26000, p:stop().requests)
  end)
end)

-- A script whose answer is its generation's word, with what it heard.
local function version(n)
  return script(("self.wfile:write('v%d ', self.rfile:readline())"):format(n), ("-- %s"):format(("x"):rep(n % 7)))
end

-- Makes the script a new one and asks for it; returns once it is there.
local function reload(p, path, text)
  local n = #p:find("reloaded")
  host.write(text, path)
  p:kill("HUP")
  host.eventually("a reload in:\n" .. host.read(p.log_path), function() return #p:find("reloaded") == n + 1 end)
end

describe("under load", function()
  after_each(host.cleanup)

  -- torture list 47 (what the sanitizer sees is for make tsan) and 70, shorter
  it("reloads fail no request, and new requests run new code; then it stops", function()
    local path = host.write(version(1))
    local p = host.start(path, { args = { "--mixin=threading" } })
    local current, asked, reset, stopping = 1, 1, 0, false
    local h = hammer.new(p:url(), 16, {
      say = function(i) return i .. "\n", { number = i, at_least = current } end,
      heard = function(reply, tag, message)
        if stopping and reply == "" then -- the listener was closed between connect and accept
          reset = reset + 1
          return
        end
        local v, number = reply:match("^v(%d+) (%d+)\n$")
        assert.are.equal(tostring(tag.number), number, message)
        assert(tonumber(v) >= tag.at_least and tonumber(v) <= asked, reply .. " but " .. tag.at_least)
      end,
    })
    local due = 200
    h:run(4000, function(done)
      if asked > current and #p:find("reloaded") >= asked - 1 then current = asked end
      if done < due or asked > current then return end
      due = done + 200
      asked = asked + 1
      local fresh = path .. ".new" -- in one piece: a half file is no script
      host.write(version(asked), fresh)
      assert(os.rename(fresh, path))
      p:kill("HUP")
    end)
    assert(current > 10, current .. " reloads")
    assert.are.same({}, p:find("reload failed"))
    assert.are.same({}, p:find("reload failed in a thread"))
    assert.are.same({}, p:find("handler error"))
    -- a stop amid the traffic
    while h.nopen < 16 do h:begin() end
    stopping = true
    p:kill("TERM")
    repeat
      local ok = h.nopen >= 16 or pcall(h.begin, h)
      h:listen(0)
    until not ok
    h:finish()
    assert_ends(p)
    assert(reset <= 16, reset .. " connections were reset by the stop")
  end)

  it("a reload is for all threads; requests under way keep their code", function()
    local function text(n)
      return script(("for line in self.rfile:lines() do self.wfile:write('v%d ', line, '\\n') end"):format(n))
    end
    local path = host.write(text(1))
    local p = host.start(path, { args = { "--mixin=threading" } })
    local old = greet(p:url(), 16, "hello", "v1 hello")
    close_all(greet(p:url(), 4, "hello", "v1 hello")) -- whose seats are idle when the new code comes
    reload(p, path, text(2))
    local new = greet(p:url(), 32, "hello", "v2 hello")
    for _, c in ipairs(old) do assert.are.equal("v1 again", c:ask("again")) end
    reload(p, path, text(3))
    for _, c in ipairs(old) do
      assert.are.equal("v1 again", c:ask("again"))
      c:close()
    end
    for _, c in ipairs(new) do assert.are.equal("v2 again", c:ask("again")) end
    local newest = greet(p:url(), 24, "hello", "v3 hello")
    close_all(new)
    close_all(newest)
    p:stop()
  end)

  it("a reload loads the modules of the script's folder anew, in all threads", function()
    local folder = host.folder()
    local path = host.write([[
      local word = require("word")
      local H = {}
      function H:handle() for _ in self.rfile:lines() do self.wfile:write(word, "\n") end end
      return H]], folder .. "/script.lua")
    host.write("return 'one'", folder .. "/word.lua")
    local p = host.start(path, { args = { "--mixin=threading" } })
    local old = greet(p:url(), 8, "?", "one")
    host.write("return 'two'", folder .. "/word.lua")
    reload(p, path, host.read(path))
    local new = greet(p:url(), 16, "?", "two")
    for _, c in ipairs(old) do assert.are.equal("one", c:ask("?")) end
    close_all(old)
    close_all(new)
    p:stop()
  end)

  it("a reload that changes max_threads loses nobody", function()
    local function text(n) return (obedient():gsub("return H%s*$", "H.max_threads = " .. n .. "\nreturn H")) end
    local path = host.write(text(2))
    local p = host.start(path, { args = { "--mixin=threading" } })
    for _, n in ipairs { 6, 1, 4 } do
      reload(p, path, text(n))
      local clients = {}
      for i = 1, 8 do
        clients[i] = host.connect(p:url())
        assert(clients[i]:send(i .. "\n"))
      end
      for i, c in ipairs(clients) do
        assert.are.equal(tostring(i), c:line())
        c:close()
      end
    end
    p:stop()
  end)

  it("a reload that raises max_threads gives more threads", function()
    local gate = host.gate()
    local function text(n) return (obedient(gate):gsub("return H%s*$", "H.max_threads = " .. n .. "\nreturn H")) end
    local path = host.write(text(2))
    local p = host.start(path, { args = { "--mixin=threading" } })
    close_all(greet(p:url(), 2))
    reload(p, path, text(6))
    local blocked = greet(p:url(), 5, "block", "blocking")
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    c:close()
    gate:pass(5)
    for _, one in ipairs(blocked) do assert.are.equal("let through", one:line()) end
    close_all(blocked)
    p:stop()
  end)

  for mixin, attribute in pairs { threading = "max_threads", async = "max_connections" } do
    it("a reload that raises the ceiling lets in those who wait, " .. mixin, function()
      local function text(n)
        return (obedient():gsub("return H%s*$", ("H.%s = %d\nreturn H"):format(attribute, n)))
      end
      local path = host.write(text(2))
      local p = host.start(path, { args = { "--mixin=" .. mixin } })
      local held = greet(p:url(), 2)
      local late <close> = host.connect(p:url())
      assert(late:send("late\n"))
      assert.is_false(sys.poll(late.fd, "r", 0.1))
      reload(p, path, text(3))
      assert.are.equal("late", late:line())
      close_all(held)
      late:close()
      p:stop()
    end)
  end

  it("a change on disk that nobody asked for is no reload, in no thread", function()
    local path = host.write(version(1))
    local p = host.start(path, { args = { "--mixin=threading" } })
    host.write(version(2), path)
    local c <close> = host.connect(p:url())
    assert.are.equal("v1 hello", c:ask("hello"))
    c:close()
    host.write("local H = {}\nfunction H:handle(", path) -- half a file
    local clients = {}
    for i = 1, 8 do
      clients[i] = host.connect(p:url())
      assert(clients[i]:send(i .. "\n"))
    end
    for i, one in ipairs(clients) do assert.are.equal("v1 " .. i, one:line()) end
    close_all(clients)
    p:stop()
  end)
end)

describe("a state that cannot be loaded", function()
  after_each(host.cleanup)

  -- A script that loads only while the file `flag` is not there.
  local function touchy(flag, word)
    return ([[
      local f = io.open(%q)
      if f then f:close() error("not in this thread") end
      local H = {}
      function H:handle() for line in self.rfile:lines() do self.wfile:write("%s ", line, "\n") end end
      return H]]):format(flag, word)
  end

  it("in a new thread costs its client the connection, is logged, and is tried again", function()
    local began, flag = sys.now(), host.folder() .. "/flag"
    local p = start(touchy(flag, "one"))
    local held <close> = host.connect(p:url())
    assert.are.equal("one a", held:ask("a"))
    host.write("", flag)
    for _ = 1, 5 do
      local c <close> = host.connect(p:url())
      assert(c:send("b\n"))
      assert.are.equal("", c:all())
    end
    assert.are.equal("one c", held:ask("c"))
    local e = p:find("request not begun", true)[1]
    assert.are.equal("error", e.level)
    assert.matches("script%.lua:2: not in this thread", e.why)
    assert_paced(p, "request not begun", began)
    assert(os.remove(flag))
    local c <close> = host.connect(p:url())
    assert.are.equal("one d", c:ask("d"))
    c:close()
    held:close()
    p:stop()
  end)

  it("is counted", function()
    local flag = host.folder() .. "/flag"
    local p = start(touchy(flag, "one"):gsub("self%.wfile:write%(.-%)",
      "self.wfile:write(self.server:stats().accept_errors, '\\n')"), nil)
    local held <close> = host.connect(p:url())
    assert.are.equal("0", held:ask("?"))
    host.write("", flag)
    local c <close> = host.connect(p:url())
    assert.are.equal("", c:all())
    assert.are.equal("1", held:ask("?"))
    held:close()
    p:stop()
  end)

  it("keeps the old code in all threads, when one cannot load the new", function()
    local flag = host.folder() .. "/flag"
    local path = host.write(touchy(flag, "one"))
    local p = host.start(path, { args = { "--mixin=threading" } })
    close_all(greet(p:url(), 3, "a", "one a"))
    -- The server's own state loads it, but leaves something behind that the threads' stumble over.
    host.write(touchy(flag, "two"):gsub("local H", ("io.open(%q, 'w'):close() local H"):format(flag), 1), path)
    p:kill("HUP")
    local e = host.eventually("the reload fails", function() return p:find("reload failed")[1] end)
    assert.matches("script%.lua:2: not in this thread", e.why)
    assert.are.equal(1, e.generation)
    for _ = 1, 5 do
      local c <close> = host.connect(p:url())
      assert.are.equal("one b", c:ask("b"))
    end
    assert(os.remove(flag))
    reload(p, path, touchy(flag, "three"))
    close_all(greet(p:url(), 3, "c", "three c"))
    p:stop()
  end)
end)

describe("without threads to be had", function()
  after_each(host.cleanup)

  local function inject(when)
    return host.start(host.write(obedient()), {
      args = { "--mixin=threading", "--option=thread_idle_timeout=0.2" },
      inject = { "clone3,clone:error=EAGAIN:when=" .. when },
    })
  end

  -- torture list 48
  it("the client is closed, the failure logged and counted, and the next one served", function()
    local began = sys.now()
    local p = inject("1..2")
    local descriptors = p:descriptors()
    for _ = 1, 2 do
      local c <close> = host.connect(p:url())
      c:send("hello\n")
      assert.are.equal("", (c:all()))
    end
    local c <close> = host.connect(p:url())
    assert.are.equal("hello", c:ask("hello"))
    assert.are.equal(2, stats(c).accept_errors)
    c:close()
    local e = p:find("cannot start a thread")
    assert.are.same({ "warn", "Resource temporarily unavailable" }, { e[1].level, e[1].why })
    assert_paced(p, "cannot start a thread", began)
    assert_paced(p, "accepting paused", began)
    assert_at_rest(p, descriptors)
    p:stop()
  end)

  it("the one that is there serves everybody", function()
    local p = inject("2+")
    local descriptors = p:descriptors()
    local clients = greet(p:url(), 40)
    for i, c in ipairs(clients) do assert.are.equal("again " .. i, c:ask("again " .. i)) end
    assert.are.equal(0, stats(clients[1]).accept_errors)
    close_all(clients)
    assert_at_rest(p, descriptors)
    assert.are.equal(40, p:stop().requests)
  end)
end)

describe("with few descriptors", function()
  after_each(host.cleanup)

  -- torture list 1
  it("clients wait, and all are served", function()
    local p = host.start(host.write(ECHO), { nofile = 48,
      args = { "--mixin=threading", "--option=thread_idle_timeout=0.2" } })
    local descriptors, clients, left = p:descriptors(), {}, 100
    for i = 1, left do
      clients[i] = host.connect(p:url())
      assert(clients[i]:send(i .. "\n"))
    end
    host.eventually("all served", function()
      for i, c in pairs(clients) do
        if has_answer(c) then
          assert.are.equal(tostring(i), c:line())
          c:close()
          clients[i], left = nil, left - 1
        end
      end
      return left == 0
    end)
    assert_at_rest(p, descriptors)
    assert.are.equal(100, p:stop().requests)
  end)
end)

describe("a handler that nothing can end", function()
  after_each(host.cleanup)

  -- What it started is the spec's to end.
  local function clear_away(p)
    sys.kill(-p.pid, "KILL")
    p:gone()
  end

  -- torture list 50
  it("does not keep the program from stopping at its deadline, and is named", function()
    local p = start(obedient(), "drain_timeout=0.3", "cancel_grace=0.2")
    close_all(greet(p:url(), 5))
    local c <close> = host.connect(p:url())
    assert.are.equal("running", c:ask("run exec sleep 60"))
    local _, port = sys.name(c.fd)
    local began = sys.now()
    p:kill("TERM")
    local code = p:wait()
    local took = sys.now() - began
    clear_away(p)
    assert.are.equal(0, code, host.read(p.log_path))
    assert(took >= 0.45 and took < host.SOON, took .. " s") -- 0.3 + 0.2, and a moment
    local left = p:find("left behind")
    assert.are.equal(1, #left)
    assert(left[1].thread >= 1, "no thread is named")
    assert.are.same({ "script", "127.0.0.1:" .. port, "running" }, { left[1].server, left[1].client, left[1].state })
    assert(left[1].age_ms >= 450)
    assert.are.equal(1, #p:find("still running"))
    assert.are.equal(1, #p:find("stopped"))
  end)

  it("is not waited for twice: a second TERM ends it at once", function()
    local gate = host.gate()
    local p = start(obedient(gate), "drain_timeout=60", "cancel_grace=60")
    local blocked = greet(p:url(), 3, "block", "blocking")
    local waiting = greet(p:url(), 3)
    p:kill("TERM")
    p:find("draining", true)
    assert.are.equal("here", waiting[1]:ask("here"))
    local began = sys.now()
    p:kill("TERM")
    assert.are.equal(0, p:wait(), host.read(p.log_path))
    assert(sys.now() - began < host.SOON, "it took too long")
    assert.are.equal(3, #p:find("left behind"))
    close_all(blocked)
    close_all(waiting)
  end)

  it("ends with its block when that is in time", function()
    local gate = host.gate()
    local p = start(obedient(gate), "drain_timeout=60")
    local blocked = greet(p:url(), 4, "block", "blocking")
    p:kill("TERM")
    p:find("draining", true)
    gate:pass(4)
    for _, c in ipairs(blocked) do
      assert.are.equal("let through", c:line())
      c:close()
    end
    assert_ends(p)
    assert.are.same({}, p:find("left behind"))
  end)

  it("does not delay the others' finish", function()
    local gate = host.gate()
    local p = start(obedient(gate):gsub("return H%s*$", [[
      function H:finish() moonport.log("info", "finished") end
      return H]]), "drain_timeout=0.2", "cancel_grace=0.2")
    local blocked = greet(p:url(), 2, "block", "blocking")
    local waiting = greet(p:url(), 10)
    p:kill("TERM")
    assert.are.equal(0, p:wait(), host.read(p.log_path))
    assert.are.equal(2, #p:find("left behind"))
    assert.are.equal(10, #p:find("script"))
    assert.are.equal(10, #p:find("cancelled"))
    close_all(blocked)
    close_all(waiting)
  end)
end)

describe("requests that are not waited for", function()
  after_each(host.cleanup)

  for _, option in ipairs { "daemon_threads=true", "block_on_close=false" } do
    it("are cancelled as soon as the server stops, " .. option, function()
      local p = start(script([[
        self.wfile:write("here\n"):flush()
        moonport.sleep(60)
      ]], "function H:finish() self.wfile:write('finished\\n') end"), "drain_timeout=60", option)
      local clients = greet(p:url(), 5, "?", "here")
      local began = sys.now()
      p:kill("TERM")
      for _, c in ipairs(clients) do
        assert.are.equal("finished\n", (c:all()))
        c:close()
      end
      assert_ends(p)
      assert(sys.now() - began < host.SOON, "it took too long")
      assert.are.equal(5, #p:find("cancelled"))
    end)

    it("do not hold it up when they block, " .. option, function()
      local gate = host.gate()
      local p = start(obedient(gate), "drain_timeout=60", "cancel_grace=0.1", option)
      local blocked = greet(p:url(), 3, "block", "blocking")
      local began = sys.now()
      p:kill("TERM")
      assert.are.equal(0, p:wait(), host.read(p.log_path))
      assert(sys.now() - began < host.SOON, "it took too long")
      assert.are.equal(3, #p:find("left behind"))
      close_all(blocked)
    end)
  end
end)

describe("states", function()
  after_each(host.cleanup)

  -- torture list 51
  it("are isolated: globals and the string metatable are a thread's own", function()
    local N = 16
    local p = start(script([[
      local number = self.rfile:read("n", "l")
      who = number
      local strings = getmetatable("")
      strings.__index = function(s, key) return key == "owner" and number or string[key] end
      strings.__add = function() return number end
      string.upper = function() return "upper " .. number end
      math.pi = number
      package.loaded.shared = number
      table.insert(package.searchers, 1, function() return function() return number end end)
      self.wfile:write("changed\n")
      for line in self.rfile:lines() do
        for _ = 1, 20000 do
          who = who + 1
          strings.__concat = nil
          strings.extra = who
          who = who - 1
        end
        self.wfile:write(("%s %s %s %s %s %s %s\n"):format(who, line.owner, line + line, line:upper(),
          math.pi, require("shared"), require("no such module")))
      end
    ]]))
    local clients = {}
    for i = 1, N do
      clients[i] = host.connect(p:url())
      assert(clients[i]:send(i .. "\n"))
    end
    for _, c in ipairs(clients) do assert.are.equal("changed", c:line()) end
    for _ = 1, 10 do
      for _, c in ipairs(clients) do assert(c:send("who\n")) end
      for i, c in ipairs(clients) do
        assert.are.equal(("%d %d %d upper %d %d %d %d"):format(i, i, i, i, i, i, i), c:line())
      end
    end
    close_all(clients)
    p:stop()
  end)

  it("have the memory limit each", function()
    local p = start(script([[
      local kept = {}
      for line in self.rfile:lines() do
        local ok, why = pcall(function() for i = 1, tonumber(line) do kept[#kept + 1] = ("x"):rep(1000) .. i end end)
        self.wfile:write(ok and "kept\n" or tostring(why):match("not enough memory") .. "\n")
      end
    ]]), "memory_limit=4M")
    local clients = greet(p:url(), 8, "3000", "kept") -- 3 MB each: 24 in all
    assert.are.equal("not enough memory", clients[1]:ask("3000"))
    assert.are.equal("kept", clients[2]:ask("10"))
    close_all(clients)
    p:stop()
  end)

  it("may run deep on a thread's stack", function()
    local p = start(script([[
      local ways = {
        recurse = function() local function f() return 1 + f() end return f() end,
        gsub = function() local function f(s) return (s:gsub(".", f)) end return f("x") end,
        sort = function() local function f() table.sort({ 1, 2, 3 }, f) return true end return f() end,
        pcall = function() local function f() return assert(pcall(f)) end return f() end,
        wrap = function() local function f() return coroutine.wrap(f)() end return f() end,
        parse = function() return assert(load("return " .. ("("):rep(1000) .. "1" .. (")"):rep(1000))) end,
        tables = function() return assert(load("return " .. ("{"):rep(1000) .. "1" .. ("}"):rep(1000))) end,
        meta = function()
          local t = setmetatable({}, {})
          getmetatable(t).__index = function(_, k) return t[k .. "x"] end
          return t.a
        end,
        tostring = function()
          local t = setmetatable({}, { __tostring = function(t) return tostring(t) end })
          return tostring(t)
        end,
        match = function() return ("x"):rep(300000):match(("x?"):rep(300000)) end,
        close = function()
          local function f() local _ <close> = setmetatable({}, { __close = f }) end
          return f()
        end,
        dofile = function() return dofile(debug.getinfo(1, "S").source:sub(2, -1)) end,
      }
      for line in self.rfile:lines() do
        local ok, why = pcall(ways[line])
        self.wfile:write(tostring(ok), "\n")
      end
    ]]))
    local c <close> = host.connect(p:url())
    for _, way in ipairs { "recurse", "gsub", "sort", "pcall", "wrap", "parse", "tables", "meta", "tostring", "match",
      "close" } do
      assert.are.equal(way == "match" and "true" or "false", c:ask(way), way)
    end
    assert.are.equal("true", c:ask("dofile"))
    c:close()
    p:stop()
  end)
end)

describe("a request in a thread", function()
  after_each(host.cleanup)

  it("has its time limits", function()
    local p = start(obedient(), "request_timeout=0.3")
    local busy, idle = host.connect(p:url()), host.connect(p:url())
    local began = sys.now()
    repeat local reply = busy:ask("here") until reply ~= "here"
    assert.are.equal("", (idle:all()))
    local took = sys.now() - began
    assert(took >= 0.25 and took < host.SOON, took .. " s")
    close_all { busy, idle }
    assert.are.equal(2, #p:find("cancelled"))
    p:stop()
  end)

  it("has its idle_timeout", function()
    local p = start(obedient(), "idle_timeout=0.2")
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:ask("here"))
    assert.are.equal("", (c:all()))
    assert.are.equal("cancelled: idle_timeout", p:find("cancelled", true)[1].why)
    c:close()
    p:stop()
  end)

  it("hears that its peer is gone while it waits for something else", function()
    local p = start(script([[
      self.wfile:write("asleep\n"):flush()
      moonport.sleep(60)
    ]]))
    local clients = greet(p:url(), 3, "?", "asleep")
    for _, c in ipairs(clients) do c:reset() end
    host.eventually("three ended", function() return #p:find("cancelled") + #p:find("peer gone") == 3 end)
    p:stop()
  end)
end)

describe("an error in a thread", function()
  after_each(host.cleanup)

  it("is one event with a traceback and ends that request alone", function()
    local p = start(obedient())
    local held = greet(p:url(), 4)
    for i = 1, 10 do
      local c <close> = host.connect(p:url())
      assert(c:send("fail\n"))
      assert.are.same({ "" }, { c:all() })
      assert.are.equal(i, stats(held[1]).errors)
    end
    for i, c in ipairs(held) do assert.are.equal("still " .. i, c:ask("still " .. i)) end
    local events = p:find("handler error")
    assert.are.equal(10, #events)
    for _, e in ipairs(events) do
      assert.are.equal(1, e.generation)
      assert.matches("script%.lua:%d+: on purpose", e.error)
      assert.matches("script%.lua:%d+: in ", e.traceback)
    end
    close_all(held)
    local last = p:stop()
    assert.are.same({ 14, 10 }, { last.requests, last.errors })
  end)

  it("of a peer that went away is one info line", function()
    local p = start(script([[
      self.wfile:write(("x"):rep(1 << 24))
    ]]))
    local c = host.connect(p:url())
    assert(c:receive(1000))
    c:reset()
    assert.are.equal("info", p:find("peer gone", true)[1].level)
    p:stop()
    assert.are.same({}, p:find("handler error"))
  end)
end)

describe("self.server in a thread", function()
  after_each(host.cleanup)

  it("counts what all threads did", function()
    local p = start(obedient())
    local clients = greet(p:url(), 20)
    close_all(greet(p:url(), 10, "12345"))
    local watcher = clients[20]
    host.eventually("20 active", function() return stats(watcher).active == 20 end)
    local s = stats(watcher)
    assert.are.equal(30, s.requests)
    assert.are.equal(0, s.errors)
    assert(s.bytes_in >= 10 * 6 + 20 * 2, s.bytes_in .. " bytes in")
    local before = stats(watcher)
    for i, c in ipairs(clients) do
      if i < 20 then assert.are.equal(("y"):rep(999), c:ask(("y"):rep(999))) end
    end
    host.eventually("all bytes counted", function() -- a thread says what it has moved when its turn is over
      local after = stats(watcher)
      return after.bytes_in - before.bytes_in >= 19 * 1000 and after.bytes_out - before.bytes_out >= 19 * 1000
    end)
    assert.are.equal(1, stats(watcher).generation)
    close_all(clients)
    assert.are.equal(30, p:stop().requests)
  end)

  it("stops the program: shutdown()", function()
    local p = start(obedient())
    local clients = greet(p:url(), 8)
    assert.are.equal("shut", clients[3]:ask("shutdown"))
    host.eventually("connections refused", function()
      local ok, c = pcall(host.connect, p:url())
      if ok then c:close() end
      return not ok
    end)
    for i, c in ipairs(clients) do
      assert.are.equal("last " .. i, c:ask("last " .. i))
      c:close()
    end
    assert_ends(p)
  end)

  it("has its facts and attributes", function()
    local p = start(script([[
      local s = self.server
      self.wfile:write(("%s %s %s %s %s\n"):format(s.name, s.class, s.url, tostring(s.server_address), s.max_threads))
    ]]), "max_threads=7")
    local c <close> = host.connect(p:url())
    assert.are.equal(("script ThreadingTCPServer %s %s 7"):format(p:url(), p:url():match("//(.*)")), c:line())
    c:close()
    p:stop()
  end)
end)

describe("SIGUSR1", function()
  after_each(host.cleanup)

  it("logs the requests of threads, those that block as well", function()
    local gate = host.gate()
    local p = start(obedient(gate))
    local waiting = greet(p:url(), 3)
    local blocked = greet(p:url(), 2, "block", "blocking")
    local found = host.eventually("five requests", function()
      local before = #p:find("tasks")
      p:kill("USR1")
      host.eventually("an answer", function() return #p:find("tasks") > before end)
      local all = p:find("task")
      return #all >= 5 and all
    end)
    assert.are.equal(5, p:find("tasks")[1].count)
    local by_client = {}
    for _, e in ipairs(found) do by_client[e.client] = e end
    for _, c in ipairs(waiting) do
      local _, port = sys.name(c.fd)
      local e = by_client["127.0.0.1:" .. port]
      assert.are.same({ "script", "waiting" }, { e.server, e.state })
      assert.matches("script%.lua:%d+", e.traceback)
      assert(e.age_ms >= 0)
    end
    for _, c in ipairs(blocked) do
      local _, port = sys.name(c.fd)
      local e = by_client["127.0.0.1:" .. port]
      assert.are.same({ "script", "running" }, { e.server, e.state })
      assert(e.thread >= 1)
    end
    gate:pass(2)
    for _, c in ipairs(blocked) do assert.are.equal("let through", c:line()) end
    for _, c in ipairs(waiting) do assert.are.equal("undisturbed", c:ask("undisturbed")) end
    close_all(waiting)
    close_all(blocked)
    p:stop()
  end)
end)

describe("datagrams", function()
  after_each(host.cleanup)

  local kinds = {
    { name = "UDP", url = "udp://127.0.0.1:0" },
    { name = "a Unix socket", url = "unixgram://%s/s", bind = "unixgram://%s/c" },
  }
  for _, kind in ipairs(kinds) do
    it("over " .. kind.name .. " get a reply each, to their own sender", function()
      local p = host.start(host.write(script([[
        local n = tonumber(self.packet:match("%d+$"))
        if n % 5 == 0 then moonport.sleep(n % 3 / 1000) elseif n % 7 == 0 then os.execute("true") end
        self.wfile:write("re ", self.packet)
        if self.packet:find("^more") then self.socket:sendto("more " .. self.packet, self.client_address) end
      ]])), { listen = kind.url:format(host.folder()), args = { "--mixin=threading" } })
      local CLIENTS, EACH, AT_ONCE = 16, 20, 4
      local clients = {}
      for i = 1, CLIENTS do
        clients[i] = host.connect(p:url(), kind.bind and { bind = kind.bind:format(host.folder()) })
      end
      for round = 0, EACH // AT_ONCE - 1 do
        for n = 1, AT_ONCE do
          for i, c in ipairs(clients) do assert(c:send(("%d/%d"):format(i, round * AT_ONCE + n))) end
        end
        for i, c in ipairs(clients) do
          local seen = {}
          for _ = 1, AT_ONCE do
            local reply = assert(c:some())
            assert.is_nil(seen[reply], reply)
            seen[reply] = true
          end
          for n = 1, AT_ONCE do assert.is_true(seen[("re %d/%d"):format(i, round * AT_ONCE + n)]) end
        end
      end
      assert(clients[1]:send("more 1"))
      assert.are.equal("more more 1", clients[1]:some())
      assert.are.equal("re more 1", clients[1]:some())
      for _, c in ipairs(clients) do assert.is_false(has_answer(c)) end
      close_all(clients)
      assert.are.equal(CLIENTS * EACH + 1, p:stop().requests)
    end)
  end

  it("that block hold up no other", function()
    local gate = host.gate()
    local p = host.start(host.write(script([[
      if self.packet == "block" then gate() end
      self.wfile:write("re ", self.packet)
    ]], gate:code())), { listen = "udp://127.0.0.1:0", args = { "--mixin=threading" } })
    local blocked, other = {}, host.connect(p:url())
    for i = 1, 4 do
      blocked[i] = host.connect(p:url())
      assert(blocked[i]:send("block"))
    end
    for i = 1, 10 do
      assert(other:send("here " .. i))
      assert.are.equal("re here " .. i, other:some(1))
    end
    for _, c in ipairs(blocked) do assert.is_false(has_answer(c)) end
    gate:pass(4)
    for _, c in ipairs(blocked) do assert.are.equal("re block", (c:some())) end
    close_all(blocked)
    other:close()
    p:stop()
  end)

  it("that are under way when it stops are answered", function()
    local p = host.start(host.write(script([[
      moonport.log("info", "begun")
      moonport.sleep(0.3)
      self.wfile:write("late ", self.packet)
    ]])), { listen = "udp://127.0.0.1:0", args = { "--mixin=threading" } })
    local c <close> = host.connect(p:url())
    assert(c:send("answer"))
    p:find("script", true)
    p:kill("TERM")
    assert.are.equal("late answer", (c:some()))
    assert_ends(p)
    c:close()
  end)
end)

describe("500 idle connections of one client", function()
  after_each(host.cleanup)

  -- torture list 8.  A ceiling is a queue: who may hold 500 connections must be let in by one that is higher, which
  -- max_connections (1024) is and max_threads (256) and max_children (40) are not.
  for mixin, option in pairs { async = false, threading = "max_threads=600", forking = "max_children=600" } do
    it("keep no other from being served, " .. mixin, function()
      local args = { "--mixin=" .. mixin }
      if option then args[2] = "--option=" .. option end
      local p = host.start(host.write(ECHO), { args = args })
      local idle = greet(p:url(), 500, nil, nil, { bind = "tcp://127.0.0.2:0" })
      local began = sys.now()
      local c <close> = host.connect(p:url(), { bind = "tcp://127.0.0.3:0" })
      assert.are.equal("hello", c:ask("hello"))
      assert(sys.now() - began <= host.SOON, ("served after %.1f s"):format(sys.now() - began))
      c:close()
      close_all(idle)
      p:stop()
      if mixin == "forking" then p:gone() end
    end)
  end
end)
