local host = require("support.host")
local sys = host.sys

local function script(body, prelude)
  return host.write(('local moonport = require("moonport")\n%s\nfunction handle(self)\n%s\nend\n')
    :format(prelude or "", body))
end

-- Says how long the packet was, and what there was to read.
local MEASURE = [[
  count = (count or 0) + 1
  self.wfile:write(("%d %d %s %s"):format(count, #self.packet, tostring(self.truncated), self.rfile:read("a")))
]]

-- A server on UDP, and one on Unix datagrams with a path or an abstract name.
local kinds = {
  { name = "UDP", url = "udp://127.0.0.1:0" },
  { name = "UDP over IPv6", url = "udp://[::1]:0" },
  { name = "a Unix socket", url = "unixgram://%s/s", bind = "unixgram://%s/c" },
  { name = "an abstract Unix socket", url = "unixgram://@moonport-spec-%s", bind = "unixgram://@moonport-client-%s" },
}

local function start(path, kind, options)
  options = options or {}
  options.listen = kind.url:format(host.folder())
  return host.start(path, options)
end

local function connect(program, kind)
  return host.connect(program:url(), kind.bind and { bind = kind.bind:format(host.folder()) } or nil)
end

-- One datagram; "" for an empty one.
local function receive(client, seconds)
  if not sys.poll(client.fd, "r", seconds or host.LIMIT) then return nil, "timeout" end
  return sys.recvfrom(client.fd)
end

local function ask(client, data)
  if data == "" then -- the client's own send() has nothing to do for it
    assert(sys.send(client.fd, ""))
  else
    assert(client:send(data))
  end
  return receive(client)
end

local function port_of(url) return tonumber(url:match(":(%d+)$")) end

local function messages(program)
  local out = {}
  for _, e in ipairs(program:find("script")) do out[#out + 1] = e.message end
  return out
end

-- How the program runs under strace, which makes some calls fail.
local function failing(calls, fault, trace)
  return {
    env = { host.traced() },
    wrap = { "strace", "-D", "-f", "-o", trace, "-e", "trace=" .. calls, "-e", "inject=" .. calls .. ":" .. fault },
  }
end

local function count_lines(path, pattern)
  local n = 0
  for line in (host.read(path) or ""):gmatch("[^\n]+") do
    if line:find(pattern) then n = n + 1 end
  end
  return n
end

local SENDS = "sendto,sendmsg,sendmmsg"

describe("a datagram", function()
  after_each(host.cleanup)

  for _, kind in ipairs(kinds) do
    describe("over " .. kind.name, function()
      it("is packet, request[1] and what rfile reads; socket is request[2]", function()
        local p = start(script([[
          local data = self.rfile:read("a")
          assert(self.packet == data and self.request[1] == data, "three names, one datagram")
          assert(self.request[2] == self.socket, "two names, one socket")
          assert(#self.request == 2 and self.truncated == nil and self.connection == nil)
          local line, why = self.rfile:read("l")
          assert(line == nil and why == "closed", why)
          self.socket:sendto(data:upper(), self.client_address)
        ]]), kind)
        local c <close> = connect(p, kind)
        assert.are.equal("HELLO", (ask(c, "hello")))
        assert.are.equal("TWO\nLINES\n", (ask(c, "two\nlines\n")))
        p:stop()
        assert.are.equal(0, #p:find("handler error"))
      end)

      it("is answered by one datagram, however many writes it took", function()
        local p = start(script([[
          for i = 1, 1000 do self.wfile:write(i, ",") end
          moonport.sleep(0.01)
          self.wfile:write("end"):flush()
          self.wfile:write(".")
        ]]), kind)
        local c <close> = connect(p, kind)
        local expected = {}
        for i = 1, 1000 do expected[i] = i .. "," end
        assert.are.equal(table.concat(expected) .. "end.", (ask(c, "go")))
        assert.are.equal("timeout", select(2, receive(c, 0.05)))
        p:stop()
      end)

      it("tells who sent it", function()
        local p = start(script([[
          local a = self.client_address
          self.wfile:write(type(a) == "table" and ("%s %d %s"):format(a.host, a.port, tostring(a)) or a)
        ]]), kind)
        local c <close> = connect(p, kind)
        local name, port = sys.name(c.fd)
        local expected
        if kind.bind then
          expected = name:gsub("^%z", "@"):gsub("%z$", "")
        else
          expected = ("%s %d %s:%d"):format(name, port, name:find(":") and "[" .. name .. "]" or name, port)
        end
        assert.are.equal(expected, (ask(c, "who")))
        p:stop()
      end)

      -- torture list 23
      it("of no bytes runs the handler once, with an empty packet", function()
        local p = start(script(MEASURE), kind)
        local c <close> = connect(p, kind)
        assert.are.equal("1 0 nil ", (ask(c, "")))
        assert.are.equal("2 0 nil ", (ask(c, "")))
        assert.are.equal("3 5 nil after", (ask(c, "after")))
        assert.are.equal(3, p:stop().requests)
      end)

      for _, mixin in ipairs { "sync", "async" } do
        it("is answered once each when many come at once, under " .. mixin, function()
          local p = start(script([[
            count = (count or 0) + 1
            moonport.sleep(count % 5 / 1000)
            self.wfile:write("re ", self.packet)
            if self.packet == "how many" then self.wfile:write("? ", count) end
          ]]), kind, { args = { "--mixin=" .. mixin, "-o", "max_connections=16" } })
          local clients, CLIENTS, ROUNDS, EACH = {}, 5, 5, 4
          for i = 1, CLIENTS do clients[i] = connect(p, kind) end
          for round = 1, ROUNDS do
            for n = 1, EACH do
              for i, c in ipairs(clients) do
                assert(c:send(("%d %d %d"):format(i, round, n)))
              end
            end
            for i, c in ipairs(clients) do
              local seen = {}
              for n = 1, EACH do
                local reply = assert(receive(c))
                assert.is_nil(seen[reply], reply)
                seen[reply] = true
                if mixin == "sync" then assert.are.equal(("re %d %d %d"):format(i, round, n), reply) end
              end
              for n = 1, EACH do assert.is_true(seen[("re %d %d %d"):format(i, round, n)]) end
            end
          end
          assert.are.equal("re how many? " .. CLIENTS * ROUNDS * EACH + 1, (ask(clients[1], "how many")))
          for _, c in ipairs(clients) do
            assert.are.equal("timeout", select(2, receive(c, 0)))
            c:close()
          end
          assert.are.equal(CLIENTS * ROUNDS * EACH + 1, p:stop().requests)
        end)
      end

      it("of a handler that fails ends that request alone", function()
        local p = start(script([[
          self.wfile:write("half")
          if self.packet == "bad" then error("on purpose") end
          self.wfile:write(" and half")
        ]]), kind)
        local c <close> = connect(p, kind)
        assert(c:send("bad"))
        p:find("handler error", true)
        assert(c:send("good"))
        host.eventually("the whole reply", function() return receive(c) == "half and half" end)
        assert.are.equal(1, p:stop().errors)
      end)

      it("that is answered during a drain is answered", function()
        local p = start(script([[
          moonport.log("info", "begun")
          moonport.sleep(0.2)
          self.wfile:write("late")
        ]]), kind)
        local c <close> = connect(p, kind)
        assert(c:send("go"))
        p:find("script", true)
        p:kill("TERM")
        assert.are.equal("late", (receive(c)))
        assert.are.equal(0, p:wait())
        assert.are.equal(0, #p:find("reply not sent"))
      end)
    end)
  end

  for _, kind in ipairs { kinds[1], kinds[2] } do
    -- An IPv4 packet has 65,535 bytes with its header, an IPv6 packet without.
    local most = kind == kinds[1] and 65507 or 65527
    -- torture list 24
    it(("of %d bytes is sent, one more is EMSGSIZE, over %s"):format(most, kind.name), function()
      local p = start(script([[
        local n = tonumber(self.packet)
        local ok, err = pcall(self.socket.sendto, self.socket, ("x"):rep(n), self.client_address)
        if not ok then self.wfile:write(err.code, " ", math.type(err.errno)) end
      ]]), kind)
      local c <close> = connect(p, kind)
      sys.bufsize(c.fd, 1024 * 1024)
      assert.is_true(ask(c, tostring(most)) == ("x"):rep(most))
      assert.are.equal("EMSGSIZE integer", (ask(c, tostring(most + 1))))
      assert.are.equal("xxx", (ask(c, "3")))
      p:stop()
    end)

    -- torture list 24
    it(("of %d bytes is a reply by wfile, one more is reported, over %s"):format(most, kind.name), function()
      local p = start(script([[self.wfile:write(("x"):rep(tonumber(self.packet)))]]), kind)
      local c <close> = connect(p, kind)
      sys.bufsize(c.fd, 1024 * 1024)
      assert.is_true(ask(c, tostring(most)) == ("x"):rep(most))
      assert(c:send(tostring(most + 1)))
      local told = p:find("reply not sent", true)
      assert.are.equal("Message too long", told[1].why)
      assert.are.equal("warn", told[1].level)
      assert.are.equal("xxx", (ask(c, "3")))
      p:stop()
      assert.are.equal(1, #p:find("reply not sent"))
    end)
  end

  -- torture list 25
  it("longer than max_packet_size is flagged with its true length over UDP", function()
    local p = start(script(MEASURE), kinds[1], { args = { "-o", "max_packet_size=100" } })
    local c <close> = connect(p, kinds[1])
    assert.are.equal("1 100 65507 " .. ("y"):rep(100), (ask(c, ("y"):rep(65507))))
    assert.are.equal("2 100 101 " .. ("y"):rep(100), (ask(c, ("y"):rep(101))))
    assert.are.equal("3 100 nil " .. ("y"):rep(100), (ask(c, ("y"):rep(100))))
    local told = p:find("datagram truncated", true)[1]
    assert.are.equal(65507, told.length)
    assert.are.equal(100, told.max_packet_size)
    p:stop()
  end)

  -- torture list 25
  it("longer than max_packet_size is flagged over a Unix socket, too", function()
    local p = start(script(MEASURE), kinds[3], { args = { "-o", "max_packet_size=100" } })
    local c <close> = connect(p, kinds[3])
    local count, length, truncated = ask(c, ("y"):rep(30000)):match("^(%d+) (%d+) (%S+) y+$")
    assert.are.equal("1", count)
    assert.are.equal("100", length)
    assert.is_true(tonumber(truncated) > 100, truncated)
    assert.are.equal("2 100 nil " .. ("y"):rep(100), (ask(c, ("y"):rep(100))))
    p:stop()
  end)

  it("of 65,507 bytes is read whole when max_packet_size allows it", function()
    local p = start(script([[self.wfile:write(self.packet)]]), kinds[1], { args = { "-o", "max_packet_size=64K" } })
    local c <close> = connect(p, kinds[1])
    sys.bufsize(c.fd, 1024 * 1024)
    local sent = ("%07d\n"):rep(8188):format(table.unpack((function()
      local numbers = {}
      for i = 1, 8188 do numbers[i] = i end
      return numbers
    end)())) .. "end"
    assert.are.equal(65507, #sent)
    assert.is_true(ask(c, sent) == sent)
    p:stop()
  end)

  -- torture list 27
  it("answered to a port that is dead disturbs nobody else", function()
    for _, mixin in ipairs { "sync", "async" } do
      local p = start("scripts/echo.lua", kinds[1], { args = { "--mixin=" .. mixin } })
      local c <close> = connect(p, kinds[1]) -- first: no dead one's port may become its own
      p:kill("STOP")
      for i = 1, 50 do
        local dead = connect(p, kinds[1])
        assert(dead:send("nobody waits for " .. i .. "\n"))
        dead:close()
      end
      assert(c:send("hello\n"))
      p:kill("CONT")
      assert.are.equal("hello\n", (receive(c)))
      assert.are.equal("again\n", (ask(c, "again\n")))
      assert.are.equal(52, p:stop().requests)
      for _, e in ipairs(p:events()) do assert.are.equal("info", e.level, e.event) end
    end
  end)

  -- torture list 27
  it("answered to a Unix socket that is gone is reported, and the next is served", function()
    local p = start(script([[
      if self.packet == "sendto" then
        local ok, err = pcall(self.socket.sendto, self.socket, "x", self.client_address)
        moonport.log("info", tostring(ok) .. " " .. err.code)
      else
        self.wfile:write("re ", self.packet)
      end
    ]]), kinds[3])
    p:kill("STOP")
    for _, text in ipairs { "wfile", "sendto" } do
      local dead = connect(p, kinds[3])
      assert(dead:send(text))
      dead:close()
    end
    p:kill("CONT")
    local c <close> = connect(p, kinds[3])
    assert.are.equal("re hello", (ask(c, "hello")))
    assert.are.equal(1, #p:find("reply not sent", true))
    assert.are.equal("false ECONNREFUSED", messages(p)[1])
    p:stop()
  end)

  -- torture list 29
  it("sent to a broadcast address without leave is EACCES", function()
    local p = start(script([[
      local ok, err = pcall(self.socket.sendto, self.socket, "x", { "127.255.255.255", self.client_address.port })
      self.wfile:write(tostring(ok), " ", err.code)
    ]]), kinds[1])
    local c <close> = connect(p, kinds[1])
    assert.are.equal("false EACCES", (ask(c, "go")))
    assert.are.equal("false EACCES", (ask(c, "go")))
    p:stop()
  end)

  -- torture list 29
  it("that sendto fails to send raises, and is not tried again", function()
    for _, fault in ipairs { "ENOBUFS", "EPERM" } do
      local trace = host.folder() .. "/trace"
      local p = start(script([[
        local ok, err = pcall(self.socket.sendto, self.socket, "x", self.client_address)
        moonport.log("info", tostring(ok) .. " " .. err.code)
      ]]), kinds[1], failing(SENDS, "error=" .. fault, trace))
      local c <close> = connect(p, kinds[1])
      assert(c:send("go"))
      p:find("script", true)
      assert.are.equal("false " .. fault, messages(p)[1])
      p:stop()
      assert.are.equal(1, count_lines(trace, "INJECTED"))
    end
  end)

  -- torture list 29
  for _, size in ipairs { 10, 20000 } do
    it(("reply of %d bytes that the kernel refuses is reported, and not tried again"):format(size), function()
      for fault, why in pairs { ENOBUFS = "No buffer space available", EPERM = "Operation not permitted",
        EACCES = "Permission denied" } do
        local trace = host.folder() .. "/trace"
        local p = start(script([[self.wfile:write(("x"):rep(tonumber(self.packet)))]]), kinds[1],
          failing(SENDS, "error=" .. fault .. ":when=1", trace))
        local c <close> = connect(p, kinds[1])
        assert(c:send(tostring(size)))
        local told = p:find("reply not sent", true)
        assert.are.equal(why, told[1].why)
        assert.are.equal("warn", told[1].level)
        assert.is_true(ask(c, tostring(size)) == ("x"):rep(size)) -- the next one
        p:stop()
        assert.are.equal(1, #p:find("reply not sent"))
        assert.are.equal(1, count_lines(trace, "INJECTED"))
      end
    end)

    -- torture list 29
    it(("reply of %d bytes that the kernel has no room for is sent a little later"):format(size), function()
      local trace = host.folder() .. "/trace"
      local p = start(script([[self.wfile:write(("x"):rep(tonumber(self.packet)))]]), kinds[1],
        failing(SENDS, "error=EAGAIN:when=1..4", trace))
      local c <close> = connect(p, kinds[1])
      assert.is_true(ask(c, tostring(size)) == ("x"):rep(size))
      p:stop()
      assert.are.equal(4, count_lines(trace, "INJECTED"))
      assert.are.equal(0, #p:find("reply not sent"))
    end)

    -- torture list 29
    it(("reply of %d bytes that the kernel never has room for is no retry storm"):format(size), function()
      local trace = host.folder() .. "/trace"
      local p = start(script([[
        if self.packet == "quiet" then
          moonport.log("info", "served")
        else
          self.wfile:write(("x"):rep(tonumber(self.packet)))
        end
      ]]), kinds[1], failing(SENDS, "error=EAGAIN", trace))
      local c <close> = connect(p, kinds[1])
      assert(c:send(tostring(size)))
      host.eventually("a first try", function() return count_lines(trace, "INJECTED") > 0 end)
      assert.are.equal("timeout", select(2, receive(c, 0.5)))
      local tries = count_lines(trace, "INJECTED")
      assert.is_true(tries < 100, tries .. " tries in half a second")
      p:kill("TERM")
      p:find("draining", true)
      p:kill("TERM") -- a reply that waits for ever must not hold it up
      assert.are.equal(0, p:wait())
    end)
  end

  it("answered through a socket that the kernel is slow to empty yields to others", function()
    local trace = host.folder() .. "/trace"
    local p = start(script([[
      if self.packet == "send" then
        self.socket:sendto("sent", self.client_address)
      else
        moonport.log("info", self.packet)
      end
    ]]), kinds[1], failing(SENDS, "error=EAGAIN:when=1..6", trace))
    local c <close> = connect(p, kinds[1])
    assert(c:send("send"))
    assert(c:send("another"))
    p:find("script", true)
    assert.are.equal("sent", (receive(c)))
    p:stop()
  end)
end)

describe("a reply over UDP", function()
  after_each(host.cleanup)

  -- Replies of all three ways: collected, big, and by hand as Python's handlers do.
  local reply = [[
    if self.packet == "by hand" then
      self.socket:sendto("re by hand", self.client_address)
    else
      self.wfile:write("re ", self.packet)
    end
  ]]

  for _, case in ipairs {
    { listen = "udp://0.0.0.0:0", ask = { "127.0.0.1", "127.0.0.2", "127.1.2.3" } },
    { listen = "udp://[::]:0", ask = { "[::1]", "127.0.0.1", "127.0.0.2" }, mapped = true },
  } do
    for way, text in pairs { collected = "hello", big = ("b"):rep(20000), ["by hand"] = "by hand" } do
      it(("comes from the address that was asked: %s, %s"):format(case.listen, way), function()
        local p = host.start(script(reply), { listen = case.listen, args = { "-o", "max_packet_size=64K" } })
        local port = port_of(p:url())
        for _, address in ipairs(case.ask) do
          local url = ("udp://%s:%d"):format(address, port)
          local fd = assert(sys.socket(url)) -- not connected: it hears whoever answers
          assert(sys.sendto(fd, text, url))
          assert.is_true(sys.poll(fd, "r", host.LIMIT))
          local data, from, from_port = sys.recvfrom(fd)
          sys.close(fd)
          assert.is_true(data == "re " .. text)
          assert.are.equal(address:gsub("[%[%]]", ""), from)
          assert.are.equal(port, from_port)
        end
        p:stop()
      end)
    end
  end

  it("says of each of many hosts which it is, whatever was done to an address before", function()
    local p = host.start(script([[
      local a = self.client_address
      self.wfile:write(a.host, " ", a.port, " ", tostring(a))
      a[1], a[2] = "another", 0]]), { listen = "udp://127.0.0.1:0" })
    for _ = 1, 2 do
      for i = 1, 50 do
        local c <close> = host.connect(p:url(), { bind = ("udp://127.0.%d.%d:0"):format(i % 3, i) })
        local name, port = sys.name(c.fd)
        assert.are.equal(("%s %d %s:%d"):format(name, port, name, port), (ask(c, "who")))
        assert.are.equal(("%s %d %s:%d"):format(name, port, name, port), (ask(c, "and now")))
      end
    end
    p:stop()
  end)

  it("tells IPv4 clients of a [::] server by their IPv4 address", function()
    local p = host.start(script([[self.wfile:write(self.client_address.host)]]), { listen = "udp://[::]:0" })
    local c <close> = host.connect("udp://127.0.0.1:" .. port_of(p:url()))
    assert.are.equal("127.0.0.1", (ask(c, "who")))
    p:stop()
  end)
end)
