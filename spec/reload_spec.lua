--- SIGHUP: new code for new requests.

local host = require("support.host")
local generations = require("support.generations")
local version, reload = generations.version, generations.reload

describe("SIGHUP", function()
  after_each(host.cleanup)

  it("gives new requests the new code, and old ones keep theirs", function()
    local path = host.write(version("one"))
    local p = host.start(path)
    local descriptors = p:descriptors()
    local old <close> = host.connect(p:url())
    assert.are.equal("one a", old:ask("a"))

    host.write(version("two"), path)
    local e = reload(p, "reloaded")
    assert.are.equal(2, e.generation)
    assert.are.equal(path, e.script)
    local new <close> = host.connect(p:url())
    assert.are.equal("two b", new:ask("b"))
    assert.are.equal("one c", old:ask("c"))

    host.write(version("three"), path)
    assert.are.equal(3, reload(p, "reloaded").generation)
    local newest <close> = host.connect(p:url())
    assert.are.equal("three d", newest:ask("d"))
    assert.are.equal("two e", new:ask("e"))
    assert.are.equal("one f", old:ask("f"))

    -- the log tells which code it was
    for i, c in ipairs { old, new, newest } do
      c:send("fail\n")
      assert.are.same({ "" }, { c:all() })
      c:close()
      local failed = p:find("handler error")[i]
      assert.are.equal(i, failed.generation)
      assert.is_truthy(failed.error:find("script%.lua:5: failed as " .. ({ "one", "two", "three" })[i]), failed.error)
    end
    host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
    p:stop()
  end)

  it("loads the modules of the script's folder anew", function()
    local folder = host.folder()
    local path = host.write([[
      local word = require("word")
      local H = {}
      function H:handle() self.wfile:write(word, "\n") end
      return H
    ]], folder .. "/script.lua")
    host.write("return 'one'", folder .. "/word.lua")
    local p = host.start(path)
    local before <close> = host.connect(p:url())
    assert.are.equal("one", before:line())
    host.write("return 'two'", folder .. "/word.lua")
    reload(p, "reloaded")
    local after <close> = host.connect(p:url())
    assert.are.equal("two", after:line())
    before:close()
    after:close()
    p:stop()
  end)

  it("is for every listener of the script", function()
    local path = host.write(version("one"))
    local p = host.start(path, { listen = { "tcp://127.0.0.1:0", "unix://" .. host.folder() .. "/s" } })
    host.write(version("two"), path)
    reload(p, "reloaded")
    for _, name in ipairs { "script", "script-2" } do
      local c <close> = host.connect(p:url(name))
      assert.are.equal("two a", c:ask("a"))
    end
    p:stop()
  end)

  it("takes the new code's attributes, and not the old one's", function()
    local function with(attribute)
      return ([[
        local H = {}
        %s
        function H:handle() self.wfile:write(tostring(self.server.timeout), "\n") end
        return H
      ]]):format(attribute)
    end
    local path = host.write(with("H.timeout = 7"))
    local p = host.start(path)
    local function seen()
      local c <close> = host.connect(p:url())
      return c:line()
    end
    assert.are.equal("7.0", seen())
    host.write(with("H.server = { timeout = 8 }"), path)
    reload(p, "reloaded")
    assert.are.equal("8.0", seen())
    host.write(with(""), path)
    reload(p, "reloaded")
    assert.are.equal("nil", seen())
    p:stop()
  end)

  local broken = {
    { "a syntax error", "local H = {}\nfunction H:handle(\n", "script%.lua:%d+: " },
    { "an error while it is loaded", "local H = {}\nerror('no luck')", "script%.lua:2: no luck" },
    { "no handle", "return {}", "script%.lua.*handle" },
    { "an unknown attribute", version("two", "H.server = { max_connection = 1 }"),
      "script%.lua.*max_connection:.*did you mean max_connections" },
    { "an attribute out of range", version("two", "H.timeout = -1"), "script%.lua: timeout: it must be" },
    { "a wait while it is loaded", "require('moonport').sleep(1)", "script%.lua:1: this waits" },
    { "a broken module", "require('broken')", "broken%.lua:1: " },
    { "a missing module", "require('missing')", "script%.lua:1: module 'missing' not found" },
    { "an endless string", "return ('x'):rep(1 << 40)", "script%.lua:1: .*resulting string too large\n?" },
    { "bytecode", string.dump(function() end), "script%.lua" },
  }
  for _, case in ipairs(broken) do
    it("keeps the old code when the new has " .. case[1], function()
      local folder = host.folder()
      local path = host.write(version("one"), folder .. "/script.lua")
      host.write("return return", folder .. "/broken.lua")
      local p = host.start(path)
      local descriptors = p:descriptors()
      local old <close> = host.connect(p:url())
      assert.are.equal("one a", old:ask("a"))
      host.write(case[2], path)
      local e = reload(p, "reload failed")
      assert.are.same({ "error", path, 1 }, { e.level, e.script, e.generation })
      assert.is_truthy(e.why:find(case[3]), e.why)
      local new <close> = host.connect(p:url())
      assert.are.equal("one b", new:ask("b"))
      assert.are.equal("one c", old:ask("c"))
      host.write(version("two"), path)
      reload(p, "reloaded")
      local repaired <close> = host.connect(p:url())
      assert.are.equal("two d", repaired:ask("d"))
      assert.are.equal("one e", old:ask("e"))
      old:close()
      new:close()
      repaired:close()
      host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
      p:stop()
    end)
  end

  it("keeps the old code when the script is gone", function()
    local path = host.write(version("one"))
    local p = host.start(path)
    assert(os.remove(path))
    local e = reload(p, "reload failed")
    assert.is_truthy(e.why:find("No such file or directory", 1, true), e.why)
    local c <close> = host.connect(p:url())
    assert.are.equal("one a", c:ask("a"))
    c:close()
    p:stop()
  end)

  local HOOK = [[
    local moonport = require("moonport")
    function H:finish() moonport.log("info", "finished") end
    H.server = {
      verify_request = function() return true end,
      handle_error = function(_, _, _, e) moonport.log("info", "told: " .. tostring(e):match("[^\n]*")) end,
    }
  ]]
  local FINISH = 'function H:finish() require("moonport").log("info", "finished") end'

  local function messages(p)
    local out = {}
    for i, e in ipairs(p:find("script")) do out[i] = (e.message:gsub("%S*script%.lua:%d+: ", "")) end
    return out
  end

  it("leaves an old request without hooks, though the new code has some", function()
    local path = host.write(version("one", FINISH))
    local p = host.start(path)
    local failing <close> = host.connect(p:url())
    local ending <close> = host.connect(p:url())
    assert.are.equal("one a", failing:ask("a"))
    assert.are.equal("one a", ending:ask("a"))
    host.write(version("two", HOOK), path)
    reload(p, "reloaded")
    ending:finish()
    assert.are.same({ "" }, { ending:all() })
    assert.are.same({ "finished" }, messages(p))
    failing:send("fail\n")
    assert.are.same({ "" }, { failing:all() })
    assert.are.same({ "finished", "finished" }, messages(p))
    assert.is_truthy(p:find("handler error")[1].error:find("script%.lua:5: failed as one"))
    assert.are.same({}, p:find("refused"))
    ending:close()
    failing:close()
    p:stop()
  end)

  it("leaves an old request its hooks, though the new code has none", function()
    local path = host.write(version("one", HOOK))
    local p = host.start(path)
    local c <close> = host.connect(p:url())
    assert.are.equal("one a", c:ask("a"))
    host.write(version("two", FINISH), path)
    reload(p, "reloaded")
    c:send("fail\n")
    assert.are.same({ "" }, { c:all() })
    assert.are.same({ "finished", "told: failed as one" }, messages(p))
    assert.are.same({}, p:find("handler error"))
    c:close()
    p:stop()
  end)
end)
