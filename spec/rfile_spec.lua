local case = require("support.case")
local host = require("support.host")

local function bytes(s)
  local out = {}
  for i = 1, #s do out[i] = s:sub(i, i) end
  return out
end

describe("rfile", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  -- Whatever the pieces that the input comes in, the results are these.
  local function gives(expected, code, input)
    for how, pieces in pairs { whole = { input }, bytes = bytes(input) } do
      local got = case.run(p, code, pieces)
      assert.are.same(expected, got, how)
    end
  end

  describe("read", function()
    it("takes a line by default, without its newline", function()
      gives({ "one", "two", "", "three", nil, "closed", n = 6 },
        "local a, b, c, d = rfile:read(), rfile:read('l'), rfile:read('*l'), rfile:read() "
        .. "return a, b, c, d, rfile:read()", "one\ntwo\n\nthree")
    end)

    it("keeps the newline with L, and leaves carriage returns alone", function()
      gives({ "a\r\n", "b\r", "c", nil, n = 4 },
        "local a, b, c = rfile:read('L'), rfile:read('l'), rfile:read('L') return a, b, c, (rfile:read('L'))",
        "a\r\nb\r\nc")
    end)

    it("takes everything with a, and then the empty string as Lua's own does", function()
      gives({ "all\n\0of it\n", "", n = 2 }, "return rfile:read('a'), rfile:read('a')", "all\n\0of it\n")
      gives({ "", n = 1 }, "return rfile:read('a')", "")
    end)

    it("takes a count, less only before the end, and nothing is lost on the way", function()
      gives({ "abc", "", "de", nil, "closed", n = 5 },
        "local a, b, c = rfile:read(3), rfile:read(0), rfile:read(9) return a, b, c, rfile:read(9)", "abcde")
    end)

    it("tells by count 0 whether the end is there", function()
      gives({ "", "x", nil, "closed", n = 4 },
        "local a, b = rfile:read(0), rfile:read(1) return a, b, rfile:read(0)", "x")
    end)

    it("takes several things in order and stops at the first that fails", function()
      gives({ 12, "", "ab", "line", "rest", n = 5 },
        "return rfile:read('n', 'l', 2, 'l', 'a')", "12\nabline\nrest")
      gives({ "only", nil, "closed", n = 3 }, "return rfile:read('l', 'l', 'l')", "only")
    end)

    it("reads numbers as Lua's io library does", function()
      local text = " 12 -7 0x1F 3.5 1e3 -.5 0x.8p1 +4 0 \n\t99\n"
      gives({ 12, -7, 31, 3.5, 1000.0, -0.5, 1.0, 4, 0, 99, n = 10 },
        "return rfile:read('n', 'n', 'n', 'n', 'n', 'n', 'n', 'n', 'n', 'n')", text)
    end)

    it("fails on what is no number as Lua's io library does", function()
      for _, text in ipairs { "x", "-", "0x", "1e", ".", "+-1", "1e+z", "-0x", "" } do
        local path = host.write(text .. " tail", host.folder() .. "/numbers")
        local f <close> = assert(io.open(path))
        local number, rest = f:read("n"), f:read("a")
        local got = case.run(p, "local n = rfile:read('n') return n, rfile:read('a')", text .. " tail")
        assert.are.same({ number, rest, n = 2 }, got, "of " .. text)
      end
    end)

    it("says why there is no number", function()
      gives({ nil, "not a number", n = 2 }, "return rfile:read('n')", "x1")
      gives({ nil, "closed", n = 2 }, "return rfile:read('n')", "  ")
    end)

    it("fails on a numeral of more than 200 characters, as Lua's io library does", function()
      local got = case.run(p, "local n = rfile:read('n') return n, #rfile:read('a')", ("1"):rep(300))
      assert.are.same({ nil, 100, n = 2 }, got)
    end)

    it("raises for a wrong format, naming the argument", function()
      for code, pattern in pairs {
        ["rfile:read('x')"] = "bad argument #1 to 'read' %(invalid format",
        ["rfile:read('l', -1)"] = "bad argument #2 to 'read' %(a count must not be negative",
        ["rfile:read(1.5)"] = "number has no integer representation",
        ["rfile:read({})"] = "string expected, got table",
        ["rfile.read({})"] = "rfile expected, got table",
        ["rfile.read()"] = "rfile expected",
        ["rfile.read(wfile)"] = "rfile expected",
      } do
        local got = case.run(p, code, "l\nx")
        assert.are.equal("raised", got[1], code)
        assert.matches(pattern, got[2], 1)
      end
    end)

    it("carries 1 MiB byte for byte, through reads of every size", function()
      local block = {}
      for i = 0, 255 do block[#block + 1] = string.char(i) end
      local data = table.concat(block):rep(4096)
      local got = case.run(p, [[
        local parts, n = {}, 0
        for i = 1, 1e9 do
          local s = rfile:read(i * 37 % 5000 + 1)
          if not s then break end
          parts[#parts + 1], n = s, n + #s
        end
        local all, sum = table.concat(parts), 0
        for i = 1, #all do sum = (sum * 31 + all:byte(i)) % 4294967296 end
        return n, sum]], data)
      local sum = 0
      for i = 1, #data do sum = (sum * 31 + data:byte(i)) % 4294967296 end
      assert.are.same({ #data, sum, n = 2 }, got)
    end)

    it("reads what is there after it has timed out, and loses nothing", function()
      local c <close> = host.connect(p:url())
      c:send(case.piece [[
        request:settimeout(0.02)
        local n, why = 0
        repeat
          local line
          line, why = rfile:read("l")
          n = n + 1
          if n == 1 then wfile:write("timed out\n"):flush() end
        until line
        local a, why2 = rfile:readexactly(4)
        wfile:write("again\n"):flush()
        request:settimeout(nil)
        return n > 1, why == nil, a, why2, rfile:readexactly(4), (rfile:readuntil("ab"))]])
      c:send("ha")
      assert.are.equal("timed out", c:line())
      c:send("lf\nwx")
      assert.are.equal("again", c:line())
      c:send("yz..a")
      c:send("b")
      c:finish()
      assert.are.same({ true, true, nil, "timeout", "wxyz", "..ab", n = 6 }, (case.results((c:all()))))
    end)
  end)

  describe("lines", function()
    it("gives each line, the last one with or without its newline", function()
      local all = "local out = {} for line in rfile:lines() do out[#out + 1] = line end return out"
      gives({ { "a", "", "b" }, n = 1 }, all, "a\n\nb\n")
      gives({ { "a", "", "b" }, n = 1 }, all, "a\n\nb")
      gives({ {}, n = 1 }, all, "")
    end)

    it("takes read's formats", function()
      gives({ { "a\n", "b" }, n = 1 },
        "local out = {} for line in rfile:lines('L') do out[#out + 1] = line end return out", "a\nb")
      gives({ { "ab", "cd", "e" }, n = 1 },
        "local out = {} for s in rfile:lines(2) do out[#out + 1] = s end return out", "abcde")
      gives({ { 1, "x", 2, "y" }, n = 1 },
        "local out = {} for n, s in rfile:lines('n', 'l') do out[#out + 1] = n out[#out + 1] = s end return out",
        "1x\n2y\n")
    end)

    it("can be left and begun again", function()
      gives({ "a", "b", n = 2 },
        "local function one() for line in rfile:lines() do return line end end return one(), one()", "a\nb\nc\n")
    end)

    it("raises for any failure but the end", function()
      local got = case.run(p, [[
        request:settimeout(0.01)
        local ok, e = pcall(function() for _ in rfile:lines() do end end)
        local ok2, e2 = pcall(function() for _ in rfile:lines("L", 1) do end end)
        return ok, e.code, ok2, e2.code, tostring(e)]], nil, true)
      assert.are.same({ false, "timeout", false, "timeout", "read: timeout", n = 5 }, got)
    end)

    it("checks its formats at once", function()
      local got = case.run(p, "rfile:lines('l', 'x')")
      assert.are.equal("raised", got[1])
      assert.matches("invalid format", got[2])
    end)
  end)

  describe("the longest line", function()
    it("is 64 KiB for lines and delimiters; one byte more is refused", function()
      local max = ("x"):rep(65536)
      for _, method in ipairs { "read('l')", "readline()", "readuntil('\\n')" } do
        local got = case.run(p, "local s, why = rfile:" .. method .. " return s and #(s:gsub('\\n', '')), why",
          max .. "\n")
        assert.are.same({ 65536, nil, n = 2 }, got, method)
        got = case.run(p, "return rfile:" .. method, max .. "y\n")
        assert.are.same({ nil, "line too long", n = 2 }, got, method)
      end
    end)

    it("can be set, and what was too long can still be read another way", function()
      local q = case.start { args = { "-o", "max_line=10" } }
      assert.are.same({ "0123456789", nil, "line too long", "abcdefghijk", n = 4 },
        case.run(q, "local a, b, c = rfile:read(), rfile:read() return a, b, c, rfile:read(11)",
          "0123456789\nabcdefghijk\n"))
      assert.are.same({ nil, "line too long", n = 2 }, case.run(q, "return rfile:unpack('z')", ("z"):rep(30)))
      -- It does not matter whether the end is there already.
      assert.are.same({ nil, "line too long", n = 2 }, case.run(q, "return rfile:unpack('z')", ("z"):rep(30) .. "\0"))
      local counted = ("s1"):pack(("s"):rep(30))
      assert.are.same({ nil, "line too long", n = 2 }, case.run(q, "return rfile:unpack('s1')", counted))
      q:stop()
    end)

    it("bounds what a client without a newline costs", function()
      local before = p:memory()
      local got = case.run(p, "local _, why = rfile:read() return why", ("x"):rep(1 << 20))
      assert.are.same({ "line too long", n = 1 }, got)
      assert.is_true(p:memory() - before < (host.sanitizer() and 16384 or 1024))
    end)
  end)

  describe("readline", function()
    it("keeps the newline", function()
      gives({ "a\n", "b", nil, "closed", n = 4 },
        "local a, b = rfile:readline(), rfile:readline() return a, b, rfile:readline()", "a\nb")
    end)
  end)

  describe("readexactly", function()
    it("gives all or nothing, and what is there stays", function()
      gives({ "abc", "", nil, "closed", "de", n = 5 },
        "local a, b, c, d = rfile:readexactly(3), rfile:readexactly(0), rfile:readexactly(3) "
        .. "return a, b, c, d or 'closed', rfile:read('a')", "abcde")
    end)

    it("refuses a negative count", function()
      assert.are.equal("raised", case.run(p, "rfile:readexactly(-1)")[1])
      assert.are.equal("raised", case.run(p, "rfile:readexactly('x')")[1])
    end)
  end)

  describe("readuntil", function()
    it("takes up to and with the delimiter, of any length", function()
      gives({ "a;", "\r\nb\r\r\n\r\n", "\0c\0\0", nil, "closed", "tail", n = 6 },
        "local a, b, c = rfile:readuntil(';'), rfile:readuntil('\\r\\n\\r\\n'), rfile:readuntil('\\0\\0') "
        .. "local d, why = rfile:readuntil('zz') return a, b, c, d, why, rfile:read('a')",
        "a;\r\nb\r\r\n\r\n\0c\0\0tail")
    end)

    it("refuses an empty delimiter", function()
      local got = case.run(p, "rfile:readuntil('')")
      assert.are.equal("raised", got[1])
      assert.matches("must not be empty", got[2])
    end)
  end)

  describe("unpack", function()
    it("reads what string.unpack would, whatever the pieces", function()
      gives({ 0x0102, "hello", "c-string", 3.5, -1, n = 5 },
        "return rfile:unpack('>I2 s2 z d i3')", (">I2 s2 z d i3"):pack(0x0102, "hello", "c-string", 3.5, -1))
    end)

    it("leaves the rest, and gives only the values", function()
      gives({ 1, 2, "xyz", n = 3 }, "local a = rfile:unpack('B') return a, rfile:unpack('B'), rfile:read('a')",
        "\1\2xyz")
    end)

    it("says closed when the end comes first, and keeps what is there", function()
      gives({ nil, "closed", "\0\5ab", n = 3 },
        "local a, why = rfile:unpack('>s2') return a, why, (rfile:read('a'))", "\0\5ab")
    end)

    it("lets string.unpack explain a wrong format", function()
      local got = case.run(p, "rfile:unpack('>w4')", "abcd")
      assert.are.equal("raised", got[1])
      assert.matches("invalid format option 'w'", got[2])
    end)
  end)

  describe("close", function()
    it("ends reading alone, once", function()
      local got = case.run(p, [[
        local closed = rfile:close()
        local a, why = pcall(rfile.read, rfile)
        local b, why2 = pcall(rfile.close, rfile)
        wfile:write("still writes")
        return closed, a, why, b, why2, tostring(rfile)]], "x\n")
      assert.are.same({ true, false, "attempt to read from a closed rfile", false,
        "attempt to close a closed rfile", "rfile (closed)", n = 6 }, got)
    end)
  end)

  it("says what it is", function()
    assert.matches("^rfile %(0x%x+%)$", case.run(p, "return tostring(rfile)")[1])
  end)

  it("reads one byte at a time with rbufsize 0, and gives the same", function()
    local q = case.start { args = { "-o", "rbufsize=0" } }
    assert.are.same({ "line", "rest", n = 2 }, case.run(q, "return rfile:read('l', 'a')", "line\nrest"))
    q:stop()
  end)

  it("reads a datagram as a stream that ends", function()
    local q = case.start { listen = "udp://127.0.0.1:0" }
    assert.are.same({ "local self,", nil, "closed", n = 3 },
      case.ask(q:url(), "local a = rfile:read(11) rfile:read('a') return a, rfile:read('l')"))
    q:stop()
  end)
end)
