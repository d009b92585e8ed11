local host = require("support.host")

-- What the load client said of a server, and whether every byte was right.
local function flood(url, connections, requests, size)
  local p = assert(io.popen(("%s/flood '%s' %d %d %d"):format(host.build, url, connections, requests, size)))
  local said = p:read("a")
  local ok = p:close()
  return ok, said
end

local kinds = {
  { class = "TCPServer", url = "tcp://127.0.0.1:0" },
  { class = "TCPServer", url = "tcp://[::1]:0", note = " over IPv6" },
  { class = "UDPServer", url = "udp://127.0.0.1:0", datagram = true },
  { class = "UDPServer", url = "udp://[::1]:0", datagram = true, note = " over IPv6" },
  { class = "UnixStreamServer", url = "unix://%s/s" },
  { class = "UnixStreamServer", url = "unix://@moonport-spec-%s", note = " with an abstract name" },
  { class = "UnixDatagramServer", url = "unixgram://%s/s", datagram = true },
  { class = "UnixDatagramServer", url = "unixgram://@moonport-spec-%s", datagram = true,
    note = " with an abstract name" },
}

local function start(kind, mixin)
  return host.start("scripts/echo.lua", { listen = kind.url:format(host.folder()), args = { "--mixin=" .. mixin } })
end

describe("scripts/echo.lua", function()
  after_each(host.cleanup)

  for _, mixin in ipairs { "sync", "async" } do
    local prefix = mixin == "async" and "Async" or ""
    for _, kind in ipairs(kinds) do
      it("answers under " .. prefix .. kind.class .. (kind.note or ""), function()
        local p = start(kind, mixin)
        local _, server = next(p.ready.servers)
        assert.are.equal(prefix .. kind.class, server.class)
        local unixgram = kind.class == "UnixDatagramServer"
        local c <close> = host.connect(p:url(), unixgram and { bind = "unixgram://" .. host.folder() .. "/c" } or nil)
        for _, text in ipairs { "hello\n", "\0\1\255\r\n", ("long "):rep(1000) .. "\n", "two\nlines\n" } do
          assert(c:send(text))
          assert.are.equal(text, c:receive(#text))
        end
        if not kind.datagram then
          assert(c:send("no newline"))
          c:finish()
          assert.are.equal("no newline", c:all())
        end
        p:stop()
      end)
    end
  end

  local loads = {
    { kinds[1], "async", 1000, 100000 },
    { kinds[5], "async", 1000, 100000 },
    { kinds[6], "async", 200, 10000 },
    { kinds[2], "async", 200, 10000 },
    { kinds[3], "async", 100, 10000 },
    { kinds[4], "async", 100, 5000 },
    { kinds[7], "async", 100, 10000 },
    { kinds[8], "async", 100, 5000 },
    { kinds[1], "sync", 200, 10000 },
    { kinds[2], "sync", 50, 2000 },
    { kinds[3], "sync", 100, 10000 },
    { kinds[4], "sync", 50, 2000 },
    { kinds[5], "sync", 200, 10000 },
    { kinds[7], "sync", 100, 10000 },
  }
  for _, load in ipairs(loads) do
    local kind, mixin, clients, requests = table.unpack(load)
    it(("answers %d requests of %d clients at once, every byte right, under %s%s%s"):format(requests, clients,
      mixin == "async" and "Async" or "", kind.class, kind.note or ""), function()
      local p = start(kind, mixin)
      local ok, said = flood(p:url(), clients, requests, 64)
      assert(ok, said)
      local last = p:stop()
      assert.is_true(last.requests >= (kind.datagram and requests or clients))
      assert.are.equal(0, last.errors)
    end)
  end

  it("answers lines of 16 KiB of 100 clients at once, every byte right", function()
    local p = start(kinds[1], "async")
    local ok, said = flood(p:url(), 100, 5000, 16384)
    assert(ok, said)
    p:stop()
  end)
end)

-- What would the load client say of a server that is not right?
describe("the load client of these specs", function()
  after_each(host.cleanup)

  local wrong = {
    ["a wrong byte"] = [[n = n + 1; self.wfile:write(n == 50 and line:gsub("^.", "#") or line)]],
    ["a lost line"] = [[n = n + 1; if n ~= 50 then self.wfile:write(line) end]],
    ["a line sent twice"] = [[n = n + 1; self.wfile:write(line, n == 50 and line or "")]],
    ["another client's line"] = [[self.wfile:write(last or line); last = line]],
  }
  for what, body in pairs(wrong) do
    it("notices " .. what, function()
      local p = host.start(host.write(([[
        local n, last = 0, nil
        function handle(self)
          for line in self.rfile:lines("L") do %s end
        end
      ]]):format(body)))
      local ok, said = flood(p:url(), 3, 300, 64)
      assert.is_falsy(ok, said)
      assert.is_truthy(said:find("byte", 1, true) or said:find("ended", 1, true), said)
      p:stop()
    end)
  end
end)
