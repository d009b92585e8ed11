local case = require("support.case")
local host = require("support.host")

describe("an address", function()
  after_each(host.cleanup)

  it("is host and port, by number and by name, and reads well", function()
    for url, expected in pairs {
      ["tcp://127.0.0.1:0"] = { "127.0.0.1", "127.0.0.1:%d" },
      ["tcp://[::1]:0"] = { "::1", "[::1]:%d" },
    } do
      local p = case.start { listen = url }
      local c <close> = host.connect(p:url())
      local _, port = host.sys.name(c.fd)
      c:send(case.piece [[
        local a = self.client_address
        local host, port = table.unpack(a)
        return host, a.host, port, a.port, #a, a.path, tostring(a), math.type(port)]])
      c:finish()
      assert.are.same({ expected[1], expected[1], port, port, 2, nil, expected[2]:format(port), "integer", n = 8 },
        (case.results((c:all()))))
      p:stop()
    end
  end)

  it("is IPv4 for an IPv4 client of a dual-stack server", function()
    local p = case.start { listen = "tcp://[::]:0" }
    local port = p:url():match("%d+$")
    assert.are.same({ "127.0.0.1", "127.0.0.1", n = 2 }, case.run("tcp://127.0.0.1:" .. port,
      "return self.client_address.host, request:getsockname().host"))
    assert.are.same({ "::1", n = 1 }, case.run("tcp://[::1]:" .. port, "return self.client_address.host"))
    p:stop()
  end)

  it("is the empty string for a Unix client without a name, and its path otherwise", function()
    local folder = host.folder()
    for _, listen in ipairs { "unix://" .. folder .. "/s", "unix://@moonport-" .. folder } do
      local p = case.start { listen = listen }
      local code = "return self.client_address, request:getpeername(), request:getsockname(), "
        .. "self.server.server_address"
      local path = listen:sub(8)
      assert.are.same({ "", "", path, path, n = 4 }, case.run(p, code))
      for _, own in ipairs { folder .. "/client" .. #path, "@moonport-client-" .. folder } do
        local c <close> = host.connect(p:url(), { bind = "unix://" .. own })
        c:send(case.piece(code))
        c:finish()
        assert.are.same({ own, own, path, path, n = 4 }, (case.results((c:all()))))
      end
      p:stop()
    end
  end)

  it("is a path for Unix datagrams, and can be answered", function()
    local folder = host.folder()
    local p = case.start { listen = "unixgram://" .. folder .. "/s" }
    assert.are.same({ folder .. "/c", folder .. "/s", n = 2 }, case.ask(p:url(),
      "return self.client_address, self.socket:getsockname()", { bind = "unixgram://" .. folder .. "/c" }))
    p:stop()
  end)

  it("of the server is self.server.server_address", function()
    local p = case.start()
    local port = math.tointeger(p:url():match("%d+$"))
    assert.are.same({ "127.0.0.1", port, "127.0.0.1:" .. port, n = 3 }, case.run(p,
      "local a = self.server.server_address return a.host, a.port, tostring(a)"))
    p:stop()
  end)

  it("is refused with a sentence when it is none", function()
    local p = case.start { listen = "udp://127.0.0.1:0" }
    for value, why in pairs {
      ["{ 'localhost', 1 }"] = "must be {host, port}: an IP address",
      ["{ '127.0.0.1', 65536 }"] = "must be {host, port}",
      ["{ '127.0.0.1', -1 }"] = "must be {host, port}",
      ["{ '127.0.0.1', '9' }"] = "must be {host, port}",
      ["{ '127.0.0.1', 1.5 }"] = "must be {host, port}",
      ["{ '127.0.0.1' }"] = "must be {host, port}",
      ["{}"] = "must be {host, port}",
      ["7"] = "address",
      ["nil"] = "address",
      ["''"] = "the address is empty",
      ["('x'):rep(200)"] = "has 200 bytes, the most is 107",
      ["'a\\0b'"] = "NUL byte",
    } do
      local got = case.ask(p:url(), ("local ok, e = pcall(self.socket.sendto, self.socket, 'x', %s) "
        .. "return ok, e"):format(value))
      assert.is_false(got[1], value)
      assert.is_truthy(got[2]:find(why, 1, true), value .. ": " .. tostring(got[2]))
    end
    p:stop()
  end)
end)
