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
end)
