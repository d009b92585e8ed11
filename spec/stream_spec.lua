local host = require("support.host")
local sys = host.sys

local KB, MB = 1024, 1024 * 1024

-- A handler's script with `prelude` before and `body` in its handle.
local function script(body, prelude)
  return host.write(('local moonport = require("moonport")\n%s\nfunction handle(self)\n%s\nend\n')
    :format(prelude or "", body))
end

-- Bytes that tell their place: "0000017\n" and so on, 64 KiB at a time.
local BLOCK = 64 * KB
local function block(i)
  return (("%07d\n"):format(i)):rep(BLOCK // 8)
end
local BLOCK_SOURCE = [[
local function block(i) return (("%07d\n"):format(i)):rep(8192) end
]]

-- Does the program wait for something?  One that spins, or works, does not.
local function asleep(program)
  local stat = host.read("/proc/" .. program.pid .. "/stat") or ""
  return stat:match("%) (%a)") == "S"
end

local function until_asleep(program)
  host.eventually("the program waits", function() return asleep(program) end)
end

-- Seconds of the processor that the program uses while `client` hears nothing.
local function cpu_of_silence(program, client, seconds)
  local before = sys.cpu(program.pid)
  local data, why = client:some(seconds)
  assert.is_nil(data)
  assert.are.equal("timeout", why)
  return sys.cpu(program.pid) - before
end

local function messages(program)
  local out = {}
  for _, e in ipairs(program:find("script")) do out[#out + 1] = e.message end
  return out
end

local transports = {
  { name = "TCP", url = "tcp://127.0.0.1:0", shim_mib = 2 },
  { name = "a Unix stream", url = "unix://%s/s", shim_mib = 10 },
}

local function start(path, transport, options)
  options = options or {}
  options.listen = (transport or transports[1]).url:format(host.folder())
  return host.start(path, options)
end

describe("a stream", function()
  after_each(host.cleanup)

  it("that is reset in the middle of a line raises where lines are awaited", function()
    local p = start(script([[
      local ok, why = pcall(function() for line in self.rfile:lines() do moonport.log("info", line) end end)
      moonport.log("info", ("%s %s"):format(tostring(ok), type(why) == "table" and why.code or tostring(why)))
    ]]))
    local c = host.connect(p:url())
    assert(c:send("one\nhalf"))
    p:find("script", true) -- it has taken that
    c:reset()
    host.eventually("it says how that ended", function() return messages(p)[2] end)
    assert.are.same({ "one", "false ECONNRESET" }, messages(p))
    p:stop()
  end)

  for _, transport in ipairs(transports) do
    describe("over " .. transport.name, function()
      -- torture list 12
      it("raises once its peer has reset it, and again on the next write", function()
        local p = start(script([[
          local big = ("x"):rep(64 * 1024 * 1024)
          local ok, first = pcall(self.wfile.write, self.wfile, big)
          local ok2, second = pcall(function() self.wfile:write("more"):flush() end)
          local ok3, third = pcall(self.request.sendall, self.request, "more")
          moonport.log("info", ("%s %s %s"):format(tostring(ok), tostring(ok2), tostring(ok3)))
          moonport.log("info", ("%s %s %s"):format(first.code, second.code, third.code))
          moonport.log("info", ("%s %s"):format(math.type(first.errno), tostring(first)))
          error(first)
        ]]), transport)
        local c = host.connect(p:url())
        assert(c:receive(1 * MB))
        c:reset()
        p:find("peer gone", true)
        local said = messages(p)
        assert.are.equal("false false false", said[1])
        local first, second, third = said[2]:match("^(%S+) (%S+) (%S+)$")
        assert.is_true(first == "EPIPE" or first == "ECONNRESET", first)
        assert.are.equal(first, second)
        assert.are.equal(first, third)
        assert.is_truthy(said[3]:find("^integer write: "), said[3])
        p:stop() -- still there: no SIGPIPE
      end)

      -- torture list 12
      it("whose peer goes away is one info line and no traceback", function()
        local p = start(script([[self.wfile:write(("x"):rep(64 * 1024 * 1024))]]), transport)
        local c = host.connect(p:url())
        assert(c:receive(1 * MB))
        c:reset()
        p:find("peer gone", true)
        p:stop()
        local gone = p:find("peer gone")
        assert.are.equal(1, #gone)
        assert.are.equal("info", gone[1].level)
        for _, e in ipairs(p:events()) do
          assert.are.equal("info", e.level)
          assert.is_nil(e.traceback)
        end
      end)

      -- torture list 13
      it("shows the end of what its peer sent, and still carries the reply", function()
        local p = start(script([[
          local all = self.rfile:read("a")
          assert(select(2, self.rfile:read("l")) == "closed")
          for i = 1, 16 do self.wfile:write(block(i)) end
          self.wfile:write(#all, "\n")
        ]], BLOCK_SOURCE), transport)
        local c <close> = host.connect(p:url())
        assert(c:send("12345\n678"))
        assert(c:finish())
        for i = 1, 16 do assert.is_true(c:receive(BLOCK) == block(i), "block " .. i) end
        assert.are.equal("9\n", c:all())
        c:close()
        p:stop()
      end)

      -- torture list 14
      it("is closed with 100 KiB unread and loses nothing of the reply", function()
        local p = start(script([[
          self.rfile:read(1)
          for i = 1, 8 do self.wfile:write(block(i)) end
        ]], BLOCK_SOURCE), transport)
        for _ = 1, 5 do
          local c <close> = host.connect(p:url(), { receive = 4 * KB })
          assert(c:send(("x"):rep(100 * KB)))
          until_asleep(p)
          for i = 1, 8 do
            local got, why = c:receive(BLOCK)
            assert.is_true(got == block(i), ("block %d: %s"):format(i, why))
          end
          local rest, why = c:all()
          assert.are.equal("", rest)
          assert.is_nil(why)
        end
        p:stop()
      end)

      -- torture list 14
      it("is closed by the handler with 100 KiB unread and loses nothing of the reply", function()
        local p = start(script([[
          self.rfile:read(1)
          self.wfile:write(block(1))
          self.request:close()
        ]], BLOCK_SOURCE), transport)
        local c <close> = host.connect(p:url(), { receive = 4 * KB })
        assert(c:send(("x"):rep(100 * KB)))
        until_asleep(p)
        assert.is_true(c:receive(BLOCK) == block(1))
        assert.are.equal("", (c:all()))
        c:close()
        p:stop()
      end)

      -- torture list 15
      it(("carries %d MiB through receives and sends of 1 to 7 bytes"):format(transport.shim_mib), function()
        local report, seed = host.folder() .. "/report", 20260
        local p = start("scripts/echo.lua", transport, { env = {
          host.preload("shim.so"), "SHIM_SEED=" .. seed, "SHIM_REPORT=" .. report } })
        local c <close> = host.connect(p:url())
        for i = 1, transport.shim_mib * 16 do
          local sent = block(i)
          assert(c:send(sent))
          assert.is_true(c:receive(BLOCK) == sent, ("block %d differs (SHIM_SEED=%d)"):format(i, seed))
        end
        c:finish()
        assert.are.equal("", c:all())
        c:close()
        p:stop()
        local receives, sends = host.read(report):match("^(%d+) (%d+)\n$")
        -- At most seven bytes each, and the last part of a line needs no cut.
        assert.is_true(tonumber(receives) > transport.shim_mib * MB / 8, receives)
        assert.is_true(tonumber(sends) > transport.shim_mib * MB / 16, sends)
      end)
    end)
  end

  -- torture list 17
  it("that nobody reads suspends its writer, costs little memory, and is closed by timeout", function()
    local CLIENTS = 500
    local p = start(script([[
      self.request:setsockopt("so_sndbuf", 16384) -- the kernel's share of it: 500 fit a small machine
      for _ = 1, 1600 do self.wfile:write(chunk) end
    ]], [[local chunk = ("x"):rep(65536)]]), nil, { args = { "-o", "timeout=3", "-o", "max_connections=600" } })
    host.connect(p:url()):reset()
    p:find("peer gone", true)
    local memory, descriptors = p:memory(), p:descriptors()
    local clients = {}
    for i = 1, CLIENTS do clients[i] = host.connect(p:url(), { receive = 4 * KB }) end
    host.eventually("all clients are served", function() return p:descriptors() >= descriptors + CLIENTS end)
    until_asleep(p)
    local each = (p:memory() - memory) / CLIENTS
    assert.is_true(each <= 256 or host.sanitizer() ~= false, ("%.0f KiB of memory for each"):format(each))
    assert.are.equal(0, #p:find("timeout"))
    host.eventually("all are closed", function() return p:descriptors() == descriptors end)
    local told = p:find("timeout")
    assert.are.equal(CLIENTS, #told)
    assert.are.equal("info", told[1].level)
    for _, c in ipairs(clients) do c:close() end
    p:stop()
  end)

  -- torture list 18
  it("of 1 GiB without a newline ends at 64 KiB, and costs no memory", function()
    local p = start(script([[
      local line, why = self.rfile:readline()
      self.wfile:write(line or why, "\n")
    ]]))
    do local c <close> = host.connect(p:url()) assert.are.equal("hello", (c:ask("hello"))) end
    local memory = p:memory()
    local c <close> = host.connect(p:url())
    local chunk, sent = ("x"):rep(MB), 0
    while sent < 1024 * MB and not sys.poll(c.fd, "r", 0) do
      local n, message, errno = sys.send(c.fd, chunk)
      if not n then
        assert(errno == 11, message)
        sys.poll(c.fd, "w", 0.1)
      end
      sent = sent + (n or 0)
    end
    assert.are.equal("line too long", c:line())
    assert.is_true(sent >= 64 * KB)
    assert.is_true(sent < 64 * MB, "it took " .. sent .. " bytes")
    local grown = p:memory() - memory
    assert.is_true(grown < KB or host.sanitizer() ~= false, grown .. " KiB more")
    c:close()
    p:stop()
  end)

  -- torture list 18
  it("takes a line of 64 KiB, and refuses one byte more", function()
    local p = start(script([[
      local line, why = self.rfile:readline()
      self.wfile:write(line and #line or why, "\n")
    ]]))
    for _, case in ipairs { { 64 * KB, tostring(64 * KB + 1) }, { 64 * KB + 1, "line too long" } } do
      local c <close> = host.connect(p:url())
      assert(c:send(("x"):rep(case[1]) .. "\n"))
      assert.are.equal(case[2], c:line())
    end
    p:stop()
  end)

  -- torture list 19
  it("is not disturbed by signals", function()
    local p = start("scripts/echo.lua")
    local c <close> = host.connect(p:url())
    local sent = block(1):sub(1, 8 * KB)
    for i = 1, 1280 do -- 10 MiB
      assert(c:send(sent))
      p:kill("USR1")
      local got = c:receive(#sent)
      p:kill("USR1")
      assert.is_true(got == sent, "block " .. i)
    end
    c:finish()
    assert.are.equal("", c:all())
    c:close()
    p:stop()
    assert.is_true(#p:find("tasks") > 100)
    assert.is_falsy((host.read(p.log_path)):find("Interrupted", 1, true))
    assert.are.equal(0, #p:find("handler error"))
  end)

  -- torture list 19
  for call, names in pairs { receive = "recvfrom,recv,read,readv,recvmsg",
    send = "sendto,send,write,writev,sendmsg", wait = "epoll_wait,epoll_pwait,epoll_pwait2,poll,io_uring_enter" } do
    it(("whose %s is interrupted by a signal goes on"):format(call), function()
      local trace = host.folder() .. "/trace"
      local p = start("scripts/echo.lua", nil, {
        env = { host.traced() },
        loop = call == "receive" and "epoll" or nil, -- io_uring receives without a call
        wrap = { "strace", "-D", "-f", "-o", trace, "-e", "trace=" .. names,
          "-e", "inject=" .. names .. ":error=EINTR:when=40+3" },
      })
      local c <close> = host.connect(p:url())
      for i = 1, 100 do assert.are.equal("line " .. i, (c:ask("line " .. i))) end
      c:finish()
      assert.are.equal("", c:all())
      c:close()
      assert.is_truthy(host.read(trace):find("EINTR.*INJECTED"))
      p:stop()
    end)
  end

  it("that cannot be waited for ends; the others go on", function()
    local p = start("scripts/echo.lua", nil, {
      loop = "epoll",
      env = { host.traced() },
      wrap = { "strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=epoll_ctl",
        "-e", "inject=epoll_ctl:error=ENOSPC:when=20+" },
    })
    local clients, ended = {}, 0
    for i = 1, 30 do
      clients[i] = host.connect(p:url())
      local heard = clients[i]:ask("hello")
      assert(i > 1 or heard == "hello")
    end
    host.eventually("an error", function() return #p:find("handler error") > 0 end)
    -- The first was alone, and polled; when it is to be registered, it may end, too.
    local function answers(c)
      local ok, line = pcall(c.ask, c, "still here")
      return ok and line == "still here"
    end
    for _, c in ipairs(clients) do answers(c) end
    for _, c in ipairs(clients) do
      if not answers(c) then ended = ended + 1 end
    end
    assert(ended > 0 and ended < 30, ended .. " of 30")
    for _, c in ipairs(clients) do c:close() end
    p:stop()
    assert.are.equal(ended, #p:find("handler error"))
    assert.is_truthy(host.read(p.log_path):find("No space left on device", 1, true))
  end)

  -- torture list 20
  it("with urgent data in it delivers the rest, and does not spin", function()
    local p = start("scripts/echo.lua")
    local c <close> = host.connect(p:url())
    assert.are.equal("hello", c:ask("hello"))
    assert(c:send("abc"))
    assert.are.equal(1, sys.send(c.fd, "!", true))
    local used = cpu_of_silence(p, c, 0.3)
    assert.is_true(used < 0.1, used .. " s of the processor")
    assert(c:send("def\n"))
    assert.are.equal("abcdef", c:line())
    assert.are.equal(1, sys.send(c.fd, "?", true))
    assert.are.equal("again", c:ask("again"))
    c:finish()
    assert.are.equal("", c:all())
    c:close()
    p:stop()
  end)

  -- torture list 20
  it("with nothing but urgent data does not wake its reader again and again", function()
    local p = start(script([[self.wfile:write(self.rfile:read("a"), "|")]]))
    local c <close> = host.connect(p:url())
    assert.are.equal(1, sys.send(c.fd, "!", true))
    local used = cpu_of_silence(p, c, 0.3)
    assert.is_true(used < 0.1, used .. " s of the processor")
    c:finish()
    assert.are.equal("|", c:all())
    c:close()
    p:stop()
  end)

  for _, transport in ipairs(transports) do
    -- torture list 20
    it("whose data and end arrive together delivers both, over " .. transport.name, function()
      local p = start(script([[
        self.wfile:write("ready\n"):flush()
        local all = {}
        for line in self.rfile:lines() do all[#all + 1] = line end
        moonport.log("info", #all .. " lines, the last is " .. all[#all])
      ]]), transport)
      local clients = {}
      for i = 1, 20 do
        clients[i] = host.connect(p:url())
        assert.are.equal("ready", clients[i]:line())
      end
      until_asleep(p)
      p:kill("STOP")
      for i, c in ipairs(clients) do
        assert(c:send(("a line\n"):rep(1000) .. "number " .. i))
        c:close()
      end
      p:kill("CONT")
      host.eventually("20 handlers end", function() return #messages(p) == 20 end)
      local seen = {}
      for _, m in ipairs(messages(p)) do seen[m] = true end
      for i = 1, 20 do assert.is_true(seen["1001 lines, the last is number " .. i], "number " .. i) end
      p:stop()
    end)

    -- torture list 20
    it("with data and an end that nobody reads yet does not spin, over " .. transport.name, function()
      local p = start(script([[
        self.wfile:write("ready\n"):flush()
        moonport.sleep(0.5)
        self.wfile:write(self.rfile:read("a"), "|")
      ]]), transport)
      local c <close> = host.connect(p:url())
      assert.are.equal("ready", c:line())
      assert(c:send("data"))
      c:finish()
      local used = cpu_of_silence(p, c, 0.3)
      assert.is_true(used < 0.1, used .. " s of the processor")
      assert.are.equal("data|", c:all())
      c:close()
      p:stop()
    end)

    -- Made while the script is loaded, so that what grows later is the host's.
    local whole = BLOCK_SOURCE .. [[
      local parts = {}
      for i = 1, 1024 do parts[i] = block(i) end
      local big = table.concat(parts)
    ]]
    local writers = {
      ["of many writes"] = [[for i = 1, 1024 do self.wfile:write(parts[i]) end]],
      ["of one write"] = [[self.wfile:write(big)]],
      ["of one sendall"] = [[self.request:sendall(big)]],
    }
    for what, writer in pairs(writers) do
      it(("brings 64 MiB %s to a slow reader whole, in less than 1 MiB of memory, over %s")
        :format(what, transport.name), function()
        local p = start(script("if self.rfile:readline() then " .. writer .. " end", whole), transport)
        host.connect(p:url()):close() -- a first request, so that what is reused is there
        local c <close> = host.connect(p:url(), { receive = 16 * KB })
        until_asleep(p)
        local before, most = p:memory(), 0
        assert(c:send("go\n"))
        for i = 1, 1024 do
          -- Slow: not before the writer has filled all that the kernel takes, and waits.
          if i % 32 == 0 then until_asleep(p) end
          assert.is_true(c:receive(BLOCK) == block(i), "block " .. i)
          if i % 16 == 0 then most = math.max(most, p:memory()) end
        end
        assert.are.equal("", (c:all()))
        c:close()
        if not host.sanitizer() then
          assert.is_true(most - before < KB, (most - before) .. " KiB more")
        end
        p:stop()
      end)
    end
  end
end)
