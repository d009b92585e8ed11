local host = require("support.host")
local sys = host.sys

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

  it("cannot write into the middle of another request's write", function()
    local p = host.start(host.write [[
      local big
      function handle(self)
        if self.rfile:read() == "big" then
          big = self
          self.wfile:write(("A"):rep(3000000))
          return
        end
        local ok, e = pcall(big.wfile.write, big.wfile, "intruder\n")
        self.wfile:write(ok and "written" or e, "\n")
      end]])
    local reader <close> = host.connect(p:url(), { receive = 4096 })
    reader:send("big\n")
    assert.are.equal("A", reader:receive(1))
    local other = host.connect(p:url())
    other:send("other\n")
    assert.matches("another task is writing to this connection", other:line())
    other:close()
    local rest = reader:all()
    assert.are.equal(2999999, #rest)
    assert.is_nil(rest:find("[^A]"))
    reader:close()
    p:stop()
  end)

  for what, code in pairs {
    ["wfile:write"] = "self.wfile:setvbuf('no') while true do self.wfile:write('x') end",
    ["flush"] = "while true do self.wfile:write('x') self.wfile:flush() end",
    ["sendall"] = "while true do self.request:sendall('x') end",
  } do
    it("that writes without end to a fast reader lets others run: " .. what, function()
      local p = host.start(host.write(([[
        function handle(self)
          if self.rfile:read() == "hog" then %s end
          self.wfile:write("served\n")
        end]]):format(code)), { args = { "-o", "drain_timeout=0.2" } })
      local hog = host.connect(p:url())
      hog:send("hog\n")
      assert.are.equal("x", hog:receive(1))
      local other = host.connect(p:url())
      other:send("other\n")
      local line
      host.eventually("an answer beside the hog", function()
        hog:some(0)
        if sys.poll(other.fd, "r", 0) then line = other:line() end
        return line
      end)
      assert.are.equal("served", line)
      other:close()
      p:kill("TERM")
      host.eventually("the end", function()
        if hog.fd and not hog:some(0) then hog:close() end
        return p:wait(0)
      end)
    end)
  end

  it("starts without the debug hook of an earlier one", function()
    local p = host.start(host.write [[
      function handle(self)
        if self.rfile:read() == "hook" then debug.sethook(function() error("hooked") end, "", 100) return end
        for _ = 1, 1000 do end
        self.wfile:write("fine\n")
      end]])
    local first = host.connect(p:url())
    first:send("hook\n")
    first:all()
    first:close()
    local c = host.connect(p:url())
    assert.are.equal("fine", c:ask("plain"))
    c:close()
    p:stop()
  end)

  it("may use up the memory of its state: the host can still log, cancel and stop", function()
    local p = host.start(host.write [[
      local moonport = require "moonport"
      local kept = {}
      function handle(self)
        pcall(function() while true do kept[#kept + 1] = ("x"):rep(100) .. #kept end end)
        self.wfile:write("full\n")
        moonport.sleep(60)
      end]], { args = { "-o", "memory_limit=1M", "-o", "drain_timeout=0.1" } })
    local c = host.connect(p:url())
    assert.are.equal("full", c:line())
    p:kill("USR1")
    assert.are.equal("task", p:find("task", true)[1].event)
    p:kill("TERM")
    assert.are.equal(0, p:wait())
    c:close()
  end)

  it("that is cancelled in the middle of a write writes no more", function()
    local p = host.start(host.write [[
      local H = {}
      function H:handle() self.wfile:write(("A"):rep(8000000)) end
      function H:finish() self.wfile:write("bye") end
      return H]], { args = { "-o", "request_timeout=0.2" } })
    local c <close> = host.connect(p:url(), { receive = 4096 })
    p:find("cancelled", true)
    assert.is_nil(c:all():find("bye", 1, true))
    c:close()
    p:stop()
  end)

  it("is told of a frame whose length no buffer could hold", function()
    local code, out = host.run({ "try", host.write [[
      function handle(self) self.wfile:write(tostring(select(2, self.rfile:unpack(">s8")))) end]] }, ("\255"):rep(8))
    assert.are.same({ 0, "line too long" }, { code, out })
  end)
end)

-- A shell's exit code and output: descriptors that host.run() cannot close.
local function shell(command)
  local p = assert(io.popen("(timeout 10 " .. command .. ") 2>&1"))
  local out = p:read("a")
  local _, _, code = p:close()
  return code, out
end

describe("the program", function()
  after_each(host.cleanup)

  it("tries a handler without standard input, or output", function()
    assert.are.same({ 0, "" }, { shell(host.program .. " try scripts/upper.lua <&-") })
    assert.are.same({ 0, "" }, { shell("echo x | " .. host.program .. " try scripts/upper.lua >&-") })
  end)

  it("says when the output of try could not be written, or its input not be read", function()
    local code, out = shell("echo x | " .. host.program .. " try scripts/upper.lua 2>&1 >/dev/full")
    assert.are.equal(111, code)
    assert.matches("^moonport: standard input or output failed: No space left on device\n$", out)
    code, out = shell(host.program .. " try scripts/upper.lua </tmp")
    assert.are.equal(111, code)
    assert.matches("^moonport: .*[Dd]irectory\n$", out)
  end)

  it("fails when the request that it tried was cancelled, and says so", function()
    local code, _, err = host.run { "try", host.write "function handle() require('moonport').sleep(60) end",
      "-o", "request_timeout=0.05" }
    assert.are.same({ 1, "moonport: the request was cancelled\n" }, { code, err })
  end)

  it("wants its command first", function()
    local code, out, err = host.run { "--listen", "tcp://127.0.0.1:0", "serve", "scripts/echo.lua" }
    assert.are.same({ 100, "" }, { code, out })
    assert.matches("^moonport: the command comes first[^\n]*\n$", err)
  end)

  it("takes --drain-timeout", function()
    local script = host.write "function handle(self) self.request:sendall('x') self.rfile:read() end"
    local p = host.start(script, { args = { "--drain-timeout", "0.1" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("x", c:receive(1))
    p:stop()
    assert.are.equal(1, #p:find("still running"))
  end)

  it("starts and stops although somebody has locked the folder of its socket", function()
    local folder = host.folder()
    local null = assert(sys.open("/dev/null"))
    local holder = assert(sys.spawn({ "flock", "--no-fork", folder, "sleep", "30" },
      { stdin = null, stdout = null, stderr = null }))
    sys.close(null)
    host.eventually("the lock", function() return not os.execute("flock --nonblock " .. folder .. " true") end)
    local p = host.start("scripts/echo.lua", { listen = "unix://" .. folder .. "/s" })
    local c = host.connect(p:url())
    assert.are.equal("hello", c:ask("hello"))
    c:close()
    p:stop()
    sys.kill(holder, "KILL")
    sys.wait(holder, host.LIMIT)
  end)
end)
