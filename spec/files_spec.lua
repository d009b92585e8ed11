-- What a script opened when it was loaded: a forked child must not write into what has the number now.

local host = require("support.host")

local SCRIPT = [[
  local folder = %q
  local before = assert(io.open(folder .. "/before", "w"))
  before:setvbuf("full")
  before:write("the parent's\n")
  local pipe = assert(io.popen("cat", "w"))
  local H = {}
  function H:handle()
    local ok, why = pcall(before.write, before, "the child's\n")
    self.wfile:write(tostring(ok), " ", tostring(why), "\n")
    self.wfile:write(tostring((pcall(pipe.write, pipe, "x"))), " ", io.type(before), "\n")
    local own = {}
    for i = 1, 8 do own[i] = assert(io.open(folder .. "/own" .. i, "w")) end
    pcall(before.write, before, "stray")
    for i = 1, 8 do own[i]:write(i) own[i]:close() end
    io.stdout:write("")
    self.wfile:write("done\n")
  end
  return H]]

describe("files of a script's top level", function()
  after_each(host.cleanup)

  for _, args in ipairs { {}, { "-o", "max_requests_per_child=3" } } do
    it("are closed in a forked child: " .. (args[2] or "one request each"), function()
      local folder = host.folder()
      local p = host.start(host.write(SCRIPT:format(folder)), {
        args = { "--mixin=forking", table.unpack(args) },
      })
      for _ = 1, 4 do
        local c <close> = host.connect(p:url())
        c:finish()
        local said = c:all()
        assert.matches("^false .*attempt to use a closed file\nfalse closed file\ndone\n$", said)
        for i = 1, 8 do assert.are.equal(tostring(i), host.read(folder .. "/own" .. i)) end
      end
      p:stop()
      assert.are.equal("the parent's\n", host.read(folder .. "/before"))
    end)
  end

  it("are closed in a child whose script has hidden the io library behind a strict _G", function()
    local p = host.start(host.write([[
      local f = assert(io.open("/dev/null"))
      local kind = io.type
      package.loaded.io.stdin = nil
      io = nil
      setmetatable(_G, { __index = function(_, name) error("undeclared " .. name) end })
      return { handle = function(self) self.wfile:write(kind(f), "\n") end }]]), { args = { "--mixin=forking" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("closed file", c:line())
    p:stop()
  end)

  it("stay open where nothing is forked", function()
    local folder = host.folder()
    local p = host.start(host.write([[
      local log = assert(io.open(]] .. ("%q"):format(folder .. "/log") .. [[, "w"))
      local H = {}
      function H:handle() log:write("here\n") log:flush() self.wfile:write("ok\n") end
      return H]]))
    local c <close> = host.connect(p:url())
    assert.are.equal("ok", c:line())
    assert.are.equal("here\n", host.read(folder .. "/log"))
    c:close()
    p:stop()
  end)
end)
