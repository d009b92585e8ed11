-- self of a datagram: its fields are made when they are read, and no handler is to notice.
local host = require("support.host")
local sys = host.sys

-- A handler's body, with what it may use of the requests before it.
local function start(body, options)
  options = options or {}
  options.listen = options.listen or "udp://127.0.0.1:0"
  return host.start(host.write(([[
    local moonport = require("moonport")
    local H, kept = {}, {}
    %s
    local function fields(t)
      local names = {}
      for name in pairs(t) do names[#names + 1] = tostring(name) end
      table.sort(names)
      return table.concat(names, " ")
    end
    function H:handle()
      %s
    end
    return H]]):format(options.prelude or "", body)), options)
end

local function ask(client, data)
  assert(client:send(data))
  if not sys.poll(client.fd, "r", host.LIMIT) then return nil, "timeout" end
  return (sys.recvfrom(client.fd))
end

-- Every request is to see the same, be it the first, which has nothing to go by, or one behind others.
local function always(expected, body, options)
  local p = start(body, options)
  local c <close> = host.connect(p:url())
  for i = 1, 4 do
    assert.are.equal(expected, (ask(c, "hello")), "request " .. i)
  end
  p:stop()
  assert.are.equal(0, #p:find("handler error"))
end

local ALL = "client_address packet request rfile server socket wfile"

-- Handlers that have to do with self in other ways, and what comes before theirs.
local ways = {
  { name = "as it is" },
  { name = "after reading one field", body = "local _ = self.packet" },
  { name = "after reading all", body = [[
      local _ = self.packet, self.request, self.socket, self.server, self.client_address, self.rfile, self.wfile]] },
  { name = "after asking for many other things", body = "for i = 1, 30 do assert(self['x' .. i] == nil) end" },
  { name = "where a function is asked for the rest", body = "assert(self.waits == 'has waited')", prelude = [[
      setmetatable(H, { __index = function(_, key)
        if key == "waits" then
          moonport.sleep(0)
          return "has waited"
        end
      end })]] },
}

describe("self of a datagram", function()
  after_each(host.cleanup)

  for _, way in ipairs(ways) do
    describe(way.name, function()
      local function see(expected, body)
        always(expected, (way.body or "") .. "\n" .. body, { prelude = way.prelude })
      end

      it("has all its fields for pairs, and no others", function()
        see(ALL, [[ self.wfile:write(fields(self)) ]])
        see(ALL, [[
          local names = fields(self)
          assert(fields(self) == names)
          self.wfile:write(names) ]])
        see("own " .. ALL, [[
          self.own = 1
          self.wfile:write("own ", (fields(self):gsub("own ", ""))) ]])
      end)

      it("has the same for pairs as by name", function()
        see("same", [[
          local before = { packet = self.packet, request = self.request }
          for name, value in pairs(self) do assert(rawequal(value, self[name]), name) end
          assert(self.request == before.request and self.packet == before.packet)
          self.wfile:write("same") ]])
      end)

      it("has each object once", function()
        see("once", [[
          for _, name in ipairs { "server", "client_address", "request", "socket", "rfile", "wfile" } do
            local value = self[name]
            assert(value ~= nil and rawequal(value, self[name]), name)
          end
          assert(self.request[1] == self.packet and self.request[2] == self.socket)
          self.wfile:write("once") ]])
      end)

      it("gives the whole packet whatever rfile has read of it", function()
        see("hello hello hello", [[
          local read = self.rfile:read("a")
          self.wfile:write(read, " ", self.request[1], " ", self.packet) ]])
      end)

      it("keeps what it is given, and loses what is taken away", function()
        see("mine nil nil 7", [[
          assert(self.request and self.packet)
          self.packet = "mine"
          self.request = nil
          local packet = self.packet
          self.packet = nil
          self.count = 7
          self.wfile:write(packet, " ", tostring(self.request), " ", tostring(self.packet), " ", self.count) ]])
      end)

      it("calls the handler's methods, and those that it inherits", function()
        see("hello 3 true", [[
          self.n = 0
          function H:add(n) self.n = self.n + n return self end
          self:add(1):add(2)
          self.wfile:write(self.packet, " ", self.n, " ", tostring(self.handle == H.handle)) ]])
      end)

      it("is of use when its request is over", function()
        local p = start((way.body or "") .. [[
          local packet = self.rfile:read("a")
          if packet == "keep" then
            kept[1] = self
            self.wfile:write("kept")
            return
          end
          local old = kept[1]
          local ok, why = pcall(function() old.wfile:write("to nobody") end)
          assert(not ok and why:find("the request is over"), why)
          ok, why = pcall(function() return old.rfile:read("a") end)
          assert(not ok and why:find("the request is over"), why)
          assert(old.client_address ~= self.client_address and old.request ~= self.request)
          assert(old.client_address.port == self.client_address.port)
          self.wfile:write(old.packet, " ", old.request[1], " ", #fields(old)) ]], { prelude = way.prelude })
        local c <close> = host.connect(p:url())
        for _ = 1, 3 do
          assert.are.equal("kept", (ask(c, "keep")))
          assert.are.equal("keep keep " .. #ALL, (ask(c, "show")))
        end
        p:stop()
        assert.are.equal(0, #p:find("handler error"))
      end)

      it("has an address of its own, that may be changed", function()
        see("127.0.0.1 0", [[
          local a = self.client_address
          local host = a.host
          a[1], a[2] = "another", 0
          self.wfile:write(host, " ", self.client_address.port) ]])
      end)

      it("has fields that the class of the handler cannot hide", function()
        see("hello table", [[
          H.packet, H.request, H.truncated = "the class's", "the class's", nil
          self.wfile:write(self.packet, " ", type(self.request)) ]])
      end)
    end)
  end

  it("has the bytes of small and large ones, and of none", function()
    local p = start([[ self.wfile:write(#self.rfile:read("a"), " ", #self.packet, " ", #self.request[1]) ]])
    local c <close> = host.connect(p:url())
    for _, size in ipairs { 511, 512, 513, 8192, 1, 512 } do
      assert.are.equal(("%d %d %d"):format(size, size, size), (ask(c, ("x"):rep(size))))
    end
    assert(sys.send(c.fd, ""))
    assert.is_true(sys.poll(c.fd, "r", host.LIMIT))
    assert.are.equal("0 0 0", (sys.recvfrom(c.fd)))
    p:stop()
  end)

  it("has the bytes that came, whatever came while its handler slept", function()
    local p = start([[
      if self.rfile:read(1) == "s" then
        moonport.sleep(0.05)
      end
      self.wfile:write(self.packet, " ", self.rfile:read("a")) ]])
    local slow <close> = host.connect(p:url())
    local quick <close> = host.connect(p:url())
    assert(slow:send("slow one"))
    for i = 1, 20 do assert.are.equal(("quick %d uick %d"):format(i, i), (ask(quick, "quick " .. i))) end
    assert.is_true(sys.poll(slow.fd, "r", host.LIMIT))
    assert.are.equal("slow one low one", (sys.recvfrom(slow.fd)))
    p:stop()
  end)

  it("gets a finalizer where its class has got one", function()
    local p = start([[
      if self.packet == "set" then
        getmetatable(self).__gc = function(old) kept[#kept + 1] = old.packet end
      end
      collectgarbage()
      collectgarbage()
      self.wfile:write("gone ", table.concat(kept, " ")) ]])
    local c <close> = host.connect(p:url())
    assert.are.equal("gone ", (ask(c, "set")))
    assert.are.equal("gone ", (ask(c, "first")))
    host.eventually("a finalizer to run", function() return ask(c, "next"):find("first") end)
    p:stop()
    assert.are.equal(0, #p:find("handler error"))
  end)

  it("is looked up in anything without harm", function()
    always("nil nil nil nil", [[
      local meta, found = getmetatable(self), {}
      local key = next(self)
      for name in next, self do if name:find("^%W") then key = name end end
      local asked = { {}, { [key] = ("x"):rep(1000) }, { [key] = io.stdout }, { [key] = self.socket } }
      for i, any in ipairs(asked) do
        found[i] = tostring(meta.__index(any, "packet"))
        for _ in meta.__pairs(any) do end
      end
      for _, any in ipairs { 1, "text", print, false } do
        assert(meta.__index(any, "packet") == nil)
        assert(not pcall(meta.__pairs, any))
      end
      self.wfile:write(table.concat(found, " ")) ]])
  end)

  it("has its fields whatever metatable it is given", function()
    local p = start([[
      local set = self:how()
      set(self, { __index = { say = function(me) me.wfile:write(fields(me), " ", me.packet) end } })
      self:say() ]], { prelude = [[
      local calls = 0
      function H.how()
        calls = calls + 1
        return calls % 2 == 0 and setmetatable or debug.setmetatable
      end]] })
    local c <close> = host.connect(p:url())
    for _ = 1, 4 do assert.are.equal(ALL .. " hello", (ask(c, "hello"))) end
    p:stop()
    assert.are.equal(0, #p:find("handler error"))
  end)

  it("is looked up with more arguments than there should be", function()
    local p = start([[
      local index = getmetatable(self).__index
      local rfile, packet = index(self, "rfile", "mine"), index(self, "packet", 1, 2, 3)
      assert(rfile ~= "mine" and packet ~= 1)
      self.wfile:write(packet or self.packet) ]])
    local c <close> = host.connect(p:url())
    for _, size in ipairs { 600, 5, 600 } do assert.are.equal(("x"):rep(size), (ask(c, ("x"):rep(size)))) end
    p:stop()
  end)

  it("has classes that may go round in a circle", function()
    local p = start([[
      H.__index = H
      setmetatable(H, H)
      self.wfile:write(rawget(self, "connection") and "done" or self.packet) ]], {
      listen = { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" } })
    local first <close> = host.connect(p:url("script"))
    assert.are.equal("done", (first:all()))
    local c <close> = host.connect(p:url("script-2"))
    for _ = 1, 3 do assert.are.equal("hello", (ask(c, "hello"))) end
    p:stop()
    assert.are.equal(0, #p:find("handler error"))
  end)

  it("is the same in verify_request, setup, handle and finish", function()
    local p = host.start(host.write [[
      local H = { server = {} }
      function H.server.verify_request(server, request, address)
        return request[1] ~= "no" and address.host == "127.0.0.1" and server ~= nil
      end
      function H:setup() self.steps = { "setup" } end
      function H:handle() self.steps[2] = self.packet end
      function H:finish() self.wfile:write(table.concat(self.steps, " "), " ", fields(self)) end
      function fields(t)
        local names = {}
        for name in pairs(t) do names[#names + 1] = name end
        table.sort(names)
        return table.concat(names, " ")
      end
      return H]], { listen = "udp://127.0.0.1:0" })
    local c <close> = host.connect(p:url())
    for _ = 1, 3 do
      assert(c:send("no"))
      assert.are.equal("setup yes client_address packet request rfile server socket steps wfile", (ask(c, "yes")))
    end
    p:stop()
    assert.are.equal(0, #p:find("handler error"))
  end)

  for _, mixin in ipairs { "sync", "threading", "forking" } do
    it("is the same under " .. mixin, function()
      always(ALL .. " hello hello", [[
        local packet = self.rfile:read("a")
        self.wfile:write(fields(self), " ", packet, " ", self.request[1]) ]], { args = { "--mixin=" .. mixin } })
    end)
  end
end)
