-- A generation: what requests that began with it go on with, how long they may, and what is left of it then.

local generations = require("support.generations")
local host = require("support.host")

local ask, reload, version = generations.ask, generations.reload, generations.version

local MIXINS = { "async", "threading", "forking" }

local function serve(mixin, text, ...)
  local path = host.write(text)
  return host.start(path, { args = { "--mixin=" .. mixin, ... } }), path
end

local function messages(p)
  local out = {}
  for i, e in ipairs(p:find("script")) do out[i] = (e.message:gsub("%S*script%.lua:%d+: ", "")) end
  return out
end

-- A handler that tells how its wait ends, and that it has tidied up.
local function waiting(word)
  return ([[
    local moonport = require("moonport")
    local H = {}
    local function handle(self)
      self.wfile:write("%s\n")
      self.rfile:read("a")
    end
    function H:handle()
      local _ <close> = setmetatable({}, { __close = function() moonport.log("info", "closed") end })
      local ok, e = pcall(handle, self)
      if not ok then
        moonport.log("info", tostring(type(e) == "table" and e.code) .. "|" .. tostring(e))
        error(e, 0)
      end
    end
    function H:finish() moonport.log("info", "finished") end
    return H
  ]]):format(word)
end

describe("a request", function()
  after_each(host.cleanup)

  it("has the modules of its generation, whatever has become of the files", function()
    local folder = host.folder()
    local text = [[
      local word = require("word")
      local H = {}
      function H:handle()
        for name in self.rfile:lines() do
          package.loaded[name] = nil
          self.wfile:write(word, " ", require(name), "\n")
        end
      end
      return H
    ]]
    host.write("return 'one'", folder .. "/word.lua")
    local p = host.start(host.write(text, folder .. "/script.lua"))
    local old <close> = host.connect(p:url())
    assert.are.equal("one one", old:ask("word"))
    host.write("return 'two'", folder .. "/word.lua")
    assert.are.equal("one one", old:ask("word"))
    reload(p, "reloaded")
    assert.are.equal("one one", old:ask("word"))
    assert.are.equal("two two", ask(p, "word"))
    assert(os.remove(folder .. "/word.lua"))
    assert.are.equal("one one", old:ask("word"))
    -- What was not read while the script was loaded is the file as it is now, for all.
    host.write("return 'late'", folder .. "/late.lua")
    assert.are.equal("one late", old:ask("late"))
    assert.are.equal("two late", ask(p, "late"))
    old:close()
    p:stop()
  end)

  for _, mixin in ipairs(MIXINS) do
    it("is cancelled retire_timeout after its code was replaced: " .. mixin, function()
      local p, path = serve(mixin, waiting("one"), "-o", "retire_timeout=0.2")
      local c <close> = host.connect(p:url())
      assert.are.equal("one", c:line())
      host.write(waiting("two"), path)
      reload(p, "reloaded")
      local new <close> = host.connect(p:url())
      assert.are.equal("two", new:line())
      assert.are.equal("", c:all())
      host.eventually("its messages in " .. host.read(p.log_path), function() return #messages(p) >= 3 end)
      local said = messages(p)
      assert.is_truthy(said[1]:find("^cancelled|.*retire_timeout") or
        mixin == "forking" and said[1]:find("^cancelled|.*replaced"), said[1])
      assert.are.same({ "closed", "finished" }, { said[2], said[3] })
      -- The new one's are not.
      new:finish()
      assert.are.equal("", new:all())
      assert.are.equal(5, #messages(p))
      c:close()
      new:close()
      local last = p:stop()
      assert.are.equal(0, last.died or 0)
    end)

    it("may go on for ever with retire_timeout 0: " .. mixin, function()
      local p, path = serve(mixin, version("one"), "-o", "retire_timeout=0")
      local c <close> = host.connect(p:url())
      assert.are.equal("one a", c:ask("a"))
      for n = 2, 8 do
        host.write(version("gen" .. n), path)
        reload(p, "reloaded")
        assert.are.equal("gen" .. n .. " b", ask(p, "b"))
      end
      local until_ = host.sys.now() + 1.2
      while host.sys.now() < until_ do assert.are.equal("one c", c:ask("c")) end
      c:close()
      p:stop()
    end)

    it("is cancelled when its code was replaced twice, and a younger one's runs as well: " .. mixin, function()
      local p, path = serve(mixin, waiting("one"))
      local one <close> = host.connect(p:url())
      assert.are.equal("one", one:line())
      host.write(waiting("two"), path)
      reload(p, "reloaded")
      local two <close> = host.connect(p:url())
      assert.are.equal("two", two:line())
      host.write(version("three", "H.last = true"), path)
      reload(p, "reloaded")
      assert.are.equal("", one:all())
      host.eventually("its messages", function() return #messages(p) >= 3 end)
      local said = messages(p)
      assert.is_truthy(said[1]:find("^cancelled|.*replaced"), said[1])
      local three <close> = host.connect(p:url())
      assert.are.equal("three a", three:ask("a"))
      assert.are.equal(3, #messages(p))
      two:finish()
      assert.are.equal("", two:all())
      one:close()
      two:close()
      three:close()
      p:stop()
    end)
  end
end)

describe("a generation", function()
  after_each(host.cleanup)

  local BIG = [[
    local H, ballast = {}, {}
    for i = 1, 100 do ballast[i] = ("%c"):rep(100000) .. i end
    function H:handle()
      for line in self.rfile:lines() do
        local s = self.server:stats()
        self.wfile:write(#ballast, " ", s[line], "\n")
      end
    end
    return H
  ]]

  for _, mixin in ipairs { "async", "threading" } do
    it("is counted while requests of it run, and its memory is free after that: " .. mixin, function()
      local p, path = serve(mixin, BIG:format(97))
      local c <close> = host.connect(p:url())
      assert.are.equal("100 1", c:ask("generations"))
      host.write(BIG:format(98), path)
      reload(p, "reloaded")
      assert.are.equal("100 2", c:ask("generations"))
      assert.are.equal("100 1", c:ask("reloads"))
      local new <close> = host.connect(p:url())
      assert.are.equal("100 2", new:ask("generations"))
      c:close()
      host.eventually("one generation", function() return new:ask("generations") == "100 1" end)
      if not host.sanitizer() then
        local before
        for n = 3, 12 do
          host.write(BIG:format(97 + n), path)
          reload(p, "reloaded")
          host.eventually("few generations", function() return tonumber(new:ask("generations"):match("%d+$")) <= 2 end)
          if n == 6 then before = p:memory() end
        end
        -- less than one state, of 20 MB
        host.eventually("the memory of before", function() return p:memory() < before + 15 * 1024 end)
      end
      new:close()
      p:stop()
    end)
  end

  it("ends with its last request though that is long after the reload", function()
    local p, path = serve("async", version("one", [[
      setmetatable(H, { __gc = function() require("moonport").log("info", "freed") end })
      H.kept = {}
    ]]))
    local c <close> = host.connect(p:url())
    assert.are.equal("one a", c:ask("a"))
    host.write(version("two"), path)
    reload(p, "reloaded")
    assert.are.same({}, messages(p))
    c:close()
    host.eventually("its state's end", function() return messages(p)[1] == "freed" end)
    p:stop()
  end)
end)
