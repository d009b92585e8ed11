-- Reloads among all that can happen at the same time.

local generations = require("support.generations")
local host = require("support.host")

local ask, reload, version = generations.ask, generations.reload, generations.version

describe("a reload", function()
  after_each(host.cleanup)

  it("waits a while for a thread that blocks in C, which has the new code for its next request", function()
    local gate = host.gate()
    local blocking = gate:code() .. [[
      local handle = H.handle
      function H:handle()
        if self.rfile:read() == "block" then gate() end
        return handle(self)
      end
    ]]
    local function text(word)
      return (version(word):gsub("return H%s*$", function() return blocking .. "return H" end))
    end
    local path = host.write(text("one"))
    local p = host.start(path, { args = { "--mixin=threading", "-o", "max_threads=2" } })
    local blocked <close> = host.connect(p:url())
    local other <close> = host.connect(p:url())
    blocked:send("block\n")
    assert.are.equal("one a", other:ask("go\na"))
    host.write(text("two"), path)
    local e = reload(p, "reloaded")
    assert.is_true(e.ms >= 1900, e.ms)
    assert.are.equal("one b", other:ask("b"))
    other:finish()
    other:all()
    assert.are.equal("two c", ask(p, "go\nc"))
    gate:pass()
    assert.are.equal("one d", blocked:ask("d"))
    blocked:finish()
    assert.are.equal("", blocked:all())
    local first <close> = host.connect(p:url())
    local second <close> = host.connect(p:url())
    assert.are.equal("two e", first:ask("go\ne"))
    assert.are.equal("two e", second:ask("go\ne"))
    for _, c in ipairs { blocked, other, first, second } do c:close() end
    p:stop()
  end)

  it("is refused when a thread cannot load it, though another one blocks in C", function()
    local gate = host.gate()
    local text = gate:code() .. [[
      local H = {}
      function H:handle() if self.rfile:read() == "block" then gate() end self.wfile:write("%s\n") end
      %s
      return H
    ]]
    local path = host.write(text:format("one", ""))
    local p = host.start(path, { args = { "--mixin=threading", "-o", "max_threads=2" } })
    local blocked <close> = host.connect(p:url())
    blocked:send("block\n")
    assert.are.equal("one", ask(p, "go"))
    -- The server's own state is the first to load it, the seat's the second.
    host.write("", path:match("^(.*)/") .. "/loads")
    host.write(text:format("two", ([[
      local f <close> = assert(io.open(%q, "a+"))
      f:write("x")
      f:seek("set")
      if #f:read("a") > 1 then error("not here") end
    ]]):format(path:match("^(.*)/") .. "/loads")), path)
    local e = reload(p, "reload failed")
    assert.is_truthy(e.why:find("not here", 1, true), e.why)
    assert.are.equal("one", ask(p, "go"))
    gate:pass()
    assert.are.equal("one", blocked:line())
    -- What the late one says of the reload that is over is of no interest to the next.
    host.write(text:format("three", ""), path)
    reload(p, "reloaded")
    assert.are.equal("three", ask(p, "go"))
    blocked:close()
    p:stop()
  end)

  it("does not take a late thread's word on the one before it", function()
    local gate = host.gate()
    local path = host.write(version("one"))
    local loads = path:match("^(.*)/") .. "/loads"
    local p = host.start(path, { args = { "--mixin=threading", "-o", "max_threads=1" } })
    assert.are.equal("one a", ask(p, "a"))
    host.write(version("two", ([[
      local f <close> = assert(io.open(%q, "a+"))
      f:write("x"):flush()
      f:seek("set")
      if #f:read("a") > 1 then
        %s
        gate()
        error("late")
      end
    ]]):format(loads, gate:code())), path)
    assert.is_true(reload(p, "reloaded").ms >= 1900) -- only the server's own state has it
    host.write(version("three"), path)
    p:kill("HUP")
    host.sys.poll(-1, "r", 0.1)
    gate:pass()
    host.eventually("the second one", function() return #p:find("reloaded") == 2 end)
    assert.are.same({}, p:find("reload failed"))
    assert.are.equal("three b", ask(p, "b"))
    p:stop()
  end)

  local rows = {
    { "--mixin=async" }, { "--mixin=threading", "-o", "max_threads=4", "-o", "thread_idle_timeout=0.01" },
    { "--mixin=threading", "-o", "max_threads=1" }, { "--mixin=forking", "-o", "max_children=5" },
    { "--mixin=forking", "-o", "max_children=3", "-o", "max_requests_per_child=2" },
    { "--mixin=async", "--workers=2" },
  }
  for _, args in ipairs(rows) do
    it("after the other, with requests that end in all ways: " .. table.concat(args, " "), function()
      local path = host.write(version("0"))
      local p = host.start(path, { args = args })
      local last = 0
      for n = 1, 120 do
        if n % 7 == 0 then host.write("return return", path) else host.write(version(tostring(n)), path) end
        p:kill("HUP")
        local c = host.connect(p:url())
        c:send(n % 5 == 0 and "fail\n" or "a\n")
        if n % 3 == 0 then
          c:reset()
        else
          local answer = c:line()
          if n % 5 > 0 then
            local word = tonumber(answer:match("^(%d+) a$"))
            assert(word and word >= last, ("%s after %d"):format(answer, last))
            last = word
          end
          c:close()
        end
        if n % 11 == 0 then p:kill("USR1") end
      end
      host.write(version("end"), path)
      p:kill("HUP")
      host.eventually("the last one", function() return ask(p, "z") == "end z" end)
      p:stop()
    end)

    it("under way when the server is told to stop: " .. table.concat(args, " "), function()
      for n = 1, 6 do
        local path = host.write(version("one"))
        local p = host.start(path, { args = { "-o", "drain_timeout=0.2", table.unpack(args) } })
        local c <close> = host.connect(p:url())
        assert.are.equal("one a", c:ask("a"))
        host.write(version("two", "local t = {} for i = 1, 20000 do t[i] = { i } end"), path)
        p:kill("HUP")
        if n % 2 == 0 then c:send("b\n") end
        if n > 2 then host.sys.poll(-1, "r", n / 1000) end
        if n == 5 then c:close() end
        p:stop()
        c:close()
      end
    end)
  end
end)
