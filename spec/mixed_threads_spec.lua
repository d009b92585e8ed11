-- What a hostile review has broken in threads, children and class servers, each once.

local host = require("support.host")
local plain = require("support.plain")

describe("threading", function()
  after_each(host.cleanup)

  it("goes on when stats() runs out of memory", function()
    local p = host.start(host.write([[
      local H = {}
      function H:handle()
        if self.rfile:read() == "fill" then
          local node
          pcall(function() while true do node = { node } end end)
          pcall(self.server.stats, self.server)
        end
        self.wfile:write("ok\n")
      end
      return H]]), { args = { "--mixin=threading", "-o", "memory_limit=2M" } })
    for _, word in ipairs { "fill", "a", "fill", "b" } do
      local c <close> = host.connect(p:url())
      assert(c:send(word .. "\n"))
      c:all()
    end
    p:stop()
  end)

  it("gives a cancelled request its grace, however long it has waited", function()
    local p = host.start(host.write([[
      local moonport = require("moonport")
      local H = {}
      function H:handle() self.wfile:write("here\n") self.rfile:read() end
      function H:finish() moonport.sleep(0.01) self.wfile:write("bye\n") end
      return H]]), { args = { "--mixin=threading", "-o", "drain_timeout=1.5", "-o", "cancel_grace=1" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("here", c:line())
    p:kill("TERM")
    assert.are.equal("bye", c:line())
    assert.are.equal(0, p:wait())
  end)

  it("closes idle states where nobody waits for it", function()
    local p = host.start(host.write([[
      slow = setmetatable({}, { __gc = function() os.execute("sleep 3") end })
      local H = {}
      function H:handle() self.wfile:write("ok\n") end
      return H]]), { args = { "--mixin=threading", "-o", "thread_idle_timeout=0.1" } })
    host.connect(p:url()):all()
    host.eventually("the state is being closed", function() return #p:children() > 0 end)
    local began = host.sys.now()
    local c <close> = host.connect(p:url())
    assert.are.equal("ok", c:line())
    assert.is_true(host.sys.now() - began < 2.9)
    c:close()
    p:stop()
  end)
end)

describe("a class server", function()
  after_each(plain.cleanup)

  it("may wait for its children in the course of a request", function()
    local p = plain.start([[
      local Server = socketserver.class("Server", socketserver.ForkingMixIn, socketserver.TCPServer)
      local n = 0
      function Server:process_request(...)
        self:collect_children(true)
        n = n + 1
        socketserver.ForkingMixIn.process_request(self, ...)
        if n == 3 then self:shutdown() end
      end
      local H = socketserver.class("H", socketserver.StreamRequestHandler)
      function H:handle() self.wfile:write("ok\n") end
      local server <close> = Server({ "127.0.0.1", 0 }, H)
      say("at", server.url)
      server:serve_forever()
      say("done", n)]])
    local url, clients = p:url(), {}
    for i = 1, 3 do clients[i] = host.connect(url) end
    for _, c in ipairs(clients) do
      assert.are.equal("ok", c:line())
      c:close()
    end
    assert.matches("done 3\n$", p:done())
  end)

  it("keeps shutdown() when a handler calls serve_forever", function()
    local p = plain.start([[
      local H = socketserver.class("H", socketserver.StreamRequestHandler)
      function H:handle()
        self.wfile:write(tostring(pcall(self.server.serve_forever, self.server)), "\n")
        self.server:shutdown()
      end
      local server <close> = socketserver.AsyncTCPServer({ "127.0.0.1", 0 }, H)
      say("at", server.url)
      server:serve_forever()
      say("over")]])
    assert.are.equal("false", plain.ask(p:url(), "x"))
    assert.matches("over\n$", p:done())
  end)

  it("tells of an error that came just before server_close()", function()
    local p = plain.start([[
      local Server = socketserver.class("Server", socketserver.ThreadingMixIn, socketserver.TCPServer)
      function Server:handle_error(_, _, err) say("told", (err:match("^[^\n]*"))) end
      local server = Server({ "127.0.0.1", 0 }, arg[2])
      say("at", server.url)
      server:handle_request()
      io.read()
      server:server_close()
      say("closed")]], host.write("return { handle = function() error('on purpose', 0) end }"))
    assert.is_nil(plain.ask(p:url(), "x"))
    p:tell("")
    assert.matches("told on purpose\nclosed\n$", p:done())
  end)
end)
