--- A request that asks for more memory than its state may have: it ends, and nobody else notices.

local host = require("support.host")
local mixin = require("support.mixin")

local NEIGHBOURS, CAP = 100, "memory_limit=64M"

-- How a handler can ask for everything.  Each has what it made still in hand when there is no more.
local BOMBS = {
  ["string.rep"] = "return ('x'):rep(1 << 27)",
  ["string.rep, kept"] = "local t = {} while true do t[#t + 1] = ('x'):rep(1 << 20) .. #t end",
  concat = "local s = 'x' while true do s = s .. s end",
  ["small strings"] = "local t = {} while true do t[#t + 1] = 'string ' .. #t end",
  ["string.format"] = "local s = 'x' while true do s = ('%s%s'):format(s, s) end",
  ["string.gsub"] = "local s = 'x' while true do s = s:gsub('.+', '%0%0') end",
  ["table.concat"] = "local t = { 'x' } while true do t[1] = table.concat({ t[1], t[1], t[1] }) end",
  table = "local t = {} while true do t[#t + 1] = #t end",
  ["tables"] = "local t while true do t = { t } end",
  ["keys"] = "local t = {} while true do t[{}] = true end",
  closures = "local t = {} while true do t[#t + 1] = function() return t end end",
  coroutines = "local t = {} while true do t[#t + 1] = coroutine.create(print) end",
  ["a running coroutine"] = "coroutine.wrap(function() local t = {} while true do t[#t + 1] = { #t } end end)()",
  ["things with a __gc"] = "local t, meta = {}, { __gc = function() end } while true do t[#t + 1] = "
    .. "setmetatable({ ('x'):rep(1000) .. #t }, meta) end",
  ["many running"] = "local t = {} while true do t[#t + 1] = coroutine.wrap(function() local a, b = {}, {} "
    .. "coroutine.yield(a, b) end) t[#t]() end",
  load = "return load('return ' .. ('{'):rep(150) .. ('1,'):rep(1 << 24) .. ('}'):rep(150))",
}

local function names_of(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function script()
  local parts = {}
  for _, name in ipairs(names_of(BOMBS)) do
    parts[#parts + 1] = ("bombs[%q] = function() %s end"):format(name, BOMBS[name])
  end
  return host.write(mixin.script([[
    for line in self.rfile:lines() do
      if bombs[line] then bombs[line]() end
      self.wfile:write(line, " of ", self.client_address.port, "\n")
    end
  ]], "local bombs = {}\n" .. table.concat(parts, "\n")))
end

-- All neighbours ask, then all get their answers.
local function converse(clients, word)
  for i, c in ipairs(clients) do assert(c:send(word .. i .. "\n")) end
  for i, c in ipairs(clients) do
    local line = c:line(30)
    local _, port = host.sys.name(c.fd)
    assert.are.equal(("%s%d of %d"):format(word, i, port), line)
  end
end

local function resident_again(p, before, what)
  local now
  local ok = pcall(host.eventually, "memory", function()
    now = p:memory()
    return now < before + 8 * 1024
  end)
  assert.is_true(ok, ("%s: %d KiB resident before, %d after"):format(what, before, now))
end

describe("A memory bomb", function()
  after_each(host.cleanup)

  for _, name in ipairs { "async", "threading", "forking" } do
    it("ends its own request only, under " .. name, function()
      local p = host.start(script(), { args = { "--mixin=" .. name, "-o", CAP, "-o", "max_children=200" } })
      local url = p:url()
      local clients = {}
      for i = 1, NEIGHBOURS do clients[i] = host.connect(url) end
      converse(clients, "hello")
      for n, bomb in ipairs(names_of(BOMBS)) do
        local before = p:memory()
        local c <close> = host.connect(url)
        for i = 1, NEIGHBOURS do assert(clients[i]:send(bomb:sub(1, 1) .. i .. "\n")) end
        assert(c:send(bomb .. "\n"))
        for i = 1, NEIGHBOURS do assert.matches("^" .. bomb:sub(1, 1) .. i .. " of %d+$", clients[i]:line(30)) end
        converse(clients, "during")
        local said = assert(c:all(30))
        assert.are.equal("", said, bomb)
        local e = host.eventually("the error event", function() return p:find("handler error")[n] end)
        assert.matches("not enough memory", e.error)
        converse(clients, "after")
        if not host.sanitizer() then resident_again(p, before, bomb) end
      end
      assert.are.equal(#names_of(BOMBS), #p:find("handler error"))
      mixin.close_all(clients)
      p:stop()
    end)
  end

  -- Each step of a request, and each way to hold what was made.
  local PLACES = {
    setup = "function H:setup() self.bomb = {} while true do self.bomb[#self.bomb + 1] = {} end end",
    verify_request = "H.server = { verify_request = function() local t = {} while true do t[#t + 1] = {} end end }",
    finish = "function H:finish() local t = {} while true do t[#t + 1] = {} end end",
    ["handle_error"] = "H.server = { handle_error = function() local t = {} while true do t[#t + 1] = {} end end }",
    ["an error value"] = "bomb = function() error(('x'):rep(30 << 20)) end",
    ["a __tostring"] = "bomb = function() error(setmetatable({}, { __tostring = function() "
      .. "return ('x'):rep(1 << 27) end })) end",
    ["a __close"] = "bomb = function() local t <close> = setmetatable({}, { __close = function() "
      .. "local t = {} while true do t[#t + 1] = {} end end }) error('first') end",
    ["a __gc"] = "bomb = function() for _ = 1, 2 do setmetatable({}, { __gc = function() "
      .. "local t = {} while true do t[#t + 1] = {} end end }) end collectgarbage() end",
    ["a pcall, again and again"] = "bomb = function() for _ = 1, 3 do pcall(function() "
      .. "local t = {} while true do t[#t + 1] = {} end end) end end",
    ["a sleep after it"] = "bomb = function() pcall(function() local t = {} while true do t[#t + 1] = {} end end) "
      .. "moonport.sleep(0.01) end",
  }

  for _, name in ipairs(names_of(PLACES)) do
    it("goes off in " .. name, function()
      for _, policy in ipairs { "async", "threading" } do
        local p = host.start(host.write(mixin.script([[
          if bomb and self.rfile:readline() == "go\n" then bomb() end
          self.wfile:write("done\n")
        ]], PLACES[name])), { args = { "--mixin=" .. policy, "-o", "memory_limit=32M" } })
        local before
        for _ = 1, 3 do
          local c <close> = host.connect(p:url())
          c:send("go\n")
          c:finish()
          assert.are_not.equal("timeout", (select(2, c:all(30))))
          before = before or p:memory()
        end
        -- a finalizer may have ended at its allowance of time before: what it leaves is usual garbage
        if name ~= "a __gc" and not host.sanitizer() then resident_again(p, before, name .. " under " .. policy) end
        p:stop()
      end
    end)
  end

  it("in a script is what the sentence says, and the old one goes on", function()
    local path = host.write(mixin.script("self.wfile:write('one\\n')"))
    for _, policy in ipairs { "async", "threading", "forking" } do
      local p = host.start(path, { args = { "--mixin=" .. policy, "-o", CAP } })
      local before = p:memory()
      for n, bomb in ipairs { "concat", "table", "coroutines" } do
        host.write(BOMBS[bomb], path)
        p:kill("HUP")
        local e = host.eventually("a failed reload", function() return p:find("reload failed")[n] end)
        assert.matches("script%.lua: not enough memory", e.why)
        local c <close> = host.connect(p:url())
        assert.are.equal("one", c:line())
      end
      if not host.sanitizer() then resident_again(p, before, "reloads") end
      host.write(mixin.script("self.wfile:write('one\\n')"), path)
      p:stop()
    end
    host.write(BOMBS.table, path)
    local code, _, err = host.run { "serve", path, "--listen=tcp://127.0.0.1:0", "-o", CAP }
    assert.are.equal(100, code)
    assert.are.equal(("moonport: %s: not enough memory\n"):format(path), err)
  end)

  it("of what others keep for it counts as its own", function()
    local p = host.start(host.write(mixin.script([[
      local what = self.rfile:readline()
      if what == "all\n" then self.rfile:read("a")
      elseif what == "count\n" then self.rfile:read(1 << 40)
      elseif what == "exactly\n" then self.rfile:readexactly(1 << 40)
      elseif what == "write\n" then
        self.wfile:write("begun\n")
        moonport.sleep(0)
        for i = 1, 100000 do rounds = i self.wfile:write(("x"):rep(4000)) moonport.sleep(0) end
      end
      self.wfile:write(tostring(rounds), "\n")
    ]], "rounds = 0")), { args = { "-o", CAP } })
    local before = p:memory()
    local block = ("y"):rep(1 << 20)
    for n, what in ipairs { "all", "count", "exactly" } do
      local c <close> = host.connect(p:url())
      local sent = c:send(what .. "\n")
      for _ = 1, 80 do sent = sent and c:send(block) end -- it is cut off in the middle
      local e = host.eventually("the error event", function() return p:find("handler error")[n] end)
      assert.matches("not enough memory", e.error)
      c:close()
      if not host.sanitizer() then resident_again(p, before, what) end
    end
    local slow <close> = host.connect(p:url(), { receive = 4096 })
    slow:send("write\n")
    assert.are.equal("begun", slow:line())
    -- it waits for its peer, though it never writes much at a time
    local was, same
    host.eventually("a writer that waits", function()
      local c <close> = host.connect(p:url())
      local now = c:ask("")
      assert.is_true(tonumber(now) < 5000, now) -- what the kernel holds, and little more
      same = now == was and same + 1 or 0
      was = now
      return same == 20
    end)
    assert.are.equal(3, #p:find("handler error"))
    if not host.sanitizer() then resident_again(p, before, "write") end
    slow:reset()
    p:stop()
  end)
end)
