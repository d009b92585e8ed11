-- What the control API may forget, and what not: the journal, a reset, the verdict.

local apis = require("support.api")
local host = require("support.host")

local SCRIPT = [[
local mock = require("moonport.mock")
local a = mock.server { "tcp://127.0.0.1:0", name = "a" }
a:on("^PING$", "+PONG\n", { id = "ping", required = true })
a:on("^nth$", function(c) return c.nth .. "\n" end)
local b = mock.server { "tcp://127.0.0.1:0", name = "b" }
b:session(function(c) c:expect("^good") end)
]]

describe("the control API of moonport mock", function()
  local p, api

  before_each(function()
    p = host.start(host.write(SCRIPT), { command = "mock", listen = "", args = { "--log-level=info" } })
    api = apis.connect(p)
  end)
  after_each(function()
    api:close()
    host.cleanup()
  end)

  local function say(line, name)
    local c <close> = host.connect(p:url(name or "a"))
    assert(c:send(line .. "\n"))
    return (c:line())
  end

  -- The exit code, and what it has said.
  local function finish()
    p:kill("TERM")
    return p:wait(), host.read(p.log_path)
  end

  local function expect_fails()
    say("bad", "b")
    host.eventually("the failure", function() return #api:must("GET", "/journal?kind=failed").records == 1 end)
  end

  describe("DELETE /journal", function()
    it("forgets records, and not which connection is the n-th", function()
      say "PING"
      assert.are.equal("2", say "nth")
      api:must("DELETE", "/journal")
      assert.are.equal(0, #api:must("GET", "/journal").records)
      assert.are.equal("3", say "nth")
      assert.are.equal(4, #api:must("GET", "/journal").records)
      assert.matches('journal_events_total{server="a",kind="open"} 3\n', api:must("GET", "/metrics"))
      assert.are.equal(0, (finish()))
    end)

    it("leaves the verdict as it is", function()
      say "PING"
      expect_fails()
      api:must("DELETE", "/journal")
      local code, log = finish()
      assert.are.equal(1, code)
      assert.matches("expect failed", log)
      assert.is_nil(log:find("never used", 1, true))
    end)
  end)

  describe("POST /reset", function()
    it("keeps what has failed for the verdict, and tells how much", function()
      say "PING"
      expect_fails()
      assert.are.equal(1, api:must("POST", "/reset").failures)
      assert.are.equal(0, #api:must("GET", "/journal").records)
      assert.are.equal("1", say "nth")
      local code, log = finish()
      assert.are.equal(1, code)
      assert.matches("expect failed", log)
      assert.is_nil(log:find("never used", 1, true))
    end)

    it("forgets the verdict if told to, and says what it was", function()
      say "PING"
      expect_fails()
      local r = api:must("POST", "/reset", { verdict = true })
      assert.are.same({ 0, 1 }, { r.failures, #r.forgotten })
      assert.matches("expect failed", r.forgotten[1])
      assert.are.equal(400, (api:ask("POST", "/reset", { verdict = true, server = "a" })))
      assert.are.equal(400, (api:ask("POST", "/reset", { verdict = 1 })))
      assert.are.equal(400, (api:ask("POST", "/reset", { server = 1 })))
      say "PING" -- it counts again
      assert.are.equal(0, (finish()))
    end)

    it("finds fault with a required stub that it takes away unused; one that was used before is another", function()
      say "PING"
      local stub = { id = "x", match = "^x$", reply = "X\n", required = true }
      api:must("POST", "/servers/a/stubs", stub)
      assert.are.equal("X", say "x")
      assert.are.equal(0, api:must("POST", "/reset").failures)
      api:must("POST", "/servers/a/stubs", stub)
      assert.are.equal(1, api:must("POST", "/reset").failures)
      local code, log = finish()
      assert.are.equal(1, code)
      assert.matches('the required stub "x"[^\n]* was never used', log)
    end)

    it("knows a stub that was used before the script was loaded again", function()
      say "PING"
      api:must("POST", "/servers/a/stubs", { id = "x", match = "^x$", reply = "X\n", required = true })
      assert.are.equal("X", say "x")
      api:must("POST", "/servers/a/reload")
      assert.are.equal(0, api:must("POST", "/reset").failures)
      assert.are.equal(0, (finish()))
    end)

    it("switches servers on, and goes back to the state that one was made with", function()
      say "PING"
      api:must("POST", "/servers", { name = "y", state = { n = 1 } })
      api:must("PUT", "/servers/y/state", { n = 2 })
      for _, name in ipairs { "a", "y" } do api:must("PATCH", "/servers/" .. name, { enabled = false }) end
      api:must("POST", "/reset", { server = "y" })
      assert.is_true(api:must("GET", "/servers/y").enabled)
      assert.is_false(api:must("GET", "/servers/a").enabled)
      assert.are.same({ n = 1 }, api:must("GET", "/servers/y/state"))
      api:must("POST", "/reset")
      assert.are.equal("1", say "nth")
      assert.are.equal(0, (finish()))
    end)
  end)

  it("ends at once, whoever keeps a socket that it has closed, or waits for the journal", function()
    say "PING"
    api:must("POST", "/servers/a/stubs", { match = "^close$", reply = { fault = "close" } })
    local clients = {}
    for i = 1, 20 do
      clients[i] = host.connect(p:url("a"))
      clients[i]:send("close\n")
      assert.are.equal("", (clients[i]:all()))
    end
    for i = 21, 40 do
      clients[i] = apis.connect(p)
      clients[i]:send("GET", "/journal?wait=60s&kind=failed")
    end
    local t = host.sys.now()
    assert.are.equal(0, (finish()))
    assert.is_true(host.sys.now() - t < 1.9, "lingering takes 2 seconds")
    for _, c in ipairs(clients) do c:close() end
  end)

  it("makes a server with its state, or nothing", function()
    say "PING"
    assert.are.equal(400, (api:ask("POST", "/servers", { name = "z", state = 5 })))
    assert.are.equal(400, (api:ask("POST", "/servers", { name = "z", url = "tcp://127.0.0.1:99999" })))
    local _, taken = api:ask("POST", "/servers", { name = "z", url = p:url("a") })
    assert.matches("twice: a, of this host itself, does already", taken.error)
    assert.are.equal(201, (api:ask("POST", "/servers", { name = "z" })))
    assert.are.equal(0, (finish()))
  end)
end)
