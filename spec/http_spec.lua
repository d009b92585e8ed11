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
  end)
end)
