local host = require("support.host")

local function answer(text)
  local q = host.start(host.write(text))
  local c <close> = host.connect(q:url())
  c:finish()
  local got = c:all()
  c:close()
  q:stop()
  return got
end

local DEFAULT = [[
  require("moonport").default_handler {
    setup = function(self) self.wfile:write("setup ") end,
    handle = function(self) self.wfile:write("default") end,
    finish = function(self) self.wfile:write(" finish") end,
  }
]]

-- What a script that cannot be loaded is told.
local function complaint(text)
  local code, _, err = host.run { "check", host.write(text) }
  assert.are.equal(1, code == 0 and 0 or 1)
  return err
end

describe("moonport.default_handler", function()
  after_each(host.cleanup)

  it("handles requests if the script returns nothing, or nil", function()
    assert.are.equal("setup default finish", answer(DEFAULT))
    assert.are.equal("setup default finish", answer(DEFAULT .. "return nil"))
  end)

  it("comes after what the script returns or defines", function()
    assert.are.equal("own", answer(DEFAULT .. "return { handle = function(self) self.wfile:write('own') end }"))
    assert.are.equal("own", answer(DEFAULT .. "function handle(self) self.wfile:write('own') end"))
  end)

  it("is the last one that was given", function()
    assert.are.equal("last", answer(DEFAULT ..
      "require('moonport').default_handler { handle = function(self) self.wfile:write('last') end }"))
  end)

  it("may be given by a module that the script requires", function()
    local folder = host.folder()
    host.write(DEFAULT .. "return {}", folder .. "/library.lua")
    host.write("require('library')", folder .. "/script.lua")
    local q = host.start(folder .. "/script.lua")
    local c <close> = host.connect(q:url())
    c:finish()
    assert.are.equal("setup default finish", (c:all()))
    c:close()
    q:stop()
  end)

  it("may stand behind what a library has made, in the field __handler of its metatable", function()
    assert.are.equal("other", answer(DEFAULT .. [[
      return setmetatable({}, { __handler = { handle = function(self) self.wfile:write('other') end } })]]))
    assert.matches("has no handle", complaint(DEFAULT .. "return setmetatable({}, { __handler = 1 })"))
  end)

  it("does not stand in for a wrong value, and needs a handle", function()
    assert.matches("has no handle", complaint(DEFAULT .. "return {}"))
    assert.matches("has no handle", complaint(DEFAULT .. "return false"))
    assert.matches("has no handle", complaint(DEFAULT .. "handle = 1"))
    assert.matches("the handler needs a function `handle`", complaint("require('moonport').default_handler {}"))
    assert.matches("table expected", complaint("require('moonport').default_handler()"))
  end)

  it("is each generation's own", function()
    local script = host.write(DEFAULT)
    local q = host.start(script)
    host.write("", script)
    q:kill("HUP")
    assert.matches("has no handle", q:find("reload failed", true)[1].error or q:find("reload failed")[1].why)
    host.write((DEFAULT:gsub('"default"', '"second"')), script)
    q:kill("HUP")
    q:find("reloaded", true)
    local c <close> = host.connect(q:url())
    c:finish()
    assert.are.equal("setup second finish", (c:all()))
    c:close()
    q:stop()
  end)
end)
