--- moonport.journal: what scripts write down, outside their Lua states.

local case = require("support.case")
local generations = require("support.generations")
local host = require("support.host")

local JOURNAL = "local journal = require('moonport.journal') "

local p

local function run(code, program) return case.run(program or p, JOURNAL .. code) end

-- A connection whose handler runs the piece; it has begun when this returns.
local function begin(code, program)
  local c = host.connect((program or p):url())
  c:send(case.piece(JOURNAL .. "wfile:write('!') wfile:flush() " .. code))
  assert.are.equal("!", c:receive(1))
  return c
end

local function result(c)
  local got = case.results((c:all()))
  c:close()
  return got
end

-- Until so many requests wait: all but the one that asks.
local function waiting(n, program)
  host.eventually(n .. " requests that wait", function()
    return case.run(program or p, "return self.server:stats().tasks")[1] == n + 1
  end)
end

describe("moonport.journal", function()
  before_each(function() p = case.start() end)
  after_each(function()
    if p then p:stop() end
    p = nil
    host.cleanup()
  end)

  it("gives back what was added", function()
    local got = run [[
      local before = moonport.time()
      local first = journal.add("received", "redis", 7, "a\0b\r\n")
      journal.add("closed", "redis", 7, "", "fin")
      journal.add("note", nil, nil, "no server")
      local out, at = {}, 0
      while true do
        local r = table.pack(journal.next(at))
        if not r[1] then out.nothing = r break end
        at = r[1]
        r[5] = r[5] >= before - 1 and r[5] <= moonport.time() + 1
        out[#out + 1] = r
      end
      return first, journal.first(), journal.last(), out]]
    assert.are.same({ 1, 1, 3, {
      { 1, "received", "redis", 7, true, "a\0b\r\n", nil, 5, n = 8 },
      { 2, "closed", "redis", 7, true, "", "fin", 0, n = 8 },
      { 3, "note", nil, 0, true, "no server", nil, 9, n = 8 },
      nothing = { nil, 3, n = 2 },
    }, n = 4 }, got)
  end)

  it("finds records of some kinds, or of a server", function()
    local got = run [[
      for i = 1, 10 do
        journal.add("received", i % 2 == 0 and "even" or "odd", 1, tostring(i))
        journal.add("sent", i % 2 == 0 and "even" or "odd", 1, "re: " .. i)
      end
      local function all(mask, server)
        local at, out = 0, {}
        while true do
          local seq, kind, _, _, _, data = journal.next(at, mask, server)
          if not seq then return #out, out[#out], at end
          at, out[#out + 1] = seq, kind .. " " .. data
        end
      end
      return all(), all(journal.mask { "received" }), all(journal.mask { "sent", "toxic" }, "odd"),
        (all(journal.mask { "toxic" })), (all(0)), (all(nil, "nobody")), all(nil, "even")]]
    assert.are.same({ 20, 10, 5, 0, 0, 0, 10, "sent re: 10", 20, n = 9 }, got)
  end)

  it("numbers connections, and those of each server", function()
    assert.are.same({ 1, 1, "open", "127.0.0.1:5", n = 4 }, run [[
      local conn, nth = journal.open(request, "redis", "127.0.0.1:5")
      local _, kind, _, _, _, data = journal.next(0)
      return conn, nth, kind, data]])
    assert.are.same({ 2, 2, n = 2 }, run "return journal.open(nil, 'redis', 'x')")
    assert.are.same({ 3, 1, n = 2 }, run "return journal.open(request, 'smtp', 'x')")
    assert.are.same({ 4, 1, n = 2 }, run "journal.clear() return journal.open(request, 'redis', 'x')")
  end)

  it("cuts long data, and knows how long they were", function()
    assert.are.same({ 65536, 100000, 0, n = 3 }, run [[
      journal.add("received", "s", 1, ("x"):rep(100000))
      local _, _, _, _, _, data, _, length = journal.next(0)
      return #data, length, #data:gsub("x", "")]])
  end)

  it("counts by server and kind", function()
    local got = run [[
      journal.open(nil, "s", "c")
      journal.add("received", "s", 1, "12345")
      journal.add("unmatched", "s", 1, "12345")
      journal.add("partial", "s", 1, "67")
      journal.add("sent", "s", 1, "123")
      journal.add("push", "s", 1, "4")
      journal.fail("s", 1, "oh no")
      return journal.info(), journal.failures()]]
    local bytes = got[1].bytes
    assert.is_true(bytes > 7 * 24 and bytes < 7 * 64)
    assert.are.same({
      limit = 64 << 20, bytes = bytes, records = 7, first = 1, last = 7, dropped = 0, failures = 1,
      servers = { s = {
        open = 1, received = 1, unmatched = 1, sent = 1, partial = 1, closed = 0, toxic = 0, note = 0, reload = 0,
        error = 0, failed = 1, push = 1, bytes_in = 7, bytes_out = 4, dropped = 0,
      } },
    }, got[1])
    assert.are.same({ "oh no" }, got[2])
    assert.are.equal(1, got[3])
  end)

  it("clears all but the sequence number", function()
    assert.are.same({ false, true, 2, 3, 0, 0, 3, {}, 0, n = 9 }, run [[
      local before = journal.marked("k")
      journal.mark("k")
      local marked = journal.marked("k")
      journal.fail("s", nil, "text")
      journal.add("note", "s", nil, "text")
      journal.clear()
      local i = journal.info()
      assert(next(i.servers) == nil and not journal.marked("k") and journal.next(0) == nil)
      assert(journal.add("note", "s", nil, "text") == 3)
      return before, marked, i.last, i.first, i.records, i.bytes, journal.next(0), journal.failures()]])
  end)

  it("drops the oldest where the bound is reached, and counts them", function()
    local got = run [[
      local function note(server, text) journal.add("note", server, nil, text) end
      journal.limit(128 << 10)
      for _ = 1, 10 do note("old", ("x"):rep(100)) end
      for i = 1, 10000 do note("new", tostring(i)) end
      local i = journal.info()
      local n, at = 0, 0
      while true do
        local seq = journal.next(at)
        if not seq then break end
        assert(at == 0 or seq == at + 1)
        n, at = n + 1, seq
      end
      return i.limit, i.bytes, i.records, i.dropped, i.first, n, i.servers.old.dropped, i.servers.new.dropped,
        (journal.next(3))]]
    local limit, bytes, records, dropped, first, n, old, new, next_of_3 = table.unpack(got)
    assert.are.equal(128 << 10, limit)
    assert.is_true(bytes <= limit and bytes > limit - 256)
    assert.are.equal(10010, records + dropped)
    assert.are.equal(records, n)
    assert.are.equal(dropped + 1, first)
    assert.are.equal(10, old)
    assert.are.equal(dropped, old + new)
    assert.are.equal(first, next_of_3)
  end)

  it("has writers for one kind of one connection", function()
    local got = run [[
      local sent, received = journal.writer("sent", "re" .. "dis", 7), journal.writer("received", "redis", 7)
      collectgarbage()
      received("a\0b")
      sent("c", "corrupt")
      local servers = journal.info().servers
      return { select(2, journal.next(0)) }, { select(2, journal.next(1)) }, servers.redis.bytes_in]]
    got.n = nil
    for i = 1, 2 do got[i][4] = nil end -- the time
    assert.are.same({ { "received", "redis", 7, nil, "a\0b", nil, 3 },
      { "sent", "redis", 7, nil, "c", "corrupt", 1 }, 3 },
      got)
  end)

  it("says what is wrong with an argument", function()
    for code, text in pairs {
      ["journal.add('recieved', 's', 1, '')"] = "bad argument #1 to 'add' (there is no kind 'recieved'; the kinds "
        .. "are open, received, unmatched, sent, partial, closed, toxic, note, reload, error, failed, push)",
      ["journal.writer('sen', 's', 1)"] = "bad argument #1 to 'writer' (there is no kind 'sen'",
      ["journal.writer('sent', nil, 1)"] = "string expected, got nil",
      ["journal.writer('sent', 's', -1)"] = "no connection has a negative number",
      ["journal.writer('sent', 's', 1)()"] = "string expected, got no value",
      ["journal.mask{'sent', 'x'}"] = "there is no kind 'x'; the kinds are open,",
      ["journal.add('note', ('s'):rep(256), 1, '')"] = "a server's name has at most 255 bytes",
      ["journal.add('note', 's', -1, '')"] = "no connection has a negative number",
      ["journal.open({}, 's', '')"] = "moonport.request expected, got table",
      ["journal.open(nil, nil, '')"] = "string expected, got nil",
      ["journal.limit(4096)"] = "the least bound is 131072 bytes (128 KiB)",
      ["journal.wait(0, -1)"] = "seconds must not be negative",
    } do
      local got = run(code)
      assert.are.equal("raised", got[1])
      assert.is_truthy(got[2]:find(text, 1, true), got[2])
    end
  end)

  it("stands a finalizer that clears it while it is read", function()
    assert.are.same({ true, n = 1 }, run [[
      local data, detail = ("d"):rep(30000), ("e"):rep(3000)
      journal.limit(128 << 10)
      collectgarbage("generational")
      for i = 1, 2000 do
        journal.add("note", "server" .. i, nil, data, detail)
        setmetatable({}, { __gc = function()
          if i % 2 == 0 then journal.clear() end
          for _ = 1, 5 do journal.add("note", "other", nil, ("x"):rep(40000)) end
        end })
        journal.info()
        local seq, _, _, _, _, got, more = journal.next(0, nil, "server" .. i)
        if seq and (got ~= data or more ~= detail) then return "other bytes" end
      end
      collectgarbage("incremental")
      return true]])
  end)
end)

describe("moonport.journal.wait", function()
  before_each(function() p = case.start() end)
  after_each(function()
    if p then p:stop() end
    p = nil
    host.cleanup()
  end)

  it("returns at once if there is a record, or no time", function()
    assert.are.same({ false, true, false, n = 3 }, run [[
      local a = journal.wait(0, 0)
      journal.add("note", nil, nil, "")
      return a, journal.wait(0), journal.wait(1, 0.01)]])
  end)

  it("needs no request where a record is there, and else says so", function()
    local script = host.write [[
      local journal = require("moonport.journal")
      journal.add("note", nil, nil, "")
      assert(journal.wait(0))
      local ok, why = pcall(journal.wait, 1, 1)
      function handle(self) self.wfile:write(tostring(ok), " ", why, "\n") end
    ]]
    local q = host.start(script)
    local c <close> = host.connect(q:url())
    assert.matches("^false this waits, and only a request can", c:line())
    q:stop()
  end)

  it("wakes two who wait", function()
    local a = begin "return journal.wait(0, 30), journal.last()"
    local b = begin "return journal.wait(0)"
    waiting(2)
    run "journal.add('note', nil, nil, '')"
    assert.are.same({ true, 1, n = 2 }, result(a))
    assert.are.same({ true, n = 1 }, result(b))
  end)

  it("wakes once for all that one turn has added", function()
    local c = begin [[
      local wakes, seen, at = 0, 0, 0
      repeat
        assert(journal.wait(at))
        wakes = wakes + 1
        kept.wakes = wakes
        while true do
          local seq, kind = journal.next(at)
          if not seq then break end
          at, seen = seq, seen + 1
          if kind == "closed" then at = math.huge break end
        end
      until at == math.huge
      return wakes, seen]]
    waiting(1)
    run "for i = 1, 1000 do journal.add('sent', 's', 1, 'x') end"
    host.eventually("the first one", function() return run("return kept.wakes")[1] == 1 end)
    run "journal.add('closed', 's', 1, '')"
    assert.are.same({ 2, 1001, n = 2 }, result(c))
  end)

  it("is not woken for nothing by clear(), and its time goes on", function()
    local c = begin "return journal.wait(0, 0.2)"
    waiting(1)
    run "journal.add('note', nil, nil, '') journal.clear()"
    assert.are.same({ false, n = 1 }, result(c))
    c = begin "return journal.wait(1)"
    waiting(1)
    run "journal.add('note', nil, nil, '') journal.clear()"
    run "journal.add('note', nil, nil, '')"
    assert.are.same({ true, n = 1 }, result(c))
  end)

  it("misses nothing of many who write", function()
    local c = begin [[
      local seen, at = 0, 0
      while seen < 2000 do
        if not journal.wait(at, 20) then return "missed", seen end
        for _ = 1, 3 do -- not all that there is
          at = journal.next(at) or at
          seen = at
        end
      end
      return seen, at]]
    local writers = {}
    for i = 1, 20 do
      writers[i] = begin "for _ = 1, 100 do journal.add('sent', 's', 1, 'x') moonport.sleep(0) end"
    end
    assert.are.same({ 2000, 2000, n = 2 }, result(c))
    for _, w in ipairs(writers) do result(w) end
  end)

  it("leaves nothing behind when it is cancelled, or its client has gone", function()
    local q = case.start { args = { "-o", "request_timeout=0.1" } }
    local a = begin("return journal.wait(0)", q)
    assert.are.same({ "raised", "cancelled: request_timeout", n = 2 }, result(a))
    run("journal.add('note', nil, nil, '')", q)
    q:stop()

    local gone, stays = begin "return journal.wait(0)", begin "return journal.wait(0)"
    waiting(2)
    gone:reset()
    waiting(1)
    run "journal.add('note', nil, nil, '')"
    assert.are.same({ true, n = 1 }, result(stays))
  end)

  it("ends with its task that is killed at once", function()
    local c = begin "return journal.wait(0)"
    waiting(1)
    p:kill("TERM")
    p:kill("INT")
    assert.is_truthy(p:wait())
    p = nil
    c:close()
  end)
end)

describe("the journal of a host", function()
  after_each(host.cleanup)

  local script = [[
    local journal = require("moonport.journal")
    journal.add("reload", "%s", nil, "%s")
    local H = {}
    function H:handle()
      if self.rfile:read() == "mark" then journal.mark("m") end
      local at, out = 0, {}
      while true do
        local seq, kind, server, conn, time, data = journal.next(at)
        if not seq then break end
        at = seq
        out[#out + 1] = data
      end
      self.wfile:write(table.concat(out, " "), " ", tostring(journal.marked("m")), "\n")
    end
    return H
  ]]

  it("outlives reloads", function()
    local path = host.write(script:format("a", "one"))
    local q = host.start(path)
    assert.are.equal("one true", generations.ask(q, "mark"))
    host.write(script:format("a", "two"), path)
    generations.reload(q, "reloaded")
    assert.are.equal("one two true", generations.ask(q, ""))
    q:stop()
  end)

  it("is that of all scripts, in a sandbox as well", function()
    local a, b = host.write(script:format("a", "one")), host.write(script:format("b", "two"))
    local listen = "--listen=tcp://127.0.0.1:0"
    local q = host.start({ a, listen, b, listen, "--sandbox" }, { listen = "" })
    local n = 0
    for name in pairs(q.ready.servers) do
      assert.are.equal("one two false", generations.ask(q, "", name))
      n = n + 1
    end
    assert.are.equal(2, n)
    q:stop()
  end)

  it("is a worker's own", function()
    local q = host.start(host.write(script:format("a", "one")), { args = { "--workers=2" } })
    assert.are.equal("one true", generations.ask(q, "mark"))
    q:kill("TERM")
    assert.are.equal(0, q:wait())
  end)

  for _, mixin in ipairs { "threading", "forking" } do
    it("is not there under " .. mixin .. ", which the module says", function()
      local q = case.start { args = { "--mixin=" .. mixin } }
      local got = case.run(q, "return require('moonport.journal')")
      assert.are.equal("raised", got[1])
      assert.matches("moonport.journal: there is no journal here, .*; mocks run under async", got[2])
      q:stop()
    end)
  end

  it("is not there in a forked child of a script that has it", function()
    local q = host.start(host.write [[
      local journal = require("moonport.journal")
      function handle(self)
        self.wfile:write(select(2, pcall(journal.add, "note", nil, nil, "")), "\n")
      end
    ]], { args = { "--mixin=forking" } })
    assert.matches("there is no journal here", generations.ask(q, ""))
    q:stop()
  end)
end)
