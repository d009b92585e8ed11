-- The C tests of spec/unit, one spec for each of them.
local host = require("support.host")

describe("the C unit", function()
  local tests = {
    "addr", "beneath", "buf", "busy", "heap", "journal", "json", "list", "listen", "log", "loop", "nearest",
    "packsize", "pattern", "plain", "pool", "roster", "script", "signals", "uring", "watch",
  }

  local function run(arguments)
    local p = assert(io.popen(host.build .. "/unit " .. arguments .. " 2>&1"))
    local said = p:read("a")
    local ok = p:close()
    return ok, said
  end

  for _, name in ipairs(tests) do
    it(name, function()
      local ok, said = run(name)
      assert.is_true(ok, said)
      assert.matches("^ok " .. name .. " %d+\n$", said)
    end)
  end

  it("tests are all listed here", function()
    local p = assert(io.popen("ls spec/unit"))
    local found = {}
    for file in p:lines() do found[#found + 1] = file:match("^(.*)_test%.c$") end
    p:close()
    assert.are.same(tests, found)
  end)
end)
