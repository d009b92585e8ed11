local frame = require("moonport.frame")

-- A source that hands out these pieces, then is closed.
local function source(pieces)
  local i = 0
  return function()
    i = i + 1
    if pieces[i] then return pieces[i] end
    return nil, "closed"
  end
end

-- All that a reader gives, to the end: { frames with their values, why, what is left }.
-- After "frame too long" the rest depends on how much has come, and is left out.
local function all(framing, pieces)
  local r = frame.reader(source(pieces))
  local out = {}
  while true do
    local got = table.pack(r:read(framing))
    if not got[1] then
      return { out, got[2], got[2] == "closed" and r:rest() or nil }
    end
    out[#out + 1] = got
  end
end

local function frames(framing, ...)
  local out = {}
  for i, got in ipairs(all(frame.of(framing), { ... })[1]) do out[i] = got[1] end
  return out
end

local function bytes_of(s)
  local t = {}
  for i = 1, #s do t[i] = s:sub(i, i) end
  return t
end

-- A protocol of its own: a digit, then as many bytes.
local function digit(buf, pos)
  local n = tonumber(buf:match("^%d", pos) or nil)
  if not n then return nil, nil, "no digit" end
  if #buf < pos + n then return nil, n + 1 end
  return buf:sub(pos + 1, pos + n), pos + n + 1, n
end

local FRAMINGS = {
  { frame.line(), { "a\nbb\n\n\nc", "", "\n", "\r\n\n" } },
  { frame.line("\r\n"), { "PING\r\nPING\r\n", "\r\n\r\n", "a\rb\nc\r\r\n\n", "x\r" } },
  { frame.upto("\r\n.\r\n"), { "a\r\n.\r\nb\r\n.\r\n", "\r\n.\r\n.\r\n.\r\n", "\r\n.\r.\r\n..\r\n.\r", "." } },
  { frame.upto("aab"), { "aaab", "aaaabaab", "aabaab", "aaaaaa", "abaabaaab" } },
  { frame.upto("abab"), { "abababab", "aababab", "ababbabab" } },
  { frame.delimiter(";"), { "a;bc;;", ";", "no" } },
  { frame.delimiter("--"), { "---a----", "a--b", "-" } },
  { frame.delimiter(";", { max = 3 }), { "ab;abc;", "abc", "a;;abcd" } },
  { frame.line("--", { max = 3 }), { "abc--abcd--", "a--abcd-", "abc-", "abcde" } },
  { frame.fixed(1), { "abc", "" } },
  { frame.fixed(3), { "abcdefgh", "ab" } },
  { frame.of(">s1"), { "\3abc\0\1x\2y", "\0\0\0" } },
  { frame.of("<s2"), { "\3\0abc\0\0\1\0", "\1" } },
  { frame.of(">s4"), { "\0\0\0\2hi\255\255\255\255", "\0\0\0\0\0\0\0\1" } },
  { frame.of(">s16"), { ("\0"):rep(15) .. "\1a" .. ("\0"):rep(15), ("\0"):rep(7) .. "\1" .. ("\0"):rep(8) } },
  { frame.of(">I2"), { "\0\1\0\2\0" } },
  { frame.of(">I2 s1 B"), { "\0\1\2ab\9\0\2\0\8", "\0\1" } },
  { frame.of("z"), { "a\0bc\0\0d", "\0" } },
  { frame.of("zz"), { "a\0bc\0\0\0d", "\0" } },
  { frame.of(">s1 z"), { "\2\0\0x\0\0\0\1", "\1\0" } },
  { frame.of("!4 <b i4"), { "\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0" } },
  { frame.of("!4 <z i4"), { "a\0\0\0\1\0\0\0abcd\0\0\0\0\2\0\0\0", "abc\0\1" } },
  { frame.of("!8 <s1 Xi4 i2 x d"), { "\2ab\0\1\0" .. ("\0"):rep(10) .. "\3abc" } },
  { frame.of("<i16"), { ("\255"):rep(16) .. ("\1"):rep(16) } },
  { frame.of("x c2"), { "-ab-cd-" } },
  { frame.pack("z", { max = 3 }), { "ab\0abc\0", "abcd" } },
  { frame.length { format = ">I2" }, { "\0\1a\0\0\0\3ab", "\0" } },
  { frame.length { format = "B", offset = 1, header = 3, strip = true }, { "x\2yab-\0-", "x\2yab" } },
  { frame.length { format = "B", adjust = -1 }, { "\3ab\1\0", "\2a" } },
  { frame.length { format = "<I8" }, { "\1\0\0\0\0\0\0\0a" .. ("\255"):rep(8) } },
  { frame.length { format = ">i2", strip = 2 }, { "\0\1a\255\254" } },
  { frame.custom(digit), { "3abc0222", "1", "1a-" } },
}

describe("moonport.frame", function()
  it("gives the same frames wherever the bytes are cut", function()
    for _, case in ipairs(FRAMINGS) do
      local framing = case[1]
      for _, input in ipairs(case[2]) do
        local want = all(framing, { input })
        local function check(...)
          local pieces = { ... }
          assert.are.same(want, all(framing, pieces), framing.name .. " of " .. table.concat(pieces, "|"))
        end
        check(table.unpack(bytes_of(input)))
        for i = 0, #input do
          check(input:sub(1, i), input:sub(i + 1))
          for j = i, #input do check(input:sub(1, i), input:sub(i + 1, j), input:sub(j + 1)) end
        end
      end
    end
  end)

  it("finds these frames", function()
    assert.are.same({ "PING", "PING" }, frames({ line = "\r\n" }, "PING\r\nPING\r\n"))
    assert.are.same({ "one", "two", "three" }, frames({ line = true }, "one\ntwo\nthr", "ee\n"))
    assert.are.same({ "a", "" }, frames(frame.upto("aab"), "aaabaab"))
    assert.are.same({ "a;", ";" }, frames({ delimiter = ";" }, "a;;b"))
    assert.are.same({ "mail" }, frames(frame.upto("\r\n.\r\n"), "mail\r\n", ".", "\r\n"))
    assert.are.same({ "a", "" }, frames(">s2", "\0\1", "a\0\0"))
    assert.are.same({ "\0\1a" }, frames({ length = { format = ">I2" } }, "\0\1", "a\0"))
    assert.are.same({ "abc" }, frames({ length = { format = ">I2", adjust = -2, strip = true } }, "\0\5abc"))
    assert.are.same({ "\128\0\255" }, frames({ fixed = 3 }, "\128\0", "\255"))
    assert.are.same({ "ab", "c" }, frames({ any = true }, "ab", "c"))
    assert.are.same({ "ab", "c", "d" }, frames({ any = { max = 2 } }, "abc", "d"))
  end)

  it("gives the values of a format behind its bytes", function()
    local r = frame.reader(source { "\0\7\2hi\0\8" })
    local framing = frame.pack(">I2 s1")
    assert.are.same({ "\0\7\2hi", 7, "hi" }, { r:read(framing) })
    assert.are.same({ nil, "closed" }, { r:read(framing) })
    assert.are.equal("\0\8", r:rest())
    r = frame.reader(source { "\1\2\3\4\5\6" })
    assert.are.same({ "\1\2\3\4\5\6", 1, 2, 3, 4, 5, 6 }, { r:read(frame.pack("BBBBBB")) })
    r = frame.reader(source { ("\1"):rep(16) })
    assert.are.same({ nil, 'a number is too large for Lua (pack "<i16")' }, { r:read(frame.pack("<i16")) })
  end)

  it("takes a datagram for a frame, also an empty one", function()
    assert.are.same({ "a\r\nb" }, frames(frame.datagram(), "a\r\nb"))
    assert.are.same({ "" }, frames(frame.datagram(), ""))
    assert.are.same({ "a", "", "b" }, frames({ datagram = true }, "a", "", "b"))
    assert.are.same({ nil, "frame too long: more than 2 bytes (datagram)" },
      { frame.reader(source { "abc" }):read(frame.datagram { max = 2 }) })
  end)

  it("changes framing in the middle of a piece", function()
    local r = frame.reader(source { "DATA\r\nab", "\r\n.\r\n\0\1xrest" })
    assert.are.equal("DATA", r:read(frame.line("\r\n")))
    assert.are.equal("ab", r:read(frame.upto("\r\n.\r\n")))
    assert.are.equal("x", r:read(frame.pack(">s2")))
    assert.are.equal("rest", r:read(frame.any()))
    assert.are.same({ nil, "closed" }, { r:read(frame.any()) })
  end)

  it("goes on after a source had nothing", function()
    local answers = { { "a" }, { nil, "timeout" }, { "b\n" }, { nil, "reset", 104 } }
    local i = 0
    local r = frame.reader(function()
      i = i + 1
      return table.unpack(answers[i], 1, 3)
    end)
    local line = frame.line()
    assert.are.same({ nil, "timeout" }, { r:read(line) })
    assert.are.equal("a", r:rest())
    assert.are.equal("ab", r:read(line))
    assert.are.same({ nil, "reset", 104 }, { r:read(line) })
  end)

  it("asks its source for what is missing", function()
    local asked = {}
    local r = frame.reader(function(need)
      asked[#asked + 1] = need
      return ({ "\0", "\6abc", "def" })[#asked]
    end)
    assert.are.equal("abcdef", r:read(frame.of(">s2")))
    assert.are.same({ 2, 1, 3 }, asked)
  end)

  it("refuses what is longer than max, before it has come", function()
    local reads = 0
    local function refused(framing, piece, why)
      reads = 0
      local r = frame.reader(function()
        reads = reads + 1
        return piece
      end)
      for _ = 1, 2 do
        assert.are.same({ nil, why }, { r:read(frame.of(framing)) })
      end
    end
    refused({ line = "\r\n" }, ("x"):rep(65536), 'frame too long: more than 1048576 bytes (line "\\r\\n")')
    assert.is_true(reads <= 18)
    refused(">s4", "\255\255\255\255", 'frame too long: more than 1048576 bytes (pack ">s4")')
    assert.are.equal(1, reads)
    refused(">s8", ("\255"):rep(8), 'frame too long: more than 1048576 bytes (pack ">s8")')
    refused("<s16", ("\255"):rep(16), 'frame too long: more than 1048576 bytes (pack "<s16")')
    refused(">I1 s8", ("\1"):rep(9), 'frame too long: more than 1048576 bytes (pack ">I1 s8")')
    refused(">B s8", "\1\127" .. ("\255"):rep(7), 'frame too long: more than 1048576 bytes (pack ">B s8")')
    refused("z", ("x"):rep(65536), 'frame too long: more than 1048576 bytes (pack "z")')
    refused({ length = { format = ">I8" } }, ("\255"):rep(8),
      'frame too long: more than 1048576 bytes (length ">I8")')
    refused({ length = { format = ">I8", adjust = -8 } }, "\127" .. ("\255"):rep(7),
      'frame too long: more than 1048576 bytes (length ">I8")')
    refused({ length = { format = ">I2", adjust = -4 } }, "\0\3",
      'negative length: the number is 3, adjusted by -4 (length ">I2")')
    refused({ length = { format = ">i2" } }, "\255\255",
      'negative length: the number is -1, adjusted by 0 (length ">i2")')
    refused(frame.custom(function() return nil, 1 << 40 end, { max = 5, name = "mine" }), "x",
      "frame too long: more than 5 bytes (mine)")
    refused(frame.custom(function() end, { max = 5, name = "mine" }), "x", "frame too long: more than 5 bytes (mine)")
  end)

  it("takes a frame of exactly max", function()
    assert.are.same({ "abc" }, frames(frame.line("\r\n", { max = 3 }), "abc\r", "\n"))
    assert.are.same({ "abc" }, frames({ pack = "c3", max = 3 }, "abc"))
    assert.are.same({ "b" }, frames({ pack = "s1", max = 2 }, "\1b"))
    assert.are.same({ "ab\n" }, frames({ delimiter = "\n", max = 3 }, "ab\n"))
  end)

  it("ends a custom framing that does not advance", function()
    local function why(f)
      local r = frame.reader(source { "abc" })
      return select(2, pcall(r.read, r, frame.custom(f, { name = "mine" })))
    end
    assert.are.equal("mine: with a frame goes the position behind it, from 2 to 4, not 1",
      why(function(_, pos) return "", pos end))
    assert.are.equal("mine: with a frame goes the position behind it, from 2 to 4, not 5",
      why(function() return "abc", 5 end))
    assert.are.equal("mine: with a frame goes the position behind it, from 2 to 4, not nil",
      why(function() return "abc" end))
    assert.are.equal("mine: a frame is a string, not true", why(function() return true, 2 end))
    assert.are.equal("mine: how many bytes are needed is an integer, not \"x\"", why(function() return nil, "x" end))
    local r = frame.reader(source { "abc" })
    assert.are.same({ nil, "odd" }, { r:read(frame.of(function() return nil, nil, "odd" end)) })
    assert.are.same({ "a", 1, 2 }, { r:read(frame.of(function() return "a", 2, 1, 2 end)) })
    assert.are.same({ "bc", "more" }, { r:read(frame.of {
      next = function(buf, pos) return buf:sub(pos), #buf + 1, "more" end,
    }) })
  end)

  it("refuses a framing that is none, and says why", function()
    local function why(value)
      local fine, message = pcall(frame.of, value)
      assert.is_false(fine)
      return message
    end
    for value, message in pairs {
      [""] = 'pack "": its frames would be of no bytes',
      ["!4"] = 'pack "!4": its frames would be of no bytes',
      ["line"] = 'bad pack format "line": there is no option "e"',
      ["s17"] = "bad pack format \"s17\": the size after 's' must be 1 to 16, not 17",
      ["i0"] = "bad pack format \"i0\": the size after 'i' must be 1 to 16, not 0",
      ["c"] = "bad pack format \"c\": the size after 'c' is missing",
      ["Xz"] = "bad pack format \"Xz\": after 'X' comes an option that has an alignment",
      ["X"] = "bad pack format \"X\": after 'X' comes an option that has an alignment",
      ["!i3"] = 'bad pack format "!i3": an alignment of 3 bytes is no power of 2',
      ["c99999999999999999999"] = 'pack "c99999999999999999999": its frames are longer than max, 1048576 bytes',
    } do
      assert.are.equal(message, why(value))
    end
    assert.are.equal('no such framing as "lin"; there are line, upto, delimiter, fixed, pack, length, datagram, '
      .. "any, custom", why { lin = "\n" })
    assert.are.equal("a framing is one of line and fixed, not both", why { line = "\n", fixed = 1 })
    assert.are.equal('upto: the delimiter must be a string that is not empty, not ""', why { upto = "" })
    assert.are.equal("fixed: the size must be a number of bytes, 1 or more, not 0", why { fixed = 0 })
    assert.are.equal("fixed 1: max must be a number of bytes, 1 or more, not -1", why { fixed = 1, max = -1 })
    assert.are.equal('any: there is no option "maxx"; there is max', why { any = { maxx = 1 } })
    assert.are.equal('length ">I4": a header of 3 bytes does not hold the 4 bytes of the number at offset 0',
      why { length = { header = 3 } })
    assert.are.equal('length ">I4": a header of 5 bytes does not hold the 4 bytes of the number at offset 2',
      why { length = { header = 5, offset = 2 } })
    assert.are.equal('length ">s4": the format must be of one integer, such as ">I4"',
      why { length = { format = ">s4" } })
    assert.are.equal('length: no such field as "head"; there are format, offset, header, adjust, strip and max',
      why { length = { head = 3 } })
    assert.matches("^a framing is made by moonport.frame, or is a string.pack format or a function, not 7$", why(7))
    assert.has_error(function() frame.custom(print, { names = "x" }) end,
      'custom: there is no option "names"; there are max and name')
  end)

  it("agrees with string.pack about every format", function()
    math.randomseed(5)
    local options = { "<", ">", "=", "!", "!1", "!2", "!4", "!8", "!16", "b", "B", "h", "H", "i", "I3", "i7", "l", "j",
      "T", "f", "d", "n", "i16", "c3", "c0", "z", "s1", "s2", "s4", "s", "x", "Xi4", "Xd", " " }
    local tried = 0
    for _ = 1, 3000 do
      local format, args = "", {}
      for _ = 1, math.random(6) do
        local option = options[math.random(#options)]
        format = format .. option
        local kind = option:sub(1, 1)
        if kind == "c" then
          args[#args + 1] = option == "c3" and "abc" or ""
        elseif kind == "z" or kind == "s" then
          args[#args + 1] = ("q"):rep(math.random(0, 9))
        elseif kind:find("%a") and kind:lower() ~= "x" then
          args[#args + 1] = math.random(0, 100)
        end
      end
      local fine, packed = pcall(string.pack, format, table.unpack(args))
      local made, framing = pcall(frame.pack, format)
      if not fine then
        assert.is_false(made, format)
      elseif made then
        tried = tried + 1
        local want = all(framing, { packed .. packed })
        assert.are.equal("", want[3], format)
        assert.are.equal(2, #want[1], format)
        if framing.values then
          assert.are.same({ n = 1 + #args, packed, table.unpack(args) }, want[1][2], format)
        else
          assert.are.equal(args[1], want[1][2][1], format)
        end
        assert.are.same(want, all(framing, bytes_of(packed .. packed)), format)
      else
        assert.are.equal("", packed, framing)
      end
    end
    assert.is_true(tried > 1000)
  end)

  it("agrees with a naive search for delimiters", function()
    math.randomseed(7)
    local function word(n)
      local t = {}
      for i = 1, n do t[i] = ("ab"):sub(math.random(2)):sub(1, 1) end
      return table.concat(t)
    end
    for _ = 1, 3000 do
      local d, input = word(math.random(4)), word(math.random(0, 30))
      local want, at = {}, 1
      for i = 1, #input do -- the earliest end of a delimiter, byte by byte
        if i - at + 1 >= #d and input:sub(i - #d + 1, i) == d then
          want[#want + 1], at = input:sub(at, i - #d), i + 1
        end
      end
      local pieces, from = {}, 1
      while from <= #input do
        local n = math.random(5)
        pieces[#pieces + 1], from = input:sub(from, from + n - 1), from + n
      end
      local got = all(frame.upto(d), pieces)
      for i = 1, #got[1] do got[1][i] = got[1][i][1] end
      assert.are.same({ want, "closed", input:sub(at) }, got, d .. " in " .. table.concat(pieces, "|"))
    end
  end)

  it("copies each byte only a few times, however small the pieces", function()
    local function spent(framing, piece, count, last)
      local sent = 0
      local r = frame.reader(function()
        sent = sent + 1
        return sent > count and last or piece
      end)
      local began = os.clock()
      assert.are.equal(#piece * count, #r:read(framing))
      return os.clock() - began
    end
    -- Ten times what it takes on a slow machine; a copy of everything for each piece takes minutes.
    assert.is_true(spent(frame.line("\r\n", { max = 1 << 20 }), "x", 1 << 19, "\r\n") < 10)
    assert.is_true(spent(frame.fixed(1 << 19), "x", 1 << 19, "") < 10)
    assert.is_true(spent(frame.pack("z", { max = 1 << 20 }), "x", 1 << 19, "\0") < 10)
    assert.is_true(spent(frame.line(), ("x"):rep(1024), 1024, "\n") < 10)
  end)
end)

describe("moonport.frame.hex", function()
  local function matches(pattern, ...)
    return frame.hex(pattern).test(string.char(...))
  end

  it("matches whole frames, byte by byte", function()
    assert.is_true(matches("08 00", 8, 0))
    assert.is_true(matches("0800", 8, 0))
    assert.is_false(matches("08 00", 8, 0, 0))
    assert.is_false(matches("08 00", 8))
    assert.is_true(matches(""))
    assert.is_false(matches("", 1))
    for byte = 0, 255 do
      local hex = frame.hex(("%02X"):format(byte))
      for other = 0, 255 do assert.are.equal(byte == other, hex.test(string.char(other))) end
    end
  end)

  it("does not take bytes for text", function()
    assert.is_false(matches("80", 0x81))
    assert.is_false(matches("fffe01", 0x80, 0x81, 0x01))
    assert.is_false(matches("41", 0x61))
    assert.is_true(matches("2e 25 2a 5e 24", 0x2e, 0x25, 0x2a, 0x5e, 0x24))
    assert.is_false(matches("2e", 0x2f))
  end)

  it("has wildcards for one byte and for any number", function()
    assert.is_true(matches("08 .. 01", 8, 10, 1))
    assert.is_true(matches("....", 0, 255))
    assert.is_false(matches(".. ..", 0))
    assert.is_true(matches("*"))
    assert.is_true(matches("08 *", 8))
    assert.is_true(matches("08 *", 8, 0, 10))
    assert.is_true(matches("* 01", 1, 2, 1))
    assert.is_false(matches("01 * 01", 1))
    assert.is_true(matches("01 * 01", 1, 1))
    assert.is_true(matches("01 * 02 .. * 03", 1, 9, 2, 2, 3))
    assert.is_false(matches("01 * 02 .. * 03", 1, 9, 2, 3))
    assert.is_true(matches("**", 1))
  end)

  it("agrees with a Lua pattern of the same meaning", function()
    math.randomseed(3)
    local words = { "61", "62", "..", "*" }
    for _ = 1, 3000 do
      local hex, pattern, data = {}, {}, {}
      for i = 1, math.random(0, 7) do
        hex[i] = words[math.random(#words)]
        pattern[i] = ({ ["61"] = "a", ["62"] = "b", [".."] = ".", ["*"] = ".*" })[hex[i]]
      end
      for i = 1, math.random(0, 8) do data[i] = ("ab"):sub(math.random(2)):sub(1, 1) end
      local bytes = table.concat(data)
      assert.are.equal(bytes:find("^" .. table.concat(pattern) .. "$") ~= nil,
        frame.hex(table.concat(hex, " ")).test(bytes), table.concat(hex, " ") .. " of " .. bytes)
    end
  end)

  it("takes its time from the length of a frame alone", function()
    local began = os.clock()
    assert.is_false(frame.hex(("* 61 "):rep(20) .. "62").test(("a"):rep(10000)))
    assert.is_true(os.clock() - began < 5) -- with backtracking: years
  end)

  it("names the column of what is no hex", function()
    local function why(text)
      local fine, message = pcall(frame.hex, text)
      assert.is_false(fine)
      return message
    end
    assert.are.equal('bad hex "08 0g": column 5: "g" is no hex digit', why("08 0g"))
    assert.are.equal('bad hex "08 0": column 4: a byte has two hex digits', why("08 0"))
    assert.are.equal('bad hex "0 8": column 1: a byte has two hex digits', why("0 8"))
    assert.are.equal('bad hex "08 .": column 4: two dots stand for a byte', why("08 ."))
    assert.are.equal('bad hex "0x08": column 2: "x" is no hex digit', why("0x08"))
    assert.are.equal('bad hex "?": column 1: "?" is neither hex nor a wildcard (.. or *)', why("?"))
    assert.are.equal("hex: a string such as \"08 00 .. *\" is needed, not nil", why(nil))
  end)

  it("says what it is", function()
    local hex = frame.hex("0A00..*")
    assert.are.same({ "0a 00 .. *", 'hex "0a 00 .. *"', "\n\0" }, { hex.hex, hex.text, hex.literal })
    assert.is_nil(hex.equals)
    assert.are.equal("\n", frame.hex("0a").equals)
    assert.are.equal('line "\\r\\n"', tostring(frame.line("\r\n")))
  end)
end)
