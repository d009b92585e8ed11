--- Whatever nests without end is an error of its own request, never the end of the process, also where
--- the stack is small.

local host = require("support.host")
local plain = require("support.plain")

-- A hundred local variables: the stack is full after 10,000 calls.
local LOCALS = "local a" .. (", a"):rep(99) .. " "

-- A piece of Lua, and what its error says.
local deep = {
  { "functions", "local function f() " .. LOCALS .. "return 1 + f() end return f()", "stack overflow" },
  { "functions with many values", "local function f(...) return 1 + f(1, ...) end return f()", "stack overflow" },
  { "pcall", "local function f() assert(pcall(f)) end f()", "stack overflow" },
  { "xpcall's handlers", "return assert(xpcall(error, function(e) error(e) end, 'x'))", "error in error handling" },
  { "xpcall in its handlers", [[
    local n = 0
    local function h(e) n = n + 1 return xpcall(error, h, e) end
    xpcall(error, h, "x")
    error("handled " .. (n > 50 and "often" or n))]], "handled often" },
  { "coroutine.wrap", "local function f() return coroutine.wrap(f)() end return f()", "C stack overflow" },
  { "coroutine.resume",
    "local function f() assert(coroutine.resume(coroutine.create(f))) end f()", "C stack overflow" },
  { "gsub", "local function f() return (('x'):gsub('x', f)) end return f()", "C stack overflow" },
  { "gsub and coroutines", "local function f() return (('x'):gsub('x', coroutine.wrap(f))) end return f()",
    "C stack overflow" },
  { "gsub and pcall", [[
    local function f()
      local ok, e = pcall(string.gsub, "x", "x", f)
      if not ok then error(e, 0) end
    end
    f()]], "C stack overflow" },
  { "table.sort", "local function f() table.sort({ 1, 2, 3 }, f) end f()", "C stack overflow" },
  { "string.format", [[
    local o = {}
    setmetatable(o, { __tostring = function() return ("%s %s"):format(o, o) end })
    return tostring(o)]], "C stack overflow" },
  { "table.concat", [[
    local o = {}
    setmetatable(o, { __index = function() return table.concat(o, ",", 1, 3) end })
    return table.concat(o, ",", 1, 3)]], "C stack overflow" },
  { "__index", "local t t = setmetatable({}, { __index = function(_, k) return t[k] end }) return t.x",
    "C stack overflow" },
  { "tables in __index", [[
    local t = {}
    for _ = 1, 100000 do t = setmetatable({}, { __index = t }) end
    return t.x]], "'__index' chain too long" },
  { "__concat", "local t t = setmetatable({}, { __concat = function() return t .. 'x' end }) return t .. 'x'",
    "C stack overflow" },
  { "__eq", [[
    local m = {}
    local function new() return setmetatable({}, m) end
    m.__eq = function() return new() == new() end
    return new() == new()]], "C stack overflow" },
  { "__close", "local function f() local _ <close> = setmetatable({}, { __close = f }) end f()",
    "C stack overflow" },
  { "coroutines that close each other", [[
    local last = coroutine.create(print)
    for _ = 1, 100000 do
      local before = last
      last = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() assert(coroutine.close(before)) end })
        coroutine.yield()
      end)
      coroutine.resume(last)
    end
    assert(coroutine.close(last))]], "C stack overflow" },
  { "coroutines that close each other from the depth of gsub", [[
    local last = coroutine.create(print)
    for _ = 1, 1000 do
      local before = last
      local function deep(n)
        return n == 0 and assert(coroutine.close(before)) or (("x"):gsub("x", function() deep(n - 1) end))
      end
      last = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() deep(150) end })
        coroutine.yield()
      end)
      coroutine.resume(last)
    end
    assert(coroutine.close(last))]], "C stack overflow" },
  { "errors with a __tostring", [[
    local function f() error(setmetatable({}, { __tostring = function(e) return tostring(e) end })) end
    f()]], "whose __tostring failed" },
  { "require", [[
    for i = 1, 300 do package.preload["deep" .. i] = function() return require("deep" .. i + 1) end end
    return require("deep1")]], "C stack overflow" },
  { "dofile", [[
    local name = os.tmpname()
    local f = io.open(name, "w")
    f:write(("dofile(%q)"):format(name))
    f:close()
    local ok, e = pcall(dofile, name)
    os.remove(name)
    error(e, ok and 1 or 0)]], "stack overflow" },
  { "load in its own reader", "local function f() assert(load(f)) end f()", "C stack overflow" },
  { "tables", "local t = {} for _ = 1, 300000 do t = { t } end t = nil collectgarbage() error('collected')",
    "collected" },
  { "a pattern", "error(#('x'):rep(300000):match(('x?'):rep(300000)))", "300000" },
}

-- What the compiler is given, which says "overflow".
local code = {
  { "1,000 parentheses", ("return %s1%s"):format(("("):rep(1000), (")"):rep(1000)) },
  { "100,000 parentheses", ("return %s1%s"):format(("("):rep(100000), (")"):rep(100000)) },
  { "100,000 tables", ("return %s%s"):format(("{"):rep(100000), ("}"):rep(100000)) },
  { "100,000 functions", ("return %s%s"):format(("function() return "):rep(100000), (" end"):rep(100000)) },
  { "100,000 blocks", ("do "):rep(100000) .. (" end"):rep(100000) },
  { "100,000 calls", ("return %sf%s"):format(("f("):rep(100000), (")"):rep(100000)) },
  { "100,000 signs", "return " .. ("- "):rep(100000) .. "1" },
  { "100,000 powers", "return 1" .. ("^1"):rep(100000) },
  { "100,000 strings in a row", "local a = 'a' return a" .. (" .. a"):rep(100000) },
}

local SCRIPT = [[
  local H = {}
  function H:handle()
    local piece, why = load(self.rfile:unpack(">s4"), "=piece")
    if not piece then error(why, 0) end
    local ok, e = pcall(piece)
    if ok then self.wfile:write("no error\n") return end
    local _, text = pcall(tostring, e)
    self.wfile:write("caught ", text:sub(-200):gsub("[\r\n]", " "), "\n")
    piece()
  end
  return H
]]

-- The piece's error, as pcall gives it and as the log has it.
local function run(p, piece)
  local before = #p:find("handler error")
  local c <close> = host.connect(p:url())
  assert(c:send((">s4"):pack(piece)))
  local caught = c:all()
  local failed = host.eventually("the error of:\n" .. piece:sub(1, 200) .. "\n" .. caught, function()
    return p:find("handler error")[before + 1]
  end)
  return failed.error, caught
end

local function check_all(p)
  local other <close> = host.connect(p:url())
  for _, case in ipairs(deep) do
    local logged, caught = run(p, case[2])
    assert.is_truthy(logged:find(case[3], 1, true), case[1] .. ": " .. logged)
    assert.is_truthy(caught:find("^caught ") and (caught:find(case[3], 1, true) or case[1]:find("__tostring")),
      case[1] .. ": " .. caught)
  end
  for _, case in ipairs(code) do
    local logged = run(p, case[2])
    assert.is_truthy(logged:find("overflow", 1, true), case[1] .. ": " .. logged)
  end
  -- Whoever was connected before has a handler as good as new.
  assert(other:send((">s4"):pack("error('served', 0)")))
  assert.are.equal("caught served\n", (other:all()))
end

local SMALL = { "sh", "-c", 'ulimit -s 256 && exec "$0" "$@"' }

describe("what nests without end", function()
  after_each(plain.cleanup)

  for what, options in pairs {
    ["a usual stack"] = {},
    ["a stack of 256 KiB"] = { wrap = SMALL },
    ["a thread"] = { wrap = SMALL, args = { "-m", "threading" } },
    ["a child"] = { wrap = SMALL, args = { "-m", "forking" } },
  } do
    it("is an error of the request on " .. what, function()
      options.args = { "-o", "max_line=4M", table.unpack(options.args or {}) }
      local p = host.start(host.write(SCRIPT), options)
      check_all(p)
      p:stop()
    end)
  end

  it("is an error of the request where a Lua program has started the server", function()
    local p = plain.start([[
      if arg[3] ~= "inside" then
        os.exit(os.execute(("ulimit -s 256; lua5.4 %s %s %s inside"):format(arg[0], arg[1], arg[2])))
      end
      local server <close> = moonport.start(arg[2])
      say("at", server.url)
      io.read()
    ]], host.write(SCRIPT))
    local url = p:url()
    for _, case in ipairs(deep) do
      local c <close> = host.connect(url)
      assert(c:send((">s4"):pack(case[2])))
      assert.matches("^caught .", (c:all()), case[1])
    end
    p:tell("enough")
    p:done()
  end)

  it("is an error of the reload, and the old code goes on", function()
    local path = host.write(SCRIPT)
    local p = host.start(path, { wrap = SMALL })
    local failed = 0
    local function refuses(what, text, says)
      host.write(text, path)
      p:kill("HUP")
      failed = failed + 1
      local e = host.eventually("the failure of " .. what, function() return p:find("reload failed")[failed] end)
      assert.is_truthy(e.why:find(says, 1, true), what .. ": " .. e.why)
    end
    -- Some of these put the place in front again and again: the end is not in the log.
    for _, case in ipairs(deep) do refuses(case[1], case[2], "") end
    for _, case in ipairs(code) do refuses(case[1], case[2], "overflow") end
    local _, caught = run(p, "error('served', 0)")
    assert.are.equal("caught served\n", caught)
    p:stop()
  end)

  it("is an error when the program starts", function()
    local path = host.write(code[1][2])
    local out = io.popen(("ulimit -s 256; %s check %s 2>&1; echo $?"):format(host.program, path))
    local said = out:read("a")
    out:close()
    assert.matches("C stack overflow.*\n1%d%d\n$", said)
  end)
end)
