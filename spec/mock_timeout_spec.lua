local host = require("support.host")
local mocks = require("support.mocks")

describe("a mock's time limit of a read", function()
  local m, c

  before_each(function()
    m = mocks.start [[
      local s = mock.server { "tcp://127.0.0.1:0", name = "s" }
      s:on("^late$", function(c) return tostring(select(2, c:recv(nil, 0.01))) .. "\n" end)
      s:on("^auth$", function(c)
        c:send "password?\n"
        return "hi " .. c:expect("^(.*)$", { timeout = 0.3 }) .. "\n"
      end)
      s:on("", "again\n")]]
    c = m:connect("s")
  end)
  after_each(function()
    c:close()
    local ok, why = pcall(m.stop, m)
    host.cleanup()
    assert(ok, why)
  end)

  it("that is over is not one of the next frame", function()
    c:send("late\n")
    assert.are.equal("timeout", c:line())
    c:send("x\n")
    assert.are.equal("again", c:line())
  end)

  it("that was kept does not end the connection later", function()
    c:send("auth\n")
    assert.are.equal("password?", c:line())
    c:send("secret\n")
    assert.are.equal("hi secret", c:line())
    assert.are.same({ nil, "timeout", 0 }, { c:some(0.5) })
    c:send("x\n")
    assert.are.equal("again", c:line())
  end)
end)
