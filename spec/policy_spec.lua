--- One handler file, unchanged, says the same under all policies.

local host = require("support.host")
local sys = host.sys

local HANDLER = "spec/fixtures/conversation.lua"

local POLICIES = {
  { name = "sync", "--mixin=sync" },
  { name = "async", "--mixin=async" },
  { name = "threading", "--mixin=threading" },
  { name = "threading, max_threads=3", "--mixin=threading", "--option=max_threads=3" },
  { name = "forking", "--mixin=forking" },
  { name = "forking, max_requests_per_child=50", "--mixin=forking", "--option=max_requests_per_child=50",
    "--option=max_children=4" },
}

-- A generator of pseudo-random numbers of its own: the same conversations on every machine.
local function dice(seed)
  local state = seed
  return function(low, high)
    state = state * 6364136223846793005 + 1442695040888963407
    return low + ((state >> 33) % (high - low + 1))
  end
end

local function letters(roll, n)
  local out = {}
  for i = 1, n do out[i] = string.char(roll(65, 90) + roll(0, 1) * 32) end
  return table.concat(out)
end

-- ---- streams ----

-- Each gives what the client says and what it is to hear.
local commands = {}

function commands.lines(roll)
  local said, heard, n = {}, {}, roll(0, 8)
  for i = 1, n do
    local line = letters(roll, roll(0, 60)) .. "\n"
    said[i], heard[i] = line, i .. " " .. line:upper()
  end
  return "lines " .. n .. "\n" .. table.concat(said), table.concat(heard)
end

function commands.exactly(roll)
  local text = letters(roll, roll(1, 9) == 9 and roll(0, 6000) or roll(0, 40))
  return "exactly " .. #text .. "\n" .. text, (">I4"):pack(#text) .. text:reverse()
end

function commands.unpack(roll)
  local a, b, c, d = roll(0, 65535), letters(roll, roll(0, 300)), letters(roll, roll(0, 20)), roll(-1000, 1000) / 8
  return "unpack >I2s4zd\n" .. (">I2s4zd"):pack(a, b, c, d), ("%d|%s|%s|%s|"):format(a, b, c, d)
end

function commands.numbers(roll)
  local kinds = {
    function() local n = roll(-99999, 99999) return tostring(n), "integer:" .. n end,
    function() local n = roll(0, 65535) return ("0x%X"):format(n), "integer:" .. n end,
    function() local n = roll(-4000, 4000) / 16 return ("%.4f"):format(n), "float:" .. n end,
    function() local n = roll(1, 9) return n .. "e2", "float:" .. n * 100.0 end,
  }
  local said, heard, n = {}, {}, roll(1, 6)
  for i = 1, n do
    local text, answer = kinds[roll(1, #kinds)]()
    said[i], heard[i] = (" "):rep(roll(1, 3)) .. text, answer .. " "
  end
  local rest = " " .. letters(roll, roll(0, 10)) .. "\n"
  return "numbers " .. n .. "\n" .. table.concat(said) .. rest, table.concat(heard) .. rest
end

commands["until"] = function(roll)
  local delimiter = ({ ";", "--", "\r\n\r", "\0" })[roll(1, 3)]
  local text = letters(roll, roll(0, 200)) .. delimiter
  return "until " .. delimiter:gsub("[\r\n]+", "==") .. "\n" .. text:gsub("[\r\n]+", "=="),
    "<" .. text:gsub("[\r\n]+", "==") .. ">"
end

function commands.receive(roll)
  local text = letters(roll, roll(0, 500))
  return "receive " .. #text .. "\n" .. text, text:lower()
end

function commands.reply(roll)
  local n = roll(1, 12) == 12 and roll(0, 300000) or roll(0, 4000)
  local word = ("%d bytes "):format(n)
  return "reply " .. n .. "\n", word:rep(n // #word + 1):sub(1, n)
end

function commands.drip(roll)
  local heard, n = {}, roll(0, 20)
  for i = 1, n do heard[i] = i .. "," end
  return "drip " .. n .. "\n", table.concat(heard)
end

function commands.file(roll)
  local mode = ({ "no", "line", "full" })[roll(1, 3)]
  return "file " .. mode .. "\n", mode .. " and\n"
end

function commands.limit(roll)
  local n = roll(1, 4000)
  return ("limit %d.5\n"):format(n), ("%d.500 nil\n"):format(n)
end

function commands.words(roll)
  local said, heard, n = {}, {}, roll(0, 5)
  for i = 1, n do
    local words = {}
    for k = 1, roll(0, 6) do
      words[k] = letters(roll, roll(1, 12))
      heard[#heard + 1] = #words[k] .. words[k]
    end
    said[i] = table.concat(words, (" "):rep(roll(1, 2))) .. "\n"
  end
  return "words " .. n .. "\n" .. table.concat(said), table.concat(heard) .. "false caught\n"
end

local names = {}
for name in pairs(commands) do names[#names + 1] = name end
table.sort(names)

-- How it ends; what the client says after that is not read.
local ends = {
  function(_, n) return "", n .. " commands\n", true end, -- the client ends its side
  function(_, n) return "bye\n", n + 1 .. " commands\n" end,
  function(roll, n) return "bye\n" .. letters(roll, roll(1, 2000)), n + 1 .. " commands\n" end,
  function(roll, n)
    local text = letters(roll, roll(0, 3000))
    return "rest\n" .. text, ("%d %s %s closed\n%d commands\n"):format(#text, text:byte(1, 1) or "none",
      text:byte(-1, -1) or "none", n + 1), true
  end,
  function(_, n) return "fail on purpose\n", "failing\n" .. n + 1 .. " commands\n" end,
  function() return "close\n", "closing\n" end,
}

-- The conversation of that number: pieces to send, whether the client ends its side then, and what it hears.
local function conversation(number)
  local roll = dice(number)
  local said, heard, n = {}, {}, roll(0, 8)
  for i = 1, n do said[i], heard[i] = commands[names[roll(1, #names)]](roll) end
  local finishes
  said[n + 1], heard[n + 1], finishes = ends[roll(1, #ends)](roll, n)
  local text, pieces = table.concat(said), {}
  local longest = roll(1, 3) == 1 and 16 or 4096
  while text ~= "" do
    local cut = roll(1, longest)
    pieces[#pieces + 1], text = text:sub(1, cut), text:sub(cut + 1)
  end
  return { number = number, pieces = pieces, finishes = finishes, expected = table.concat(heard), at = 0, heard = {} }
end

-- The next piece, when there is room; it may be that nobody wants it any more.
local function speak(c)
  if c.at < #c.pieces then
    local n, _, errno = sys.send(c.client.fd, c.pieces[c.at + 1])
    if n and n < #c.pieces[c.at + 1] then
      c.pieces[c.at + 1] = c.pieces[c.at + 1]:sub(n + 1)
    elseif n or errno ~= 11 then
      c.at = c.at + 1
    end
  elseif c.finishes then
    c.client:finish()
    c.finishes = false
  end
end

-- Holds conversations first to last, some at a time, each over the next of the URLs.
local function converse(urls, first, last)
  local open, fds, transcripts, next_one = {}, {}, {}, first
  local heard = sys.now()
  while next_one <= last or #fds > 0 do
    while next_one <= last and #fds < 6 do
      local c = conversation(next_one)
      c.client = host.connect(urls[next_one % #urls + 1])
      open[c.client.fd] = c
      fds[#fds + 1] = c.client.fd
      next_one = next_one + 1
    end
    local busy = false
    for _, c in pairs(open) do
      speak(c)
      busy = busy or c.at < #c.pieces or c.finishes
    end
    for _, fd in ipairs(assert(sys.ready(fds, busy and 0 or 0.01))) do
      local c = open[fd]
      local data, message = sys.recv(fd)
      heard = sys.now()
      if data and data ~= "" then
        c.heard[#c.heard + 1] = data
      else
        transcripts[c.number] = table.concat(c.heard) .. (data and "" or " " .. message)
        assert(transcripts[c.number] == c.expected, ("conversation %d: %d bytes, %q\nand not %d, %q"):format(c.number,
          #transcripts[c.number], transcripts[c.number]:sub(-300), #c.expected, c.expected:sub(-300)))
        c.client:close()
        open[fd] = nil
        for i, other in ipairs(fds) do
          if other == fd then table.remove(fds, i) end
        end
      end
    end
    assert(sys.now() - heard < host.LIMIT, "nothing was heard for long")
  end
  return transcripts
end

-- ---- datagrams ----

local packets = {}

function packets.upper(roll)
  local text = letters(roll, roll(0, 1400))
  return "upper\n" .. text, { text ~= "" and text:upper() or nil }
end

function packets.unpack(roll)
  local number, word, rest = roll(0, 1 << 31), letters(roll, roll(0, 200)), letters(roll, roll(0, 30))
  return "unpack\n" .. (">I4s1"):pack(number, word) .. rest, { ("%d %s %d"):format(number, word, #rest) }
end

function packets.read(roll)
  local text, rest = letters(roll, 3), letters(roll, roll(0, 100))
  return "read\n" .. text .. rest, { text .. "|" .. rest }
end

function packets.twice(roll)
  local text = letters(roll, roll(0, 50))
  return "twice\n" .. text, { "first " .. text, "second " .. text }
end

function packets.wait(roll)
  local text = letters(roll, roll(0, 50))
  return "wait\n" .. text, { "late " .. text }
end

function packets.long(roll)
  local text = letters(roll, roll(100, 400))
  return "long\n" .. text, { text:rep(20) }
end

function packets.silent() return "silent\n", {} end

function packets.fail(roll)
  local text = letters(roll, roll(1, 50))
  return "fail\n" .. text, { "failing " .. text }
end

local packet_names = {}
for name in pairs(packets) do packet_names[#packet_names + 1] = name end
table.sort(packet_names)

-- So many datagrams of each of some clients in turn; all that each hears, in order.
local function exchange(url, clients, each)
  local transcripts = {}
  local sockets = {}
  for i = 1, clients do
    sockets[i] = host.connect(url, url:find("^unixgram") and { bind = "unixgram://" .. host.folder() .. "/c" } or nil)
    transcripts[i] = {}
  end
  for n = 1, each do
    local answers = {}
    for i, c in ipairs(sockets) do
      local roll = dice(i * 1000 + n)
      local said, heard = packets[packet_names[roll(1, #packet_names)]](roll)
      assert(c:send(said))
      answers[i] = heard
    end
    for i, c in ipairs(sockets) do
      for _, expected in ipairs(answers[i]) do
        local data = assert(c:some())
        assert(data == expected, ("client %d, datagram %d: %q and not %q"):format(i, n, data:sub(1, 200),
          expected:sub(1, 200)))
        transcripts[i][#transcripts[i] + 1] = data
      end
    end
  end
  for i, c in ipairs(sockets) do
    assert.is_false(sys.poll(c.fd, "r", 0), "more than it should hear")
    c:close()
    transcripts[i] = table.concat(transcripts[i], "\n")
  end
  return transcripts
end

-- A fork under a sanitizer is slow.
local CONVERSATIONS = host.sanitizer() and 300 or 1000

local function errors_of(transcripts)
  local n = 0
  for _, text in pairs(transcripts) do
    if text:find("failing\n%d+ commands\n$") then n = n + 1 end
  end
  return n
end

describe("one handler says the same", function()
  after_each(host.cleanup)

  local said, answered

  for _, policy in ipairs(POLICIES) do
    it(("in %d conversations over TCP and Unix sockets, %s"):format(CONVERSATIONS, policy.name), function()
      local p = host.start(HANDLER, {
        listen = { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" }, args = { table.unpack(policy) },
      })
      local transcripts = converse({ p:url("conversation"), p:url("conversation-2") }, 1, CONVERSATIONS)
      said = said or transcripts
      assert.are.equal(CONVERSATIONS, #transcripts)
      for i = 1, CONVERSATIONS do assert(transcripts[i] == said[i], "conversation " .. i) end
      local last = p:stop()
      p:gone(1)
      assert.are.equal(CONVERSATIONS, last.requests)
      assert.are.equal(errors_of(transcripts), last.errors)
      assert.are.equal(last.errors, #p:find("handler error"))
      for _, event in ipairs { "peer gone", "cancelled", "timeout", "child died", "accepting paused" } do
        assert.are.same({}, p:find(event))
      end
    end)
  end

  for _, policy in ipairs(POLICIES) do
    it("in datagrams, " .. policy.name, function()
      local p = host.start(HANDLER, {
        listen = { "udp://127.0.0.1:0", "unixgram://" .. host.folder() .. "/s" }, args = { table.unpack(policy) },
      })
      local transcripts = {}
      for i, name in ipairs { "conversation", "conversation-2" } do
        transcripts[i] = table.concat(exchange(p:url(name), 6, 30), "\n\n")
      end
      answered = answered or transcripts
      assert.is_true(transcripts[1] == transcripts[2], "UDP and Unix sockets differ")
      assert.is_true(transcripts[1] == answered[1])
      local last = p:stop()
      p:gone(1)
      assert.are.equal(2 * 6 * 30, last.requests)
      assert.are.equal(last.errors, #p:find("handler error"))
      assert.are.same({}, p:find("reply not sent"))
    end)
  end
end)

describe("under every policy", function()
  after_each(host.cleanup)

  for _, policy in ipairs(POLICIES) do
    it("hooks run, and what they say is counted, " .. policy.name, function()
      local p = host.start(host.write([[
        local moonport = require("moonport")
        local H = { server = {} }
        function H.server.verify_request(_, request)
          return moonport.monotonic() > 0 and request:recv(1) ~= "n"
        end
        function H.server.handle_error(_, request, _, err)
          request:sendall("told: " .. tostring(err):match("[^\n]*") .. "\n")
        end
        function H:handle()
          local line = self.rfile:readline()
          if line == "fail\n" then error("on purpose", 0) end
          self.wfile:write(line)
        end
        return H]]), { args = { table.unpack(policy) } })
      for _, case in ipairs { { "nobody\n", "" }, { "yes\n", "es\n" }, { "xfail\n", "told: on purpose\n" } } do
        for _ = 1, 3 do
          local c <close> = host.connect(p:url())
          assert(c:send(case[1]))
          assert.are.equal(case[2], (c:all()))
        end
      end
      local last = p:stop()
      assert.are.same({ 9, 3 }, { last.requests, last.errors })
      assert.are.equal(3, #p:find("refused"))
      assert.are.same({}, p:find("handler error"))
    end)

    it("a handler may call another server, " .. policy.name, function()
      local upstream = host.start("scripts/upper.lua", { args = { "--mixin=threading" } })
      local p = host.start(host.write(([[
        local moonport = require("moonport")
        function handle(self)
          local up <close> = assert(moonport.connect(%q, 5))
          local from = up:makefile("r")
          for line in self.rfile:lines("L") do
            up:sendall(line)
            self.wfile:write(from:readline())
          end
        end]]):format(upstream:url())), { args = { table.unpack(policy) } })
      for i = 1, 10 do
        local c <close> = host.connect(p:url())
        for n = 1, 3 do assert.are.equal(("HELLO %d/%d"):format(i, n), c:ask(("hello %d/%d"):format(i, n))) end
      end
      p:stop()
      p:gone(1)
      upstream:stop()
    end)
  end
end)

describe("the ready line", function()
  after_each(host.cleanup)

  local prefixes = { sync = "", async = "Async", threading = "Threading", forking = "Forking" }
  for mixin, prefix in pairs(prefixes) do
    it("names the classes of --mixin " .. mixin, function()
      local folder = host.folder()
      local p = host.start(host.write([[
        function handle(self)
          local word = self.packet or self.rfile:readline()
          self.wfile:write(self.server.class, " ", word)
        end]]), { args = { "--mixin=" .. mixin }, listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0",
        "unix://" .. folder .. "/s", "unixgram://" .. folder .. "/d" } })
      local servers = p.ready.servers
      for name, class in pairs {
        ["script"] = "TCPServer", ["script-2"] = "UDPServer", ["script-3"] = "UnixStreamServer",
        ["script-4"] = "UnixDatagramServer",
      } do
        assert.are.equal(prefix .. class, servers[name].class)
        local url = p:url(name)
        local c <close> = host.connect(url, url:find("^unixgram") and { bind = "unixgram://" .. folder .. "/c" })
        assert(c:send("hello\n"))
        assert.are.equal(prefix .. class .. " hello\n", (c:some()))
      end
      p:stop()
      p:gone(1)
    end)
  end
end)
