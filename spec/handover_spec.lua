-- save() and init(data): what one generation leaves to the next.

local generations = require("support.generations")
local host = require("support.host")

local ask, reload = generations.ask, generations.reload

local MIXINS = { "async", "sync", "threading", "forking" }

-- A script whose handler evaluates each line, an expression, among its locals.
local function script(extra)
  return ([[
    local H = {}
    local state = { n = 0 }
    %s
    function H:handle()
      for line in self.rfile:lines() do
        local f = assert(load("local state, self = ... return " .. line))
        self.wfile:write(tostring(f(state, self)), "\n")
      end
    end
    return H
  ]]):format(extra or "")
end

local KEEP = [[
  function H.save() return state end
  function H.init(data) state = data end
]]

local function start(text, mixin, ...)
  return host.start(host.write(text), { args = { "--mixin=" .. (mixin or "async"), ... } })
end

describe("save and init", function()
  after_each(host.cleanup)

  for _, mixin in ipairs(MIXINS) do
    it("pass what is plain: " .. mixin, function()
      local p = start(script(KEEP .. [[
        state = {
          list = { 1, 2, { deep = { er = true } } }, [1.5] = "float", [-7] = false, [true] = "key",
          float = 0.1, whole = 3.0, huge = math.huge, least = math.mininteger, bytes = "\0\255\n\r" .. ("x"):rep(70000),
        }
        state.again = state.list
      ]]), mixin)
      assert.are.equal("3", ask(p, "#state.list")) -- and, under threading, there is a thread that has state
      host.write(script(KEEP), p:find("listening")[1].script)
      reload(p, "reloaded")
      local c <close> = host.connect(p:url())
      for line, answer in pairs {
        ["state.list[3].deep.er"] = "true", ["#state.list"] = "3", ["state[1.5]"] = "float", ["state[-7]"] = "false",
        ["state[true]"] = "key", ["state.float == 0.1"] = "true", ["math.type(state.whole)"] = "float",
        ["state.huge"] = "inf", ["state.least == math.mininteger"] = "true", ["#state.bytes"] = "70004",
        ["state.bytes:byte(1, 4)"] = "0", ["state.again == state.list"] = "true", ["state.n"] = "nil",
      } do
        assert.are.equal(answer, c:ask(line), line)
      end
      c:close()
      p:stop()
    end)
  end

  it("is what requests have left, through many generations", function()
    local p = start(script(KEEP))
    local path = p:find("listening")[1].script
    for n = 1, 20 do
      assert.are.equal(tostring(n), ask(p, "(function() state.n = state.n + 1 return state.n end)()"))
      host.write(script(KEEP .. "-- " .. n), path)
      assert.are.equal(n + 1, reload(p, "reloaded").generation)
    end
    p:stop()
  end)

  it("are each thread's own: every state hands over to its successor", function()
    local p = start(script(KEEP), "threading")
    local path = p:find("listening")[1].script
    local clients, states = {}, {}
    for i = 1, 4 do
      clients[i] = host.connect(p:url())
      assert.are.equal(tostring(i), clients[i]:ask(("(function() state.n = %d return state.n end)()"):format(i)))
    end
    for _, c in ipairs(clients) do
      c:finish()
      assert.are.equal("", c:all())
      c:close()
    end
    host.write(script(KEEP .. "-- new"), path)
    reload(p, "reloaded")
    for i = 1, 4 do
      clients[i] = host.connect(p:url())
      states[i] = tonumber(clients[i]:ask("state.n"))
    end
    table.sort(states)
    assert.are.same({ 1, 2, 3, 4 }, states)
    for _, c in ipairs(clients) do c:close() end
    p:stop()
  end)

  it("may be global functions, of a script that has a global handle", function()
    local function global(word)
      return ([[
        local n = 0
        function save() return { n } end
        function init(data) n = data[1] end
        function handle(self)
          n = n + 1
          self.wfile:write("%s ", n, "\n")
        end
      ]]):format(word)
    end
    local p = start(global("one"))
    local path = p:find("listening")[1].script
    assert.are.equal("one 1", ask(p, ""))
    host.write(global("two"), path)
    reload(p, "reloaded")
    assert.are.equal("two 2", ask(p, ""))
    p:stop()
  end)

  for what, code in pairs {
    ["there is no save"] = "", ["save returns nothing"] = "function H.save() end",
    ["save returns nil"] = "function H.save() return nil end",
  } do
    it("init is not called when " .. what, function()
      local p = start(script(code))
      local path = p:find("listening")[1].script
      host.write(script("function H.init() state.n = 'called' end"), path)
      reload(p, "reloaded")
      assert.are.equal("0", ask(p, "state.n"))
      p:stop()
    end)
  end

  it("init gets false when save returns it, and nobody misses a missing init", function()
    local p = start(script("function H.save() return false end"))
    local path = p:find("listening")[1].script
    host.write(script("function H.init(...) state.n = select('#', ...) .. tostring(...) end " .. [[
      function H.save() return state end]]), path)
    reload(p, "reloaded")
    assert.are.equal("1false", ask(p, "state.n"))
    host.write(script(""), path)
    reload(p, "reloaded")
    assert.are.equal("0", ask(p, "state.n"))
    p:stop()
  end)

  -- Of the old code: save; of the new: init.
  local refused = {
    { "an error in save", { "function H.save() error('no luck') end" }, "script%.lua:%d+: no luck" },
    { "an error in init", { KEEP, "function H.init(data) error('no ' .. data.n) end" }, "script%.lua:%d+: no %d" },
    { "an error value without text", { "function H.save() error({}) end" }, "script%.lua" },
    { "a function in what is saved", { "function H.save() return { a = { 1, { b = print } } } end" },
      "script%.lua: a function at a%[2%]%.b cannot be saved" },
    { "a table with a metatable", { "function H.save() return { x = setmetatable({}, {}) } end" },
      "a table with a metatable at x cannot" },
    { "a cycle", { "function H.save() local t = {} t.me = t return t end" },
      "a table that is inside itself at me cannot" },
    { "a coroutine", { "function H.save() return coroutine.create(print) end" }, "thread" },
    { "a wait in save", { "function H.save() require('moonport').sleep(1) end" }, "script%.lua:%d+: .*wait" },
    { "a wait in init", { KEEP, "function H.init() require('moonport').sleep(1) end" }, "script%.lua:%d+: .*wait" },
    { "a loop in save", { "function H.save() while true do end end" }, "script%.lua:%d+: .*cpu_limit" },
    { "a loop in init", { KEEP, "function H.init() while true do pcall(error) end end" },
      "script%.lua:%d+: .*cpu_limit" },
    { "a loop while it is loaded", { KEEP, "while true do end" }, "script%.lua:%d+: .*cpu_limit" },
    { "too much memory in save",
      { "function H.save() local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end end" },
      "script%.lua:?%d*:? .*not enough memory" },
    { "too much memory in init",
      { KEEP, "function H.init() local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end end" },
      "script%.lua:?%d*:? .*not enough memory" },
    { "too much memory while it is loaded",
      { KEEP, "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end" },
      "script%.lua:?%d*:? .*not enough memory" },
    { "a save that is no function", { "H.save = 1" }, "script%.lua: save must be a function, not a number" },
    { "an init that is no function", { KEEP, "H.init = 'x'" }, "script%.lua: init must be a function, not a string" },
  }
  for _, mixin in ipairs { "async", "threading" } do
    for _, case in ipairs(refused) do
      it(("keep the old code and its state when there is %s: %s"):format(case[1], mixin), function()
        local p = start(script(case[2][1]), mixin, "-o", "cpu_limit=0.2", "-o", "memory_limit=8M")
        local path = p:find("listening")[1].script
        local descriptors
        local old <close> = host.connect(p:url())
        assert.are.equal("1", old:ask("(function() state.n = 1 state.f = print return state.n end)()"))
        descriptors = p:descriptors()
        if case[2][1] == KEEP then assert.are.equal("1", old:ask("(function() state.f = nil return state.n end)()")) end
        host.write(script(case[2][2] or "-- new"), path)
        local e = reload(p, "reload failed")
        assert.is_truthy(e.why:find(case[3]), e.why)
        assert.are.same({ 1, path }, { e.generation, e.script })
        assert.are.equal("1", old:ask("state.n"))
        if mixin == "async" then assert.are.equal("1", ask(p, "state.n")) end
        assert.are.equal("1", old:ask("self.server:stats().failed_reloads"))
        assert.are.equal("1", old:ask("self.server:stats().generations"))
        if mixin == "async" then
          host.eventually("descriptors back", function() return p:descriptors() <= descriptors end)
        end
        old:close()
        p:stop()
      end)
    end
  end
end)
