local case = require("support.case")
local host = require("support.host")

local p -- the scanner is the host's, in C: all this runs in the program

-- The commands in these pieces, and why there are no more.
local function commands(...)
  local list = {}
  for n, piece in ipairs { ... } do list[n] = ("%q"):format(piece) end
  local got = case.run(p, ([[
    local pieces = { %s }
    local function all(method)
      local i = 0
      local reader = require("moonport.frame").reader(function()
        i = i + 1
        if pieces[i] then return pieces[i] end
        return nil, "closed"
      end)
      local framing, out = require("moonport.resp").framing { max = 1000 }, {}
      while true do
        local text, why = reader[method](reader, framing)
        if not text then return out, why end
        out[#out + 1] = text
      end
    end
    local out, why = all("read")
    local again, reason = all("frame") -- for those that want no further values
    return out, why, again, reason]]):format(table.concat(list, ", ")))
  assert.are.same({ got[1], got[2] }, { got[3], got[4] })
  return got[1], got[2]
end

local function scan(text, pos)
  return case.run(p, ("return require('moonport.resp.scan').command(%q, %d)"):format(text, pos))
end

local function repeats(...)
  return case.run(p, ("return require('moonport.resp.scan').repeats(%q, %d, %q)"):format(...))[1]
end

local function each_byte(s)
  local out = {}
  for i = 1, #s do out[i] = s:sub(i, i) end
  return table.unpack(out)
end

local ALL = "*2\r\n$3\r\ngEt\r\n$8\r\ngreeTing\r\n" .. "ping\r\n" .. "Set a  b\n" .. "\r\n" .. "*0\r\n"
  .. "*1\r\n$0\r\n\r\n"
  .. "*3\r\n$3\r\nSET\r\n$4\r\n\0\r\n\255\r\n$12\r\nwith a space\r\n" .. "*1\r\n$4\r\nPING\r\n"
local WORDS = { "GET greeTing", "PING", "SET a  b", "", "", "", "SET \0\r\n\255 with a space", "PING" }

describe("resp.framing", function()
  setup(function() p = case.start { args = { "-o", "max_line=1M" } } end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  it("gives commands as people write them, however they were cut", function()
    assert.are.same({ WORDS, "closed" }, { commands(ALL) })
    assert.are.same({ WORDS, "closed" }, { commands(each_byte(ALL)) })
    for i = 1, #ALL - 1 do assert.are.same(WORDS, (commands(ALL:sub(1, i), ALL:sub(i + 1)))) end
  end)

  it("takes the same again for the same, and for no other that begins alike", function()
    local function get(key) return ("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n"):format(#key, key) end
    local long = ("k"):rep(70)
    local text = get "a" .. get "a" .. get "ab" .. get "a" .. "ping\n" .. "ping\n" .. "ping\r\n" .. "pin\n" .. "\n\n"
      .. get(long) .. get(long) .. "*1\r\n$4\r\nPING\r\n" .. "*1\r\n$4\r\nPING\r\n"
    local words = { "GET a", "GET a", "GET ab", "GET a", "PING", "PING", "PING", "PIN", "", "", "GET " .. long,
      "GET " .. long, "PING", "PING" }
    assert.are.same({ words, "closed" }, { commands(text) })
    assert.are.same({ words, "closed" }, { commands(each_byte(text)) })
    for i = 1, #text - 1, 7 do assert.are.same(words, (commands(text:sub(1, i), text:sub(i + 1)))) end
  end)

  it("counts how often a text stands behind itself", function()
    assert.are.equal(3, repeats("ababab", 1, "ab"))
    assert.are.equal(2, repeats("xababa", 2, "ab"))
    assert.are.equal(1, repeats("ababba", 3, "ab"))
    assert.are.equal(0, repeats("aba", 3, "ab"))
    assert.are.equal(0, repeats("ab", 3, "ab"))
    assert.are.equal(2, repeats("a\0a\0", 1, "a\0"))
    assert.are.same({ false, false, n = 2 }, case.run(p, [[local repeats = require("moonport.resp.scan").repeats
      return (pcall(repeats, "ab", 4, "ab")), (pcall(repeats, "ab", 1, ""))]]))
  end)

  it("puts together as many words as there are", function()
    for n = 1, 30 do
      local words, text = { "DEL" }, "*" .. n .. "\r\n$3\r\ndel\r\n"
      for i = 2, n do
        words[i] = ("k"):rep(i)
        text = text .. ("$%d\r\n%s\r\n"):format(i, words[i])
      end
      assert.are.same({ { table.concat(words, " "), "PING" }, "closed" }, { commands(text .. "ping\n") })
    end
  end)

  it("knows how much has to come", function()
    assert.are.same({ nil, 31, n = 2 }, scan("xx*2\r\n$3\r\nGET\r\n$11\r\nab", 3))
    assert.are.same({ n = 1 }, scan("*2\r\n$3\r\nGET\r\n$1", 1))
    assert.are.same({ "GET", 5, n = 2 }, scan("get\n*", 1))
    assert.are.same({ n = 1 }, scan("get\n", 5))
    for _, pos in ipairs { 6, 0 } do assert.are.equal("raised", scan("get\n", pos)[1]) end
  end)

  it("says what is wrong", function()
    local BULK, COUNT = "a bulk string begins with '$' and its length", "invalid multibulk length"
    for text, why in pairs {
      ["*x\r\n"] = COUNT, ["*-1\r\n"] = COUNT, ["*1048577\r\n"] = COUNT, ["*1\n\n"] = COUNT, ["*1\rx"] = COUNT,
      ["*99999999999999999999999\r\n"] = COUNT, ["*1\r\nPING\r\n"] = BULK, ["*1\r\n$-1\r\n"] = BULK,
      ["*1\r\n$536870913\r\n"] = BULK, ["*1\r\n$1\r\nabc"] = "bulk string longer than its length",
      [("x"):rep(65537)] = "too big inline request",
    } do
      local out, said = commands("ping\n" .. text)
      assert.are.same({ { "PING" }, "Protocol error: " .. why }, { out, said }, text:sub(1, 40))
    end
    assert.are.equal("frame too long: more than 1000 bytes (custom)", select(2, commands "*1\r\n$2000\r\n"))
  end)
end)
