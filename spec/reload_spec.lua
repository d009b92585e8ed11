--- SIGHUP: new code for new requests.

local host = require("support.host")
local generations = require("support.generations")
local version, reload = generations.version, generations.reload

describe("SIGHUP", function()
  after_each(host.cleanup)

  it("gives new requests the new code, and old ones keep theirs", function()
    local path = host.write(version("one"))
    local p = host.start(path)
    local descriptors = p:descriptors()
    local old <close> = host.connect(p:url())
    assert.are.equal("one a", old:ask("a"))

    host.write(version("two"), path)
    local e = reload(p, "reloaded")
    assert.are.equal(2, e.generation)
    assert.are.equal(path, e.script)
    local new <close> = host.connect(p:url())
    assert.are.equal("two b", new:ask("b"))
    assert.are.equal("one c", old:ask("c"))

    host.write(version("three"), path)
    assert.are.equal(3, reload(p, "reloaded").generation)
    local newest <close> = host.connect(p:url())
    assert.are.equal("three d", newest:ask("d"))
    assert.are.equal("two e", new:ask("e"))
    assert.are.equal("one f", old:ask("f"))

    -- the log tells which code it was
    for i, c in ipairs { old, new, newest } do
      c:send("fail\n")
      assert.are.same({ "" }, { c:all() })
      c:close()
      local failed = p:find("handler error")[i]
      assert.are.equal(i, failed.generation)
      assert.is_truthy(failed.error:find("script%.lua:5: failed as " .. ({ "one", "two", "three" })[i]), failed.error)
    end
    host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
    p:stop()
  end)

  it("loads the modules of the script's folder anew", function()
    local folder = host.folder()
    local path = host.write([[
      local word = require("word")
      local H = {}
      function H:handle() self.wfile:write(word, "\n") end
      return H
    ]], folder .. "/script.lua")
    host.write("return 'one'", folder .. "/word.lua")
    local p = host.start(path)
    local before <close> = host.connect(p:url())
    assert.are.equal("one", before:line())
    host.write("return 'two'", folder .. "/word.lua")
    reload(p, "reloaded")
    local after <close> = host.connect(p:url())
    assert.are.equal("two", after:line())
    before:close()
    after:close()
    p:stop()
  end)

  it("is for every listener of the script", function()
    local path = host.write(version("one"))
    local p = host.start(path, { listen = { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } })
    host.write(version("two"), path)
    reload(p, "reloaded")
    for _, name in ipairs { "script", "script-2" } do
      local c <close> = host.connect(p:url(name))
      assert.are.equal("two a", c:ask("a"))
    end
    p:stop()
  end)

  it("takes the new code's attributes, and not the old one's", function()
    local function with(attribute)
      return ([[
        local H = {}
        %s
        function H:handle() self.wfile:write(tostring(self.server.timeout), "\n") end
        return H
      ]]):format(attribute)
    end
    local path = host.write(with("H.timeout = 7"))
    local p = host.start(path)
    local function seen()
      local c <close> = host.connect(p:url())
      return c:line()
    end
    assert.are.equal("7.0", seen())
    host.write(with("H.server = { timeout = 8 }"), path)
    reload(p, "reloaded")
    assert.are.equal("8.0", seen())
    host.write(with(""), path)
    reload(p, "reloaded")
    assert.are.equal("nil", seen())
    p:stop()
  end)

  local broken = {
    { "a syntax error", "local H = {}\nfunction H:handle(\n", "script%.lua:%d+: " },
    { "an error while it is loaded", "local H = {}\nerror('no luck')", "script%.lua:2: no luck" },
    { "no handle", "return {}", "script%.lua.*handle" },
    { "an unknown attribute", version("two", "H.server = { max_connection = 1 }"),
      "script%.lua.*max_connection:.*did you mean max_connections" },
    { "an attribute out of range", version("two", "H.timeout = -1"), "script%.lua: timeout: it must be" },
    { "a wait while it is loaded", "require('moonport').sleep(1)", "script%.lua:1: this waits" },
    { "a broken module", "require('broken')", "broken%.lua:1: " },
    { "an end of the process", "local H = {}\nos.exit(0)", "script%.lua:2: only a request can end the process: " },
    { "an end of the process in a module", "require('leaves')", "leaves%.lua:1: only a request can end the process" },
    { "an end of the process in a finalizer",
      "setmetatable({}, { __gc = function() os.exit(0) end })\nerror('no luck')", "script%.lua:2: no luck" },
    { "a missing module", "require('missing')", "script%.lua:1: module 'missing' not found" },
    { "an endless string", "return ('x'):rep(1 << 40)", "script%.lua:1: .*resulting string too large\n?" },
    { "bytecode", string.dump(function() end), "script%.lua" },
    { "an endless loop", "local H = {}\nlocal n = 0 while true do n = n + 1 end",
      "script%.lua:2: .*cpu_limit", "cpu_limit=0.2" },
    { "an endless loop in a module", "require('loops')", "loops%.lua:2: .*cpu_limit", "cpu_limit=0.2" },
    { "an endless loop that catches errors", "while true do pcall(string.rep, 'x', -1) end",
      "script%.lua:1: .*cpu_limit", "cpu_limit=0.2" },
    { "no end of memory", "local t = {}\nwhile true do\n  t[#t + 1] = ('x'):rep(100000) .. #t\nend",
      "script%.lua:?3?:? not enough memory", "memory_limit=8M" },
  }
  for _, case in ipairs(broken) do
    it("keeps the old code when the new has " .. case[1], function()
      local folder = host.folder()
      local path = host.write(version("one"), folder .. "/script.lua")
      host.write("return return", folder .. "/broken.lua")
      host.write("os.exit(0)", folder .. "/leaves.lua")
      host.write("local n = 0\nwhile true do n = n + 1 end", folder .. "/loops.lua")
      local p = host.start(path, { args = case[4] and { "-o", case[4] } })
      local descriptors = p:descriptors()
      local old <close> = host.connect(p:url())
      assert.are.equal("one a", old:ask("a"))
      host.write(case[2], path)
      local e = reload(p, "reload failed")
      assert.are.same({ "error", path, 1 }, { e.level, e.script, e.generation })
      assert.is_truthy(e.why:find(case[3]), e.why)
      local new <close> = host.connect(p:url())
      assert.are.equal("one b", new:ask("b"))
      assert.are.equal("one c", old:ask("c"))
      host.write(version("two"), path)
      reload(p, "reloaded")
      local repaired <close> = host.connect(p:url())
      assert.are.equal("two d", repaired:ask("d"))
      assert.are.equal("one e", old:ask("e"))
      old:close()
      new:close()
      repaired:close()
      host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
      p:stop()
    end)
  end

  for _, how in ipairs { "--mixin=async", "--mixin=threading", "--mixin=forking", "--workers=2" } do
    it("keeps the old code when loading, init or save would end the process: " .. how, function()
      local path = host.write(version("one"))
      local p = host.start(path, { args = { how } })
      local function keeps(word, code)
        host.write(code, path)
        local why = reload(p, "reload failed").why
        assert.matches("script%.lua:%d+: only a request can end the process: call os%.exit in a handler", why)
        assert.are.equal(word .. " b", generations.ask(p, "b"))
      end
      local function takes(word, extra)
        host.write(version(word, extra), path)
        reload(p, "reloaded")
        assert.are.equal(word .. " a", generations.ask(p, "a"))
      end
      keeps("one", "os.exit(0)")
      takes("two", "function H.save() return {} end")
      keeps("two", version("three", "function H.init() os.exit(0) end"))
      takes("four", "function H.save() os.exit(0) end")
      keeps("four", version("five"))
      p:stop()
    end)
  end

  local function broken_file(what, break_it, repair, why, options)
    it("keeps the old code when the script is " .. what .. ", and takes the new when it is repaired", function()
      local folder = host.folder()
      local path = host.write(version("one"), folder .. "/script.lua")
      local p = host.start(path, options)
      local old <close> = host.connect(p:url())
      assert.are.equal("one a", old:ask("a"))
      for word = 2, 3 do
        break_it(path)
        local e = reload(p, "reload failed")
        assert.is_truthy(e.why:find(path, 1, true) and e.why:find(why), e.why)
        assert.are.equal("one b", old:ask("b"))
        assert.are.equal(word == 2 and "one c" or "new2 c", generations.ask(p, "c"))
        repair(path)
        host.write(version("new" .. word), path)
        reload(p, "reloaded")
        assert.are.equal("new" .. word .. " d", generations.ask(p, "d"))
      end
      old:close()
      p:stop()
    end)
  end
  local function remove(path) assert(os.remove(path)) end
  broken_file("gone", remove, function() end, "No such file or directory")
  broken_file("a folder", function(path)
    remove(path)
    os.execute("mkdir " .. path)
  end, remove, "it is a folder")
  broken_file("a FIFO that nobody writes to", function(path)
    remove(path)
    assert(host.sys.mkfifo(path))
  end, remove, "script.lua has no handle")
  broken_file("a dangling link", function(path)
    remove(path)
    assert(host.sys.symlink("/nowhere/at/all.lua", path))
  end, remove, "No such file or directory")
  if not host.sys.isroot() then
    broken_file("not readable", function(path) assert(host.sys.chmod(path, 0)) end, remove, "Permission denied")
  end

  for _, call in ipairs { "openat", "read" } do
    it("keeps the old code when " .. call .. " fails, and takes the new after that", function()
      local path = host.write(version("one"))
      local nth = call == "read" and 3 or 2 -- to be read whole and find the end takes two
      local p = host.start(path, {
        wrap = { "strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "trace=" .. call,
          "-e", ("inject=%s:error=EIO:when=%d..%d"):format(call, nth, nth) },
        env = { host.traced() },
      })
      local old <close> = host.connect(p:url())
      assert.are.equal("one a", old:ask("a"))
      host.write(version("two"), path)
      local e = reload(p, "reload failed")
      assert.is_truthy(e.why:find(path, 1, true) and e.why:find("Input/output error", 1, true), e.why)
      assert.are.equal("one b", old:ask("b"))
      assert.are.equal("one c", generations.ask(p, "c"))
      reload(p, "reloaded")
      assert.are.equal("two d", generations.ask(p, "d"))
      old:close()
      p:stop()
    end)
  end

  it("serves the others while the new code loops as it is loaded, and tells who asks what runs", function()
    local path = host.write(version("one"))
    local p = host.start(path, { args = { "-o", "cpu_limit=1" } })
    local old <close> = host.connect(p:url())
    assert.are.equal("one a", old:ask("a"))
    host.write("local H = {}\nlocal n = 0 while true do n = n + 1 end", path)
    p:kill("HUP")
    local served, told = 0, false
    host.eventually("the failure", function()
      assert.are.equal("one b", old:ask("b"))
      assert.are.equal("one c", generations.ask(p, "c"))
      served = served + 1
      if not told and served == 5 then
        p:kill("USR1")
        told = true
      end
      return #p:find("reload failed") == 1
    end)
    assert.is_true(served > 15, served .. " requests in a second")
    local task = host.eventually("the loading", function()
      for _, e in ipairs(p:find("task")) do if e.script then return e end end
    end)
    assert.are.equal(path, task.script)
    assert.are.equal(2, task.generation)
    assert.is_truthy(task.traceback:find("script.lua:2", 1, true), task.traceback)
    old:close()
    p:stop()
  end)

  local TICKER = [[
    local moonport = require("moonport")
    local H, tick = {}, {}
    for i = 1, 500 do tick[i] = { i, tostring(i) } end
    local f = assert(io.open("/dev/null"))
    function H.save() return tick end
    function H.init(data) tick = data end
    function H:handle() for line in self.rfile:lines() do self.wfile:write("%d ", #tick, " ", line, "\n") end end
    return H
  ]]

  for _, mixin in ipairs { "async", "threading", "forking" } do
    it("again and again leaves nothing behind: " .. mixin, function()
      local times = tonumber(os.getenv("MOONPORT_RELOADS")) or 300
      local path = host.write(TICKER:format(1))
      local p = host.start(path, { args = { "--mixin=" .. mixin, "-o", "max_threads=3", "-o", "retire_timeout=0" } })
      local c <close> = host.connect(p:url())
      assert.are.equal("1 500 a", c:ask("a"))
      local other <close> = host.connect(p:url()) -- so that there are all three seats
      assert.are.equal("1 500 a", other:ask("a"))
      assert.are.equal("1 500 a", generations.ask(p, "a"))
      other:close()
      local descriptors, memory
      for n = 2, times + 1 do
        host.write(TICKER:format(n), path)
        p:kill("HUP")
        host.eventually("version " .. n, function() return generations.ask(p, "b") == n .. " 500 b" end)
        if n == times // 3 then descriptors, memory = p:descriptors(), p:memory() end
      end
      assert.are.equal("1 500 c", c:ask("c"))
      host.eventually("descriptors back", function() return p:descriptors() <= descriptors + 2 end)
      if not host.sanitizer() then
        -- Of seats' states there are so many; one that stays of each reload would be 50 MB.
        local most = memory + (mixin == "threading" and 8192 or 2048)
        assert.is_true(p:memory() < most, ("%d KiB, then %d"):format(memory, p:memory()))
      end
      c:close()
      local last = p:stop()
      assert.is_true(#p:find("reloaded") >= times)
      assert.are.equal(0, last.timers)
    end)
  end

  it("takes limits for new requests, and leaves what sockets were made with", function()
    local function with(server)
      return ([[
        local H = { server = { %s } }
        function H:handle()
          for name in self.rfile:lines() do
            if name == "spin" then
              local t = os.clock()
              while os.clock() - t < 1 do end
            end
            self.wfile:write(tostring(self.server[name]), "\n")
          end
        end
        return H
      ]]):format(server)
    end
    local path = host.write(with("max_connections = 2, request_queue_size = 7"))
    local p = host.start(path)
    local a <close> = host.connect(p:url())
    local b <close> = host.connect(p:url())
    assert.are.equal("2", a:ask("max_connections"))
    assert.are.equal("7", b:ask("request_queue_size"))
    local waits <close> = host.connect(p:url())
    waits:send("max_connections\n")
    host.write(with("max_connections = 3, request_queue_size = 9, cpu_limit = 0.1, timeout = 0.2, "
      .. "retire_timeout = 33, max_packet_size = 1000"), path)
    reload(p, "reloaded")
    assert.are.equal("3", waits:line())
    assert.are.equal("7", waits:ask("request_queue_size"))
    assert.are.equal("8192", waits:ask("max_packet_size"))
    assert.are.equal("33.0", waits:ask("retire_timeout"))
    assert.are.same({ "" }, { waits:all() }) -- its timeout
    local spins <close> = host.connect(p:url())
    spins:send("spin\n")
    assert.are.same({ "" }, { spins:all() })
    assert.are.equal(1, #p:find("handler error") + #p:find("cpu_limit"))
    -- The old ones have their own limits: they may be silent and spin.
    assert.are.equal("nil", a:ask("spin"))
    a:close()
    b:close()
    p:stop()
  end)

  it("is for each script by itself: one fails, the other goes on to its new code", function()
    local one, two = host.write(version("one")), host.write(version("uno"))
    local p = host.start(one, { args = { two, "--listen=tcp://127.0.0.1:0" } })
    local names = {}
    for name in pairs(p.ready.servers) do names[generations.ask(p, "a", name)] = name end
    host.write("return return", one)
    host.write(version("due"), two)
    p:kill("HUP")
    assert.are.equal(one, p:find("reload failed", true)[1].script)
    assert.are.equal(two, p:find("reloaded", true)[1].script)
    assert.are.equal("one b", generations.ask(p, "b", names["one a"]))
    assert.are.equal("due b", generations.ask(p, "b", names["uno a"]))
    p:stop()
  end)

  it("is for all listeners of a script or for none", function()
    local path = host.write(version("1"))
    local p = host.start(path, { listen = { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } })
    for n = 2, 40 do
      -- a second listener's reply is never older than the first one's before it
      host.write(version(tostring(n)), path)
      p:kill("HUP")
      host.eventually("version " .. n, function()
        local first = tonumber(generations.ask(p, "a", "script"):match("%d+"))
        local second = tonumber(generations.ask(p, "a", "script-2"):match("%d+"))
        local third = tonumber(generations.ask(p, "a", "script"):match("%d+"))
        assert.is_true(first <= second and second <= third)
        return first == n
      end)
    end
    p:stop()
  end)

  local HOOK = [[
    local moonport = require("moonport")
    function H:finish() moonport.log("info", "finished") end
    H.server = {
      verify_request = function() return true end,
      handle_error = function(_, _, _, e) moonport.log("info", "told: " .. tostring(e):match("[^\n]*")) end,
    }
  ]]
  local FINISH = 'function H:finish() require("moonport").log("info", "finished") end'

  local function messages(p)
    local out = {}
    for i, e in ipairs(p:find("script")) do out[i] = (e.message:gsub("%S*script%.lua:%d+: ", "")) end
    return out
  end

  it("leaves an old request without hooks, though the new code has some", function()
    local path = host.write(version("one", FINISH))
    local p = host.start(path)
    local failing <close> = host.connect(p:url())
    local ending <close> = host.connect(p:url())
    assert.are.equal("one a", failing:ask("a"))
    assert.are.equal("one a", ending:ask("a"))
    host.write(version("two", HOOK), path)
    reload(p, "reloaded")
    ending:finish()
    assert.are.same({ "" }, { ending:all() })
    assert.are.same({ "finished" }, messages(p))
    failing:send("fail\n")
    assert.are.same({ "" }, { failing:all() })
    assert.are.same({ "finished", "finished" }, messages(p))
    assert.is_truthy(p:find("handler error")[1].error:find("script%.lua:5: failed as one"))
    assert.are.same({}, p:find("refused"))
    ending:close()
    failing:close()
    p:stop()
  end)

  it("leaves an old request its hooks, though the new code has none", function()
    local path = host.write(version("one", HOOK))
    local p = host.start(path)
    local c <close> = host.connect(p:url())
    assert.are.equal("one a", c:ask("a"))
    host.write(version("two", FINISH), path)
    reload(p, "reloaded")
    c:send("fail\n")
    assert.are.same({ "" }, { c:all() })
    assert.are.same({ "finished", "told: failed as one" }, messages(p))
    assert.are.same({}, p:find("handler error"))
    c:close()
    p:stop()
  end)
end)

describe("a reload that changes what concerns the socket", function()
  after_each(host.cleanup)

  local sys = host.sys

  -- The sockets that the program listens on, as /proc names them.
  local function listening(p)
    local inodes, own = {}, {}
    for _, fd in ipairs(sys.list("/proc/" .. p.pid .. "/fd")) do
      local inode = (sys.readlink(("/proc/%d/fd/%s"):format(p.pid, fd)) or ""):match("^socket:%[(%d+)%]$")
      if inode then own[inode] = fd end
    end
    for line in host.read("/proc/net/tcp"):gmatch("[^\n]+") do
      local state, inode = line:match("^%s*%d+: %S+ %S+ (%x%x) %S+ %S+ %S+ +%d+ +%d+ (%d+)")
      if state == "0A" and own[inode] then inodes[#inodes + 1] = "tcp " .. inode .. " as " .. own[inode] end
    end
    for line in host.read("/proc/net/unix"):gmatch("[^\n]+") do
      local flags, inode, path = line:match("^%S+ %S+ %S+ (%x+) %S+ %S+ +(%d+) (%S+)$")
      if path and tonumber(flags, 16) & 0x10000 ~= 0 and own[inode] then
        inodes[#inodes + 1] = ("unix %s %s as %s, mode %o"):format(inode, path, own[inode], sys.stat(path).mode)
      end
    end
    table.sort(inodes)
    return inodes
  end

  -- One request at a time, which stands at the gate: the others are in the kernel's queue.
  local function queueing(gate, word, attributes)
    return gate:code() .. ([[
      local H = {}
      H.server = { %s }
      function H:handle()
        local line = self.rfile:read()
        if line == "wait" then self.wfile:write("waiting\n"):flush() gate() end
        self.wfile:write("%s ", line, "\n")
      end
      return H
    ]]):format(attributes, word)
  end

  local next_code = {
    ["new attributes"] = { "request_queue_size = 1, socket_mode = '666', allow_reuse_address = false, "
      .. "allow_reuse_port = true, ipv6_v6only = true, disable_nagle_algorithm = false, max_connections = 1", "two" },
    ["attributes that are wrong"] = { "request_queue_size = 0, socket_mode = '666'", "one" },
    ["an error"] = { "request_queue_size = 1 }\nerror('no luck')\nH.server = {", "one" },
  }
  for what, case in pairs(next_code) do
    it("leaves it as it is, and who waits in its queue: " .. what, function()
      local gate = host.gate()
      local path = host.write(queueing(gate, "one", "request_queue_size = 64, max_connections = 2"))
      local p = host.start(path, {
        listen = { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" }, args = { "-m", "sync" } })
      local before = listening(p)
      assert.are.equal(2, #before)
      local first <close> = host.connect(p:url("script"))
      assert.are.equal("waiting", first:ask("wait"))
      -- The whole program waits: these are nobody's yet, and some have not yet spoken.
      local queued = {}
      for i = 1, 40 do
        queued[i] = host.connect(p:url(i % 2 == 0 and "script" or "script-2"))
        if i <= 20 then assert(queued[i]:send(i .. "\n")) end
      end
      host.write(queueing(gate, "two", case[1]), path)
      p:kill("HUP")
      gate:pass()
      assert.are.equal("one wait", first:line())
      local outcome = case[2] == "two" and "reloaded" or "reload failed"
      host.eventually(outcome, function() return p:find(outcome)[1] end)
      for i, c in ipairs(queued) do
        if i > 20 then assert(c:send(i .. "\n")) end
        -- Which code it was is a matter of when it was accepted.
        assert.are.equal(tostring(i), c:line():match("^%w+ (%d+)$"))
        c:close()
      end
      local last <close> = host.connect(p:url("script"))
      assert.are.equal(case[2] .. " last", last:ask("last"))
      last:close()
      first:close()
      assert.are.same(before, listening(p))
      p:stop()
    end)
  end
end)
