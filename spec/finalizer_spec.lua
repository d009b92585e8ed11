local case = require("support.case")
local host = require("support.host")

describe("an object with a __gc", function()
  local p
  setup(function() p = case.start() end)
  teardown(function()
    p:stop()
    host.cleanup()
  end)

  it("is what setmetatable gives back", function()
    assert.are.same({ true, true, "it", n = 3 }, case.run(p, [[
      local one, meta = { name = "it" }, { __gc = function() end }
      local got = setmetatable(one, meta)
      return rawequal(got, one), rawequal(getmetatable(one), meta), got.name]]))
    assert.are.same({ true, n = 1 }, case.run(p, [[
      local one = {}
      return rawequal(debug.setmetatable(one, { __gc = function() end }), one)]]))
  end)

  it("is finalized when nobody can reach it, and not before", function()
    assert.are.same({ 0, 1, "it", n = 3 }, case.run(p, [[
      local n, name = 0, nil
      local one = setmetatable({ name = "it" }, { __gc = function(o) n, name = n + 1, o.name end })
      for _ = 1, 3 do collectgarbage() end
      local while_alive = n
      one = nil
      for _ = 1, 3 do collectgarbage() end
      return while_alive, n, name]]))
  end)
end)
