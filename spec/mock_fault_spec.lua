local host = require("support.host")
local mocks = require("support.mocks")

local RESET = 104 -- ECONNRESET

local m

-- What a client gets in answer to these bytes, and by which errno it ended.
local function ask(bytes, name)
  local c <close> = m:connect(name or "s")
  c:send(bytes)
  local text, _, errno = c:all()
  return text, errno
end

describe("a fault", function()
  setup(function()
    m = mocks.start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^reset$", mock.reset)
      s:on("^reset after ", function(c) c:send("some") c:reset() end)
      s:on("^close$", mock.close)
      s:on("^close after", function(c) c:send("some") return mock.close end)
      s:on("^shutdown$", mock.shutdown)
      s:on("^silence$", mock.silence)
      s:on("^stall$", mock.stall)
      s:on("^huge$", function() return ("x"):rep(50000000) end)
      s:on("^send and stall$", function(c) c:send("some") c:stall() end)
      s:on("^echo (.*)$", function(c, what) return what end)
      s:on("^delay$", mock.delay(0.02, mock.delay(0.02, "late")))
      s:on("^drip$", mock.drip("abcdefg", { size = 3, delay = 0.02 }))
      s:on("^drip cut$", mock.truncate(mock.drip(function() return "abcdefg" end, { size = 2, delay = 0 }), 5))
      s:on("^cut drip$", mock.drip(mock.truncate("abcdefg", 5, mock.reset), { size = 2, delay = 0 }))
      s:on("^cut$", mock.truncate("$10\r\nabcdefghij\r\n", 8, mock.reset))
      s:on("^cut pieces$", mock.truncate(function(c) c:send("12345") c:send("67890") end, 7))
      s:on("^cut nothing$", mock.truncate("abc", 0, mock.reset))
      s:on("^bad at$", { mock.corrupt("AAAAA", { at = { 3, 5 } }) })
      s:on("^bad seed$", mock.corrupt(("A"):rep(32), { seed = 42, bytes = 3 }))
      s:on("^bad any$", mock.corrupt(("A"):rep(32)))
      s:on("^all bad$", mock.corrupt(function(c) c:serve() end, { at = { 1, 6 } }))
      s:on("^bye$", mock.close)
      local own = mock.server { "tcp://127.0.0.1:0", name = "own" }
      own:on("^failing$", mock.corrupt(function() error "no" end, { at = { 1 } }))
      own:on("^plain$", "plain\n")
      own:on("^bye$", mock.close)
      own:session(function(c)
        for frame in c:frames() do
          if not pcall(c.answer, c, frame) then c:send "tried\n" end
        end
      end)]]
  end)
  teardown(function()
    m:stop()
    host.cleanup()
  end)
  before_each(function() m:ask("journal.clear()") end)

  -- mocks.md 4
  it("reset is a RST", function()
    assert.are.same({ "", RESET }, { ask("reset\n") })
    m:await("s", "closed [reset]")
  end)

  it("reset is one also when the peer has sent more than was read, or has not read all that was sent", function()
    assert.are.same({ "", RESET }, { ask("reset\n" .. ("x"):rep(100000)) })
    assert.are.same({ "some", RESET }, { ask("reset after data\n") })
  end)

  it("close is a FIN, never a RST", function()
    assert.are.same({ "" }, { ask("close\n") })
    assert.are.same({ "some" }, { ask("close after\nunread\nunread\n") })
    m:await("s", "closed [closed]")
  end)

  it("shutdown closes one half: what comes then is read", function()
    local c <close> = m:connect("s")
    c:send("shutdown\n")
    assert.are.equal("", c:some())
    c:send("more\n")
    m:await("s", "received more")
    assert.is_nil(m:journal("s", "closed")[1])
  end)

  it("silence answers nothing from there on, reads all, and leaves the connection open", function()
    local c <close> = m:connect("s")
    c:send("silence\necho x\necho y\n")
    m:await("s", "received echo y")
    assert.are.same({ nil, "timeout", 0 }, { c:some(0.05) })
  end)

  it("stall takes nothing more: the peer's window closes", function()
    local c <close> = m:connect("s", { send = 4096 })
    c:send("stall\n")
    m:await("s", "note stalled")
    local sent = 0
    while host.sys.poll(c.fd, "w", 0.3) do
      sent = sent + assert(host.sys.send(c.fd, ("x"):rep(65536)))
      assert(sent < 16 << 20, "it goes on taking")
    end
    c:reset()
    m:await("s", "closed [rst]")
  end)

  it("of the peer's, in the middle of a reply, is in the journal", function()
    local c <close> = m:connect("s", { receive = 4096 })
    c:send("huge\n")
    c:receive(100)
    c:reset()
    m:await("s", "closed [rst]")
    assert.are.same({ "note a reply of 50000000 bytes was cut off" }, m:journal("s", "note"))
    assert.are.same({}, m:journal("s", "sent"))
  end)

  it("stall ends with the peer's own end, which the journal tells", function()
    for _, bytes in ipairs { "stall\n", "stall\nunread" } do
      m:ask("journal.clear()")
      local c <close> = m:connect("s")
      c:send(bytes)
      m:await("s", "note stalled")
      assert.is_nil(m:journal("s", "closed")[1])
      c:finish()
      m:await("s", "closed [fin]")
    end
    local c <close> = m:connect("s")
    c:send("stall\n")
    c:finish() -- maybe before it stalls
    host.eventually("the end", function() return #m:journal("s", "closed") == 2 end)
  end)

  it("stall ends when a toxic resets the connection meanwhile", function()
    m:ask("mock.control('toxic_add', { server = 's', toxic = { name = 'cut', type = 'reset_peer', timeout = 50 } })")
    local text, errno = ask("send and stall\n")
    m:ask("mock.control('toxic_delete', { server = 's', name = 'cut' })")
    assert.are.same({ "", RESET }, { text, errno })
    m:await("s", "closed [reset]")
  end)

  it("stall takes nothing more from behind toxics either", function()
    m:ask("mock.control('toxic_add', { server = 's', toxic = { name = 'up', type = 'noop', stream = 'upstream' } })")
    local c <close> = m:connect("s", { send = 4096 })
    c:send("stall\n")
    m:await("s", "note stalled")
    local sent = 0
    while host.sys.poll(c.fd, "w", 0.3) do
      sent = sent + assert(host.sys.send(c.fd, ("x"):rep(65536)))
      assert(sent < 16 << 20, "it goes on taking")
    end
    c:reset()
    m:await("s", "closed [rst]")
    local d <close> = m:connect("s")
    d:send("stall\n")
    m:await("s", "note stalled")
    d:finish()
    m:await("s", "closed [fin]")
    m:ask("mock.control('toxic_delete', { server = 's', name = 'up' })")
  end)

  it("delay and drip take their time, in order", function()
    local t = host.sys.now()
    assert.are.equal("lateabcdefgx", (ask("delay\ndrip\necho x\nbye\n")))
    assert.is_true(host.sys.now() - t >= 0.08)
    assert.are.same({ "sent late", "sent abc", "sent def", "sent g", "sent x" }, m:journal("s", "sent"))
  end)

  it("holds for all that its function serves, also for frames that came often before", function()
    assert.are.equal("abcdabcdabcdabcd", (ask(("echo abcd\n"):rep(4) .. "bye\n")))
    assert.are.equal("`bcdaccd", (ask("all bad\necho abcd\necho abcd\nbye\n")))
  end)

  it("ends with the reply that has failed, though the session goes on", function()
    assert.are.equal("tried\nplain\n", (ask("failing\nplain\nbye\n", "own")))
  end)

  it("truncate says in the journal which piece it has cut", function()
    assert.are.equal("1234567", (ask("cut pieces\n")))
    assert.are.same({ "sent 12345", "sent 67 [cut from 5 bytes]" }, m:journal("s", "sent"))
  end)

  it("truncate ends in the middle of a reply, by a RST or a FIN", function()
    assert.are.same({ "$10\r\nabc", RESET }, { ask("cut\n") })
    assert.are.same({ "", RESET }, { ask("cut nothing\n") })
    assert.are.same({ "abcde" }, { ask("drip cut\n") })
    assert.are.same({ "abcde", RESET }, { ask("cut drip\n") })
  end)

  it("corrupt turns bits over, the same ones for the same seed, which the journal tells", function()
    assert.are.equal("AA@A@", (ask("bad at\nbye\n")))
    local bad = ask("bad seed\nbye\n")
    local wrong = 0
    for i = 1, #bad do
      local x = bad:byte(i) ~ 65
      assert.are.equal(0, x & (x - 1))
      wrong = wrong + (x ~= 0 and 1 or 0)
    end
    assert.are.equal(3, wrong)
    assert.are.equal(bad, (ask("bad seed\nbye\n")))
    assert.are.equal("sent " .. bad .. " [corrupt seed 42]", m:journal("s", "sent")[3])
    local any = ask("bad any\nbye\n")
    local seed = m:journal("s", "sent")[4]:match("%[corrupt seed (%d+)%]")
    m:ask(("mock.control('stub_add', { server = 's', stub = { id = 'again', match = '^again$', "
      .. "reply = { corrupt = { seed = %s }, reply = ('A'):rep(32) } } })"):format(seed))
    assert.are.equal(any, (ask("again\nbye\n")))
  end)
end)

describe("a reset of a Unix socket", function()
  it("is one if something of the peer's was not read; else the peer sees the end", function()
    local mocked = mocks.start(([[
      local s = mock.server { "unix://@mock-fault-spec-%s", name = "s" }
      s:session(function(c)
        if c.nth == 1 then c:recv() end
        while not s.state.go do c:sleep(0.005) end
        c:reset()
      end)]]):format(host.sys.now()))
    local c <close> = mocked:connect("s")
    c:send("read\n")
    mocked:await("s", "received read")
    local d <close> = mocked:connect("s")
    d:send("unread\n")
    mocked:ask("mock.control('state_put', { server = 's', state = { go = true } })")
    local text, _, errno = c:all()
    assert.are.same({ "" }, { text, errno })
    text, _, errno = d:all()
    assert.are.same({ "", RESET }, { text, errno })
    host.eventually("both", function() return #mocked:journal("s", "closed") == 2 end)
    assert.are.same({ "closed [reset]", "closed [reset]" }, mocked:journal("s", "closed"))
    mocked:stop()
    host.cleanup()
  end)
end)

describe("a mistake in a mock's script", function()
  after_each(host.cleanup)

  for name, case in pairs {
    ["a URL"] = { 'mock.server { "127.0.0.1:6379" }',
      'mock.server: it needs a URL such as "tcp://127.0.0.1:0" (or udp://, unix://, unixgram://), '
      .. 'not "127.0.0.1:6379"' },
    ["a field"] = { 'mock.server { "tcp://127.0.0.1:0", nmae = "x" }',
      "mock.server: it has no field nmae; there are the URL, name, frame and tls" },
    ["a framing"] = { 'mock.server { "tcp://127.0.0.1:0", frame = ">s0" }',
      'mock.server: bad pack format ">s0": the size after \'s\' must be 1 to 16, not 0' },
    ["a framing's argument"] = { "mock.fixed(0)", "mock.fixed: the size must be a number of bytes, 1 or more, not 0" },
    ["two servers without names"] = { 'mock.server { "tcp://127.0.0.1:0" } mock.server { "tcp://127.0.0.1:0" }',
      'mock.server: a script with several servers has to give each a name: name = "redis"' },
    ["a name twice"] = { 'for _ = 1, 2 do mock.server { "tcp://127.0.0.1:0", name = "a" } end',
      'mock.server: there is a server named "a" already' },
    ["a pattern"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("^GET (", "x")',
      'mock mock:on: the pattern "^GET (" is malformed: a \'(\' has no \')\'' },
    ["a pattern that only a match would find wrong"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("^P%1", "x")',
      'mock mock:on: the pattern "^P%1" is malformed: \'%1\' has no capture that ends before it' },
    ["a reference to the capture that it is in"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("((P)%1)", "x")',
      'mock mock:on: the pattern "((P)%1)" is malformed: \'%1\' has no capture that ends before it' },
    ["captures"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("P" .. ("()"):rep(33), "x")',
      'mock mock:on: the pattern "P' .. ("()"):rep(33) .. '" is malformed: it has more than 32 captures' },
    ["a matcher"] = { 'mock.server { "tcp://127.0.0.1:0" }:on({ equal = "x" }, "x")',
      'mock mock:on: a matcher needs one of pattern, equals, starts_with, ends_with, contains, hex, not, all or any, '
      .. 'not "equal"' },
    ["hex"] = { 'mock.server { "tcp://127.0.0.1:0" }:on(mock.hex "8", "x")',
      'mock.bad hex "8": column 1: a byte has two hex digits' },
    ["no reply"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("x")', "mock mock:on: what is the reply?" },
    ["a reply"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("x", 1)',
      "mock mock:on: a reply is a string, a list of replies, a function or a fault such as mock.reset, not a number" },
    ["a reset of datagrams"] = { 'mock.server { "udp://127.0.0.1:0" }:on("x", { "a", mock.reset })',
      "mock mock:on: mock.reset needs a connection, and datagrams have none" },
    ["TLS without a certificate"] =
      { 'mock.server { "tcp://127.0.0.1:0" }:on("x", { "a", mock.delay(1, mock.starttls "b") })',
        'mock mock:on: mock.starttls needs a certificate: mock.server { ..., tls = "starttls" }' },
    ["TLS in TLS"] = { 'mock.server { "tcp://127.0.0.1:0", tls = true }:otherwise(mock.starttls "b")',
      'mock mock:otherwise: mock.starttls needs connections that begin without TLS: '
      .. 'mock.server { ..., tls = "starttls" }' },
    ["TLS of datagrams"] = { 'mock.server { "udp://127.0.0.1:0" }:on("x", mock.starttls "b")',
      "mock mock:on: mock.starttls needs a connection, and datagrams have none" },
    ["an option"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("x", "y", { time = 1 })',
      "mock mock:on: there is no option time; there are id, required, times and at" },
    ["an id that no path can name"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("x", "y", { id = "a/b" })',
      "mock mock:on: an id must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . and .." },
    ["a toxic's name"] = { 'mock.server { "tcp://127.0.0.1:0" }:toxic { name = "a\\n", type = "noop" }',
      'mock mock:toxic: toxic "a\\n": name must be 1 to 256 bytes of UTF-8 without /, \\, control characters, . '
      .. "and .." },
    ["an id twice"] = { 'mock.server { "tcp://127.0.0.1:0" }:on("x", "y", { id = "a" }):on("x", "y", { id = "a" })',
      'mock mock:on: there is a stub "a" already' },
    ["a truncation"] = { 'mock.truncate("abc", 3)',
      "mock.truncate: the reply has only 3 bytes, so none would be missing after 3" },
    ["a delay"] = { 'mock.delay("x", "abc")', "mock.delay needs a number of seconds, 0 or more" },
    ["an option of a drip"] = { 'mock.drip("abc", { sise = 1 })',
      "mock.drip: there is no option sise; there are size and delay" },
    ["a drip's options"] = { 'mock.drip("abc", 2)', "mock.drip: the options are a table such as { size = 2 }" },
    ["an option of a corruption"] = { 'mock.corrupt("abc", { places = { 1 } })',
      "mock.corrupt: there is no option places; there are at, seed and bytes" },
    ["a toxic"] = { 'mock.server { "tcp://127.0.0.1:0" }:toxic { type = "latncy" }',
      'mock mock:toxic: toxic latncy_downstream: there is no type "latncy"; did you mean latency?' },
  } do
    it("is one sentence with its place: " .. name, function()
      local path = host.write('local mock = require("moonport.mock")\n\n' .. case[1] .. "\n")
      local code, _, err = host.run { "mock", path }
      assert.are_not.equal(0, code)
      assert.truthy(err:find(path .. ":3: " .. case[2] .. "\n", 1, true), err)
    end)
  end
end)
