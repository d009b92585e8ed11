local host = require("support.host")
local plain = require("support.plain")

-- moonport.mock: mocks in any Lua process, on a thread of their own, driven by Lua.

local SCRIPT = [[
local mock = require("moonport.mock")
local redis = mock.server{ "tcp://127.0.0.1:0", name = "redis", frame = mock.line "\r\n" }
redis:on("^PING$", "+PONG\r\n")
redis:on("^SET (%S+) (%S+)$", function(c, key, value) c.server.state[key] = value c:send("+OK\r\n") end)
redis:on("^BYE$", "+BYE\r\n", { id = "bye", required = BYE })
redis:otherwise "-ERR\r\n"
]]

-- Two mocks, the second over a socket of the program's folder.
local TWO = SCRIPT .. [[mock.server{ "unix://" .. FOLDER .. "/s", name = "smtp" }:otherwise "no\r\n"]]

local function script(code, bye)
  local path = host.folder() .. "/mocks.lua"
  return host.write(("local BYE, FOLDER = %s, %q\n"):format(bye or "false", path:match("^(.*)/")) .. code, path)
end

-- A client in the same process: ask(mocks, line, ...) -> the lines that come back, from one connection.
local CLIENT = [[
local function talk(mocks, ...)
  local s <close> = assert(moonport.connect(mocks.servers.redis.url))
  local rfile, answers = s:makefile("r"), {}
  for i, line in ipairs { ... } do
    s:sendall(line .. "\r\n")
    answers[i] = (rfile:readline() or "end"):gsub("%s+$", "")
  end
  return table.concat(answers, " ")
end
local function ask(...) return moonport.run(talk, ...) end
]]

local function run(code, ...) return plain.run(CLIENT:gsub("\n", " ") .. code, ...) end

describe("moonport.mock", function()
  after_each(plain.cleanup)

  it("says where its mocks and the control API are", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      assert(mocks.admin:find("^http://127%.0%.0%.1:%d+$"))
      assert(mocks.url == mocks.servers.redis.url and mocks.url == "tcp://127.0.0.1:" .. mocks:port())
      local h, port = mocks:address("redis")
      assert(h == "127.0.0.1" and port == mocks:port("redis"))
      assert(ask(mocks, "PING", "what") == "+PONG -ERR")]], script(SCRIPT))
  end)

  it("wants to know which of several is meant", function()
    run([[
      local mocks <close> = moonport.mock({ arg[2] })
      local ok, why = pcall(mocks.port, mocks)
      assert(not ok and why:find("there are several mocks, say which: redis, smtp", 1, true), why)
      ok, why = pcall(mocks.port, mocks, "http")
      assert(not ok and why:find("no mock http", 1, true), why)
      assert(mocks:address("smtp"):find("/s$") and mocks:port("smtp") == nil)]], script(TWO))
  end)

  it("has the journal, as bytes", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      ask(mocks, "PING", "\0\xff")
      local records, answer = mocks:journal{ kind = { "received", "unmatched" } }
      assert(#records == 2 and records[1].data == "PING" and records[2].data == "\0\xff", #records)
      assert(records[1].server == "redis" and math.type(records[1].seq) == "integer")
      assert(answer.dropped == 0)
      assert(#mocks:journal{ since = answer.next, kind = "received", wait = 0.01 } == 0)]], script(SCRIPT))
  end)

  it("has a journal of more than one answer holds", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      local lines = {}
      for i = 1, 1100 do lines[i] = "SET k " .. i end
      ask(mocks, table.unpack(lines))
      local records = mocks:journal{ kind = "received" }
      assert(#records == 1100, #records)
      for i = 1, 1100 do assert(records[i].data == lines[i]) end
      assert(#mocks:journal{ kind = "received", limit = 5 } == 5)]], script(SCRIPT))
  end)

  it("verifies, waits for what is to come, and tells what came nearest", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      ask(mocks, "PING", "PINK")
      assert(mocks:verify{ match = "^PING$", times = 1 })
      assert(mocks:verify{ order = { "^PING$", "^PINK$" } })
      local none, why = mocks:verify{ server = "redis", match = { equals = "PONG" }, times = { atLeast = 1 } }
      assert(none == nil and why:find("expected at least 1", 1, true) and why:find('"PING"', 1, true), why)
      local ok, err = pcall(mocks.verify, mocks, { match = "x", tims = 1 })
      assert(not ok and err:find("400", 1, true) and err:find("tims", 1, true), err)
      moonport.run(function()
        moonport.spawn(function() moonport.sleep(0.1) talk(mocks, "LATE") end)
        assert(mocks:verify{ match = "^LATE$", within = 10 })
      end)
      local before = moonport.monotonic()
      assert(not mocks:verify{ match = "^NEVER$", within = 0.2 })
      assert(moonport.monotonic() - before >= 0.2)]], script(SCRIPT))
  end)

  it("has stubs, toxics and state, and a reset", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      assert(#mocks:stubs() == 3)
      assert(mocks:stub{ id = "hi", match = "^HI$", reply = "+\xff\r\n" }.reply == "+\xff\r\n")
      local stub = mocks:stub{ match = "^\xff+$", reply = { "a", "\xff" } }
      assert(stub.match.pattern == "^\xff+$" or stub.match == "^\xff+$", stub.match)
      assert(stub.reply.replies[1] == "a" and stub.reply.replies[2] == "\xff")
      mocks:call("DELETE", "/servers/redis/stubs/" .. stub.id)
      assert(mocks:stub{ id = "hex", match = { hex = "00 .." }, reply = "x" }.match.hex)
      mocks:call("DELETE", "/servers/redis/stubs/hex")
      mocks:stub("redis", { match = { equals = "A" }, reply = "+B\r\n", at = 1 })
      assert(ask(mocks, "HI", "A") == "+\xff +B")
      assert(#mocks:stubs("redis") == 5)
      ask(mocks, "SET k v")
      assert(mocks:state().k == "v")
      mocks:state{ k = "w", n = { 1, 2 } }
      assert(mocks:state("redis").k == "w" and mocks:state().n[2] == 2)
      assert(mocks:toxic{ type = "limit_data", attributes = { bytes = 3 } }.name)
      local _, err = pcall(mocks.toxic, mocks, { type = "no" })
      assert(tostring(err):find("400", 1, true), err)
      mocks:reset()
      assert(#mocks:stubs() == 3 and next(mocks:state()) == nil and #mocks:journal() == 0)
      assert(ask(mocks, "HI") == "-ERR")]], script(SCRIPT))
  end)

  it("takes patterns of any bytes wherever a matcher may stand, and state of any bytes", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      ask(mocks, "a\xffb", "PING")
      assert(mocks:verify{ order = { "\xff", { match = "^PING$" } } })
      assert(mocks:verify{ match = { any = { "^\xff", { all = { "\xffb", "^a" } } } }, times = 1 })
      assert(mocks:verify{ match = { ["not"] = "\xff" }, times = 1 })
      local state = { bin = "\0\xff", match = "\xfe", any = { "\xfd" }, data = { text = "t" } }
      local function is_it(told)
        assert(told.bin == "\0\xff" and told.match == "\xfe" and told.any[1] == "\xfd" and told.data.text == "t")
      end
      is_it(mocks:state(state))
      is_it(mocks:state())]], script(SCRIPT))
  end)

  it("works in moonport.run, and outside", function()
    run([[
      local mocks <close> = moonport.mock(arg[2])
      moonport.run(function()
        assert(talk(mocks, "PING") == "+PONG")
        assert(#mocks:journal{ kind = "received" } == 1)
        moonport.coroutine.wrap(function() assert(mocks:verify{ match = "^PING$" }) end)()
      end)
      assert(mocks:verify{ match = "^PING$" })]], script(SCRIPT))
  end)

  it("asks with its token", function()
    run([[
      local mocks <close> = moonport.mock(arg[2], { token = "secret" })
      assert(#mocks:stubs() == 3)
      mocks.token = "guess"
      local status = mocks:ask("GET", "/servers")
      assert(status == 401, status)]], script(SCRIPT))
  end)

  it("says that it is closed", function()
    run([[
      local mocks = moonport.mock(arg[2])
      mocks:close()
      local ok, why = pcall(mocks.stubs, mocks)
      assert(not ok and why:find("these mocks are closed", 1, true), why)
      mocks:close()]], script(SCRIPT))
  end)

  it("can do without the control API", function()
    run([[
      local mocks <close> = moonport.mock(arg[2], { admin = false })
      assert(mocks.admin == nil and ask(mocks, "PING") == "+PONG")
      local ok, why = pcall(mocks.journal, mocks)
      assert(not ok and why:find("no control API", 1, true))]], script(SCRIPT))
  end)

  it("ends with its verdict; ports and paths are free then", function()
    run([[
      local function is_there(path) return os.rename(path, path) end
      for i = 1, 3 do
        local mocks = moonport.mock(arg[2], { admin = i ~= 2 and "127.0.0.1:0" })
        local url, path = mocks.servers.redis.url, mocks.servers.smtp.path
        assert(is_there(path))
        if i == 3 then ask(mocks, "BYE") end
        local failures = mocks:close()
        assert(#failures == (i == 3 and 0 or 1) and (i == 3 or failures[1]:find("bye", 1, true)), failures[1])
        assert(#mocks:close() == #failures)
        assert(not is_there(path))
        assert(not moonport.run(moonport.connect, url))
      end]], script(TWO, "true"))
  end)

  it("ends with its scope, its garbage and the process", function()
    local path = script(TWO)
    local socket = path:match("^(.*)/") .. "/s"
    run([[
      local is_there = function() return os.rename(arg[3], arg[3]) end
      do local mocks <close> = moonport.mock(arg[2]) assert(is_there()) end
      assert(not is_there())
      moonport.mock(arg[2])
      collectgarbage() collectgarbage()
      assert(not is_there())
      Kept = moonport.mock(arg[2])
      assert(is_there())
      os.exit(0)]], path, socket)
    assert.is_falsy(host.sys.stat(socket))
    run([[Kept = moonport.mock(arg[2])]], path)
    assert.is_falsy(host.sys.stat(socket))
  end)

  it("fails with one sentence, and leaves nothing", function()
    local path = script(TWO)
    run([[
      local function fails(why, ...)
        local ok, err = pcall(moonport.mock, ...)
        assert(not ok and err:find(why, 1, true), err)
      end
      fails("scripts/upper.lua declares no mock", "scripts/upper.lua")
      fails("nowhere.lua", "nowhere.lua")
      fails("there is no script", {})
      fails("must be a string", { {} })
      fails("unknown option port", arg[2], { port = 1 })
      fails("log_level must be", arg[2], { log_level = "loud" })
      fails("needs a token: token =", arg[2], { admin = "0.0.0.0:0" })
      for _, token in ipairs { "", "two words", "line\n", "\xff" } do
        fails("token must be one word", arg[2], { token = token })
      end
      fails("unknown option tiemout", arg[2], { options = { tiemout = 1 } })
      fails("given twice", { arg[2], arg[2] })
      assert(not os.rename(arg[3], arg[3]))
      local mocks <close> = moonport.mock(arg[2])
      fails(mocks.admin:match("//(.*)"), "scripts/upper.lua", { admin = mocks.admin:match("//(.*)") })]],
      path, path:match("^(.*)/") .. "/s")
  end)

  it("serves a busted of its own", function()
    if host.sanitizer() then return end -- which cannot be loaded into busted
    local folder = host.folder()
    host.write(([[
      local moonport = require("moonport")
      describe("a client", function()
        local redis
        before_each(function() redis = moonport.mock(%q) end)
        after_each(function() assert.are.same({}, redis:close()) end)
        for i = 1, 3 do
          it("says PING " .. i, function()
            moonport.run(function()
              local s <close> = assert(moonport.connect(redis.url))
              s:sendall("PING\r\n")
              assert.are.equal("+PONG\r\n", s:recv(100))
            end)
            assert(redis:verify{ match = "^PING$", times = 1, within = 5 })
          end)
        end
      end)]]):format(script(SCRIPT)), folder .. "/client_spec.lua")
    local p = assert(io.popen(("busted --cpath='./%s/?.so' %s/client_spec.lua 2>&1"):format(host.build, folder)))
    local text = p:read("a")
    assert.is_true(p:close(), text)
    assert.is_truthy(text:find("3 successes / 0 failures / 0 errors", 1, true), text)
  end)

  it("has assertions for luassert, which say what came nearest", function()
    run([[
      package.path = package.path .. ";/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua"
      local assert = require("luassert")
      require("moonport.luassert")
      local mocks <close> = moonport.mock(arg[2])
      assert.has_no.received(mocks, "^PING$")
      ask(mocks, "PING", "PONG")
      ask(mocks, "PING")
      assert.has.received(mocks, "^PING$", { times = 2, within = 2 })
      assert.has.connections(mocks, 2)
      assert.has_no.connections(mocks, 1)
      local function fails(text, f, ...)
        local ok, why = pcall(f, ...)
        assert.is_false(ok)
        assert.is_truthy(tostring(why):find(text, 1, true), tostring(why))
      end
      fails("near miss: #", assert.has.received, mocks, "^PIN!$")
      fails("Expected the mocks to have received such frames.", assert.has.received, mocks, "^PIN!$")
      fails('it came 2 times:\n  #2 redis "PING"', assert.has_no.received, mocks, "^PING$")
      fails("assert.has.connections: its first argument must be", assert.has.connections, mocks.servers, 2)]],
      script(SCRIPT))
  end)
end)
