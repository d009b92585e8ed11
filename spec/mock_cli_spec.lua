local cjson = require("cjson")
local declares = require("support.declares")
local host = require("support.host")
local sys = host.sys

-- moonport mock: how it starts, what it says, how it ends. What mocks do is not its concern: see support/declares.lua.

local ANY = "tcp://127.0.0.1:0"

local function mock(script, options)
  options = options or {}
  options.command = "mock"
  options.listen = ""
  options.args = options.args or {}
  table.insert(options.args, 1, "--log-level=info")
  return host.start(script, options)
end

local function ask(url, line)
  local client = host.connect(url)
  client:send(line .. "\n")
  local answer = client:line()
  client:close()
  return answer
end

local function refused(url)
  local ok, client = pcall(host.connect, url)
  if ok then client:close() end
  return not ok
end

-- Runs it to its end: one sentence on standard error, nothing on standard output.
local function complains(args, code, ...)
  local got, out, err = host.run(args)
  assert.are.equal(code, got, err)
  assert.are.equal("", out)
  assert.matches("^moonport: [^\n]+\n$", err)
  for _, text in ipairs { ... } do
    assert.is_truthy(err:find(text, 1, true), ("no '%s' in: %s"):format(text, err))
  end
end

-- Ends it by SIGTERM, whatever it holds against its clients: exit code, log and verdict.
local function finish(p)
  p:kill("TERM")
  return p:wait(), host.read(p.log_path)
end

describe("moonport mock's ready line", function()
  after_each(host.cleanup)

  it("is the only one on standard output, and names each mock of all scripts", function()
    local folder = host.folder()
    local one = declares.script { { "redis", ANY }, { "dns", "udp://127.0.0.1:0" } }
    local two = declares.script { { "local", "unix://" .. folder .. "/s" } }
    local code, out, err = host.run { "mock", "--exit-with-parent", one, two }
    assert.are.equal(0, code, err)
    assert.are.equal("", err)
    assert.matches("^[^\n]+\n$", out)
    local ready = cjson.decode(out)
    assert.are.equal("ready", ready.event)
    assert.are.equal("integer", math.type(math.tointeger(ready.pid)))
    assert.matches("^http://127%.0%.0%.1:%d+$", ready.admin)
    local redis, dns, path = ready.servers.redis, ready.servers.dns, ready.servers["local"]
    assert.are.equal("tcp://127.0.0.1:" .. math.tointeger(redis.port), redis.url)
    assert.are.same({ "AsyncTCPServer", "AsyncUDPServer", "AsyncUnixStreamServer" },
      { redis.class, dns.class, path.class })
    assert.are.equal(folder .. "/s", path.path)
    local n = 0
    for _ in pairs(ready.servers) do n = n + 1 end
    assert.are.equal(3, n)
    assert.is_falsy(sys.stat(folder .. "/s"))
  end)

  it("comes when all of them accept, each under its own name", function()
    local p = mock { declares.script { { "redis", ANY }, { "smtp", ANY } }, declares.script { { "http", ANY } } }
    for _, name in ipairs { "redis", "smtp", "http" } do
      assert.are.equal("one " .. name .. " hello", ask(p:url(name), "hello"))
    end
    p:stop()
  end)

  it("can come within 20 ms of the start", function()
    if host.sanitizer() then return end
    local script = declares.script { { "redis", ANY } }
    host.eventually("a start within 20 ms", function() -- at some time the machine has a moment for it
      local from, to = sys.pipe()
      local out, into = sys.pipe()
      local began = sys.now()
      local pid = assert(sys.spawn({ host.program, "mock", "--exit-with-parent", script },
        { stdin = from, stdout = into }))
      sys.close(from)
      sys.close(into)
      assert(sys.poll(out, "r", host.LIMIT))
      local took = sys.now() - began
      sys.close(to)
      assert.are.equal(0, sys.wait(pid, host.LIMIT))
      sys.close(out)
      return took < 0.02
    end)
  end)
end)

describe("moonport mock refuses", function()
  after_each(host.cleanup)

  it("a script that declares nothing", function()
    complains({ "mock", "scripts/upper.lua" }, 100, "scripts/upper.lua declares no mock",
      'mock.server{ "tcp://127.0.0.1:0" }')
  end)

  it("two mocks of one name, and names both scripts", function()
    local one, two = declares.script { { "redis", ANY } }, declares.script { { "redis", ANY } }
    complains({ "mock", one, two }, 100, "redis", one, two, "name=")
    complains({ "mock", one, one }, 100, one, "given twice")
    complains({ "mock", declares.script { { "x", ANY }, { "x", ANY } } }, 100, "two mocks are named x")
  end)

  it("a URL that is none", function()
    complains({ "mock", declares.script { { "redis", "localhost" } } }, 100, "mock redis", "localhost")
  end)

  it("options of servers, and says why", function()
    local script = declares.script { { "redis", ANY } }
    complains({ "mock", script, "--listen", ANY }, 100, "--listen is not for moonport mock", "mock.server{")
    complains({ "mock", "--mixin=threading", script }, 100, "--mixin threading", "one Lua state")
    complains({ "mock", script, "--mixin=forking" }, 100, "--mixin forking", "one Lua state")
    complains({ "mock", script, "--workers=2" }, 100, "--workers", "one process")
    assert.are.equal(0, (host.run { "mock", script, "--mixin=async", "--exit-with-parent" }))
  end)

  it("a broken script, with file and line", function()
    local broken = host.write("local x =\n= 1")
    complains({ "mock", broken }, 100, broken .. ":2:")
    complains({ "mock", "nowhere.lua" }, 111, "nowhere.lua")
  end)

  it("a port that is taken, and leaves nothing bound", function()
    local folder = host.folder()
    local taken = mock(declares.script { { "first", ANY } })
    local path = folder .. "/s"
    complains({ "mock", declares.script { { "a", "unix://" .. path }, { "b", taken:url() } } }, 111,
      taken:url(), "in use")
    assert.is_falsy(sys.stat(path))
    complains({ "mock", declares.script { { "a", "unix://" .. path } }, declares.script { { "b", taken:url() } } },
      111, taken:url())
    assert.is_falsy(sys.stat(path))
    taken:stop()
  end)
end)

describe("moonport mock's control API", function()
  after_each(host.cleanup)

  local function listens(admin)
    host.connect((admin:gsub("^http", "tcp"))):close()
  end

  it("listens on a free port of this machine, unless it is told otherwise", function()
    local script = declares.script { { "redis", ANY } }
    local p = mock(script)
    listens(p.ready.admin)
    p:stop()
    p = mock(script, { args = { "--admin=none" } })
    assert.is_nil(p.ready.admin)
    p:stop()
    p = mock(script, { args = { "--admin=[::1]:0" } })
    assert.matches("^http://%[::1%]:%d+$", p.ready.admin)
    listens(p.ready.admin)
    p:stop()
  end)

  -- One request to it, JSON both ways: status and answer.
  local function call(p, method, path, body)
    local client <close> = host.connect((p.ready.admin:gsub("^http", "tcp")))
    local text = body and cjson.encode(body) or ""
    client:send(("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\n" ..
      "Content-Length: %d\r\n\r\n%s"):format(method, path, p.ready.admin:match("//(.*)"), #text, text))
    local answer = client:all()
    local status, rest = answer:match("^HTTP/1.1 (%d+).-\r\n\r\n(.*)$")
    return tonumber(status), rest ~= "" and cjson.decode(rest) or nil
  end

  -- The first script, as somebody would write it.
  local REAL = [[
    local mock = require("moonport.mock")
    mock.server{ "tcp://127.0.0.1:0", name = "redis", frame = mock.line "\n" }:on("^PING$", "+PONG\n")]]

  it("knows the mocks, and has more made and taken away", function()
    local p = mock(host.write(REAL))
    local status, answer = call(p, "GET", "/servers")
    assert.are.equal(200, status)
    assert.are.equal(1, #answer.servers)
    assert.are.equal("redis", answer.servers[1].name)
    assert.are.equal("+PONG", ask(p:url(), "PING"))
    status, answer = call(p, "POST", "/servers", { name = "new", url = ANY,
      stubs = { { match = "^A$", reply = "B\n" } }, frame = { line = "\n" } })
    assert.are.equal(201, status)
    assert.are.equal("B", ask(answer.url, "A"))
    p:kill("HUP") -- which concerns the script's mocks only
    p:find("reloaded", true)
    assert.are.equal("B", ask(answer.url, "A"))
    assert.are.equal(204, (call(p, "DELETE", "/servers/new")))
    assert.is_true(refused(answer.url))
    p:stop()
  end)

  it("has a record of each reload, good or bad", function()
    local path = host.write(REAL)
    local p = mock(path)
    host.write("= 1", path)
    p:kill("HUP")
    p:find("reload failed", true)
    host.write(REAL, path)
    p:kill("HUP")
    p:find("reloaded", true)
    local _, answer = call(p, "GET", "/journal?kind=reload&server=redis")
    assert.are.equal(2, #answer.records)
    local bad, good = cjson.encode(answer.records[1]), cjson.encode(answer.records[2])
    assert.is_truthy(bad:find("unexpected symbol", 1, true), bad)
    assert.is_truthy(good:find("generation 2", 1, true), good)
    p:stop()
  end)

  it("is there for serve if asked for, and no reload or sandbox of scripts concerns it", function()
    local p = host.start("scripts/upper.lua", { args = { "--admin=127.0.0.1:0", "--sandbox", "--strict" } })
    listens(p.ready.admin)
    local names = {}
    for name in pairs(p.ready.servers) do names[#names + 1] = name end
    assert.are.same({ "upper" }, names)
    p:kill("HUP")
    assert.are.equal(1, #p:find("reloaded", true))
    p:stop()
    p = host.start("scripts/upper.lua")
    assert.is_nil(p.ready.admin)
    p:stop()
  end)

  it("answers until what is served has ended, and ends at once then", function()
    local p = host.start("scripts/upper.lua", { args = { "--admin=127.0.0.1:0" } })
    local client, idle = host.connect(p:url()), host.connect((p.ready.admin:gsub("^http", "tcp")))
    client:send("hello\n")
    assert.are.equal("HELLO", client:line())
    p:kill("TERM")
    p:find("draining", true)
    host.eventually("the listener's end", function() return refused(p:url()) end)
    listens(p.ready.admin)
    client:close()
    assert.are.equal(0, p:wait())
    idle:close()
  end)

  it("needs a token to be reached from elsewhere", function()
    local script = declares.script { { "redis", ANY } }
    complains({ "mock", script, "--admin=0.0.0.0:0" }, 100, "0.0.0.0:0", "needs a token", "--admin-token-file",
      "MOONPORT_ADMIN_TOKEN")
    complains({ "serve", "scripts/upper.lua", "-l", ANY, "--admin=[::]:0" }, 100, "needs a token")
    local p = mock(script, { args = { "--admin=0.0.0.0:0" }, env = { "MOONPORT_ADMIN_TOKEN=secret" } })
    p:stop()
    local file = host.write("secret\n", host.folder() .. "/token")
    p = mock(script, { args = { "--admin=0.0.0.0:0", "--admin-token-file", file } })
    p:stop()
  end)

  it("hides the token from scripts", function()
    local script = host.write(declares.code { { "redis", ANY } } .. "print(os.getenv('MOONPORT_ADMIN_TOKEN'))")
    local p = mock(script, { env = { "MOONPORT_ADMIN_TOKEN=secret" } })
    p:stop()
    local log = host.read(p.log_path)
    assert.is_nil(log:find("secret", 1, true))
    assert.is_truthy(log:find("nil", 1, true))
  end)

  it("has options that are checked", function()
    local script = declares.script { { "redis", ANY } }
    local empty = host.write("\n", host.folder() .. "/token")
    complains({ "mock", script, "--admin=here" }, 100, "--admin here", "HOST:PORT", "none")
    complains({ "mock", script, "--admin=tcp://127.0.0.1:0" }, 100, "HOST:PORT")
    complains({ "mock", script, "--admin-token-file=nowhere" }, 111, "--admin-token-file nowhere", "No such file")
    complains({ "mock", script, "--admin-token-file=" .. empty }, 100, empty, "no token")
    complains({ "mock", script, "--admin-host=" }, 100, "--admin-host")
    complains({ "mock", script, "--journal=1K" }, 100, "--journal 1K", "128K")
    complains({ "mock", script, "--journal=lots" }, 100, "--journal lots")
    complains({ "serve", "scripts/upper.lua", "--admin=127.0.0.1:0", "--workers=2" }, 100, "--admin and --workers")
    complains({ "mock", script, "--workers=2" }, 100, "--workers is for serve")
    complains({ "mock", script, "--admin=none", "--allow-script-upload" }, 100, "--allow-script-upload", "--admin")
    complains({ "serve", "scripts/upper.lua", "--admin-host=x" }, 100, "--admin-host is for the control API")
  end)

  it("whose port is taken is a failure, and nothing stays bound", function()
    local p = mock(declares.script { { "redis", ANY } })
    local at = p.ready.admin:match("//(.*)")
    complains({ "mock", declares.script { { "redis", ANY } }, "--admin", at }, 111, at)
    p:stop()
  end)
end)

describe("moonport mock's verdict", function()
  after_each(host.cleanup)

  it("is exit code 0 and silence when all is well", function()
    local code, log = finish(mock(declares.script { { "redis", ANY } }))
    assert.are.equal(0, code)
    assert.is_nil(log:find("not met", 1, true))
  end)

  it("is exit code 1, each text under its script, and how many", function()
    local one = declares.script({ { "redis", ANY } }, { verdict = { "PING never came\n  near miss: PIN", "again" } })
    local two = declares.script({ { "smtp", ANY } }, { verdict = { "no DATA" } })
    for _, signal in ipairs { "TERM", "INT" } do
      local p = mock { one, two }
      p:kill(signal)
      assert.are.equal(1, p:wait())
      local log = host.read(p.log_path)
      local at = 1
      for _, text in ipairs { "== " .. one, "1) PING never came\n  near miss: PIN", "2) again", "== " .. two,
        "3) no DATA", "moonport mock: 3 expectations were not met" } do
        at = assert(select(2, log:find(text, at, true)), text .. " in:\n" .. log)
      end
    end
  end)

  it("comes at the end of standard input, too", function()
    local p = mock(declares.script({ { "redis", ANY } }, { verdict = { "no" } }),
      { stdin = true, args = { "--exit-with-parent" } })
    sys.close(p.stdin)
    p.stdin = nil
    assert.are.equal(1, p:wait())
    assert.is_truthy(host.read(p.log_path):find("1 expectation was not met", 1, true))
  end)

  it("is of what clients did meanwhile, whose connections nobody waits for", function()
    local p = mock(declares.script { { "redis", ANY } })
    local client = host.connect(p:url())
    client:send("fail\n")
    assert.are.equal("one redis fail", client:line())
    local code, log = finish(p)
    assert.are.equal(1, code)
    assert.is_truthy(log:find("1) what failed", 1, true))
    client:close()
  end)

  it("counts a failure of the journal", function()
    local script = host.write(declares.code { { "redis", ANY } } ..
      [[require("moonport.journal").fail("redis", 0, "expected ^EHLO\n got HELO")]])
    local code, log = finish(mock(script))
    assert.are.equal(1, code)
    assert.is_truthy(log:find("1) expected ^EHLO\n got HELO", 1, true), log)
  end)
end)

describe("a reload of moonport mock", function()
  after_each(host.cleanup)

  -- Writes the script anew and has it loaded: whether it was, and the event.
  local function reload(p, path, mocks, options)
    local reloaded, failed = #p:find("reloaded"), #p:find("reload failed")
    host.write(declares.code(mocks, options), path)
    p:kill("HUP")
    return host.eventually("the reload", function()
      local good, bad = p:find("reloaded"), p:find("reload failed")
      if #good > reloaded then return { true, good[#good] } end
      if #bad > failed then return { false, bad[#bad] } end
    end)
  end

  it("keeps the port of a mock that is still declared, and its conversations", function()
    local path = declares.script { { "redis", ANY } }
    local p = mock(path)
    local client = host.connect(p:url())
    client:send("a\n")
    assert.are.equal("one redis a", client:line())
    assert.is_true(reload(p, path, { { "redis", ANY } }, { word = "two" })[1])
    assert.are.equal("two redis b", ask(p:url(), "b"))
    client:send("c\n")
    assert.are.equal("one redis c", client:line())
    client:close()
    p:stop()
  end)

  it("opens what has come, and closes what has gone", function()
    local folder = host.folder()
    local function at(name) return "unix://" .. folder .. "/" .. name end
    local path = declares.script { { "stays", at("stays") }, { "goes", at("goes") }, { "moves", at("old") } }
    local p = mock(path)
    local client = host.connect(at("goes"))
    client:send("a\n")
    assert.are.equal("one goes a", client:line())
    assert.is_true(reload(p, path, { { "comes", at("comes") }, { "stays", at("stays") }, { "moves", at("new") } },
      { word = "two" })[1])
    assert.are.equal("two comes x", ask(at("comes"), "x"))
    assert.are.equal("two stays x", ask(at("stays"), "x"))
    assert.are.equal("two moves x", ask(at("new"), "x"))
    assert.is_true(refused(at("goes")))
    assert.is_true(refused(at("old")))
    assert.is_falsy(sys.stat(folder .. "/goes"))
    assert.are.equal("", (client:all()))
    client:close()
    p.ready.servers = {}
    p:stop()
    assert.are.same({}, sys.list(folder))
  end)

  it("hands a listener whose address stays to the mock that is declared there now", function()
    local folder = host.folder()
    local function at(name) return "unix://" .. folder .. "/" .. name end
    local path = declares.script { { "a", at("1") }, { "b", at("2") }, { "c", at("3") }, { "t", ANY } }
    local p = mock(path)
    local port = p:url("t"):match("%d+$")
    local client = host.connect(at("1"))
    client:send("x\n")
    assert.are.equal("one a x", client:line())
    local same = { { "b", at("1") }, { "a", at("2") }, { "d", at("3") }, { "t", "tcp://127.0.0.1:" .. port } }
    for _, word in ipairs { "two", "three" } do
      assert.is_true(reload(p, path, same, { word = word })[1])
      assert.are.equal(word .. " b x", ask(at("1"), "x"))
      assert.are.equal(word .. " a x", ask(at("2"), "x"))
      assert.are.equal(word .. " d x", ask(at("3"), "x"))
      assert.are.equal(word .. " t x", ask(p:url("t"), "x"))
    end
    client:send("y\n") -- it has not been closed
    assert.truthy(client:line():find("^one %l y$"))
    client:close()
    local outcome = reload(p, path, { { "e", at("3") }, { "t", "tcp://0.0.0.0:" .. port }, { "f", at("new") } })
    assert.is_false(outcome[1])
    local why = ": t, of this host itself, listens on tcp://127.0.0.1:" .. port
    assert.truthy(outcome[2].why:find(why, 1, true), outcome[2].why)
    assert.are.equal("three d x", ask(at("3"), "x"))
    assert.is_falsy(sys.stat(folder .. "/new"))
    assert.is_true(reload(p, path, { { "t", at("3") } }, { word = "last" })[1])
    assert.are.equal("last t x", ask(at("3"), "x"))
    assert.is_true(refused(at("1")))
    p.ready.servers = {}
    p:stop()
    assert.are.same({}, sys.list(folder))
  end)

  it("fails where a new mock cannot listen, and all is as it was", function()
    local folder = host.folder()
    local other = mock(declares.script { { "other", ANY } })
    local path = declares.script { { "redis", ANY } }
    local p = mock(path)
    local outcome = reload(p, path, { { "free", "unix://" .. folder .. "/free" }, { "redis", ANY },
      { "taken", other:url() } }, { word = "two" })
    assert.is_false(outcome[1])
    assert.is_truthy(outcome[2].why:find(other:url(), 1, true), outcome[2].why)
    assert.are.equal("one redis a", ask(p:url(), "a"))
    assert.are.same({}, sys.list(folder))
    outcome = reload(p, path, {})
    assert.is_false(outcome[1])
    assert.is_truthy(outcome[2].why:find("declares no mock", 1, true))
    assert.are.equal("one redis a", ask(p:url(), "a"))
    p:stop()
    other:stop()
  end)

  it("fails where a name is another script's", function()
    local path = declares.script { { "redis", ANY } }
    local other = declares.script { { "smtp", ANY } }
    local p = mock { path, other }
    host.write(declares.code { { "smtp", ANY } }, path)
    p:kill("HUP")
    assert.is_truthy(p:find("reload failed", true)[1].why:find(other, 1, true))
    p:stop()
  end)

  it("is watched for", function()
    local path = declares.script { { "redis", ANY } }
    local p = mock(path, { args = { "--watch" } })
    host.write(declares.code({ { "redis", ANY } }, { word = "two" }), path)
    p:find("reloaded", true)
    assert.are.equal("two redis a", ask(p:url(), "a"))
    p:stop()
  end)
end)

describe("moonport mock --exit-with-parent", function()
  after_each(host.cleanup)

  local SHELL = 'exec 3<&0; "$@" <&3 3<&- & wait'

  -- A runner of tests that starts a mock by this shell command (the program is "$@"), and waits. Returns when the
  -- mock is ready: the runner's pid, the mock's, and the end of the pipe that is its standard input.
  local function runner(argv, folder)
    for _, word in ipairs { host.program, "mock", declares.script { { "redis", ANY } }, "--exit-with-parent",
      "--ready-file", folder .. "/ready" } do
      argv[#argv + 1] = word
    end
    local from, keep = sys.pipe()
    local null = assert(sys.open("/dev/null", "w"))
    local pid = assert(sys.spawn(argv, { stdin = from, stdout = null, stderr = null }))
    sys.close(from)
    sys.close(null)
    host.eventually("the ready line", function() return sys.stat(folder .. "/ready") end)
    return pid, math.tointeger(cjson.decode((host.read(folder .. "/ready"))).pid), keep
  end

  local function ends(mock_pid)
    host.eventually("the mock's end", function()
      local state = host.state(mock_pid)
      return not state or state == "Z"
    end, host.sanitizer() and host.LIMIT or 1)
  end

  it("ends when the runner is killed while another process keeps its standard input open", function()
    local pid, mock_pid, keep = runner({ "sh", "-c", SHELL, "sh" }, host.folder())
    sys.kill(pid, "KILL")
    sys.wait(pid, host.LIMIT)
    ends(mock_pid)
    sys.close(keep)
  end)

  it("ends when the runner is killed and a shell between them lives on", function()
    local code = [[
      local words = {}
      for i, word in ipairs(arg) do words[i] = "'" .. word .. "'" end
      local p = io.popen("trap '' TERM; " .. table.concat(words, " ") .. "; true", "w")
      io.read("a")]]
    local path = host.write(code)
    local pid, mock_pid, keep = runner({ "lua5.4", path }, host.folder())
    sys.kill(pid, "KILL")
    sys.wait(pid, host.LIMIT)
    ends(mock_pid)
    sys.close(keep)
  end)

  it("goes on while both are there", function()
    local pid, mock_pid, keep = runner({ "sh", "-c", SHELL, "sh" }, host.folder())
    sys.poll(-1, "r", 0.5)
    assert.is_truthy(host.state(mock_pid))
    assert.are_not.equal("Z", host.state(mock_pid))
    sys.kill(mock_pid, "TERM")
    assert.are.equal(0, sys.wait(pid, host.LIMIT))
    sys.close(keep)
  end)
end)
