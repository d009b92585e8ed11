-- How bytes are cut into pieces on their way must not matter: each transcript below, written by
-- hand, is played to its script whole, byte by byte, turn by turn and in random pieces.
local host = require("support.host")
local sys = host.sys

local RANDOM_RUNS = 12
local first_seed = tonumber(os.getenv("MOONPORT_SEED")) or os.time() % 1000000

---- transcripts: what is sent, what must come back ----

local function words(...)
  local out = { "*", select("#", ...), "\r\n" }
  for _, w in ipairs { ... } do
    out[#out + 1] = ("$%d\r\n%s\r\n"):format(#w, w)
  end
  return table.concat(out)
end

local ones = {}
for i = 1, 1000 do ones[i] = "1" end

local calc = {
  { '{"op":"add","args":[1,2]}\n', '{"result":3}\n' },
  { '{"op":"sub","args":[10,2,3]}\n', '{"result":5}\n' },
  { '{ "args" : [6, 7] , "op" : "mul" }\n', '{"result":42}\n' },
  { '{"op":"div","args":[1,4]}\r\n', '{"result":0.25}\n' },
  { '{"op":"div","args":[1,0]}\n', '{"error":"the result is not a finite number"}\n' },
  { 'oops\n', '{"error":"Expected value but found invalid token at character 1"}\n' },
  { '{"op":"pow","args":[1]}\n', '{"error":"op must be one of add, sub, mul, div"}\n' },
  { '[1,2]\n', '{"error":"op must be one of add, sub, mul, div"}\n' },
  { '{"op":"add","args":[]}\n', '{"error":"args must be a list of numbers"}\n' },
  { '{"op":"add","args":[1,"2"]}\n', '{"error":"args[2] is not a number"}\n' },
  { '{"op":"\\u0061dd","args":[-1.5,1e2]}\n', '{"result":98.5}\n' },
  { '{"op":"add","args":[' .. table.concat(ones, ",") .. ']}\n', '{"result":1000}\n' },
  { '{"op":"mul","args":[2,3,4]}', '{"result":24}\n', ends = true },
}

local binary = "a\r\nb\0c$1\r\n*1\r\n"
local long = ("0123456789abcdef\r\n"):rep(300)
local redis = {
  { "PING\r\n", "+PONG\r\n" },
  { words("PING"), "+PONG\r\n" },
  { words("ping", "hello"), "$5\r\nhello\r\n" },
  { words("ECHO", binary), ("$%d\r\n%s\r\n"):format(#binary, binary) },
  { words("GET", "k"), "$-1\r\n" },
  { words("SET", "k", "v"), "+OK\r\n" },
  { words("GET", "k"), "$1\r\nv\r\n" },
  { words("SET", "k", ""), "+OK\r\n" },
  { words("GET", "k"), "$0\r\n\r\n" },
  { words("SET", "long", long), "+OK\r\n" },
  { words("GET", "long"), ("$5400\r\n%s\r\n"):format(long) },
  { words("DEL", "k", "long", "missing"), ":2\r\n" },
  { "\r\n", "" },
  { "*0\r\n", "" },
  { 'SET greeting "hello\\x41 world"\r\n', "+OK\r\n" },
  { "get greeting\n", "$12\r\nhelloA world\r\n" },
  { words("INCR", "n"), ":1\r\n" },
  { words("INCR", "n"):rep(9), ":2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n:10\r\n" },
  { words("PING"):rep(20), ("+PONG\r\n"):rep(20) },
  { words("SET", "n", "one"), "+OK\r\n" },
  { words("INCR", "n"), "-ERR value is not an integer or out of range\r\n" },
  { words("GET"), "-ERR wrong number of arguments for 'get' command\r\n" },
  { words("NOPE", "x"), "-ERR unknown command 'NOPE'\r\n" },
  { words("QUIT"), "+OK\r\n", ends = true },
}

local DATE = ("D"):rep(29)

local function reply(status, body, extra, no_body)
  return ("HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%s\r\n%s")
    :format(status, DATE, #body, extra or "", no_body and "" or body)
end

-- The date is the one thing that nobody can write down before.
local function without_date(text)
  return (text:gsub("\r\nDate: %a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT\r\n", "\r\nDate: " .. DATE .. "\r\n"))
end

local HELLO = reply("200 OK", "Hello, world!\n")
local body = "text\r\n\r\nGET / HTTP/1.1\r\n"
local http = {
  { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", HELLO },
  { "GET /path?query HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nAccept: */*\r\n\r\n", HELLO },
  { "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", reply("200 OK", "Hello, world!\n", "", true) },
  { ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body),
    reply("200 OK", "Thank you for 24 bytes.\n") },
  { "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nabcde",
    "HTTP/1.1 100 Continue\r\n\r\n" .. reply("200 OK", "Thank you for 5 bytes.\n") },
  { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", reply("200 OK", "Thank you for 0 bytes.\n") },
  { ("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):rep(10), HELLO:rep(10) },
  { "\r\n\r\nGET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", HELLO },
  { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=\"b\";c\r\nabc\r\nA\r\n0123456789\r\n"
    .. "00\r\nX-Sum: 1\r\n\r\n", reply("200 OK", "Thank you for 13 bytes.\n") },
  { "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
    reply("405 Method Not Allowed", "GET, HEAD and POST are understood.\n", "Allow: GET, HEAD, POST\r\n") },
  { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
    reply("200 OK", "Hello, world!\n", "Connection: keep-alive\r\n") },
  { "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    reply("200 OK", "Hello, world!\n", "Connection: close\r\n"), ends = true },
}

local function refusal(input, status, text)
  return { { input, reply(status, text .. "\n", "Connection: close\r\n"), ends = true } }
end

local echo = {
  { "hello\n", "hello\n" },
  { "\n\n\n", "\n\n\n" },
  { "\0\1\2\255\r\n", "\0\1\2\255\r\n" },
  { ("x"):rep(3000) .. "\n", ("x"):rep(3000) .. "\n" },
  { "no newline", "no newline", ends = true },
}

local upper = {
  { "hello\n", "HELLO\n" },
  { "Two\nlines\n", "TWO\nLINES\n" },
  { "no newline", "NO NEWLINE\n", ends = true },
}

local cases = {
  { "scripts/echo.lua", "lines", echo },
  { "scripts/upper.lua", "lines", upper },
  { "scripts/calc.lua", "sums and mistakes", calc },
  { "scripts/redis_lite.lua", "commands", redis },
  { "scripts/redis_lite.lua", "a broken array",
    { { words("PING"), "+PONG\r\n" },
      { "*2\r\n:4\r\n", "-ERR Protocol error: expected '$', got ':'\r\n", ends = true } } },
  { "scripts/redis_lite.lua", "an unbalanced quote",
    { { 'ECHO "a\r\n', "-ERR Protocol error: unbalanced quotes in request\r\n", ends = true } } },
  { "scripts/http_hello.lua", "requests", http },
  { "scripts/http_hello.lua", "a request without a Host",
    refusal("GET / HTTP/1.1\r\n\r\n", "400 Bad Request", "one Host is needed") },
  { "scripts/http_hello.lua", "a compressed request",
    refusal("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501 Not Implemented",
      "no transfer coding but chunked is known here") },
  { "scripts/http_hello.lua", "a line without CR",
    refusal("GET / HTTP/1.1\nHost: a\n\n", "400 Bad Request", "a line must end in CR LF") },
  { "scripts/http_hello.lua", "nonsense", refusal("nonsense\r\n", "400 Bad Request", "malformed request line") },
}

---- ways to send ----

local function joined(transcript, column)
  local parts = {}
  for i, turn in ipairs(transcript) do parts[i] = turn[column] end
  return table.concat(parts)
end

local function send_whole(c, input) assert(c:send(input)) end

local function send_bytes(c, input)
  for i = 1, #input do assert(c:send(input:sub(i, i))) end
end

-- Pieces of 1 byte to a few hundred, mostly small.
local function send_pieces(c, input, random)
  local at = 1
  while at <= #input do
    local n = random() % (random() % 8 == 0 and 400 or 12) + 1
    assert(c:send(input:sub(at, at + n - 1)))
    at = at + n
  end
end

-- A generator that repeats itself for the same seed on every machine.
local function generator(seed)
  local x = seed
  return function()
    x = (x * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
    return x >> 33
  end
end

local function first_difference(a, b)
  local i = 1
  while i <= #a and i <= #b and a:byte(i) == b:byte(i) do i = i + 1 end
  return i
end

local function check(expected, got, what)
  got = without_date(got)
  if got == expected then return end
  local at = first_difference(expected, got)
  error(("%s: byte %d of the reply differs\nexpected: %q\ngot:      %q"):format(what, at,
    expected:sub(math.max(1, at - 40), at + 80), got:sub(math.max(1, at - 40), at + 80)), 2)
end

-- Plays the transcript to a program of its own.
local function play(script, transcript, send, what, options)
  local p = host.start(script, options)
  local c <close> = host.connect(p:url())
  send(c, joined(transcript, 1))
  c:finish()
  local got, message = c:all()
  check(joined(transcript, 2), got, what)
  assert.is_nil(message, what)
  c:close()
  assert.are.equal(0, p:stop().errors, what)
end

describe("the transcript of", function()
  after_each(host.cleanup)

  for _, case in ipairs(cases) do
    local script, name, transcript = table.unpack(case)

    describe(script .. ", " .. name .. ",", function()
      it("is the same when all comes at once", function()
        play(script, transcript, send_whole, "at once")
      end)

      it("is the same when every byte comes alone", function()
        play(script, transcript, send_bytes, "sent byte by byte")
        play(script, transcript, send_whole, "received byte by byte", { args = { "-o", "rbufsize=1" } })
      end)

      it("is the same when each turn waits for the reply to the one before", function()
        local p = host.start(script)
        local c <close> = host.connect(p:url())
        for i, turn in ipairs(transcript) do
          assert(c:send(turn[1]))
          if turn.ends then c:finish() end
          local got, why, part = c:receive(#turn[2])
          check(turn[2], got or part, ("turn %d (%s)"):format(i, why))
        end
        assert.are.equal("", (c:all()))
        c:close()
        assert.are.equal(0, p:stop().errors)
      end)

      it("is the same when it comes in random pieces", function()
        for run = 1, RANDOM_RUNS do
          local seed = first_seed + run
          local random = generator(seed)
          local options = { listen = run % 3 == 0 and "unix://" .. host.folder() .. "/s" or nil }
          if run % 2 == 0 then -- the program's own receives and sends are cut, too
            options.env = { host.preload("shim.so"), "SHIM_SEED=" .. seed }
          else
            options.args = { "-o", "rbufsize=" .. random() % 20 + 1 }
          end
          play(script, transcript, function(c, input) send_pieces(c, input, random) end,
            ("run %d with MOONPORT_SEED=%d"):format(run, first_seed), options)
        end
      end)
    end)
  end

  it("two clients at once is not mixed up", function()
    local p = host.start("scripts/calc.lua")
    local a <close> = host.connect(p:url())
    local b <close> = host.connect(p:url())
    local x, y = '{"op":"add","args":[1,2]}\n', '{"op":"mul","args":[30,40]}\n'
    for i = 1, #y do
      assert(b:send(y:sub(i, i)))
      if i <= #x then assert(a:send(x:sub(i, i))) end
    end
    assert.are.equal('{"result":3}', a:line())
    assert.are.equal('{"result":1200}', b:line())
    assert.is_false(sys.poll(a.fd, "r", 0))
    a:close()
    b:close()
    p:stop()
  end)
end)
