local case = require("support.case")
local host = require("support.host")

local p

local function all(code, input)
  -- The wait is real: the input comes only when the piece has said that it waits.
  local c <close> = host.connect(p:url())
  c:send(case.piece("wfile:write('!') " .. code))
  assert.are.equal("!", c:receive(1))
  for _, line in ipairs(input or {}) do assert(c:send(line)) end
  c:finish()
  local got = case.results((c:all()))
  assert(got, "no result of: " .. code)
  return got
end

describe("a wait", function()
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for where, code in pairs {
    pcall = "local ok, line = pcall(rfile.read, rfile) return ok, line",
    ["pcall, before an error"] = "local ok, line = pcall(function() error(rfile:read(), 0) end) return not ok, line",
    xpcall = "return xpcall(function() return rfile:read() end, print)",
    ["an xpcall's message handler's call"] =
      "return xpcall(function() local l = rfile:read() error(l, 0) end, function(e) return e end) == false, 'a'",
    ["the __index metamethod"] =
      "local t = setmetatable({}, { __index = function() return rfile:read() end }) return true, t.x",
    ["the __newindex metamethod"] =
      "local l local t = setmetatable({}, { __newindex = function() l = rfile:read() end }) t.x = 1 return true, l",
    ["the __call metamethod"] =
      "local t = setmetatable({}, { __call = function() return rfile:read() end }) return true, t()",
    ["an arithmetic metamethod"] =
      "local t = setmetatable({}, { __add = function() return rfile:read() end }) return true, t + 1",
    ["the __concat metamethod"] =
      "local t = setmetatable({}, { __concat = function() return rfile:read() end }) return true, t .. 'x'",
    ["the __eq metamethod"] =
      "local l local m = { __eq = function() l = rfile:read() return true end } "
      .. "return setmetatable({}, m) == setmetatable({}, m), l",
    ["the __lt metamethod"] =
      "local l local m = { __lt = function() l = rfile:read() return true end } "
      .. "return setmetatable({}, m) < setmetatable({}, m), l",
    ["the __le metamethod"] =
      "local l local m = { __le = function() l = rfile:read() return true end } "
      .. "return setmetatable({}, m) <= setmetatable({}, m), l",
    ["the __len metamethod"] =
      "local t = setmetatable({}, { __len = function() return rfile:read() end }) return true, #t",
    ["the __unm metamethod"] =
      "local t = setmetatable({}, { __unm = function() return rfile:read() end }) return true, -t",
    ["an iterator"] = "for line in function() return rfile:read() end do return true, line end",
    ["__close"] =
      "local l do local _ <close> = setmetatable({}, { __close = function() l = rfile:read() end }) end return true, l",
    ["__close after an error"] =
      "local l pcall(function() local _ <close> = setmetatable({}, { __close = function() l = rfile:read() end }) "
      .. "error('x') end) return true, l",
    ["__close on a return"] =
      "local l local function f() local _ <close> = setmetatable({}, { __close = function() l = rfile:read() end }) "
      .. "return true end local r = f() return r, l",
    dofile = "rf = rfile local name = os.tmpname() local f = io.open(name, 'w') f:write('return rf:read()') f:close() "
      .. "local ok, l = pcall(dofile, name) os.remove(name) return ok, l",
    ["coroutine.wrap"] = "return true, coroutine.wrap(function() return rfile:read() end)()",
    ["coroutine.resume"] = "return coroutine.resume(coroutine.create(function() return rfile:read() end))",
    ["a coroutine's pcall"] =
      "return coroutine.wrap(function() return pcall(function() return rfile:read() end) end)()",
    ["a coroutine's __close"] =
      "return true, coroutine.wrap(function() local l do local _ <close> = setmetatable({}, "
      .. "{ __close = function() l = rfile:read() end }) end return l end)()",
    ["three coroutines in each other"] =
      "local w = coroutine.wrap return true, w(function() return w(function() return w(function() "
      .. "return rfile:read() end)() end)() end)()",
    ["three resumed coroutines in each other"] =
      "local function in_co(f) return function() return select(2, assert(coroutine.resume(coroutine.create(f)))) "
      .. "end end return true, in_co(in_co(in_co(function() return rfile:read() end)))()",
  } do
    it("works inside " .. where, function()
      assert.are.same({ true, "a" }, { table.unpack(all(code, { "a\n", "b\n" }), 1, 2) })
    end)
  end

  it("works inside a generator that reads, and yields what it has read", function()
    assert.are.same({ "1a", "2b", "3c", nil, n = 4 }, all([[
      local lines = coroutine.wrap(function()
        for line in rfile:lines() do coroutine.yield(line) end
      end)
      local numbered = coroutine.wrap(function()
        local n = 0
        for line in lines do n = n + 1 coroutine.yield(n .. line) end
      end)
      local outer = coroutine.wrap(function() for s in numbered do coroutine.yield(s) end end)
      return outer(), outer(), outer(), (outer())]], { "a\n", "b\n", "c\n" }))
  end)

  it("does not mix up values that are yielded and passed between the waits", function()
    assert.are.same({ "in1", "a", "in2", "b", "end", n = 5 }, all([[
      local co = coroutine.create(function(first)
        local l = rfile:read()
        local second = coroutine.yield(first, l)
        moonport.sleep(0)
        l = rfile:read()
        coroutine.yield(second, l)
        moonport.sleep(0)
        return "end"
      end)
      local _, a, b = coroutine.resume(co, "in1")
      local _, c, d = coroutine.resume(co, "in2")
      local _, e = coroutine.resume(co)
      return a, b, c, d, e]], { "a\n", "b\n" }))
  end)

  it("may be for writing", function()
    local got, raw = case.run(p, "coroutine.wrap(function() pcall(function() "
      .. "wfile:write(('x'):rep(8 << 20)) request:sendall(('y'):rep(8 << 20)) end) end)()")
    assert.are.equal(0, got.n)
    assert.are.equal(16 << 20, #raw)
  end)

  it("may time out inside a coroutine", function()
    assert.are.same({ nil, "timeout", n = 2 },
      case.run(p, "request:settimeout(0.01) return coroutine.wrap(function() return rfile:read() end)()", nil, true))
  end)

  it("that is cancelled raises through the coroutines, and closes their variables", function()
    local q = case.start { args = { "-o", "request_timeout=0.1" } }
    local c <close> = host.connect(q:url())
    c:send(case.piece [[
      kept.log = {}
      local function note(s) return setmetatable({}, { __close = function() table.insert(kept.log, s) end }) end
      local _ <close> = note("outer")
      coroutine.wrap(function()
        local _ <close> = note("middle")
        coroutine.wrap(function()
          local _ <close> = note("inner")
          moonport.sleep(100)
        end)()
      end)()]])
    assert.are.same({ "raised", "cancelled: request_timeout", n = 2 }, (case.results((c:all()))))
    c:close()
    assert.are.same({ { "inner", "middle", "outer" }, n = 1 }, case.run(q, "return kept.log"))
    q:stop()
  end)

  it("works in a module that is required by a request", function()
    local got = case.run(p, [[
      package.preload.waits = function(name) return name .. rfile:read() end
      local value, data = require("waits")
      return value, data, require("waits")]], "ed\n")
    assert.are.same({ "waitsed", ":preload:", "waitsed", n = 3 }, got)
  end)

  describe("where C forbids it", function()
    for what, code in pairs {
      ["table.sort"] = "table.sort({ 1, 2 }, function() moonport.sleep(0) end)",
      ["string.gsub"] = "string.gsub('x', 'x', function() moonport.sleep(0) end)",
      ["string.gsub as a method"] = "local s = 'x' s:gsub('x', function() moonport.sleep(0) end)",
      ["tostring"] = "tostring(setmetatable({}, { __tostring = function() moonport.sleep(0) return '' end }))",
      ["print"] = "print(setmetatable({}, { __tostring = function() moonport.sleep(0) return '' end }))",
      ["load"] = "local _, e = load(function() moonport.sleep(0) end) error(e, 0)",
      ["string.format"] = "string.format('%s', setmetatable({}, { __tostring = function() moonport.sleep(0) end }))",
      ["table.concat"] = "table.concat(setmetatable({}, { __len = function() moonport.sleep(0) return 0 end }))",
      ["table.insert"] = "table.insert(setmetatable({}, { __len = function() moonport.sleep(0) return 0 end }), 1)",
      ["table.unpack"] = "table.unpack(setmetatable({}, { __index = function() moonport.sleep(0) end }), 1, 1)",
      ["next"] = "for _ in pairs(setmetatable({}, { __pairs = function() return next, {} end })) do end "
        .. "error('cannot wait inside next', 0)",
      ["coroutine.close"] = "local co = coroutine.create(function() local _ <close> = setmetatable({}, { __close = "
        .. "function() moonport.sleep(0) end }) coroutine.yield() end) coroutine.resume(co) "
        .. "local ok, e = coroutine.close(co) error(ok and 'cannot wait inside coroutine.close (it could)' or e, 0)",
      ["coroutine.wrap after an error"] = "coroutine.wrap(function() local _ <close> = setmetatable({}, { __close = "
        .. "function() moonport.sleep(0) end }) error('x') end)()",
      ["table.sort from a coroutine"] = "coroutine.wrap(function() table.sort({ 1, 2 }, "
        .. "function() moonport.sleep(0) end) end)()",
      ["table.sort around a coroutine"] = "table.sort({ 1, 2 }, function() "
        .. "return coroutine.wrap(function() moonport.sleep(0) return true end)() end)",
      ["string.gsub around two coroutines"] = "(('x'):gsub('x', coroutine.wrap(function() "
        .. "return coroutine.wrap(function() moonport.sleep(0) return '' end)() end)))()",
      ["string.gsub in the middle of coroutines"] = "coroutine.wrap(function() return (('x'):gsub('x', function() "
        .. "return coroutine.wrap(function() moonport.sleep(0) return '' end)() end)) end)()",
    } do
      local name = what:match("^[%w.]+")
      it("is an error that names the function: " .. what, function()
        local got = case.run(p, "local ok, e = pcall(function() " .. code .. " end) "
          .. "wfile:flush() return ok, e, rfile:read()", "goes on\n")
        assert.is_false(got[1], got[2])
        assert.is_truthy(got[2]:find("cannot wait inside " .. name, 1, true), got[2])
        assert.are.equal("goes on", got[3])
      end)
    end

    it("is an error that names __gc", function()
      local got = case.run(p, [[
        local why
        do local _ = setmetatable({}, { __gc = function() _, why = pcall(moonport.sleep, 0) end }) end
        collectgarbage() collectgarbage()
        return why, rfile:read()]], "goes on\n")
      assert.matches("cannot wait inside __gc", got[1])
      assert.are.equal("goes on", got[2])
    end)

    it("is the same for reads and writes, and takes nothing from the stream", function()
      for _, wait in ipairs { "rfile:read()", "rfile:readexactly(4)", "request:recv()", "rfile:lines()(rfile)",
        "rfile:unpack('z')", "rfile:readuntil('x')" } do
        local c <close> = host.connect(p:url())
        c:send(case.piece(("wfile:write('!'):flush() moonport.sleep(0) local ok, e = pcall(table.sort, { 1, 2 }, "
          .. "function() return %s end) wfile:write('?') return ok, e, rfile:read('a')"):format(wait)))
        assert.are.equal("!?", c:receive(2), wait)
        c:send("kept")
        c:finish()
        local got = case.results((c:all()))
        assert.is_false(got[1], wait)
        assert.matches("cannot wait inside table.sort", got[2], 1, true)
        assert.are.equal("kept", got[3])
      end
    end)

    it("does not matter when there is nothing to wait for", function()
      assert.are.same({ true, "b", n = 2 }, case.run(p, [[
        rfile:read()
        local line
        local ok = pcall(table.sort, { 1, 2 }, function() line = line or rfile:read() return false end)
        return ok, line]], { "a\nb\n" }))
    end)
  end)
end)

describe("coroutine", function()
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  -- Each piece must do in a handler what it does in plain Lua.
  for what, code in pairs {
    ["status"] = [[
      local co, out = nil, {}
      co = coroutine.create(function()
        out[#out + 1] = coroutine.status(co)
        coroutine.wrap(function() out[#out + 1] = coroutine.status(co) end)()
        coroutine.yield()
      end)
      out[#out + 1] = coroutine.status(co)
      coroutine.resume(co)
      out[#out + 1] = coroutine.status(co)
      coroutine.resume(co)
      out[#out + 1] = coroutine.status(co)
      local bad = coroutine.create(error)
      coroutine.resume(bad)
      out[#out + 1] = coroutine.status(bad)
      return table.unpack(out)]],
    ["isyieldable"] = [[
      local co = coroutine.create(function() end)
      return coroutine.isyieldable(), coroutine.wrap(function() return coroutine.isyieldable() end)(),
        coroutine.isyieldable(co)]],
    ["running"] = [[
      local main, is_main = coroutine.running()
      local co = coroutine.create(function() return coroutine.running() end)
      local _, inside, inside_main = coroutine.resume(co)
      return type(main), is_main, inside == co, inside_main, coroutine.status(main)]],
    ["running inside the running one's status"] = [[
      local main = coroutine.running()
      return coroutine.wrap(function() return coroutine.status(main) end)()]],
    ["resume of a dead one"] = [[
      local co = coroutine.create(function() end)
      coroutine.resume(co)
      return coroutine.resume(co)]],
    ["resume of the main one"] = "return coroutine.resume(coroutine.running())",
    ["resume of itself"] =
      "local co co = coroutine.create(function() return coroutine.resume(co) end) return coroutine.resume(co)",
    ["resume of a normal one"] = [[
      local co
      co = coroutine.create(function() return coroutine.wrap(function() return coroutine.resume(co) end)() end)
      return coroutine.resume(co)]],
    ["resume with values"] = [[
      local co = coroutine.create(function(...) return select("#", ...), coroutine.yield(...) end)
      local a = table.pack(coroutine.resume(co, 1, nil, nil))
      local b = table.pack(coroutine.resume(co, "x", nil))
      return a.n, a[2], b.n, b[1], b[2], (b[3])]],
    ["resume with an error"] = [[
      local t = {}
      local ok, e = coroutine.resume(coroutine.create(function() error(t) end))
      local ok2, e2 = coroutine.resume(coroutine.create(function() error("s", 0) end))
      local ok3, e3 = coroutine.resume(coroutine.create(function() error() end))
      return ok, e == t, ok2, e2, ok3, e3]],
    ["resume of no coroutine"] =
      "local ok, e = pcall(coroutine.resume, 1) return ok, (e:gsub('coroutine e', 'thread e'))",
    ["too many results"] = [[
      local co = coroutine.create(function() return table.unpack({}, 1, 900000) end)
      return select("#", coroutine.resume(co)) ]],
    ["wrap with values"] = "return coroutine.wrap(function(...) return select('#', ...), ... end)(1, nil)",
    ["wrap adds the position to an error"] = [[
      local f = coroutine.wrap(function() error("here") end)
      return pcall(function() f() end)]],
    ["wrap keeps an error that is no string"] =
      "local t = {} local ok, e = pcall(coroutine.wrap(function() error(t) end)) return ok, e == t",
    ["wrap of a dead one"] = "local f = coroutine.wrap(function() end) f() return pcall(function() f() end)",
    ["wrap closes variables after an error"] = [[
      local log = {}
      local f = coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function(_, e) log[#log + 1] = tostring(e) end })
        error("x", 0)
      end)
      local ok, e = pcall(f)
      return ok, e, table.unpack(log)]],
    ["wrap with an error in __close"] = [[
      local f = coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() error("y", 0) end })
        error("x", 0)
      end)
      return pcall(f)]],
    ["create of no function"] = "return pcall(coroutine.create, 1)",
    ["wrap of no function"] = "return pcall(coroutine.wrap)",
    ["close of a new, a suspended and a dead one"] = [[
      local log = {}
      local function f()
        local _ <close> = setmetatable({}, { __close = function(_, e) log[#log + 1] = tostring(e) end })
        coroutine.yield()
      end
      local a, b, c = coroutine.create(f), coroutine.create(f), coroutine.create(print)
      coroutine.resume(b)
      return coroutine.close(a), coroutine.close(b), coroutine.status(b), coroutine.close(b), coroutine.close(c),
        table.unpack(log)]],
    ["close with an error"] = [[
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() error("z", 0) end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      local ok, e = coroutine.close(co)
      return ok, e, coroutine.status(co), coroutine.close(co)]],
    ["close of one that failed"] = [[
      local co = coroutine.create(function() error("x", 0) end)
      coroutine.resume(co)
      local ok, e = coroutine.close(co)
      return ok, e, coroutine.close(co)]],
    ["close of the running one"] = "return pcall(coroutine.close, (coroutine.running()))",
    ["close of a normal one"] = [[
      local co
      co = coroutine.create(function() return coroutine.wrap(function() return pcall(coroutine.close, co) end)() end)
      return coroutine.resume(co)]],
    ["yield outside"] = "return pcall(coroutine.yield, 1)",
    ["yield across pcall, metamethods and iterators"] = [[
      local f = coroutine.wrap(function()
        local t = setmetatable({}, { __index = function(_, k) return coroutine.yield(k) end })
        local ok, v = pcall(function() return t.x end)
        for w in function() return coroutine.yield("it") end do v = v .. w end
        return ok, v
      end)
      local a, b, c = f(), f("1"), f("2")
      return a, b, c, f()]],
    ["yield across table.sort"] = [[
      return coroutine.resume(coroutine.create(function() table.sort({ 1, 2 }, coroutine.yield) end))]],
    ["what the library holds"] = [[
      local names = {}
      for k, v in pairs(coroutine) do names[#names + 1] = k .. " " .. type(v) end
      table.sort(names)
      return table.concat(names, ",")]],
    ["a generator"] = [[
      local out = {}
      for a, b in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i, i * i) end end) do
        out[#out + 1] = a .. "=" .. b
      end
      return table.concat(out, " ")]],
    ["deep nesting"] = [[
      local function nest(n) return n == 0 and "bottom" or coroutine.wrap(nest)(n - 1) end
      return nest(100)]],
    ["endless nesting"] = [[
      local function nest() return coroutine.wrap(nest)() end
      local ok, e = pcall(nest)
      return ok, e:match("C stack overflow")]],
  } do
    it("is as Lua's own: " .. what, function()
      local path = host.write("local function piece() " .. code .. "\nend\nlocal r = table.pack(piece())\n"
        .. "for i = 1, r.n do io.write(type(r[i]), ' ', tostring(r[i]), '\\n') end", host.folder() .. "/plain.lua")
      local plain = io.popen("lua5.4 " .. path .. " 2>&1")
      local expected = plain:read("a"):gsub("[^\n ]*plain%.lua:", "case:")
      plain:close()
      local got = case.run(p, "local function piece() " .. code .. "\nend\nlocal r = table.pack(piece())\n"
        .. "local out = {} for i = 1, r.n do out[i] = type(r[i]) .. ' ' .. tostring(r[i]) .. '\\n' end "
        .. "return table.concat(out)")
      assert.are.equal(1, got.n, tostring(got[2]))
      assert.are.equal(expected, got[1])
    end)
  end

  it("is the library of require, and moonport.coroutine, too", function()
    assert.are.same({ true, true, n = 2 },
      case.run(p, "return require('coroutine') == coroutine, moonport.coroutine.wrap ~= nil"))
  end)

  it("of another request that waits cannot be resumed or closed", function()
    local c <close> = host.connect(p:url())
    c:send(case.piece [[
      kept.outer = coroutine.running()
      kept.co = coroutine.create(function() return rfile:read() end)
      return coroutine.resume(kept.co)]])
    host.eventually("the other", function() return case.run(p, "return kept.co ~= nil")[1] end)
    assert.are.same({ "normal", false, "cannot resume non-suspended coroutine", false,
      "cannot close a normal coroutine", "normal", false, "cannot resume non-suspended coroutine", n = 8 },
      case.run(p, [[
        local a, b = coroutine.resume(kept.co)
        local d, e = pcall(coroutine.close, kept.co)
        local f, g = coroutine.resume(kept.outer)
        return coroutine.status(kept.co), a, b, d, e, coroutine.status(kept.outer), f, g]]))
    c:send("unharmed\n")
    c:finish()
    assert.are.same({ true, "unharmed", n = 2 }, (case.results((c:all()))))
  end)

  it("may be handed from one request to another between two waits", function()
    case.run(p, "kept.generator = coroutine.wrap(function() local n = 0 while true do n = n + 1 "
      .. "moonport.sleep(0) coroutine.yield(n) end end) return kept.generator()")
    assert.are.same({ 2, 3, n = 2 }, case.run(p, "return kept.generator(), kept.generator()"))
  end)

  it("that nobody finishes leaves nothing behind", function()
    local code = "for _ = 1, 1000 do coroutine.wrap(function() moonport.sleep(0) coroutine.yield() end)() end "
      .. "collectgarbage() collectgarbage() return collectgarbage('count')"
    case.run(p, code)
    local before = case.run(p, code)[1]
    for _ = 1, 10 do case.run(p, code) end
    assert.is_true(case.run(p, code)[1] - before < 16)
  end)

  -- torture list 63
  describe("that must not be resumed", function()
    -- What resume, wrap's function and close say of kept.co, and its status; in a request of its own.
    local function others_try(name)
      return case.run(p, ([[
        local co = kept.%s
        local _, resumed = coroutine.resume(co)
        local ok, closed = pcall(coroutine.close, co)
        return coroutine.status(co), resumed, ok or closed, coroutine.isyieldable(co) ~= nil]]):format(name))
    end
    local BUSY = { "normal", "cannot resume non-suspended coroutine", "cannot close a normal coroutine", true, n = 4 }
    local DEAD = { "dead", "cannot resume dead coroutine", true, true, n = 4 }

    it("is another request's that waits, or any of those around it, or its wrap's function", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece [[
        kept.main = coroutine.running()
        return coroutine.wrap(function()
          kept.middle = coroutine.running()
          kept.f = coroutine.wrap(function()
            kept.inner = coroutine.running()
            return rfile:read()
          end)
          return kept.f()
        end)()]])
      host.eventually("the other", function() return case.run(p, "return kept.inner ~= nil")[1] end)
      for _, name in ipairs { "main", "middle", "inner" } do assert.are.same(BUSY, others_try(name), name) end
      local _, why = table.unpack((case.run(p, "return pcall(kept.f)")))
      assert.matches("cannot resume non%-suspended coroutine$", why)
      c:send("unharmed\n")
      c:finish()
      assert.are.same({ "unharmed", n = 1 }, (case.results((c:all()))))
      for _, name in ipairs { "middle", "inner" } do assert.are.same(DEAD, others_try(name), name) end
      _, why = table.unpack((case.run(p, "return pcall(kept.f)")))
      assert.matches("cannot resume dead coroutine$", why)
    end)

    it("is its own request's first one, from any depth", function()
      assert.are.same({ "normal", "cannot resume non-suspended coroutine", "cannot close a normal coroutine",
        "running", true, false, "goes on", n = 7 }, case.run(p, [[
        local main, is_main = coroutine.running()
        return coroutine.wrap(function()
          return coroutine.wrap(function()
            moonport.sleep(0)
            local me, me_main = coroutine.running()
            local _, why = coroutine.resume(main)
            local _, why2 = pcall(coroutine.close, main)
            return coroutine.status(main), why, why2, coroutine.status(me), is_main, me_main, rfile:read()
          end)()
        end)()]], "goes on\n"))
    end)

    it("is an iterator that has ended, has failed, or runs", function()
      local got = case.run(p, [[
        local ended = coroutine.wrap(function() coroutine.yield(1) end)
        ended() ended()
        local failed = coroutine.wrap(function() moonport.sleep(0) error("first", 0) end)
        pcall(failed)
        local itself itself = coroutine.wrap(function() moonport.sleep(0) return pcall(itself) end)
        local out = { select(2, pcall(ended)), select(2, pcall(failed)), select(2, itself()) }
        for i = 1, 3 do out[i] = out[i]:gsub("^case:%d+: ", "") end
        return table.unpack(out)]])
      assert.are.same({ "cannot resume dead coroutine", "cannot resume dead coroutine",
        "cannot resume non-suspended coroutine", n = 3 }, got)
    end)

    it("is one that a request has left when it was cancelled", function()
      local q = case.start { args = { "-o", "request_timeout=0.2" } }
      local c <close> = host.connect(q:url())
      c:send(case.piece [[
        coroutine.wrap(function() kept.inner = coroutine.running() moonport.sleep(100) end)()]])
      assert.are.same({ "raised", "cancelled: request_timeout", n = 2 }, (case.results((c:all()))))
      c:close()
      assert.are.same({ "dead", "cannot resume dead coroutine", n = 2 },
        case.run(q, "return coroutine.status(kept.inner), select(2, coroutine.resume(kept.inner))"))
      q:stop()
    end)

    it("may be resumed between two waits, but its request is over", function()
      case.run(p, "kept.late = coroutine.wrap(function() while true do coroutine.yield(pcall(rfile.read, rfile)) end "
        .. "end) return kept.late()", "one\n")
      local got = case.run(p, "return kept.late()", "two\n")
      assert.is_false(got[1])
      assert.matches("the request is over", got[2])
    end)
  end)

  -- torture list 62
  it("that is abandoned, a hundred thousand times, with things to close, costs nothing in the end", function()
    local q = case.start { args = { "-o", "max_connections=5000" } }
    case.run(q, "return 1")
    local descriptors = q:descriptors()
    local abandon = ([[
      local closed = 0
      for _ = 1, 100000 do
        coroutine.wrap(function()
          local _ <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
          coroutine.yield()
        end)()
      end
      local sockets = 0
      for i = 1, 200 do
        local co = coroutine.create(function()
          local s <close> = assert(moonport.connect("%s"))
          sockets = sockets + 1
          coroutine.yield()
        end)
        coroutine.resume(co)
        if i %% 2 == 0 then assert(coroutine.close(co)) end
      end
      return sockets, closed]]):format(q:url())
    local function settled()
      -- What nobody can reach any more goes when it is collected.
      local got
      host.eventually("descriptors back", function()
        got = case.run(q, "collectgarbage() collectgarbage() local s = self.server:stats() "
          .. "return collectgarbage('count'), s.streams, s.tasks, s.timers")
        return q:descriptors() == descriptors
      end)
      host.eventually("streams back", function()
        got = case.run(q, "collectgarbage() collectgarbage() local s = self.server:stats() "
          .. "return collectgarbage('count'), s.streams, s.tasks")
        return got[2] == 1 and got[3] == 1
      end)
      return got[1]
    end
    assert.are.same({ 200, 0, n = 2 }, case.run(q, abandon))
    local before = settled()
    for _ = 1, 3 do assert.are.same({ 200, 0, n = 2 }, case.run(q, abandon)) end
    local after = settled()
    assert.is_true(after - before < 256, after - before .. " KiB more")
    q:stop()
  end)
end)
