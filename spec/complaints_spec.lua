local apis = require("support.api")
local host = require("support.host")
local mocks = require("support.mocks")
local tls = require("support.tls")
local sys = host.sys

-- What users of mock servers have complained of, by number: mountebank (mb), WireMock (wm), MockServer (ms), Toxiproxy
-- (tp) and others. Each spec fails on the behaviour complained of. Those said to be observed are what mountebank
-- really did when it was tried.

local m

local function start(text, options)
  m = mocks.start(text, options)
  return m
end

-- All that comes until the end, after these bytes and our own end.
local function talk(name, ...)
  local c <close> = m:connect(name)
  for _, bytes in ipairs { ... } do assert(c:send(bytes)) end
  c:finish()
  return c:all()
end

-- How a connection went: what came, and the errno that ended it, 104 being a reset; also while it was made.
local function attempt(name, bytes, finish)
  local ok, c = pcall(m.connect, m, name)
  if not ok then return "", tonumber(tostring(c):match("errno (%d+)")) or c end
  local _ <close> = c
  c:send(bytes)
  if finish then c:finish() end
  local text, _, errno = c:all()
  return text, errno
end

local LINES = [[
  local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line "\r\n" }
  s:on("(.*)", function(c, frame) return "<" .. frame .. ">" end)]]

describe("complaint 1, no greeting (mb#317, mb#366):", function()
  after_each(host.cleanup)

  it("the server speaks first, pushes, and changes the framing in mid-conversation", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "smtp", frame = mock.line "\r\n" }
      s:session(function(c)
        c:send "220 mock ESMTP\r\n"
        c:expect "^EHLO "
        c:send "250 mock\r\n"
        local from, to = c:expect "^MAIL FROM:<(.-)> (.*)$"
        assert(to == "SIZE=3")
        c:send "354 go\r\n"
        s.state.mail = c:recv(mock.upto "\r\n.\r\n")
        local a, b
        _, a, b = c:recv(">s1B")
        c:send("250 from ", from, " ", a, b, " ", c.nth, "\r\n")
        for i = 1, 3 do c:sleep(0.01) c:send("* ", i, "\r\n") end
        return c:serve()
      end)
      s:on("^NOOP$", "250 ok\r\n")]]
    for nth = 1, 2 do
      local c <close> = m:connect("smtp")
      assert.are.equal("220 mock ESMTP\r", c:line())
      c:send("EHLO me\r\n")
      assert.are.equal("250 mock\r", c:line())
      c:send("MAIL FROM:<a@b> SIZE=3\r\nSubject: x\r\n\r\nbody\r\n.\r\n\2yo\7NOOP\r\n")
      c:finish()
      assert.are.equal(("354 go\r\n250 from a@b yo7 %d\r\n* 1\r\n* 2\r\n* 3\r\n250 ok\r\n"):format(nth), c:all())
    end
    assert.are.equal("Subject: x\r\n\r\nbody", m:ask("return mock.control('state_get', {server='smtp'}).mail"))
    m:stop()
  end)
end)

describe("complaint 2, where a request ends (mb#48, mb#320, mb#393):", function()
  after_each(host.cleanup)

  it("two requests that come as one are two (observed)", function()
    start(LINES)
    assert.are.equal("<PING><PING>", talk("s", "PING\r\nPING\r\n"))
    assert.are.same({ "received PING", "received PING" }, m:journal("s", "received"))
    m:stop()
  end)

  it("one that comes in two pieces behind others is one (observed)", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = mock.line "\n" }
      s:on("(.*)", function(c, frame) return "<" .. frame .. ">" end)]]
    local c <close> = m:connect("s")
    c:send("one\ntwo\nthr")
    assert.are.equal("<one><two>", c:receive(10)) -- that was read before the rest comes
    c:send("ee\n")
    c:finish()
    assert.are.equal("<three>", c:all())
    assert.are.same({ "received one", "received two", "received three" }, m:journal("s", "received", "partial"))
    m:stop()
  end)

  it("frames are the same wherever the bytes were cut", function()
    start(LINES)
    local text, whole = "PING\r\none\r\ntwo\r\nthree\r\n", "<PING><one><two><three>"
    for cut = 1, #text - 1 do
      local c <close> = m:connect("s")
      c:send(text:sub(1, cut))
      local seen = {}
      for word in text:sub(1, cut):gmatch("(%w+)\r\n") do -- it has been read before the rest comes
        seen[#seen + 1] = assert(c:receive(#word + 2))
      end
      c:send(text:sub(cut + 1))
      c:finish()
      assert.are.equal(whole, table.concat(seen) .. c:all())
    end
    m:ask("journal.clear()")
    talk("s", "a\r\nb\r\nhal")
    assert.are.same({ "received a", "received b", "partial hal", "closed [fin]" },
      m:journal("s", "received", "partial", "closed"))
    m:stop()
  end)
end)

describe("complaint 3, closing after a reply, or not (mb#742, mb#529, mb#23):", function()
  after_each(host.cleanup)

  it("the connection is kept, closed, or never answered, as the author says", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^quiet$", mock.none)
      s:on("^bye$", function(c) c:send("bye\n") c:close() end)
      s:on("^hi$", "hi\n")
      s:on("^hush$", mock.silence)]]
    local c <close> = m:connect("s")
    c:send("nothing\nquiet\nhi\n")
    assert.are.equal("hi", c:line())
    c:send("bye\nhi\n")
    assert.are.equal("bye\n", c:all())
    m:await("s", "closed [closed]")
    local lines = m:journal("s")
    lines[1] = lines[1]:match("^%a+")
    assert.are.same({ "open", "received nothing", "unmatched nothing", "received quiet", "received hi", "sent hi\n",
      "received bye", "sent bye\n", "closed [closed]" }, lines)
    local d <close> = m:connect("s")
    d:send("hush\nhi\n")
    m:await("s", "received hush")
    assert.is_nil((d:some(0.05))) -- open, and not answered
    d:finish()
    assert.are.equal("", d:all())
    m:stop()
  end)
end)

describe("complaint 4, a reset that is none (mb#613, wm#812, wm#2033, tp#238):", function()
  after_each(host.cleanup)

  it("the client gets ECONNRESET, and no clean end (observed)", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^now$", mock.reset)
      s:on("^later$", mock.truncate("0123456789", 4, mock.reset))
      s:on("^method$", function(c) c:reset() end)
      s:on("^fin$", mock.close)
      s:on("^half$", mock.shutdown)]]
    assert.are.same({ "", 104 }, { attempt("s", "now\n") })
    assert.are.same({ "", 104 }, { attempt("s", "method\n") })
    local text, errno = attempt("s", "later\n") -- the reset may overtake bytes that the client has not read
    assert.are.equal(104, errno)
    assert.are.equal(text, ("0123"):sub(1, #text))
    assert.are.same({ "" }, { attempt("s", "fin\n") })
    assert.are.same({ "" }, { attempt("s", "half\n") })
    host.eventually("all ends", function() return #m:journal("s", "closed") == 5 end)
    assert.are.same({ "closed [reset]", "closed [reset]", "closed [reset]", "closed [closed]", "closed [fin]" },
      m:journal("s", "closed"))
    m:stop()
  end)
end)

describe("complaint 5, bytes taken for text (mb#415, mb#78):", function()
  after_each(host.cleanup)

  it("what matches are bytes: no decoding, no case folding (observed)", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = ">s2" }
      for i, bytes in ipairs { "\x80", "\xff\xfe\x01", "A", "\0" } do
        s:on({ equals = bytes }, string.pack(">s2", tostring(i)))
      end
      s:on(mock.hex "08 00 .. ff *", string.pack(">s2", "hex"))
      s:otherwise(string.pack(">s2", "-"))]]
    local asked, answers = {}, {}
    for bytes, answer in pairs { ["\x80"] = "1", ["\x81"] = "-", ["\xff\xfe\x01"] = "2", ["\x80\x81\x01"] = "-",
      A = "3", a = "-", ["\0"] = "4", [""] = "-", ["\8\0\n\xff"] = "hex", ["\8\0x\xfe"] = "-",
      ["\8\0x\xffyz"] = "hex" } do
      asked[#asked + 1], answers[#answers + 1] = string.pack(">s2", bytes), string.pack(">s2", answer)
    end
    assert.are.equal(table.concat(answers), talk("s", table.concat(asked)))
    m:stop()
  end)

  it("nor does the control API mangle them", function()
    start [[mock.server { "tcp://127.0.0.1:0", name = "s", frame = ">s2" }:otherwise(string.pack(">s2", "-"))]]
    local api <close> = apis.connect(m.program)
    api:must("POST", "/servers/s/stubs", { match = { equals = { hex = "fffe01" } }, reply = { base64 = "AAKAgQ==" } })
    assert.are.equal("\0\2\x80\x81\0\1-", talk("s", string.pack(">s2s2", "\xff\xfe\1", "\x80\x81\1")))
    assert.are.equal("fffe01", api:must("GET", "/journal?server=s&kind=received").records[1].data.hex)
    assert.are.equal(406, (api:ask("POST", "/verify", { match = { equals = { hex = "fffe00" } } })))
    api:must("POST", "/verify", { match = { equals = { hex = "fffe01" } }, times = 1 })
    m:stop()
  end)
end)

describe("complaint 6, one delay for a whole reply, and replies out of order (mb#235):", function()
  after_each(host.cleanup)

  it("a slow reply comes before the fast one behind it (observed)", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("slow", mock.delay(0.15, "a"))
      s:on("fast", "b")
      s:on("bye", mock.close)]]
    assert.are.equal("abba", talk("s", "slow\nfast\nfast\nslow\nbye\n"))
    m:stop()
  end)

  it("a reply drips, piece by piece, in time", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("drip", mock.drip("0123456789", { size = 4, delay = 0.05 }))
      s:on("fast", "!")]]
    local began = sys.now()
    local c <close> = m:connect("s")
    c:send("drip\nfast\n")
    assert.are.equal("0123", c:some())
    assert.are.equal("456789!", c:receive(7))
    assert.is_true(sys.now() - began >= 0.1)
    assert.are.same({ "sent 0123", "sent 4567", "sent 89", "sent !" }, m:journal("s", "sent"))
    m:stop()
  end)
end)

describe("complaint 7, no UDP, or one answer and no more (mb#60, tp#39, ms#2156, openresty/test-nginx#99):", function()
  after_each(host.cleanup)

  it("each datagram is answered, of each client, several times if the author says so", function()
    start [[
      local s = mock.server { "udp://127.0.0.1:0", name = "dns" }
      s:on("^one (.*)", function(c, x) return "1 " .. x end)
      s:on("^two (.*)", function(c, x) c:send("2 ", x) c:send("and ", x) end)]]
    local c <close> = m:connect("dns")
    local d <close> = m:connect("dns")
    for i = 1, 20 do
      c:send("one " .. i)
      d:send("two " .. i)
      assert.are.equal("1 " .. i, c:some())
      assert.are.equal("2 " .. i, d:some())
      assert.are.equal("and " .. i, d:some())
    end
    assert.are.equal(2, #m:journal("dns", "open"))
    assert.are.equal(60, #m:journal("dns", "sent"))
    m:stop()
  end)
end)

describe("complaint 8, no TLS on raw TCP (mb#149, mb#549, tp#270):", function()
  after_each(host.cleanup)

  it("a protocol that is none of the web's speaks it, greets first, and is reset for real", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s", frame = ">s2", tls = true }
      s:session(function(c)
        c:send "\0\3hi\255"
        c:expect(mock.hex "80 81")
        c:send "\0\1\129"
        c:expect "^reset$"
        c:reset()
      end)]]
    assert.are.equal("b'\\x00\\x03hi\\xff' b'\\x00\\x01\\x81' ConnectionResetError\n",
      tls.python(m.program:url("s"), tls.certificate(m, "s"), [[
c = secure()
greeting = whole(c, 5)
c.sendall(b"\0\2\x80\x81")
answer = whole(c, 3)
c.sendall(b"\0\5reset")
say(greeting, answer, end(raw(c)))]]))
    assert.are.same({ "received \x80\x81", "received reset" }, m:journal("s", "received"))
    m:stop()
  end)
end)

describe("complaint 9, faults by chance only (tp#404, tp#603, wm#1036, wm#1402):", function()
  after_each(host.cleanup)

  it("a mock fails the first times, then works", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^SET", { mock.reset, mock.close, "+OK\n" })
      local t = mock.server { "tcp://127.0.0.1:0", name = "t" }
      t:session(function(c)
        if c.nth <= 2 then c:reset() end
        c:send("hello\n")
      end)]]
    assert.are.same({ "", 104 }, { attempt("s", "SET a\n") })
    assert.are.same({ "" }, { attempt("s", "SET a\n") })
    assert.are.same({ "+OK\n" }, { attempt("s", "SET a\n", true) })
    assert.are.same({ "+OK\n" }, { attempt("s", "SET a\n", true) })
    for i = 1, 3 do
      local text, errno = attempt("t", "")
      assert.are.equal(i == 3 and "hello\n" or 104, text ~= "" and text or errno)
    end
    m:stop()
  end)

  it("so does a toxic; one of toxicity 0 leaves no trace; chances replay by their seed", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("hi", "hello\n")
      s:toxic { type = "reset_peer", first = 2 }
      s:toxic { name = "never", type = "reset_peer", toxicity = 0 }
      local t = mock.server { "tcp://127.0.0.1:0", name = "t" }
      t:on("hi", "hello\n")
      t:toxic { type = "limit_data", bytes = 0, toxicity = 0.5, seed = 42 }]]
    assert.are.same({ "", 104 }, { attempt("s", "hi\n") })
    assert.are.same({ "", 104 }, { attempt("s", "hi\n") })
    for _ = 1, 5 do assert.are.same({ "hello\n" }, { attempt("s", "hi\n", true) }) end
    local runs = {}
    for run = 1, 2 do
      local seen = {}
      for i = 1, 12 do seen[i] = talk("t", "hi\n") == "" and "x" or "." end
      runs[run] = table.concat(seen)
      m:ask("mock.control('reset', {}) journal.clear()")
    end
    assert.are.equal(runs[1], runs[2])
    assert.is_truthy(runs[1]:find("x", 1, true) and runs[1]:find(".", 1, true), runs[1])
    m:stop()
  end)
end)

describe("complaint 10, sleeping until it is so (wm#2418, wm#1295, wm#943, jadler#100):", function()
  after_each(host.cleanup)

  it("verify answers as soon as what it waits for has come", function()
    start(LINES)
    local api <close> = apis.connect(m.program)
    local c <close> = m:connect("s")
    api:send("POST", "/verify", { server = "s", match = "^PING$", times = 2, within = 60000 })
    assert.is_false(api:ready(0.05))
    c:send("PING\r\n")
    assert.are.equal("<PING>", c:receive(6))
    assert.is_false(api:ready(0.05))
    c:send("PING\r\n")
    local status, answer = api:receive() -- would be a minute later, did it wait for the end of `within`
    assert.are.same({ 200, 2 }, { status, answer.count })
    m:stop()
  end)

  it("and at once when it can not become true any more", function()
    start(LINES)
    local api <close> = apis.connect(m.program)
    local c <close> = m:connect("s")
    api:send("POST", "/verify", { match = "^PING$", times = { exactly = 1 }, within = 60000, settle = 30000 })
    c:send("PING\r\nPING\r\n")
    local status, answer = api:receive()
    assert.are.same({ 406, 2 }, { status, answer.count })
    m:stop()
  end)
end)

describe("complaint 11, retries that no count shows (wm#1789):", function()
  after_each(host.cleanup)

  it("the journal has connections, not only requests", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^SET", { mock.reset, "+OK\n" })]]
    for _ = 1, 2 do
      local c <close> = m:connect("s")
      c:send("SET a\n")
      c:some()
    end
    host.eventually("both ends", function() return #m:journal("s", "closed") == 2 end)
    local kinds, conns = {}, {}
    for i, r in ipairs(m:ask("return records('s')")) do
      kinds[i], conns[i] = r.kind, math.tointeger(r.conn)
    end
    assert.are.same({ "open", "received", "closed", "open", "received", "sent", "closed" }, kinds)
    local a, b = conns[1], conns[4]
    assert.are.same({ a, a, a, b, b, b, b }, conns)
    assert.are_not.equal(a, b)
    assert.are.same({ "closed [reset]", "closed [fin]" }, m:journal("s", "closed"))
    local api <close> = apis.connect(m.program)
    api:must("POST", "/verify", { server = "s", kind = "open", match = "", times = 2 })
    api:must("POST", "/verify", { server = "s", conn = b, match = "^SET", times = 1 })
    m:stop()
  end)
end)

describe("complaint 12, no word why nothing matched (mb#920, mokksy#73, ms#74):", function()
  after_each(host.cleanup)

  it("the nearest stubs are told, and where they differ", function()
    start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^DELETE (%S+)$", "x", { id = "delete" })
      s:on("^GET /users/(%d+)$", "x", { id = "users" })
      s:on("^PUT ", "x")
      s:on("^ONCE$", "x", { times = 1, required = true })]]
    local r = m:ask("return mock.control('match', { server = 's', data = 'GET /user/7' })")
    assert.are.equal("users", r.near_misses[1].id)
    assert.truthy(r.near_misses[1].text:find('the first 9 bytes agree, then "s/(%d+)$" was expected', 1, true),
      r.near_misses[1].text)
    assert.are.equal("delete", m:ask("return mock.control('match', { server = 's', data = 'DELETE x' })").stub.id)
    talk("s", "ONCE ")
    talk("s", "GET /\n", "ONCF\n")
    local code, log = m:finish()
    assert.are.equal(1, code)
    assert.truthy(log:find('the required stub "2" (pattern "^ONCE$"', 1, true), log)
    assert.truthy(log:find('never used; the nearest frame:\n  expected  pattern "^ONCE$"\n'
      .. '  received  "ONCF"', 1, true), log)
  end)

  it("a verify that fails tells the nearest frames, the order that it has reached included", function()
    start(LINES)
    talk("s", "GET /user/7\r\nGET /usErs/7\r\nPUT /\r\n")
    local api <close> = apis.connect(m.program)
    local status, answer = api:ask("POST", "/verify", { match = { equals = "GET /users/7" } })
    assert.are.equal(406, status)
    assert.are.equal("GET /usErs/7", answer.near[1].data.text)
    assert.is_true(#answer.near[1].why > 0)
    status, answer = api:ask("POST", "/verify", { order = { "^GET", "^PUT", "^DELETE" } })
    assert.are.same({ 406, 2 }, { status, answer.reached })
    m:stop()
  end)
end)

describe("complaint 13, tests that disturb each other (ms#1022, mmock#124, tp#394, mb#612, scylladb#29656):", function()
  after_each(host.cleanup)

  it("two copies of a script have ports, state and journals of their own", function()
    local path = host.write(mocks.script(LINES))
    local programs, apis_of = {}, {}
    for i = 1, 2 do
      programs[i] = host.start(path, { command = "mock", listen = "", args = { "--log-level=info" } })
      apis_of[i] = apis.connect(programs[i])
    end
    assert.are_not.equal(programs[1]:url("s"), programs[2]:url("s"))
    local c <close> = host.connect(programs[1]:url("s"))
    c:send("PING\r\n")
    assert.are.equal("<PING>", c:receive(6))
    apis_of[1]:must("POST", "/verify", { match = "^PING$", times = 1 })
    apis_of[2]:must("POST", "/verify", { match = "", times = 0 })
    for i = 1, 2 do
      apis_of[i]:close()
      programs[i]:stop()
    end
  end)

  it("mocks made at the same time have names and ports of their own", function()
    start(LINES)
    local clients, seen = {}, {}
    for i = 1, 8 do
      clients[i] = apis.connect(m.program)
      clients[i]:send("POST", "/servers", {})
    end
    for _, api in ipairs(clients) do
      local status, answer = api:receive()
      assert.are.equal(201, status)
      assert.is_nil(seen[answer.name] or seen[answer.url])
      seen[answer.name], seen[answer.url] = true, true
      api:close()
    end
    m:stop()
  end)

  it("a reset between tests brings back what each mock was made with", function()
    start(LINES)
    local api <close> = apis.connect(m.program)
    local where = api:must("POST", "/servers", { name = "made", state = { a = 1 }, otherwise = "x\n" }).url
    api:must("PUT", "/servers/made/state", { b = 2 })
    api:must("PUT", "/servers/s/state", { c = 3 })
    api:must("POST", "/servers/made/stubs", { match = "", reply = "y\n" })
    local function ask()
      local c <close> = host.connect(where)
      return c:ask("?")
    end
    assert.are.equal("y", ask())
    api:must("POST", "/reset")
    assert.are.same({ { a = 1 }, {} }, { api:must("GET", "/servers/made/state"), api:must("GET", "/servers/s/state") })
    assert.are.equal("x", ask())
    m:stop()
  end)

  it("a stub's id stays when others come and go", function()
    start(LINES)
    local api <close> = apis.connect(m.program)
    local ids = {}
    for i = 1, 3 do
      ids[i] = api:must("POST", "/servers/s/stubs", { match = "^" .. i .. "$", reply = "stub " .. i }).id
    end
    api:must("POST", "/servers/s/stubs", { match = "^0$", reply = "stub 0", at = 1, id = "first" })
    api:must("DELETE", "/servers/s/stubs/" .. ids[1])
    api:must("PUT", "/servers/s/stubs/" .. ids[3], { match = "^3$", reply = "changed" })
    assert.are.same({ { pattern = "^2$" }, 404 }, { { pattern = api:must("GET", "/servers/s/stubs/" .. ids[2]).match },
      (api:ask("GET", "/servers/s/stubs/" .. ids[1])) })
    assert.are.equal("stub 0stub 2changed<1>", talk("s", "0\r\n2\r\n3\r\n1\r\n"))
    m:stop()
  end)
end)

describe("complaint 14, is it ready, and is it gone (ms#2580, mb#466, impeccable#717, pi-lens#2436):", function()
  after_each(host.cleanup)

  it("behind the ready line each listener accepts and answers, at the first attempt", function()
    local script = {}
    for i = 1, 20 do
      script[i] = ('mock.server { "tcp://127.0.0.1:0", name = "s%d" }:otherwise("%d\\n")'):format(i, i)
    end
    start(table.concat(script, "\n"))
    for i = 1, 20 do assert.are.equal(i .. "\n", talk("s" .. i, "x\n")) end
    m:stop()
  end)

  it("a port that is taken ends it, with the address and no ready line", function()
    start(LINES)
    local url = m.program:url("s")
    local code, out, err = host.run { "mock",
      host.write(('require("moonport.mock").server { %q, name = "s" }'):format(url)) }
    assert.are.same({ 111, "" }, { code, out })
    assert.is_truthy(err:find(url, 1, true), err)
    m:stop()
  end)

  it("it ends when the program that started it has", function()
    local code, out, err = host.run({ "mock", "--exit-with-parent", host.write(mocks.script(LINES)) }, "")
    assert.are.same({ 0, "" }, { code, err })
    assert.matches('^{"event":"ready",[^\n]+}\n$', out)
  end)

  it("it ends at once, also where clients keep their connections to it and to the control API", function()
    start(LINES)
    local api <close> = apis.connect(m.program)
    local c <close> = m:connect("s")
    c:send("PING\r\n")
    assert.are.equal("<PING>", c:receive(6))
    api:must("GET", "/health")
    c:close()
    m:await("s", "closed [fin]")
    local began = sys.now()
    m:stop()
    assert.is_true(sys.now() - began < 1.9) -- a connection lingers for 2 s, if it may
  end)
end)

describe("complaint 15, reload, and memory (mb#296, mb#192, ms#656, mb#597):", function()
  after_each(host.cleanup)

  it("a reload keeps port, journal and conversations; a broken script changes nothing, and is named", function()
    start(LINES, { args = { "--allow-script-upload" } })
    local api <close> = apis.connect(m.program)
    local old <close> = m:connect("s")
    old:send("a\r\n")
    assert.are.equal("<a>", old:receive(3))
    local function script(text) return { script = mocks.script(text) } end
    local status, answer = api:ask("PUT", "/servers/s/script", script("local x =\n= 1"))
    assert.are.equal(422, status)
    assert.matches("script%.lua:2: ", answer.error)
    assert.are.equal("<b>", talk("s", "b\r\n"))
    api:must("PUT", "/servers/s/script", script((LINES:gsub("<", "["):gsub(">", "]"))))
    assert.are.equal("[c]", talk("s", "c\r\n"))
    old:send("d\r\n")
    old:finish()
    assert.are.equal("<d>", old:all())
    api:must("POST", "/verify", { server = "s", order = { "^a$", "^b$", "^c$", "^d$" } })
    local reloads = api:must("GET", "/journal?kind=reload&server=s").records
    assert.are.equal(2, #reloads)
    m:stop()
  end)

  it("the journal stays within its bound, and says what it has dropped", function()
    start(LINES, { args = { "--journal=128K" } })
    local api <close> = apis.connect(m.program)
    local c <close> = m:connect("s")
    for _ = 1, 40 do
      c:send((("x"):rep(98) .. "\r\n"):rep(100))
      assert(c:receive(100 * 100))
    end
    local info = m:ask("return journal.info()")
    assert.is_true(info.bytes <= info.limit and info.limit <= 128 * 1024, info.bytes)
    local answer = api:must("GET", "/journal?server=s&limit=1")
    assert.is_true(answer.dropped > 4000)
    assert.is_true(answer.records[1].seq > 4000)
    assert.are.equal(4000, info.servers.s.received) -- the counters have them all
    m:stop()
  end)

  it("a hundred stubs cost little more than one", function()
    start [[
      for _, n in ipairs { 1, 100 } do
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" .. n }
        for i = 2, n do s:on("^" .. string.char(97 + i % 26) .. i .. " (%d+)$", "no\n") end
        s:on("^ping$", "pong\n")
      end]]
    local took = {}
    for _, name in ipairs { "s1", "s100", "s1", "s100", "s1", "s100" } do
      local c <close> = m:connect(name)
      local began = sys.now()
      for _ = 1, 20 do
        c:send(("ping\n"):rep(500))
        assert(c:receive(5 * 500))
      end
      took[name] = math.min(took[name] or math.huge, sys.now() - began)
    end
    assert.is_true(took.s100 < 2.5 * took.s1, ("%.4f s, %.4f s"):format(took.s100, took.s1)) -- mountebank: for ten
    m:stop()
  end)
end)
