local host = require("support.host")

-- What goes wrong only when several parts meet: each of these was a bug.
describe("a handler", function()
  after_each(host.cleanup)

  it("keeps its unread input when it closes another connection that has some", function()
    local up = host.start(host.write [[
      function handle(self)
        self.wfile:write("UPSTREAM-", ("x"):rep(1000), "\n")
        self.wfile:flush()
        self.rfile:read()
      end]])
    local p = host.start(host.write(([[
      local moonport = require "moonport"
      function handle(self)
        local first = self.rfile:read()
        local s = moonport.connect(%q)
        local r = s:makefile("r")
        self.wfile:write(first, "\n")
        moonport.sleep(0.05)
        local second = self.rfile:read()
        s:close()
        self.wfile:write(second, "|", self.rfile:read(), "\n")
      end]]):format(up:url())))
    local c <close> = host.connect(p:url())
    c:send("one\n")
    assert.are.equal("one", c:line())
    c:send("two\nthree\n")
    assert.are.equal("two|three", c:line())
    c:close()
    p:stop()
    up:stop()
  end)

  it("whose peer never stops sending is cancelled all the same", function()
    local p = host.start(host.write [[
      function handle(self) while self.request:recv(10) do end end]],
      { args = { "-o", "request_timeout=0.2", "-o", "cancel_grace=0.3", "-o", "drain_timeout=1" } })
    local c <close> = host.connect(p:url())
    local chunk = ("x"):rep(65536)
    -- The send fails once the host has closed the connection.
    host.eventually("the end of the request", function() return not c:send(chunk) or p:find("cancelled")[1] end)
    assert.are.equal("cancelled", p:find("cancelled", true)[1].event)
    c:close()
    p:stop()
  end)

  it("that swallows the cancel while its peer never stops sending is closed after the grace", function()
    local p = host.start(host.write [[
      function handle(self)
        while true do pcall(function() while self.request:recv(10) do end end) end
      end]], { args = { "-o", "request_timeout=0.1", "-o", "cancel_grace=0.2", "-o", "drain_timeout=1" } })
    local c <close> = host.connect(p:url())
    local chunk = ("x"):rep(65536)
    host.eventually("the end of the request", function() return not c:send(chunk) or p:find("cancelled")[1] end)
    assert.matches("went on", p:find("cancelled", true)[1].why)
    c:close()
    p:stop()
  end)

  it("finds a newline after a vain search for something else", function()
    local p = host.start(host.write [[
      function handle(self)
        self.request:settimeout(0.05)
        local _, why = self.rfile:readuntil(";")
        self.wfile:write(why, " ", self.rfile:read() or "nothing", " ", self.rfile:readuntil("e") or "nothing", "\n")
      end]])
    local c <close> = host.connect(p:url())
    c:send("abc\nde")
    assert.are.equal("timeout abc de", c:line())
    c:close()
    p:stop()
  end)

  it("gets the data of recvfrom although the peer has gone meanwhile", function()
    local p = host.start(host.write [[
      local moonport = require "moonport"
      function handle(self)
        self.rfile:read()
        os.execute("sleep 0.1") -- blocks, so that the host does not notice the reset before
        moonport.log("info", (tostring((self.request:recvfrom(4)))))
      end]])
    local c = host.connect(p:url())
    c:send("one\ntwo\n")
    c:reset()
    assert.are.equal("two\n", p:find("script", true)[1].message)
    p:stop()
  end)

  it("reads a number up to a NUL byte, as io.read does", function()
    local code, out = host.run({ "try", host.write [[
      function handle(self) self.wfile:write(("%d %q"):format(self.rfile:read("n"), self.rfile:read("a"))) end]] },
      "12\00034 rest")
    assert.are.same({ 0, '12 "\\00034 rest"' }, { code, out })
  end)
end)
