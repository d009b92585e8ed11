-- server:reload(), in handlers and on what moonport.start returns.

local generations = require("support.generations")
local host = require("support.host")
local plain = require("support.plain")
local sys = host.sys

local ask = generations.ask

-- "reload" asks for one and tells the outcome, with the version before and after.
local function asking(word, extra)
  return ([[
    local moonport = require("moonport")
    local H = {}
    %s
    local function reload(self)
      local _ <close> = setmetatable({}, { __close = function() moonport.log("info", "closed") end })
      local number, why = self.server:reload()
      self.wfile:write("%s ", tostring(number), " ", tostring(why), "\n")
    end
    function H:handle()
      for line in self.rfile:lines() do
        if line == "reload" then reload(self) else self.wfile:write("%s ", line, "\n") end
      end
    end
    return H
  ]]):format(extra or "", word, word)
end

-- Holds a reload up while it is loaded, until `go` is in the folder. Computes, for what is loaded may not wait.
local HOLD = [[
  local folder = debug.getinfo(1, "S").source:match("^@(.*)/")
  do
    local t = moonport.monotonic()
    local function there() local f = io.open(folder .. "/go") return f and f:close() end
    moonport.log("info", "holding")
    while not there() and moonport.monotonic() < t + 8 do
      local until_ = moonport.monotonic() + 0.002
      while moonport.monotonic() < until_ do end
    end
  end
]]

local function serve(mixin, text, ...)
  local path = host.write(text)
  return host.start(path, { args = { "--mixin=" .. mixin, "-o", "cpu_limit=30", ... } }), path
end

local function holding(p, n)
  host.eventually("a reload under way in " .. host.read(p.log_path), function()
    local count = 0
    for _, e in ipairs(p:find("script")) do count = count + (e.message:find("holding") and 1 or 0) end
    return count >= n
  end)
end

local function go(path) host.write("", path:match("^(.*)/") .. "/go") end

local MIXINS = { { "async" }, { "sync" }, { "threading" }, { "threading", "-o", "max_threads=1" }, { "forking" },
  { "forking", "-o", "max_requests_per_child=10", "-o", "max_children=3" }, { "async", "--workers=2" },
  { "threading", "--workers=2" }, { "forking", "--workers=2" } }

describe("server:reload()", function()
  after_each(host.cleanup)

  for _, m in ipairs(MIXINS) do
    local name, mixin, options = table.concat(m, " "), m[1], { table.unpack(m, 2) }

    it("returns the new generation's number, or why there is none: " .. name, function()
      local p, path = serve(mixin, asking("one"), table.unpack(options))
      local c <close> = host.connect(p:url())
      host.write(asking("two"), path)
      assert.are.equal("one 2 nil", c:ask("reload"))
      assert.are.equal("one a", c:ask("a"))
      if mixin ~= "sync" and not options[1] then assert.are.equal("two b", ask(p, "b")) end
      host.write("local H = {}\nfunction H:handle( end", path)
      local answer = c:ask("reload")
      assert.is_truthy(answer:find("^one nil %S+/script%.lua:2: .*near 'end'$"), answer)
      host.write("return {}", path)
      assert.is_truthy(c:ask("reload"):find("script.lua has no handle", 1, true))
      host.write(asking("three"), path)
      assert.are.equal("one 3 nil", c:ask("reload"))
      c:finish()
      assert.are.equal("", c:all())
      assert.are.equal("three c", ask(p, "c"))
      c:close()
      p:stop()
    end)

    -- Workers would refuse a file that changes while they load it.
    if mixin ~= "sync" and not name:find("max_threads") and not name:find("workers") then
      it("may be asked by many at once, and while one is under way: " .. name, function()
        local p, path = serve(mixin, asking("one"), table.unpack(options))
        local clients = {}
        for i = 1, 3 do
          clients[i] = host.connect(p:url())
          assert.are.equal("one a", clients[i]:ask("a"))
        end
        host.write(asking("two", HOLD), path)
        clients[1]:send("reload\n")
        holding(p, 1)
        host.write(asking("three"), path) -- the one under way has read its text
        clients[2]:send("reload\n")
        clients[3]:send("reload\n")
        -- They have asked when others are answered after them.
        for _ = 1, 10 do if mixin == "async" or mixin == "threading" then assert.are.equal("one b", ask(p, "b")) end end
        sys.poll(-1, "r", 0.2)
        go(path)
        local first = clients[1]:line()
        assert.is_truthy(first == "one 2 nil" or mixin == "forking" and first == "one 3 nil", first)
        assert.are.equal("one 3 nil", clients[2]:line())
        assert.are.equal("one 3 nil", clients[3]:line())
        for _, c in ipairs(clients) do c:close() end
        host.eventually("new code", function() return ask(p, "c") == "three c" end)
        p:stop()
      end)

      it("goes on without an asker that is gone: " .. name, function()
        local p, path = serve(mixin, asking("one"), table.unpack(options))
        local c = host.connect(p:url())
        assert.are.equal("one a", c:ask("a"))
        host.write(asking("two", HOLD), path)
        c:send("reload\n")
        holding(p, 1)
        c:reset()
        host.eventually("its cleaning up", function()
          for _, e in ipairs(p:find("script")) do if e.message:find("closed") then return true end end
        end)
        go(path)
        host.eventually("new code", function() return ask(p, "c") == "two c" end)
        assert.are.equal(1, #p:find("reloaded"))
        p:stop()
      end)
    end

    it("ends with its asker when the server stops: " .. name, function()
      local p, path = serve(mixin, asking("one"), "-o", "drain_timeout=0.1", "-o", "cancel_grace=1",
        table.unpack(options))
      local c <close> = host.connect(p:url())
      assert.are.equal("one a", c:ask("a"))
      host.write(asking("two", HOLD), path)
      c:send("reload\n")
      holding(p, 1)
      p:kill("TERM")
      local said = c:all()
      assert.is_truthy(said == "" or said == "one nil the server stops\n", said)
      c:close()
      p:stop()
    end)

    it("ends at once when the server is told twice to stop: " .. name, function()
      local p, path = serve(mixin, asking("one"), table.unpack(options))
      local c <close> = host.connect(p:url())
      assert.are.equal("one a", c:ask("a"))
      host.write(asking("two", HOLD), path)
      c:send("reload\n")
      holding(p, 1)
      p:kill("TERM")
      p:find("draining", true)
      p:kill("TERM")
      c:all()
      c:close()
      p:wait()
    end)
  end

  for _, mixin in ipairs { "async", "threading", "forking" } do
    for _, url in ipairs { "udp://127.0.0.1:0", "unixgram://%s/socket" } do
      it(("of a datagram server: %s %s"):format(mixin, url:match("%w+")), function()
        local function text(word)
          return ([[
            local H = {}
            function H:handle()
              local line = self.rfile:read()
              self.wfile:write("%s ", line == "reload" and tostring(self.server:reload()) or line, "\n")
            end
            return H
          ]]):format(word)
        end
        local path = host.write(text("one"))
        local p = host.start(path, { args = { "--mixin=" .. mixin }, listen = url:format(host.folder()) })
        assert.are.equal("one a", plain.ask(p:url(), "a"))
        host.write(text("two"), path)
        assert.are.equal("one 2", plain.ask(p:url(), "reload"))
        assert.are.equal("two b", plain.ask(p:url(), "b"))
        p:stop()
      end)
    end
  end
end)

describe("reload() of a server of moonport.start", function()
  after_each(plain.cleanup)

  for _, mixin in ipairs { "async", "sync", "threading" } do
    it("returns the new generation's number, or why there is none: " .. mixin, function()
      local path = host.write(asking("one"))
      local out = plain.run(([[
        local server <close> = moonport.start(arg[2], { mixin = "%s" })
        local function ask(line)
          return moonport.run(function()
            local c <close> = assert(moonport.connect(server.url))
            c:sendall(line .. "\n")
            c:shutdown("write")
            return (c:makefile("r"):read())
          end)
        end
        local function write(text) local f <close> = assert(io.open(arg[2], "w")) f:write(text) end
        local f <close> = io.open(arg[2]) local text = f:read("a")
        say(ask("a"))
        write((text:gsub("one", "two")))
        say(server:reload())
        say(ask("b"))
        write("return return")
        say(server:reload())
        say(ask("c"))
        write((text:gsub("one", "three")))
        for i = 3, 30 do assert(server:reload() == i) end
        say(ask("reload"))
        say(server:stats().reloads, server:stats().failed_reloads)
        server:shutdown()
        say(pcall(server.reload, server))
      ]]):format(mixin), path)
      local lines = {}
      for line in out:gmatch("[^\n]+") do lines[#lines + 1] = line end
      assert.are.same({ "one a", "2", "two b" }, { table.unpack(lines, 1, 3) })
      assert.is_truthy(lines[4]:find("^nil %S+/script%.lua:1: "), lines[4])
      assert.are.same({ "two c", "three 31 nil", "30 1" }, { table.unpack(lines, 5, 7) })
      assert.is_truthy(lines[8]:find("^false .*the server is stopped$"), lines[8])
    end)

    it("ends when a handler stops the server meanwhile: " .. mixin, function()
      local out = plain.run(([[
        local H = "local H = {} function H:handle() self.server:shutdown() end return H"
        for i = 1, 30 do
          local f = assert(io.open(folder .. "/s.lua", "w")) f:write(H) f:close()
          local server <close> = moonport.start(folder .. "/s.lua", { mixin = "%s" })
          moonport.run(function() local c = assert(moonport.connect(server.url)) if i %% 2 == 0 then c:recv(1) end end)
          local ok, number, why = pcall(server.reload, server)
          assert(number == 2 or why == "the server stops" or why == "the server is stopped", tostring(why))
        end
        say("done")
      ]]):format(mixin))
      assert.are.equal("done\n", out)
    end)
  end

  it("is nothing for a server of the program's own objects, though its threads load a script", function()
    local p = plain.start([[until_told(socketserver.ThreadingTCPServer({ "127.0.0.1", 0 }, arg[2]))]], host.write([[
      local H = {}
      function H:handle() self.wfile:write(table.concat({ tostring(self.server:reload()) }, " "), "\n") end
      return H
    ]]))
    assert.are.equal("nil", plain.ask(p:url(), "x"))
    p:stop()
  end)
end)
