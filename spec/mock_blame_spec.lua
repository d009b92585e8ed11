local host = require("support.host")
local mocks = require("support.mocks")

local m

-- What the journal has of an error that a stub of this body raises.
local function raised(body)
  m = mocks.start(([[
    local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
    s:on("", function(c) %s end)]]):format(body))
  local c <close> = m:connect("s")
  c:send("x\n")
  c:all()
  host.eventually("its end", function() return m:journal("s", "closed")[1] end)
  return m:journal("s", "error")[1], m:journal("s", "closed")[1]
end

describe("an error in a mock's script is the script's fault", function()
  after_each(host.cleanup)

  for what, case in pairs {
    ["behind c:close()"] = { 'c:send "x" c:close() error "boom"', "boom", "closed [closed]" },
    ["behind c:reset()"] = { 'c:reset() error "boom"', "boom", "closed [reset]" },
    ["behind the end of a conversation that it has noticed"] =
      { 'c:close() pcall(c.send, c, "x") error "boom"', "boom", "closed [closed]" },
    ["with a code such as the host's"] =
      { 'error { code = "timeout" }', "(error object is a table value)", "closed [closed]" },
    ["with a code that is no end"] =
      { 'error { code = "cancelled" }', "(error object is a table value)", "closed [closed]" },
    ["with an error value"] = {
      'error(setmetatable({}, { __tostring = function() return "told" end }))', "told", "closed [closed]" },
    ["with an error value that cannot be told"] = {
      "error(setmetatable({}, { __tostring = error }))", "(error value: a table whose __tostring failed)",
      "closed [closed]" },
    ["with nothing"] = { "error(nil)", "nil", "closed [closed]" },
  } do
    it(what, function()
      local text, ended = raised(case[1])
      assert.truthy(text and text:find(case[2], 1, true), text)
      assert.truthy(text:find("stack traceback:\n.*script.lua:2: in"), text)
      assert.are.equal(case[3], ended)
      local code, log = m:finish()
      assert.are.equal(1, code)
      assert.truthy(log:find("handler error", 1, true), log)
    end)
  end
end)

describe("an error of the system's that ends no connection", function()
  after_each(host.cleanup)

  it("tells whose it is", function()
    m = mocks.start [[
      local s = mock.server { "udp://127.0.0.1:0", name = "s" }
      s:on("", ("x"):rep(65508))]]
    local c <close> = m:connect("s")
    c:send("x")
    host.eventually("the failure", function() return m:journal("s", "failed")[1] end)
    assert.matches("mock s, datagram 1 from 127%.0%.0%.1:%d+: sendto: Message too long$", m:journal("s", "failed")[1])
    assert.are.equal(1, (m:finish()))
  end)
end)

describe("a datagram to a client that is gone, and its path as well,", function()
  after_each(host.cleanup)

  it("is no fault of the script's", function()
    local folder = host.folder()
    m = mocks.start(([[ local gone = require("moonport").event()
      local s = mock.server { "unixgram://%s/s", name = "s" }
      s:on("^wait$", function(c) c:note("waits") gone:wait() c:note("answers") return "late" end)
      s:on("^go$", function() gone:set() return "gone" end)]]):format(folder))
    local early = m:connect("s", { bind = "unixgram://" .. folder .. "/early" })
    early:send("wait")
    m:await("s", "note waits")
    early:close()
    os.remove(folder .. "/early")
    local c <close> = m:connect("s", { bind = "unixgram://" .. folder .. "/c" })
    c:send("go")
    assert.are.equal("gone", c:some())
    m:await("s", "note answers")
    assert.are.same({}, m:journal("s", "error", "failed"))
    assert.are.equal(0, (m:finish()))
  end)
end)

describe("an error in a task that a mock's script has spawned", function()
  after_each(host.cleanup)

  for what, spawned in pairs {
    ["itself"] = "moonport.spawn(function(word) error(word) end, 'boom')",
    ["in such a task"] = "moonport.spawn(function() moonport.spawn(error, 'boom') c:sleep(60) end)",
  } do
    it("is the script's as well: " .. what, function()
      m = mocks.start(([[ local moonport = require("moonport")
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:on("", function(c) %s c:sleep(60) end)]]):format(spawned))
      local c <close> = m:connect("s")
      c:send("x\n")
      host.eventually("the error", function() return m:journal("s", "error")[1] end)
      assert.truthy(m:journal("s", "error")[1]:find("boom\nstack traceback:", 1, true))
      local code, log = m:finish()
      assert.are.equal(1, code)
      assert.truthy(log:find("error in a spawned task", 1, true), log)
    end)
  end

  it("is none of it when the conversation is over, or the peer is gone", function()
    m = mocks.start [[ local moonport = require("moonport")
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("", function(c, what)
        local function go() while true do c:send("tick\n") c:sleep(0.001) end end
        moonport.spawn(go)
        c:sleep(0.01)
        if what == "close" then c:close() end
        moonport.sleep(what == "close" and 0.05 or 60)
      end)]]
    local c <close> = m:connect("s")
    c:send("close\n")
    assert.truthy(c:all():find("tick", 1, true))
    local d = m:connect("s")
    d:send("x\n")
    assert.are.equal("tick", d:line())
    d:reset()
    host.eventually("both ends", function() return #m:journal("s", "closed") == 2 end)
    assert.are.same({}, m:journal("s", "error"))
    assert.are.same({}, m.program:find("error in a spawned task"))
    m:stop()
  end)

  it("in its use names the line", function()
    local path = host.write('local moonport = require("moonport")\nrequire("moonport.mock")\nmoonport.spawn(print)\n')
    local code, _, err = host.run { "mock", path }
    assert.are_not.equal(0, code)
    assert.truthy(err:find(path .. ":3: moonport.spawn is for a running request", 1, true), err)
  end)
end)

describe("a mistake in a mock's conversation names its line:", function()
  after_each(host.cleanup)

  local no_framing = "a framing is made by moonport.frame, or is a string.pack format or a function, not 12"
  for code, want in pairs {
    ["c:sleep(0/0)"] = "c:sleep needs a number of seconds, 0 or more, not -nan",
    ["c:sleep()"] = "c:sleep needs a number of seconds, 0 or more, not nil",
    ["c:sleep(-1)"] = "c:sleep needs a number of seconds, 0 or more, not -1",
    ['c:recv(nil, "x")'] = "c:recv: a time limit is a number of seconds, not x",
    ["c:recv(12)"] = no_framing,
    ['c:serve ">s0"'] = 'bad pack format ">s0": the size after \'s\' must be 1 to 16, not 0',
    ["local f = c:frames(12)"] = no_framing,
    ['c:expect("x", 1)'] = "c:expect: the options are a table such as { timeout = 2 }",
    ['c:expect("x", { timout = 1 })'] = "c:expect: there is no option timout; there are framing and timeout",
    ['c:expect("x", { timeout = "1" })'] = "c:expect: a time limit is a number of seconds, not 1",
    ['c:expect("x", { framing = 12 })'] = no_framing,
    ['c:shutdown "wrong"'] = 'c:shutdown needs "read", "write" or "both", not wrong',
    ["return 42"] = "what this function returned is no reply: a reply is a string, a list of replies, a function "
      .. "or a fault such as mock.reset, not a number",
  } do
    it(code, function()
      local text = raised(code)
      assert.truthy(text and text:find("script.lua:2: " .. want .. "\n", 1, true), text)
      m:finish()
    end)
  end
end)

describe("an error in a mock's script is nobody's fault", function()
  after_each(host.cleanup)

  for toxic, ended in pairs { ["type = 'timeout', timeout = 20"] = "closed", ["type = 'reset_peer'"] = "reset" } do
    it("when a toxic ends the connection while something waits for it: " .. toxic, function()
      m = mocks.start(([[
        local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
        s:toxic { %s }
        s:session(function(c) c:recv() c:send "abcdef" c:recv() end)]]):format(toxic))
      local c <close> = m:connect("s")
      c:send("go\n") -- else a reset can be there before the client knows that it is connected
      assert.are.equal("", (c:all()))
      m:await("s", "closed [" .. ended .. "]")
      assert.is_nil(m:journal("s", "error")[1])
      m:stop()
    end)
  end
end)
