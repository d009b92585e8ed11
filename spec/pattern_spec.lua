--- The host's own string and table functions do what Lua's do.

local case = require("support.case")
local host = require("support.host")
local patterns = require("support.patterns")

local p

-- What a piece gives here, in Lua's own, and in a handler.
local function both(code)
  local here = table.pack(pcall(assert(load("local self, moonport, rfile, wfile, request " .. code, "=case"))))
  return table.pack(table.unpack(here, 2, here.n)), (case.run(p, code))
end

describe("in a handler", function()
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  for _, seed in ipairs { 1, 2, 3, os.time() } do
    it("string functions give what Lua's own give, and raise what they raise; seed " .. seed, function()
      local results, calls = patterns.run(seed, 3000)
      local got = case.run(p, ([[
        package.path = "./spec/?.lua;" .. package.path
        return table.concat((require("support.patterns").run(%d, 3000)), "\n")]]):format(seed))
      local i = 0
      for line in (got[1] .. "\n"):gmatch("(.-)\n") do
        i = i + 1
        assert.are.equal(results[i], line, calls[i])
      end
      assert.are.equal(#results, i)
    end)
  end

  for what, code in pairs {
    ["as methods"] = "return ('a,b'):find(','), ('a1'):match('%d'), ('x'):rep(3, '-'), ('abc'):gsub('%w', '%0%0')",
    ["without arguments"] = [[
      local out = {}
      for _, name in ipairs { "find", "match", "gmatch", "gsub", "rep" } do
        out[#out + 1] = select(2, pcall(string[name]))
        out[#out + 1] = select(2, pcall(string[name], "a"))
        out[#out + 1] = select(2, pcall(function() return ("a")[name]("a", {}) end))
      end
      return out]],
    ["an iterator that is at its end"] = [[
      local next_word = ("one two"):gmatch("%a+")
      return next_word(), next_word(), select("#", next_word()), select("#", next_word())]],
    ["an iterator over what was collected"] = [[
      local next_word = (("w%d "):rep(3)):gsub("%%d", "1"):gmatch("%w+")
      collectgarbage() collectgarbage()
      return next_word(), next_word(), next_word(), next_word()]],
    ["more captures than Lua allows"] = "return pcall(string.find, 'a', ('()'):rep(33))",
    ["as many captures as Lua allows"] = "return ('a'):find(('()'):rep(32))",
    ["a replacement of captures"] = "return ('hello world'):gsub('(o)(.?)', '<%2%1%0>'), ('abc'):gsub('', '-')",
    ["gsub inside gsub"] = "return ('a b'):gsub('%a', function(s) return (s:gsub('.', '%0%0')) end)",
    ["an error in a replacement function"] = "return pcall(string.gsub, 'a', 'a', function() error('x', 0) end)",
    ["a large repetition"] = [[
      local s = ("abc"):rep(100000, "--")
      return #s, s:sub(-8), s:gsub("abc%-%-", ""), s == (("abc--"):rep(99999) .. "abc"), #("x"):rep(300000)]],
    ["insert"] = [[
      local t = { 1, 2, 3 }
      table.insert(t, 4) table.insert(t, 1, 0) table.insert(t, 6, 5) table.insert(t, 3, "x")
      return t, pcall(table.insert, t, 99, 1), pcall(table.insert, t, 0, 1), pcall(table.insert, t),
        pcall(table.insert, t, 1, 2, 3), pcall(table.insert, nil, 1), pcall(table.insert, t, "x", 1)]],
    ["what insert says"] = [[
      local out, t = {}, { 1 }
      for _, a in ipairs { { t, 99, 1 }, { t, 0, 1 }, { t }, { t, 1, 2, 3 }, { "s", 1 }, { t, {}, 1 }, {} } do
        out[#out + 1] = select(2, pcall(table.insert, table.unpack(a)))
        out[#out + 1] = select(2, pcall(function() table.insert(table.unpack(a)) end))
      end
      return out]],
    ["remove"] = [[
      local t = { 1, 2, 3, 4 }
      return table.remove(t), table.remove(t, 1), table.remove(t, 3), t, table.remove({}), table.remove({}, 0),
        table.remove({ [0] = "x" }, 0)]],
    ["what remove says"] = [[
      local out = {}
      for _, a in ipairs { { { 1 }, 3 }, { { 1 }, -1 }, { 1 }, { { 1 }, {} }, {}, { { 1 }, 1.5 } } do
        out[#out + 1] = select(2, pcall(table.remove, table.unpack(a)))
      end
      return out]],
    ["move"] = [[
      local t = { 1, 2, 3, 4, 5 }
      return table.move(t, 2, 4, 1) == t, t, table.move({ 1, 2, 3 }, 1, 3, 2), table.move({ 1, 2, 3 }, 1, 3, 3, { 9 }),
        table.move({ 1, 2, 3 }, 2, 1, 5), table.move({ 1, 2, 3 }, 0, 3, -1),
        table.move({}, math.maxinteger, math.maxinteger, math.mininteger)]],
    ["what move says"] = [[
      local out = {}
      for _, a in ipairs { { {}, 1, 2 }, { 1, 1, 1, 1 }, { {}, 1, 2, 3, 4 }, { {}, 1, 2, {} },
        { {}, 0, math.maxinteger, 1 }, { {}, 1, math.maxinteger, 2 }, { {}, 1, 2, math.maxinteger } } do
        out[#out + 1] = select(2, pcall(table.move, table.unpack(a)))
      end
      return out]],
    ["concat"] = [[
      return table.concat({}), table.concat({ 1, 2.5, "x" }, ", "), table.concat({ 1, 2, 3 }, "-", 2),
        table.concat({ 1, 2, 3 }, "-", 2, 2), table.concat({ 1, 2, 3 }, "-", 3, 2), table.concat({ "a", "b" }, 7),
        table.concat({ [math.maxinteger] = "end" }, "", math.maxinteger, math.maxinteger)]],
    ["what concat says"] = [[
      local out = {}
      for _, a in ipairs { { { 1, {}, 3 } }, { { 1 }, ",", 1, 2 }, { { 1 }, {} }, { { 1 }, ",", "x" }, { 1 }, {},
        { setmetatable({}, { __len = function() return "x" end }) } } do
        out[#out + 1] = select(2, pcall(table.concat, table.unpack(a)))
      end
      return out]],
    ["a long concat"] = [[
      local t = {}
      for i = 1, 5000 do t[i] = i end
      local s = table.concat(t, ",")
      return #s, s:sub(1, 20), s:sub(-20)]],
    ["metamethods"] = [[
      local log = {}
      local function proxy(t, size)
        return setmetatable({}, {
          __len = function() log[#log + 1] = "#" return size or #t end,
          __index = function(_, k) log[#log + 1] = "get " .. k return t[k] end,
          __newindex = function(_, k, v) log[#log + 1] = ("set %s %s"):format(k, v) t[k] = v end,
        })
      end
      table.insert(proxy { 1, 2, 3 }, 1, "x")
      table.insert(proxy { 1, 2, 3 }, "x")
      table.remove(proxy { 1, 2, 3 }, 1)
      table.remove(proxy { 1, 2, 3 })
      log[#log + 1] = table.concat(proxy { "a", "b" }, ",")
      table.move(proxy { 1, 2, 3 }, 1, 3, 2)
      table.move(proxy { 1, 2, 3 }, 1, 3, 2, proxy {})
      local eq = { __eq = function() log[#log + 1] = "==" return true end }
      table.move(setmetatable({ 1, 2, 3 }, eq), 1, 3, 2, setmetatable({}, eq))
      table.insert(proxy({}, -5), "below")
      table.remove(proxy({ [0] = 0 }, 0), 0)
      return log]],
    ["tables that are none"] = [[
      local out, mt = {}, debug.getmetatable("")
      for _, fields in ipairs { {}, { "__len" }, { "__len", "__newindex" } } do
        for _, f in ipairs(fields) do mt[f] = function() return 0 end end
        for _, name in ipairs { "insert", "remove", "concat", "move" } do
          out[#out + 1] = tostring(select(2, pcall(table[name], "s", 1, 1, 1)))
        end
        for _, f in ipairs(fields) do mt[f] = nil end
      end
      return out]],
  } do
    it("it is as in Lua: " .. what, function()
      local here, there = both(code)
      assert.are.same(here, there)
    end)
  end
end)
