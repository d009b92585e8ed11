-- The reader of requests over a connection that is none: what comes out does not depend on how the bytes were cut.

local cases = require("support.case")
local host = require("support.host")

local clock = 0

---A fresh moonport.http on a clock of its own; without its part in C, as where there is no host.
local function load_http()
  local function require() return { monotonic = function() return clock end } end
  local env = setmetatable({ require = require }, { __index = _G })
  return assert(loadfile("lua/moonport/http.lua", "t", env))()
end
local http = load_http()

---A connection that gives these pieces, then `last` ("closed" by default); what is written goes to `sent`.
local function connection(pieces, last)
  local at, c = 0, { sent = {}, request = {}, wfile = {} }
  function c.request:settimeout(seconds) self.timeout = seconds end
  function c.request.recv(_)
    at = at + 1
    if c.before then c.before(at) end
    if pieces[at] then return pieces[at] end
    return nil, last or "closed"
  end
  function c.wfile:write(...)
    for i = 1, select("#", ...) do c.sent[#c.sent + 1] = tostring((select(i, ...))) end
    return self
  end
  return c
end

---Reads all requests; "GET /path body" for each, and at the end why there are no more.
local function transcript(pieces, limit)
  local reader, out = http.reader(connection(pieces)), {}
  while true do
    local req, why, status = reader:read()
    local body
    if req then body, why, status = reader:body(req, limit or 1000) end
    if not body then
      out[#out + 1] = status and status .. " " .. why or why
      return out
    end
    out[#out + 1] = ("%s %s%s%s"):format(req.method, req.path, req.keep_alive and "" or " close",
      body ~= "" and " " .. body or "")
    if not req.keep_alive then return out end
  end
end

local function bytes_of(s)
  local out = {}
  for i = 1, #s do out[i] = s:sub(i, i) end
  return out
end

---The same however it is cut: whole, in single bytes, in two at every place, in three at some.
local function gives(expected, input, limit)
  local want = table.concat(expected, "\n")
  local function check(how, ...)
    local got = table.concat(transcript({ ... }, limit), "\n")
    if got ~= want then assert.are.equal(want, got, ("%s: %q"):format(how, input)) end
  end
  check("whole", input)
  check("byte by byte", table.unpack(bytes_of(input)))
  local step = #input > 400 and #input // 97 or 1
  for cut = 1, #input - 1, step do
    check("cut at " .. cut, input:sub(1, cut), input:sub(cut + 1))
    local second = cut + 1 + cut * 7919 % math.max(1, #input - cut)
    check("cut at " .. cut .. " and " .. second, input:sub(1, cut), input:sub(cut + 1, second), input:sub(second + 1))
  end
end

local HOST = "Host: a\r\n"
local function get(lines) return "GET / HTTP/1.1\r\n" .. HOST .. (lines or "") .. "\r\n" end
local function chunked(body) return "POST /c HTTP/1.1\r\n" .. HOST .. "Transfer-Encoding: chunked\r\n\r\n" .. body end

describe("moonport.http", function()
  before_each(function() clock = 0 end)

  describe("takes", function()
    local good = {
      { get(), "GET /", "closed" },
      { "\r\n\r\n" .. get(), "GET /", "closed" },
      { get():rep(3), "GET /", "GET /", "GET /", "closed" },
      { "GET /a?b=c HTTP/1.1\r\nhOST: a:80\r\n\r\n", "GET /a", "closed" },
      { "GET http://b.test/x HTTP/1.1\r\n" .. HOST .. "\r\n", "GET /x", "closed" },
      { "GET HTTP://b.test?x HTTP/1.1\r\n" .. HOST .. "\r\n", "GET /", "closed" },
      { "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /", "closed" },
      { "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /", "closed" },
      { "OPTIONS * HTTP/1.1\r\n" .. HOST .. "\r\n", "OPTIONS *", "closed" },
      { "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "CONNECT b.test:443", "closed" },
      { "M-SEARCH / HTTP/1.1\r\n" .. HOST .. "\r\n", "M-SEARCH /", "closed" },
      { get "X: \t\200\255 \t \r\nEmpty:\r\n!#$%&'*+-.^_`|~09: y\r\n", "GET /", "closed" },
      { get "Connection: close\r\n" .. get(), "GET / close" },
      { get "Connection: Upgrade ,\tClose\r\n", "GET / close" },
      { "GET / HTTP/1.0\r\n\r\n" .. get(), "GET / close" },
      { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" .. get(), "GET /", "GET /", "closed" },
      { "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET / close" },
      { "GET / HTTP/1.9\r\n" .. HOST .. "\r\n", "GET /", "closed" },
      { "POST /p HTTP/1.1\r\n" .. HOST .. "Content-Length: 4\r\n\r\na\r\nb" .. get(), "POST /p a\r\nb", "GET /",
        "closed" },
      { "POST /p HTTP/1.1\r\n" .. HOST .. "Content-Length: 0\r\n\r\n" .. get(), "POST /p", "GET /", "closed" },
      { "POST /p HTTP/1.1\r\n" .. HOST .. "Content-Length: 0003\r\n\r\nabc", "POST /p abc", "closed" },
      { chunked "0\r\n\r\n" .. get(), "POST /c", "GET /", "closed" },
      { chunked "3\r\nabc\r\n0a\r\n\r\n01234567\r\n0\r\n\r\n" .. get(), "POST /c abc\r\n01234567", "GET /", "closed" },
      { chunked '1;a;b=c ; d = "e f"\r\nx\r\n000;z\r\nA: b\r\nContent-Length: 5\r\n\r\n' .. get(),
        "POST /c x", "GET /", "closed" },
      { "POST /c HTTP/1.1\r\n" .. HOST .. "TRANSFER-encoding: \tChunked \r\n\r\n0\r\n\r\n", "POST /c", "closed" },
    }
    for i, case in ipairs(good) do
      it(("%d: %s"):format(i, (case[1]:sub(1, 70):gsub("%c", "."))), function()
        gives({ table.unpack(case, 2) }, case[1])
      end)
    end
  end)

  -- 87: what two readers could take for different requests; each ends the connection.
  describe("refuses (torture item 87)", function()
    local CRLF, MALFORMED = "400 a line must end in CR LF", "400 malformed header"
    local LENGTH = "400 Content-Length must be one number"
    local BESIDE = "400 Content-Length beside Transfer-Encoding"
    local CHUNKED, UNKNOWN = "400 the one last transfer coding must be chunked",
      "501 no transfer coding but chunked is known here"
    local LINE, SIZE, TARGET = "400 malformed request line", "400 malformed chunk size", "400 malformed target"
    local bad = {
      { "bare LF", "GET / HTTP/1.1\nHost: a\n\n", CRLF },
      { "bare LF after a header", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", CRLF },
      { "bare LF at the end of the head", "GET / HTTP/1.1\r\nHost: a\r\n\n", CRLF },
      { "bare LF before a request", "\n" .. get(), CRLF },
      { "bare CR", get "X: a\rb\r\n", MALFORMED },
      { "bare CR as a line's end", "GET / HTTP/1.1\rHost: a\r\n\r\n", LINE },
      { "CR CR LF", get "X: a\r\r\n", MALFORMED },
      { "NUL in a value", get "X: a\0b\r\n", MALFORMED },
      { "NUL in a name", get "X\0: a\r\n", MALFORMED },
      { "NUL in the target", "GET /\0 HTTP/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "DEL in a value", get "X: \127\r\n", MALFORMED },
      { "a folded header", get "X: a\r\n b\r\n", "400 a header must not go on in the next line" },
      { "a fold before the first header", "GET / HTTP/1.1\r\n\tX: a\r\n\r\n",
        "400 a header must not go on in the next line" },
      { "space before the colon", get "X : a\r\n", MALFORMED },
      { "Content-Length with a space", get "Content-Length : 5\r\n", MALFORMED },
      { "an empty name", get ": a\r\n", MALFORMED },
      { "no colon", get "X\r\n", MALFORMED },
      { "a name that is no token", get "X(y): a\r\n", MALFORMED },
      { "Content-Length +5", get "Content-Length: +5\r\n", LENGTH },
      { "Content-Length -5", get "Content-Length: -5\r\n", LENGTH },
      { "Content-Length 0x5", get "Content-Length: 0x5\r\n", LENGTH },
      { "Content-Length 5,5", get "Content-Length: 5,5\r\n", LENGTH },
      { "Content-Length 5 5", get "Content-Length: 5 5\r\n", LENGTH },
      { "Content-Length 5.0", get "Content-Length: 5.0\r\n", LENGTH },
      { "Content-Length 1e1", get "Content-Length: 1e1\r\n", LENGTH },
      { "Content-Length of nothing", get "Content-Length:\r\n", LENGTH },
      { "two Content-Lengths", get "Content-Length: 5\r\ncontent-length: 6\r\n", LENGTH },
      { "the same Content-Length twice", get "Content-Length: 5\r\nContent-Length: 5\r\n", LENGTH },
      { "a Content-Length beyond bounds", get "Content-Length: 99999999999999999999\r\n", "413 the body is too long" },
      { "Content-Length and chunked", get "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BESIDE },
      { "chunked and Content-Length", get "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", BESIDE },
      { "Content-Length and another coding", get "Transfer-Encoding: x\r\nContent-Length: 5\r\n", BESIDE },
      { "chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400 HTTP/1.0 has no transfer codings" },
      { "gzip", get "Transfer-Encoding: gzip\r\n", CHUNKED },
      { "identity", get "Transfer-Encoding: identity\r\n", CHUNKED },
      { "an empty coding", get "Transfer-Encoding:\r\n", CHUNKED },
      { "gzip, chunked", get "Transfer-Encoding: gzip, chunked\r\n", UNKNOWN },
      { "gzip, chunked in two lines", get "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", UNKNOWN },
      { "chunked, gzip", get "Transfer-Encoding: chunked, gzip\r\n", CHUNKED },
      { "chunked twice", get "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKED },
      { "chunked, chunked", get "Transfer-Encoding: chunked , chunked\r\n", CHUNKED },
      { "xchunked", get "Transfer-Encoding: xchunked\r\n", CHUNKED },
      { '"chunked"', get 'Transfer-Encoding: "chunked"\r\n', CHUNKED },
      { "chunked;q=1", get "Transfer-Encoding: chunked;q=1\r\n", CHUNKED },
      { "no Host", "GET / HTTP/1.1\r\n\r\n", "400 one Host is needed" },
      { "two Hosts", get "Host: a\r\n", "400 more than one Host" },
      { "two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400 more than one Host" },
      { "a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 malformed Host" },
      { "a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "400 malformed Host" },
      { "a Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 malformed Host" },
      { "no version", "GET /\r\n" .. HOST .. "\r\n", LINE },
      { "two spaces", "GET  / HTTP/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "a tab", "GET\t/ HTTP/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "a space at the line's end", "GET / HTTP/1.1 \r\n" .. HOST .. "\r\n", LINE },
      { "a space before the method", " GET / HTTP/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "http in lower case", "GET / http/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "HTTP/1.10", "GET / HTTP/1.10\r\n" .. HOST .. "\r\n", LINE },
      { "a target beyond ASCII", "GET /\195\164 HTTP/1.1\r\n" .. HOST .. "\r\n", LINE },
      { "a target without a slash", "GET x HTTP/1.1\r\n" .. HOST .. "\r\n", TARGET },
      { "a target of another scheme", "GET file:///etc/passwd HTTP/1.1\r\n" .. HOST .. "\r\n", TARGET },
      { "a target with a user", "GET http://u@a/ HTTP/1.1\r\n" .. HOST .. "\r\n", "400 malformed host in the target" },
      { "a fragment", "GET /#x HTTP/1.1\r\n" .. HOST .. "\r\n", "400 a target has no fragment" },
      { "* for GET", "GET * HTTP/1.1\r\n" .. HOST .. "\r\n", TARGET },
      { "HTTP/2.0's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP/1.1 or 1.0 only" },
      { "HTTP/0.9", "GET / HTTP/0.9\r\n\r\n", "505 HTTP/1.1 or 1.0 only" },
      { "a greeting of TLS", "\22\3\1\2\0\1\0\1\252\3\3\n", CRLF },
      { "nine empty lines", ("\r\n"):rep(9) .. get(), LINE },
      { "another expectation", get "Expect: cookies\r\n", "417 nothing but 100-continue can be expected" },
      { "a chunk size of nothing", chunked "\r\nabc", SIZE },
      { "a chunk size with a sign", chunked "+3\r\nabc\r\n", SIZE },
      { "a chunk size with 0x", chunked "0x3\r\nabc\r\n", SIZE },
      { "a chunk size with a space", chunked "3 \r\nabc\r\n", SIZE },
      { "a chunk size of nine digits", chunked "000000003\r\nabc\r\n", SIZE },
      { "a chunk size that is no hex", chunked "g\r\n", SIZE },
      { "a chunk size with a bare LF", chunked "3\nabc\r\n", SIZE },
      { "a bare CR in an extension", chunked "3;a\rb\r\nabc\r\n", SIZE },
      { "an extension without a name", chunked "3;=b\r\nabc\r\n", SIZE },
      { "an extension that does not end", chunked '3;a="b\r\nabc\r\n', SIZE },
      { "a huge extension", chunked("3;" .. ("a"):rep(300) .. "\r\nabc\r\n"),
        "400 a chunk's size and extensions are too long" },
      { "a chunk longer than its size", chunked "3\r\nabcd\r\n0\r\n\r\n", "400 a chunk is longer than its size" },
      { "a chunk that ends in a bare LF", chunked "3\r\nabc\n0\r\n\r\n", "400 a chunk is longer than its size" },
      { "a chunk that ends in CR", chunked "3\r\nabc\rX0\r\n\r\n", "400 a chunk is longer than its size" },
      { "a malformed trailer", chunked "0\r\nA : b\r\n\r\n", MALFORMED },
      { "a trailer with a bare LF", chunked "0\r\nA: b\n\r\n", CRLF },
    }
    for _, case in ipairs(bad) do
      it(case[1], function() gives({ case[3] }, case[2]) end)
    end

    it("many small chunk extensions", function()
      assert.are.same({ "400 too many chunk extensions" },
        transcript({ chunked((("1;%s\r\nx\r\n"):format(("e"):rep(200))):rep(30)) }))
    end)

    it("what does not end, in silence: nobody waits for an answer", function()
      for _, input in ipairs { "", "G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\n", chunked "3\r\nab",
        "POST / HTTP/1.1\r\n" .. HOST .. "Content-Length: 5\r\n\r\nabcd" } do
        assert.are.same({ "closed" }, transcript({ input }))
      end
    end)
  end)

  describe("has limits:", function()
    it("8 KiB for the request line (414)", function()
      local function line(n) return "GET /" .. ("x"):rep(n - 16) .. " HTTP/1.1\r\n" end
      assert.are.equal(8192, #line(8192))
      assert.are.same("GET /" .. ("x"):rep(8192 - 16), transcript({ line(8192) .. HOST .. "\r\n" })[1])
      gives({ "414 the request line is longer than 8192 bytes" }, line(8193) .. HOST .. "\r\n")
      gives({ "414 the request line is longer than 8192 bytes" }, ("x"):rep(9000))
    end)

    it("8 KiB for a header, 16 KiB and 100 lines for all (431)", function()
      local function header(n) return "X: " .. ("x"):rep(n - 5) .. "\r\n" end
      assert.are.same({ "GET /", "closed" }, transcript({ get(header(8192)) }))
      gives({ "431 a header line is longer than 8192 bytes" }, get(header(8193)))
      gives({ "431 the headers are longer than 16384 bytes" }, get(header(8192) .. header(8192)))
      assert.are.same({ "GET /", "closed" }, transcript({ get(("a: b\r\n"):rep(99)) }))
      gives({ "431 more than 100 headers" }, get(("a: b\r\n"):rep(100)))
    end)

    it("the same for a head that is cut before its last byte", function()
      local text = get("X: " .. ("x"):rep(8187) .. "\r\nY: " .. ("y"):rep(8162) .. "\r\n")
      assert.are.equal(16384, #text - 2)
      assert.are.same({ "GET /", "closed" }, transcript({ text }))
      assert.are.same({ "GET /", "closed" }, transcript({ text:sub(1, -2), "\n" }))
      assert.are.same({ "431 the headers are longer than 16384 bytes" }, transcript({ text:sub(1, -2), "x\n" }))
    end)

    it("that of trailers", function()
      gives({ "431 the headers are longer than 4096 bytes" },
        chunked("0\r\n" .. (("a: %s\r\n"):format(("b"):rep(500))):rep(10) .. "\r\n"))
    end)

    it("the caller's for a body, which is refused before it is read (413)", function()
      local head = "POST / HTTP/1.1\r\n" .. HOST .. "Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"
      local c = connection { head }
      local reader = http.reader(c)
      assert.are.same({ nil, "the body is too long", 413 }, { reader:body(assert(reader:read()), 10) })
      assert.are.same({}, c.sent)
      gives({ "413 the body is too long" }, chunked "6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n", 10)
      gives({ "413 the body is too long" }, chunked "ffffffff\r\nab", 10)
      gives({ "POST /c abcdefghij", "closed" }, chunked "6\r\nabcdef\r\n4\r\nghij\r\n0\r\n\r\n", 10)
      gives({ "413 the body is too long" }, chunked "b\r\nabcdefghijkXX", 10)
      gives({ "413 the body is too long" }, chunked "b\r\nabcdefghijk", 10)
    end)

    it("that of the head for a line that is still to come", function()
      gives({ "431 the headers are longer than 16384 bytes" }, "GET / HTTP/1.1\r\n" .. HOST
        .. ("X: " .. ("x"):rep(8000) .. "\r\n"):rep(2) .. ("y"):rep(500))
    end)
  end)

  it("looks at a line alone, not at the body before it", function()
    gives({ "POST / abc\r", "400 a line must end in CR LF" },
      "POST / HTTP/1.1\r\n" .. HOST .. "Content-Length: 4\r\n\r\nabc\r\n\r\n")
  end)

  describe("has deadlines:", function()
    local LATE = { nil, "the request has taken too long to come", 408 }

    -- A piece each so many seconds.
    local function drip(pieces, seconds)
      local c = connection(pieces, "timeout")
      c.before = function() clock = clock + seconds end
      return c
    end

    it("a head that drips gets 408 however steadily it comes", function()
      local c = drip(bytes_of(get(("a: b\r\n"):rep(90))), 1)
      assert.are.same(LATE, { http.reader(c):read() })
      assert.is_true(clock <= http.limits.head_time + 2, tostring(clock))
      assert.is_true(c.request.timeout <= 1)
    end)

    it("so does a body", function()
      local head = "POST / HTTP/1.1\r\n" .. HOST .. "Content-Length: 1000\r\n\r\n"
      local reader = http.reader(drip({ head, table.unpack(bytes_of(("x"):rep(900))) }, 1))
      assert.are.same(LATE, { reader:body(assert(reader:read()), 1000) })
      reader = http.reader(drip({ chunked "", table.unpack(bytes_of(("1\r\nx\r\n"):rep(100))) }, 1))
      assert.are.same(LATE, { reader:body(assert(reader:read()), 1000) })
    end)

    it("an idle connection is left without an answer", function()
      local c = drip({}, 100)
      assert.are.same({ nil, "timeout", nil }, { http.reader(c):read() })
      assert.are.equal(http.limits.idle, c.request.timeout)
    end)

    it("the next request has time of its own", function()
      local c = connection { "GET / HTTP/1.1\r\n", HOST .. "\r\n", get() }
      local reader = http.reader(c)
      c.before = function() clock = clock + 20 end
      assert(reader:read())
      assert.are.equal(http.limits.idle, c.request.timeout)
      assert(reader:read())
    end)
  end)

  it("asks for a body that waits to be asked for, once", function()
    for _, body in ipairs { "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n" } do
      local c = connection { "POST / HTTP/1.1\r\n" .. HOST .. body .. "Expect: 100-Continue\r\n\r\n",
        body:find("chunked") and "3\r\na" or "a", body:find("chunked") and "bc\r\n0\r\n\r\n" or "bc" }
      local reader = http.reader(c)
      assert.are.equal("abc", (reader:body(assert(reader:read()), 10)))
      assert.are.same({ "HTTP/1.1 100 Continue\r\n\r\n" }, c.sent)
    end
  end)

  it("reads the next request behind a body that nobody has read", function()
    local reader = http.reader(connection { chunked "3\r\nabc\r\n0\r\n\r\n" .. get() })
    local first = assert(reader:read())
    assert.is_true(first.unread)
    assert.are.equal("GET", assert(reader:read()).method)
    assert.is_false(first.unread)
  end)

  it("tells the host of the target rather than of the header", function()
    local reader = http.reader(connection { "GET http://B.test:1/x?y=%20 HTTP/1.1\r\n" .. HOST .. "\r\n" })
    local req = assert(reader:read())
    assert.are.same({ "B.test:1", "/x", "y=%20", "a" }, { req.host, req.path, req.query, req.headers.host })
  end)

  it("writes no body for HEAD, and neither body nor length for 204", function()
    local c = connection {}
    http.reply(c.wfile, { method = "HEAD", keep_alive = true, minor = 1 }, 200, "text")
    local text = table.concat(c.sent)
    assert.matches("\r\nContent%-Length: 4\r\n\r\n$", text)
    c = connection {}
    http.reply(c.wfile, { method = "DELETE", keep_alive = true, minor = 0 }, 204, "")
    assert.matches("^HTTP/1.1 204 No Content\r\nDate: [^\r]*\r\nConnection: keep%-alive\r\n\r\n$", table.concat(c.sent))
  end)

  it("writes a status that is a float as what it is equal to", function()
    local req = { method = "GET", keep_alive = true, minor = 1 }
    for _, status in ipairs { 201.0, 201 } do
      local c = connection {}
      http.reply(c.wfile, req, status, "")
      assert.matches("^HTTP/1.1 201 Created\r\n", table.concat(c.sent))
    end
  end)

  it("writes the usual reply as any other", function()
    local req = { method = "GET", keep_alive = true, minor = 1 }
    for _, case in ipairs { { 200, "text" }, { 200, "longer" }, { 404, "longer" }, { 299, "" }, { 200, "text" } } do
      local usual, other = connection {}, connection {}
      http.reply(usual.wfile, req, case[1], case[2])
      http.reply(other.wfile, req, case[1], case[2], "")
      local text = table.concat(usual.sent):gsub("Date: [^\r]*", "")
      assert.are.equal(text, (table.concat(other.sent):gsub("Date: [^\r]*", "")))
      assert.matches("^HTTP/1.1 " .. case[1] .. " %a", text)
      assert.matches("\r\nContent%-Length: " .. #case[2] .. "\r\n\r\n" .. case[2] .. "$", text)
    end
  end)

  describe("with its part in C", function()
    local p
    setup(function() p = cases.start() end)
    teardown(function()
      p:stop()
      host.cleanup()
    end)

    local function head(...)
      return cases.run(p, ("return require('moonport.http.scan').head(%q, %d, %d, %d, %d)"):format(...))
    end

    it("takes a usual head in one call", function()
      local got = cases.run(p, [[
        local scan = require("moonport.http.scan")
        local text = "POST /some/path HTTP/1.0\r\nHost:\tb.test:80\r\nX_y-z!:  two words\r\nEmpty:\r\n\r\n"
        local method, target, minor, h, after, plain = scan.head("--" .. text .. "rest", 3, 60, 150, 4)
        return method, target, minor, h.host, h["x_y-z!"], h.empty, after - #text, plain]])
      assert.are.same({ "POST", "/some/path", 0, "b.test:80", "two words", "", 3, true, n = 8 }, got)
      assert.is_false(head("GET /?x HTTP/1.1\r\n\r\n", 1, 60, 150, 4)[6])
    end)

    it("leaves what is not all there, or beyond a limit, to others", function()
      local text = "GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaa\r\nB: c\r\n\r\n"
      for stop = 1, #text - 1 do assert.are.equal(0, head(text:sub(1, stop), 1, 60, 150, 4).n) end
      assert.are.equal(6, head(text, 1, 22, #text - 2, 2).n)
      assert.are.equal(0, head(text, 1, 21, #text - 2, 2).n)
      assert.are.equal(0, head(text, 1, 22, #text - 3, 2).n)
      assert.are.equal(0, head(text, 1, 22, #text - 2, 1).n)
    end)

    it("reads what it reads without", function()
      local good, bad, first = table.unpack(cases.run(p, "return dofile('spec/support/heads.lua')"), 1, 3)
      assert.is_nil(first)
      assert.is_true(good > 1000 and bad > 1000, good .. ", " .. bad)
    end)

    -- What a reader makes of what comes to a connection: all requests in words, and why there are no more. `bare`: it
    -- does without the part in C.
    local TOLD = [[
      local bare = ...
      local env = setmetatable({ package = { preload = not bare and package.preload or {} } }, { __index = _G })
      local http = assert(loadfile("lua/moonport/http.lua", "t", env))()
      local reader, out = http.reader(self), {}
      local function tell(t)
        local words = {}
        for k, v in pairs(t) do words[#words + 1] = k .. "=" .. (type(v) == "table" and tell(v) or tostring(v)) end
        table.sort(words)
        return "{" .. table.concat(words, " ") .. "}"
      end
      local req, why, status
      repeat
        req, why, status = reader:read()
        out[#out + 1] = req and tell(req) or why .. " " .. tostring(status)
        if req and req.method ~= "LEAVE" then
          local body, ended = reader:body(req, 100)
          out[#out + 1] = body or ended
        end
      until not req
      return table.concat(out, "\n")]]
    TOLD = TOLD:gsub("local function tell", "local tell\n function tell", 1)

    local function told(bare, input, keep)
      local code = ("return (function(...) %s end)(%s)"):format(TOLD, tostring(bare))
      return (assert(cases.run(p, code, input, keep)[1]))
    end

    it("reads from a connection what it reads without", function()
      local post = "POST /p?q=1&r HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
      local heads = {
        get(), get "A: 1\r\nB: 2\r\n", get "A: 1\r\na: 2\r\n", get "X: y \r\n", get "Connection: Close\r\n",
        get "CONNECTION: keep-Alive\r\n", get "Connection: upgrade\r\n", get "Expect: 100-continue\r\n",
        get "Transfer-Encoding: chunked\r\n" .. "0\r\n\r\n", get "Content-Length: 0\r\n",
        get "Content-Length: 00\r\n", get "Content-Length: x\r\n", get "Content-Length:\r\n",
        get "Content-Length: 0\r\ncontent-length: 0\r\n", get "Content-Length: 9999999999999999\r\n",
        get "Host: b\r\n",
        get(("N: %s\r\n"):format(("v"):rep(3000))), post, "LEAVE" .. post:sub(5), get "Cookie: \200\r\n",
        "GET /?a?b HTTP/1.1\r\nHost: a:80\r\n\r\n", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a? HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n" .. get(), "GET /\r\n",
        "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", "GET / HTTP/1.1\r\nHost: a-b_c.%41\r\n\r\n",
      }
      for _, one in ipairs(heads) do
        for _, input in ipairs { one, one .. one, get() .. one .. get(), one .. post .. one, one:sub(1, -2) } do
          assert.are.equal(told(true, input), told(false, input))
        end
        local cut = { one:sub(1, #one // 2), one:sub(#one // 2 + 1) .. one:sub(1, 5), one:sub(6) .. one }
        assert.are.equal(told(true, table.concat(cut)), told(false, cut))
      end
    end)

    it("gives each request a table of its own, and its headers, when the head comes again", function()
      local text = get "A: 1\r\n"
      local got = cases.run(p, [[
        local reader = require("moonport.http").reader(self)
        local one = reader:read()
        one.headers.a, one.headers.b, one.path, one.mine, one.host = "changed", "new", "/changed", 1, nil
        local two = reader:read()
        return one.headers.a, two.headers.a, two.headers.b, two.path, two.mine, two.host, next(two.headers) ~= nil]],
        text .. text)
      assert.are.same({ "changed", "1", nil, "/", nil, "a", true, n = 7 }, got)
    end)

    it("has a reader keep to its own limits, whatever others have let through", function()
      local text = get(("X: %s\r\n"):format(("y"):rep(80)))
      local cases_of = { { "line = 60", 431 }, { "head = 90", 431 }, { "headers = 1", 431 }, { "line = 90", "GET" } }
      for _, case in ipairs(cases_of) do
        local got = cases.run(p, ([[
          local http = require("moonport.http")
          local one = http.reader(self):read()
          local two, _, status = http.reader(self, { %s }):read()
          return one.method, two and two.method or status]]):format(case[1]), text .. text)
        assert.are.same({ "GET", case[2], n = 2 }, got)
      end
    end)

    it("says why there is no request", function()
      local function ended(code, ...)
        return cases.run(p, "local http = require('moonport.http')\n" .. code, ...)
      end
      assert.are.same({ nil, "closed", n = 2 }, ended("return http.reader(self):read()"))
      assert.are.same({ nil, "timeout", n = 2 }, ended("return http.reader(self, { idle = 0.01 }):read()", nil, true))
      assert.are.same({ nil, "interrupted", n = 2 }, ended([[
        moonport.spawn(function() request:interrupt() end)
        return http.reader(self):read()]], nil, true))
      local LATE = { nil, "the request has taken too long to come", 408, n = 3 }
      assert.are.same(LATE, ended("return http.reader(self, { head_time = 0.01 }):read()", "GET / HT", true))
      local got = ended([[
        local reader, tried = http.reader(self), {}
        moonport.spawn(function() tried[1] = select(2, pcall(reader.read, reader)); request:interrupt() end)
        reader:read()
        return tostring(tried[1])]], nil, true)
      assert.matches("another task is reading", got[1])
    end)

    it("raises where there is no connection any more", function()
      local got = cases.run(p, [[
        local http = require("moonport.http")
        kept.reader = http.reader(self)
        return pcall(http.reader)]])
      assert.is_false(got[1])
      got = cases.run(p, "return pcall(kept.reader.read, kept.reader)")
      assert.is_false(got[1])
      assert.matches("the request is over", got[2])
      got = cases.run(p, [[
        local take = require("moonport.http.scan").take
        return (pcall(take)), (pcall(take, {})), (pcall(take, io.stdout)), (pcall(take, request))]])
      assert.are.same({ false, false, false, false, n = 4 }, got)
    end)

    it("writes what it writes without", function()
      local usual = "{ method = 'GET', keep_alive = true, minor = 1 }"
      for _, arguments in ipairs {
        usual .. ", 200, 'text'", usual .. ", 404, ''", usual .. ", 299, 'text'", usual .. ", 204, ''",
        usual .. ", 0, ''", usual .. ", 200.0, 'text'", usual .. ", 200, 'text', 'A: b\\r\\n'",
        usual .. ", 200, '{}', nil, 'application/json'",
        usual .. ", 200, ('x'):rep(3900)", usual .. ", 200, ('x'):rep(4095)", usual .. ", 200, ('x'):rep(100000)",
        "{ method = 'HEAD', keep_alive = true, minor = 1 }, 200, 'text'", "nil, 400, 'text'",
        "{ method = 'GET', keep_alive = false, minor = 1 }, 200, 'text'", "{}, 200, 'text'",
        "{ method = 'GET', keep_alive = true, minor = 0 }, 200, 'text'",
        "setmetatable({}, { __index = " .. usual .. " }), 200, 'text'",
      } do
        local _, text = cases.run(p, ([[
          local http = require("moonport.http")
          local other = { write = function(file, ...) wfile:write(...) return file end }
          for _, file in ipairs { wfile, other, wfile, wfile } do
            http.reply(file, %s)
            wfile:write("\0")
          end]]):format(arguments))
        local written = {}
        for one in text:gsub("Date: [^\r]*", ""):gmatch("(%Z*)%z") do written[#written + 1] = one end
        assert.are.equal(4, #written)
        for i = 2, 4 do assert.are.equal(written[1], written[i]) end
      end
    end)

    it("tells the time of the reply, not of one before", function()
      local got, text = cases.run(p, [[
        local http, req = require("moonport.http"), { method = "GET", keep_alive = true, minor = 1 }
        local date = "!%a, %d %b %Y %H:%M:%S GMT"
        for _ = 1, 3 do http.reply(wfile, req, 200, "") end
        local before = os.time()
        repeat moonport.sleep(0.01) until os.time() > before
        local from = os.time()
        http.reply(wfile, req, 200, "")
        return os.date(date, from), os.date(date, os.time())]])
      local date = text:match(".*Date: ([^\r]*)")
      assert.is_true(date == got[1] or date == got[2], date)
    end)

    it("raises what a reply's connection raises", function()
      cases.run(p, [[
        local http, req = require("moonport.http"), { method = "GET", keep_alive = true, minor = 1 }
        http.reply(wfile, req, 200, "")
        local errors = { (select(2, pcall(http.reply, nil, req, 200, ""))) }
        errors[2] = select(2, pcall(http.reply, wfile, req, 200))
        wfile:close()
        errors[3] = select(2, pcall(http.reply, wfile, req, 200, ""))
        kept.errors = errors]])
      local got = cases.run(p, "return table.unpack(kept.errors)")
      assert.matches("wfile", got[1])
      assert.matches("body", got[2])
      assert.matches("closed wfile", got[3])
    end)
  end)
end)
