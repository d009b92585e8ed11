--- Every k-th allocation fails: the host gets over it, request by request.
---
--- Each piece of API runs again and again, with its first allocation failing, its second, ..., until a run has had none
--- that could fail.  Whatever the piece's client gets then, the program goes on, answers the next request in full, and
--- has nothing left at its end.  `make scarce` fails those of the Lua states one by one, too, and leaves none out.

local host = require("support.host")
local case = require("support.case")
local scarce = require("support.scarce")
local sys = host.sys

-- Every allocation, or a sample that differs each time.
local STRIDE = tonumber(os.getenv("ALLOCATION_STRIDE")) or (scarce.linked and 1 or 4)
local SEED = tonumber(os.getenv("ALLOCATION_SEED")) or os.time()

local injected, runs = 0, 0

local function first_k() return 1 + SEED % STRIDE end

-- How many allocations in a row fail.  Lua collects its garbage and tries again: one is not enough for it.
local WINDOWS = { 1, 2, 50 }

---Calls `run(k, last)` for k = 1, 2, ... until nothing has failed in it; it says how many have.
local function each_k(run)
  for _, window in ipairs(WINDOWS) do
    local k = first_k()
    repeat
      local failed = run(k, k + window - 1)
      runs = runs + 1
      injected = injected + failed
      k = k + STRIDE
    until failed == 0
  end
end

---@param s spec.Scarce
---@param run fun() its own results do not matter, but that it comes to an end
---@param check fun() after each, with nothing failing
local function sweep(s, run, check)
  each_k(function(k, last)
    s:arm(k, last)
    run()
    local _, failed = s:disarm()
    check()
    return failed
  end)
end

local pieces = {
  lines = { "for l in rfile:lines() do wfile:write(l:upper(), '\\n') end", "one\ntwo\n" .. ("x"):rep(3000) .. "\n" },
  reads = { "return rfile:read('l', 'n', 3, 'L'), rfile:readuntil(';'), rfile:unpack('>I2s1'), rfile:readexactly(2), "
    .. "rfile:readline(), rfile:read('a'), rfile:read('l')",
    "line\n12 abcde\nuntil;\1\2\3abcxyline\n" .. ("rest"):rep(5000) },
  iterators = { "for a, b in rfile:lines(2, 'l') do wfile:write(a, '|', b, '|') end", "abc\ndefg\n" },
  ["a long line"] = { "wfile:write(#rfile:readline())", ("y"):rep(60000) .. "\n" },
  writes = { "wfile:setvbuf('no'); wfile:write('a', 1, 2.5); wfile:setvbuf('line'); wfile:write('b\\n', 'c'); "
    .. "wfile:setvbuf('full', 100); wfile:write(('d'):rep(99)):write(('e'):rep(99)):flush(); wfile:setvbuf('full'); "
    .. "wfile:write(('f'):rep(200000)); wfile:flush() return wfile:close()" },
  request = { "local got = request:recv(4); request:sendall(got); wfile:write(request:send('sent')); "
    .. "request:settimeout(5); local f, g = request:makefile('r'), request:makefile('w'); g:write(f:read('l')); "
    .. "return request:gettimeout(), #request:getsockname(), #request:getpeername(), request:fileno() > 2, "
    .. "request:getsockopt('so_keepalive'), request:setsockopt('so_keepalive', true), request:shutdown('write')",
    "abcdline\n" },
  address = { "return tostring(self.client_address):match(':%d') and #self.client_address, self.client_address.host" },
  server = { "local s = self.server; s.visits = (s.visits or 0) + 1; return s:stats().errors >= 0, "
    .. "s.url == s.server_address and 1 or s.name, s.class, s.max_line, tostring(s) ~= '', s:fileno() > 2" },
  sleep = { "moonport.sleep(0.0001) return moonport.time() > 1, moonport.monotonic() > 1" },
  log = { "moonport.log('info', ('message '):rep(200))" },
  connect = { "local s <close> = assert(moonport.connect(self.server.url)); "
    .. "s:sendall(string.pack('>s4', 'return select(1, ...).rfile:read(\\'a\\')') .. 'inside'); s:shutdown('write'); "
    .. "local f = s:makefile('r') return f:read('a')" },
  ["no connection"] = { "return moonport.connect('unix:///nobody/here.sock')" },
  coroutines = { "local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(rfile:readline()) end end); "
    .. "wfile:write(co(), co(), co()); local t = coroutine.create(function() local x <close> = setmetatable({}, "
    .. "{ __close = function() wfile:write('closed') end }) coroutine.yield(1) end); coroutine.resume(t) "
    .. "return coroutine.close(t), coroutine.status(t)", "a\nb\nc\n" },
  ["an error"] = { "error('of the piece: ' .. ('long '):rep(100))" },
  ["an error that ends it"] = { "setmetatable(self, nil); self.wfile = nil; coroutine.wrap(function() "
    .. "moonport.sleep(0.0001) error({ code = 1 }) end)()" },
  ["errors of the host"] = { "rfile:close(); local _, why = pcall(rfile.read, rfile); "
    .. "local _, why2 = pcall(rfile.lines, 1); "
    .. "request:settimeout(0.001); local _, why3 = request:recv(10); return why, why2, why3" },
  ["a closed connection"] = { "request:close(); return rfile:read('l')", "more" },
  require = { "package.loaded.allocation_part = nil; return require('allocation_part').word" },
  load = { "return assert(load('return ' .. ('1 + '):rep(200) .. '1'))()" },
  strings = { "local t = {}; for i = 1, 300 do t[i] = ('%d-%s'):format(i, ('q'):rep(i % 40)) end; "
    .. "return #table.concat(t, ','), #(('ab'):rep(3000):gsub('b', 'ccc')), ('x'):rep(100000):len()" },
  files = { "local f <close> = assert(io.open('/proc/self/stat')) return #f:read('a') > 1" },
}

-- Their clients get nothing.
local SILENT = { ["an error that ends it"] = true, ["a closed connection"] = true }

local function names_of(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- The reply of one piece, whatever may have become of it.
local function talk(url, piece)
  local c <close> = host.connect(url)
  c:send(case.piece(piece[1]))
  if piece[2] then c:send(piece[2]) end
  c:finish()
  local reply, message = c:all()
  assert.are_not.equal("timeout", message)
  return reply
end

local function clean(p, url)
  assert.is_truthy(host.state(p.pid), "it is gone: " .. host.read(p.log_path))
  local results, raw = case.run(url, "wfile:write('still ') return rfile:read('a'), 6 * 7", "here")
  assert.are.same({ "here", 42, n = 2 }, results)
  assert.are.equal("still ", raw)
end

-- Each line of the log is whole, even if some are missing.
local function check_log(p)
  for _, e in ipairs(p:events()) do assert.are_not.equal("?", e.event, e.line) end
end

-- The script with its module beside it.
local function script()
  local folder = host.folder()
  host.write("return { word = 'part' }", folder .. "/allocation_part.lua")
  return host.write(host.read(case.script), folder .. "/case.lua")
end

local function start(s, options)
  options = options or {}
  options.env = s.env
  return host.start(script(), options)
end

if not scarce.works() then
  pending("failing allocations: a sanitizer has its own; see `make scarce`")
  return
end

describe("Failing allocations, seed " .. SEED .. ":", function()
  after_each(host.cleanup)

  for _, mixin in ipairs { "async", "sync", "threading", "forking" } do
    it("each API under " .. mixin, function()
      local s = scarce.new()
      local p = start(s, { args = { "--mixin=" .. mixin } })
      local url = p:url()
      for _, name in ipairs(names_of(pieces)) do
        local piece = pieces[name]
        if not (mixin == "sync" and name == "connect") then
          clean(p, url)
          local want = talk(url, piece)
          if not SILENT[name] then assert.are_not.equal("", want, name) end
          local before = runs
          sweep(s, function() talk(url, piece) end, function() clean(p, url) end)
          if os.getenv("ALLOCATION_VERBOSE") then print(mixin, name, runs - before) end
        end
      end
      check_log(p)
      p:stop()
      check_log(p)
    end)
  end

  it("datagrams and Unix sockets", function()
    local s = scarce.new()
    local folder = host.folder()
    local p = start(s, {
      listen = { "udp://127.0.0.1:0", "unixgram://" .. folder .. "/gram", "unix://" .. folder .. "/u" },
    })
    local udp, gram, unix = p:url("case"), p:url("case-2"), p:url("case-3")
    local texts = {
      "return self.packet and #self.request, tostring(self.client_address) ~= ''",
      "return rfile:read('a'):len() > 1, rfile:read('l')",
      "self.socket:sendto('extra', self.client_address); wfile:write(('x'):rep(20000)) "
        .. "return self.socket:getsockname()",
      "moonport.sleep(0.0001); wfile:write('late')",
      "error('of a datagram')",
    }
    for _, url in ipairs { udp, gram } do
      local bind = url == gram and { bind = "unixgram://" .. folder .. "/client" } or nil
      local c <close> = host.connect(url, bind)
      local serial = 0
      -- A datagram may be lost, as any: what matters is the next one.
      local function answers()
        serial = serial + 1
        local want = tostring(serial)
        host.eventually("an answer to a datagram", function()
          c:send("local self, moonport = ...; return " .. want)
          while true do
            local got = c:some(0.02)
            if got == want then return true elseif not got then return false end
          end
        end)
      end
      answers()
      for _, text in ipairs(texts) do
        sweep(s, function()
          c:send("local self, moonport = ...; local rfile, wfile = self.rfile, self.wfile; " .. text)
          answers()
        end, answers)
      end
    end
    sweep(s, function() talk(unix, pieces.reads) end, function() clean(p, unix) end)
    check_log(p)
    p:stop()
  end)

  for _, mixin in ipairs { "async", "threading", "forking" } do
    it("a reload under " .. mixin, function()
      local s = scarce.new()
      local p = start(s, { args = { "--mixin=" .. mixin } })
      local url = p:url()
      local before <close> = host.connect(url)
      before:send(case.piece("wfile:write('begun\\n'); for l in rfile:lines() do wfile:write(l:upper(), '\\n') end"))
      assert.are.equal("begun", before:line())
      local function outcomes() return #p:find("reloaded") + #p:find("reload failed") end
      local good = 0
      sweep(s, function()
        local was = outcomes()
        p:kill("HUP")
        talk(url, pieces.lines) -- comes after it
        host.eventually("what comes of a reload", function()
          return outcomes() > was or select(2, s:counts()) > 0 -- the event itself may be lost
        end)
      end, function()
        clean(p, url)
        good = good + 1
      end)
      assert.is_true(good > 3)
      assert.is_true(#p:find("reload failed") > 0 or STRIDE > 1)
      for _, e in ipairs(p:find("reload failed")) do assert.matches("memory", e.why) end
      -- a connection from before the reloads has its old code
      assert.are.equal("OLD", before:ask("old"))
      before:close()
      check_log(p)
      p:stop()
    end)
  end

  it("SIGUSR1", function()
    local s = scarce.new()
    local p = start(s)
    local waiting <close> = host.connect(p:url())
    waiting:send(case.piece("local function deep() return (rfile:read('l')) end "
      .. "wfile:write('begun\\n') return (deep())"))
    assert.are.equal("begun", waiting:line())
    p:kill("USR1")
    p:find("task", true)
    sweep(s, function()
      p:kill("USR1")
      talk(p:url(), pieces.lines) -- signals come before what came later
    end, function() clean(p, p:url()) end)
    waiting:send("end\n")
    waiting:finish()
    assert.are.same({ "end", n = 1 }, (case.results((waiting:all()))))
    check_log(p)
    p:stop()
  end)

  it("many at a time", function()
    for _, mixin in ipairs { "async", "threading", "forking" } do
      local s = scarce.new()
      local p = start(s, { args = { "--mixin=" .. mixin } })
      local url = p:url()
      for _, rule in ipairs { { 1, 20, 0 }, { 5, 300, 0 }, { 1, 1 << 40, 2 }, { 2, 1 << 40, 5 }, { 1, 1 << 40, 17 } } do
        local clients = {}
        s:arm(table.unpack(rule))
        for _, name in ipairs(names_of(pieces)) do
          local c = host.connect(url)
          c:send(case.piece(pieces[name][1]))
          if pieces[name][2] then c:send(pieces[name][2]) end
          c:finish()
          clients[#clients + 1] = c
        end
        p:kill("USR1")
        p:kill("HUP")
        -- some of them wait for memory
        for _, c in ipairs(clients) do c:some(0.05) end
        local _, failed = s:disarm()
        injected = injected + failed
        for _, c in ipairs(clients) do
          local _, message = c:all()
          assert.are_not.equal("timeout", message)
          c:close()
        end
        clean(p, url)
      end
      check_log(p)
      p:stop()
    end
  end)

  for _, mixin in ipairs { "async", "threading", "forking" } do
    it("a start and a stop under " .. mixin, function()
      local path = script()
      local folder = host.folder()
      each_k(function(k, last)
        local s = scarce.new()
        s:arm(k, last)
        local argv = { host.program, "serve", path, "--listen=tcp://127.0.0.1:0", "--log-format=json",
          "--mixin=" .. mixin, "--ready-file=" .. folder .. "/ready" }
        local log = assert(sys.open(folder .. "/log", "w"))
        local pid = assert(sys.spawn(argv, { env = s.env, stdout = log, stderr = log }))
        sys.close(log)
        local code
        host.eventually("ready, or an end", function()
          code = sys.wait(pid, 0)
          return code or sys.stat(folder .. "/ready")
        end)
        local said = host.read(folder .. "/log")
        if code then
          assert.is_true(code == 100 or code == 111, ("k = %d..%d: ended with %d:\n%s"):format(k, last, code, said))
          assert.matches("memory", said)
        else
          local url = host.read(folder .. "/ready"):match('"url":"(.-)"')
          -- one that was lost does not count: the request may be it
          talk(url, pieces.lines)
        end
        local _, failed = s:disarm()
        if not code then
          local url = host.read(folder .. "/ready"):match('"url":"(.-)"')
          clean({ pid = pid, log_path = folder .. "/log" }, url)
          s:arm(k, last)
          sys.kill(pid, "TERM")
          assert.are.equal(0, sys.wait(pid, 10), said)
          s:disarm()
          local stopped = host.read(folder .. "/log"):match('"event":"stopped"[^\n]*') -- unless it was lost itself
          if stopped then assert.matches('"tasks":0,"streams":0,"descriptors":0,"timers":0,"buffered":0', stopped) end
        end
        os.remove(folder .. "/ready")
        return failed
      end)
      assert.are.same({ "log" }, sys.list(folder))
    end)
  end

  for _, command in ipairs { "check", "try" } do
    it("moonport " .. command, function()
      local path = host.write([[
        function handle(self)
          for l in self.rfile:lines() do self.wfile:write(l:upper(), "\n") end
        end]])
      each_k(function(k, last)
        local s = scarce.new()
        local folder = host.folder()
        s:arm(k, last)
        local input = assert(sys.open(host.write("a\nb\n", folder .. "/in")))
        local out = assert(sys.open(folder .. "/out", "w"))
        local err = assert(sys.open(folder .. "/err", "w"))
        local pid = assert(sys.spawn({ host.program, command, path },
          { env = s.env, stdin = input, stdout = out, stderr = err }))
        for _, fd in ipairs { input, out, err } do sys.close(fd) end
        local code = sys.wait(pid, 10)
        local _, failed = s:disarm()
        if code == 0 then
          assert.matches(command == "try" and "^A\nB\n$" or ": ok\n$", host.read(folder .. "/out"))
        else
          local said = host.read(folder .. "/err")
          assert.is_true(code == 100 or code == 111 or code == 1,
            ("k = %d..%d: ended with %s:\n%s"):format(k, last, code, said))
          assert.matches("memory", said)
        end
        return failed
      end)
    end)
  end

  -- In a plain lua5.4, whose every allocation the preloaded library sees.  It disarms itself, and tries once more.
  local GUEST = [=[
    package.path, package.cpath = "./lua/?.lua;" .. package.path, arg[1] .. "/?.so;" .. package.cpath
    local moonport, socketserver = require("moonport"), require("moonport.socketserver")
    local works = {}
    function works.start()
      local server <close> = moonport.start("scripts/upper.lua", { mixin = arg[5] })
      return moonport.run(function()
        local s <close> = assert(moonport.connect(server.url))
        s:sendall("hello\n")
        return tostring(server):find("upper") and s:makefile("r"):read() or "HELLO"
      end)
    end
    function works.class()
      local H = socketserver.class("H", socketserver.StreamRequestHandler)
      local server <close> = socketserver[arg[5] .. "TCPServer"]({ "127.0.0.1", 0 }, H)
      server.timeout = 0.001
      server:handle_request()
      function server:service_actions() self:shutdown() end
      server:serve_forever(0.001)
      return "HELLO"
    end
    local f <close> = io.open(os.getenv("SCARCE"), "r+b")
    f:setvbuf("no")
    local work, off = works[arg[4]], ("=I8"):pack(0)
    f:seek("set", 8)
    f:write(("=I8I8I8I8I8"):pack(tonumber(arg[2]), tonumber(arg[3]), 0, 0, 0))
    f:seek("set", 0)
    f:write(("=I8"):pack(1))
    local ok, why = pcall(work)
    f:seek("set", 0)
    f:write(off)
    local text = tostring(why) -- a thread that has no stack is "temporarily unavailable"
    assert(not ok and (text:find("memory") or text:find("unavailable")) or why == "HELLO", text)
    assert(work() == "HELLO")]=]

  if not scarce.linked then
    for _, what in ipairs { "start async", "start threading", "class ", "class Async", "class Forking" } do
      it("of a program that uses the module: " .. what, function()
        local program, name, policy = host.write(GUEST), what:match("(%a+) (%a*)")
        each_k(function(k, last)
          local s = scarce.new()
          local out_path = s.path .. ".out"
          local out = assert(sys.open(out_path, "w"))
          local argv = { "lua5.4", program, host.build, tostring(k), tostring(last), name, policy }
          local pid = assert(sys.spawn(argv, { env = s.env, stdout = out, stderr = out }))
          sys.close(out)
          local code = sys.wait(pid, 20)
          -- with many failing in a row it cannot even say so
          if last - k < 10 then assert.are.equal(0, code, ("k = %d..%d: %s"):format(k, last, host.read(out_path))) end
          assert.is_true(code == 0 or code == 1, ("k = %d..%d: ended with %s"):format(k, last, code))
          return select(2, s:counts())
        end)
      end)
    end
  end

  it("(the sums)", function() print(("%d runs, %d allocations failed, seed %d"):format(runs, injected, SEED)) end)
end)
