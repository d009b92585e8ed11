local cjson = require("cjson")
local host = require("support.host")
local sys = host.sys

local UPPER = "scripts/upper.lua"

-- Runs it to its end: one sentence on standard error, nothing on standard output.
local function complains(args, code, ...)
  local got, out, err = host.run(args)
  local what = table.concat(args, " "):sub(1, 200)
  assert.are.equal(code, got, what .. "\n" .. err)
  assert.are.equal("", out, what)
  assert.matches("^moonport: [^\n]+\n$", err, 1, false, what)
  for _, text in ipairs { ... } do
    assert.is_truthy(err:find(text, 1, true), ("%s: no '%s' in: %s"):format(what, text, err))
  end
end

local function serve_complains(script, code, ...)
  for _, command in ipairs { "serve", "check", "try" } do
    complains({ command, script }, code, ...)
  end
end

describe("bad input:", function()
  after_each(host.cleanup)

  it("no command, another command, no script", function()
    complains({}, 100, "a command is missing", "moonport --help")
    complains({ "sevre", UPPER }, 100, "unknown command sevre", "did you mean moonport serve?")
    complains({ "chek", UPPER }, 100, "did you mean moonport check?")
    complains({ "mok", UPPER }, 100, "did you mean moonport mock?")
    complains({ "mock" }, 100, "the script is missing", "moonport mock SCRIPT")
    complains({ "serve" }, 100, "the script is missing", "moonport serve SCRIPT")
    complains({ "try" }, 100, "the script is missing", "moonport try SCRIPT")
    complains({ "try", UPPER, UPPER }, 100, "one script, not 2")
  end)

  it("an unknown option, with the nearest that there is", function()
    for wrong, right in pairs { ["--lisen=tcp://127.0.0.1:0"] = "--listen", ["--mixn=async"] = "--mixin",
      ["--opton"] = "--option", ["--redy-file"] = "--ready-file", ["--loglevel=info"] = "--log-level",
      ["--versoin"] = "--version", ["--admni=none"] = "--admin", ["--jornal=1M"] = "--journal",
      ["--admin-tokenfile=x"] = "--admin-token-file", ["--alow-script-upload"] = "--allow-script-upload" } do
      complains({ "serve", UPPER, wrong }, 100, "unknown option " .. wrong:match("^[^=]+"),
        "did you mean " .. right .. "?")
    end
    complains({ "serve", UPPER, "-x" }, 100, "unknown option -x", "moonport --help")
  end)

  it("an option without its value, or with one too many", function()
    for _, option in ipairs { "--listen", "-l", "--mixin", "-m", "--option", "-o", "--ready-file", "--log-level",
      "--log-format", "--admin", "--admin-token-file", "--admin-host", "--journal" } do
      complains({ "serve", UPPER, option }, 100, option, "needs a value")
    end
    complains({ "serve", UPPER, "--exit-with-parent=yes" }, 100, "--exit-with-parent", "takes no value")
    complains({ "serve", UPPER, "--watch=yes" }, 100, "--watch", "takes no value")
    complains({ "serve", UPPER, "--help=me" }, 100, "--help", "takes no value")
  end)

  it("a wrong word for an option", function()
    complains({ "serve", UPPER, "--mixin=asink" }, 100, "--mixin asink", "async", "sync")
    complains({ "serve", UPPER, "--log-level=loud" }, 100, "--log-level loud", "debug, info, warn or error")
    complains({ "serve", UPPER, "--log-format=xml" }, 100, "--log-format xml", "text or json")
  end)

  describe("a URL that", function()
    for url, why in pairs {
      ["nonsense"] = "must begin with tcp://",
      [""] = "must begin with tcp://",
      ["127.0.0.1:9999"] = "must begin with tcp://",
      ["http://127.0.0.1:80"] = "must begin with tcp://",
      ["://127.0.0.1:80"] = "must begin with tcp://",
      ["TCP://127.0.0.1:80"] = "must begin with tcp://",
      ["tcp:127.0.0.1:80"] = "must begin with tcp://",
      ["tcp://127.0.0.1"] = "the port is missing",
      ["tcp://"] = "the port is missing",
      ["tcp://:80"] = "the host is missing",
      ["tcp://[]:80"] = "the host is missing",
      ["tcp://127.0.0.1:"] = "the port must be a number from 0 to 65535",
      ["tcp://127.0.0.1:http"] = "the port must be a number",
      ["tcp://127.0.0.1:65536"] = "the port must be a number",
      ["tcp://127.0.0.1:-1"] = "the port must be a number",
      ["tcp://127.0.0.1:+1"] = "the port must be a number",
      ["tcp://127.0.0.1:80/"] = "the port must be a number",
      ["tcp://127.0.0.1: 80"] = "the port must be a number",
      ["tcp://::1:80"] = "an IPv6 address needs brackets",
      ["tcp://[::1]"] = "127.0.0.1:9999",
      ["tcp://[::1:80"] = "an IPv6 address needs brackets",
      ["unix://"] = "the path of the socket is missing",
      ["unix://@"] = "the path of the socket is missing",
      ["unixgram://"] = "the path of the socket is missing",
      ["unix:///" .. ("x"):rep(107)] = "has 108 bytes, the most is 107",
      ["tcp://" .. ("h"):rep(300) .. ":1"] = "host",
      ["unix://" .. ("x"):rep(2000)] = "too long",
    } do
      it("is " .. (#url > 60 and url:sub(1, 20) .. "..." or "'" .. url .. "'"), function()
        complains({ "serve", UPPER, "--listen=" .. url }, 100, why)
        if #url < 60 then complains({ "serve", UPPER, "--listen", url }, 100, url) end
      end)
    end

    it("stands for an address that this machine does not have", function()
      complains({ "serve", UPPER, "--listen=tcp://192.0.2.1:0" }, 111, "tcp://192.0.2.1:0",
        "Cannot assign requested address")
    end)

    it("is a path in a folder that is not there", function()
      local path = host.folder() .. "/none/s"
      complains({ "serve", UPPER, "--listen=unix://" .. path }, 111, path, "No such file or directory")
    end)
  end)

  it("more listeners than scripts, and scripts without a listener", function()
    complains({ "serve", "-l", "tcp://127.0.0.1:0", UPPER, "scripts/echo.lua" }, 100, "1 --listen before 2 scripts")
    complains({ "serve", UPPER, "scripts/echo.lua" }, 100, UPPER, "has no --listen")
  end)

  it("a port that is taken, and nothing else stays bound", function()
    local p = host.start(UPPER)
    local path = host.folder() .. "/s"
    complains({ "serve", UPPER, "--listen=unix://" .. path, "--listen=" .. p:url() }, 111, p:url(),
      "already in use")
    assert.is_nil(sys.stat(path))
    complains({ "serve", UPPER, "--listen=" .. p:url() .. "0" }, 100, "the port must be")
    local c <close> = host.connect(p:url())
    assert.are.equal("UNHARMED", c:ask("unharmed"))
    c:close()
    p:stop()
  end)

  it("an address that is given twice, and nothing else stays bound", function()
    local folder = host.folder()
    local path = folder .. "/s"
    local function twice(one, other, ...)
      complains({ "serve", UPPER, "--listen=" .. one, "--listen=" .. (other or one) }, 111, ...)
      assert.is_nil(sys.stat(path))
    end
    local p = host.start(UPPER) -- for a port that is free when it has ended
    local tcp = p:url()
    p:stop()
    local udp, port = tcp:gsub("^tcp", "udp"), tcp:match("%d+$")
    for _, url in ipairs { "unix://" .. path, "unixgram://" .. path, "unix://@" .. path, tcp, udp } do
      twice(url, nil, "cannot listen on " .. url .. " twice: upper, of this host itself, does already\n")
    end
    twice("unix://" .. path, "unix://" .. folder .. "/./s",
      "/./s: upper, of this host itself, listens on unix://" .. path .. "\n")
    twice("unix://" .. path, "unixgram://" .. path,
      "unixgram://" .. path .. ": upper, of this host itself, listens on unix://" .. path .. "\n")
    twice("tcp://0.0.0.0:" .. port, tcp, tcp .. ": upper, of this host itself, listens on tcp://0.0.0.0:" .. port)
  end)

  it("a ready file that cannot be written, and nothing stays bound", function()
    local folder = host.folder()
    complains({ "serve", UPPER, "--log-level=error", "--listen=unix://" .. folder .. "/s",
      "--ready-file=" .. folder .. "/none/ready" }, 111, folder .. "/none/ready", "No such file or directory")
    assert.is_nil(sys.stat(folder .. "/s"))
  end)

  for _, mixin in ipairs { "async", "threading" } do
    it("too few descriptors, and says what it needed them for: " .. mixin, function()
      local refused = 0
      for n = 4, 64 do -- with fewer there is no program to load
        local ok, p = pcall(host.start, UPPER, { nofile = n, loop = "epoll", args = { "--mixin=" .. mixin } })
        if ok then
          p:stop()
          break
        end
        refused = refused + 1
        assert.matches("ended with 111 before it was ready:.*\nmoonport: cannot [^\n]+: Too many open files\n$", p)
      end
      assert.is_true(refused > 2, refused .. " were refused")
    end)
  end

  it("a script that is missing", function()
    local path = host.folder() .. "/none.lua"
    serve_complains(path, 111, path, "No such file or directory")
    complains({ "serve", UPPER, path, "-l", "tcp://127.0.0.1:0", "-l", "tcp://127.0.0.1:0" }, 100, "has no --listen")
  end)

  it("a script that is a folder", function()
    local path = host.folder()
    serve_complains(path, 100, path, "it is a folder")
  end)

  it("a script that cannot be read", function()
    if sys.isroot() then
      pending("root may read every file")
      return
    end
    local path = host.write("return { handle = print }")
    sys.chmod(path, 0)
    serve_complains(path, 111, path, "Permission denied")
  end)

  it("a script with a syntax error", function()
    local path = host.write("local x = 1\nfunction handle(self) x = = 2 end\n")
    serve_complains(path, 100, path .. ":2:", "unexpected symbol near '='")
    path = host.write("function handle(self)\n")
    serve_complains(path, 100, path .. ":2:", "'end' expected")
  end)

  it("a script that raises", function()
    local path = host.write("local function f() error('not today') end\nf()\n")
    serve_complains(path, 100, path .. ":1:", "not today")
    for text, why in pairs {
      ["error('two\\nlines')"] = "two",
      ["error({})"] = "table",
      ["error()"] = "nil",
      ["error(setmetatable({}, { __tostring = function() error('x') end }))"] = "__tostring failed",
      ["require('no_such_module_at_all')"] = "module 'no_such_module_at_all' not found",
      ["local t = nil; t.x = 1"] = "attempt to index a nil value",
      ["coroutine.yield()"] = "attempt to yield",
      ["local function f() return 1 + f() end f()"] = "stack overflow",
    } do
      path = host.write(text)
      serve_complains(path, 100, path, why)
    end
  end)

  it("a script without handle", function()
    for _, text in ipairs { "", "return {}", "return 42", "return 'handle'", "return { handle = 1 }", "handle = 1",
      "local function handle() end", "return nil, function() end" } do
      local path = host.write(text)
      serve_complains(path, 100, path, "has no handle")
    end
  end)

  it("a script that is no text: bytecode, and what looks like it", function()
    local path = host.write(string.dump(assert(load("return { handle = print }"))))
    serve_complains(path, 100, path, "precompiled Lua", "text only")
    path = host.write("\27L")
    serve_complains(path, 100, path)
    path = host.write(("\0\xff"):rep(1000))
    serve_complains(path, 100, path)
  end)

  it("a module that is bytecode", function()
    local folder = host.folder()
    host.write(string.dump(assert(load("return 1"))), folder .. "/compiled_module.lua")
    local path = host.write("require('compiled_module') return { handle = print }", folder .. "/main.lua")
    serve_complains(path, 100, "compiled_module")
  end)

  it("an attribute on the command line that is wrong", function()
    for text, why in pairs {
      ["max_conections=5"] = "did you mean max_connections?",
      ["timout=5"] = "did you mean timeout?",
      ["timeout"] = "it must be NAME=VALUE",
      ["=5"] = "it must be NAME=VALUE",
      [""] = "it must be NAME=VALUE",
      ["timeout="] = "a number of seconds from 0 to 1e+09, or none",
      ["timeout=soon"] = "a number of seconds",
      ["timeout=-1"] = "a number of seconds",
      ["timeout=1s"] = "a number of seconds",
      ["timeout=nan"] = "a number of seconds",
      ["timeout=1e10"] = "a number of seconds",
      ["drain_timeout=none"] = "a number of seconds from 0 to 1e+09",
      ["max_connections=0"] = "a whole number from 1 to 10000000",
      ["max_connections=1.5"] = "a whole number",
      ["max_connections=5K"] = "a whole number",
      ["max_connections=ten"] = "a whole number",
      ["max_line=0"] = "a number of bytes from 1 to",
      ["max_line=1KB"] = "K, M and G are understood",
      ["max_line=99G"] = "a number of bytes",
      ["memory_limit=1K"] = "a number of bytes from 1048576",
      ["max_packet_size=65537"] = "a number of bytes from 1 to 65536",
      ["rbufsize=-2"] = "a number of bytes from -1 to 65536",
      ["socket_mode=888"] = "an octal number from 0 to 777",
      ["socket_mode=1777"] = "an octal number",
      ["allow_reuse_address=yes"] = "true or false",
      ["allow_reuse_port=1"] = "true or false",
    } do
      complains({ "serve", UPPER, "-o", text }, 100, text:match("^[^=]*"), why)
      complains({ "check", UPPER, "--option=" .. text }, 100, text:match("^[^=]*"), why)
    end
  end)

  it("an attribute in the script that is wrong", function()
    for text, why in pairs {
      ["timeout = 'soon'"] = "timeout: it must be a number of seconds from 0 to 1e+09, or none",
      ["timeout = -1"] = "timeout: it must be a number of seconds",
      ["timeout = true"] = "timeout: it must be",
      ["timeout = {}"] = "timeout: it must be",
      ["timeout = 0/0"] = "timeout: it must be",
      ["rbufsize = 1.5"] = "rbufsize: it must be",
      ["disable_nagle_algorithm = 1"] = "disable_nagle_algorithm: it must be true or false",
      ["server = 1"] = "server: it must be a table",
      ["server = { max_conections = 1 }"] = "server.max_conections: no such attribute; did you mean max_connections?",
      ["server = { verify_requests = print }"] = "did you mean verify_request?",
      ["server = { verify_request = 1 }"] = "server.verify_request: it must be a function",
      ["server = { handle_error = 'x' }"] = "server.handle_error: it must be a function",
      ["server = { max_connections = 0 }"] = "server.max_connections: it must be a whole number",
      ["server = { 'x' }"] = "no such attribute",
      ["server = { socket_mode = 1000 }"] = "server.socket_mode: it must be an octal number",
    } do
      local path = host.write("local H = { " .. text .. " }\nfunction H:handle() end\nreturn H\n")
      serve_complains(path, 100, path, why)
    end
  end)

  it("is refused in one piece: a wrong second script binds nothing", function()
    local folder = host.folder()
    local bad = host.write("return 1", folder .. "/bad.lua")
    complains({ "serve", UPPER, "-l", "unix://" .. folder .. "/s", bad, "-l", "unix://" .. folder .. "/t" }, 100, bad)
    assert.is_nil(sys.stat(folder .. "/s"))
    assert.is_nil(sys.stat(folder .. "/t"))
  end)
end)

describe("moonport --help and --version", function()
  it("say it on standard output", function()
    for _, args in ipairs { { "--help" }, { "-h" }, { "serve", "--help" }, { "serve", UPPER, "-h" } } do
      local code, out, err = host.run(args)
      assert.are.equal(0, code)
      assert.are.equal("", err)
      assert.matches("^usage: moonport serve SCRIPT", out)
      for _, text in ipairs { "moonport check SCRIPT", "moonport try SCRIPT", "--listen URL", "--mixin NAME",
        "--option NAME=VALUE", "--watch", "--ready-file PATH", "--exit-with-parent", "--workers N",
        "--log-format", "--log-level",
        "tcp://127.0.0.1:9999", "unixgram://", "@NAME", "request_queue_size", "drain_timeout", "100", "111" } do
        assert.is_truthy(out:find(text, 1, true), text)
      end
      for line in out:gmatch("[^\n]+") do assert.is_true(#line <= 120, line) end
    end
    for _, args in ipairs { { "--version" }, { "-V" }, { "serve", "--version" } } do
      local code, out, err = host.run(args)
      assert.are.equal(0, code)
      assert.are.equal("", err)
      assert.matches("^moonport %d+%.%d+%.%d+ %(Lua 5%.4%.%d+%)\n$", out)
    end
    host.cleanup()
  end)

  it("fail when nobody can read it", function()
    local full = sys.open("/dev/full", "w")
    if not full then
      pending("there is no /dev/full")
      return
    end
    local null = sys.open("/dev/null")
    local pid = sys.spawn({ host.program, "--help" }, { stdin = null, stdout = full, stderr = full })
    assert.are.equal(111, sys.wait(pid, host.LIMIT))
    sys.close(full)
    sys.close(null)
  end)
end)

-- Starts it as a plain program, with its standard output and error in files.
local function start_plain(args)
  local folder = host.folder()
  local null, out, err = sys.open("/dev/null"), sys.open(folder .. "/out", "w"), sys.open(folder .. "/err", "w")
  local argv = { host.program }
  for _, a in ipairs(args) do argv[#argv + 1] = a end
  local pid = assert(sys.spawn(argv, { stdin = null, stdout = out, stderr = err }))
  sys.close(null)
  sys.close(out)
  sys.close(err)
  return pid, folder
end

local function ends(pid)
  sys.kill(pid, "TERM")
  assert.are.equal(0, sys.wait(pid, host.LIMIT))
end

describe("the ready line", function()
  after_each(host.cleanup)

  it("goes where a link leads", function()
    local folder = host.folder()
    local real, link = folder .. "/real", folder .. "/link"
    host.write("old", real)
    assert(os.execute(("ln -s real %s"):format(link)))
    local pid = start_plain { "serve", UPPER, "-l", "tcp://127.0.0.1:0", "--ready-file", link }
    host.eventually("the ready line", function() return host.read(real):find("^{.*}\n$") end)
    ends(pid)
    assert(os.execute(("test -L %s"):format(link)))
    assert.are.equal(2, #sys.list(folder))
  end)

  it("goes into what is no file, and leaves it as it is", function()
    local fifo = host.folder() .. "/fifo"
    local p = assert(io.popen(([[mkfifo %s; exec 3<>%s
      timeout %d %s/moonport serve %s -l tcp://127.0.0.1:0 --ready-file %s \
        3<&- 2>/dev/null &
      timeout 10 head -n 1 <&3; kill $!; wait $!; test -p %s && echo a FIFO
      ]]):format(fifo, fifo, host.LIMIT, host.build, UPPER, fifo, fifo)))
    local said = p:read("a")
    p:close()
    assert.matches('^{"event":"ready",.*}\na FIFO\n$', said)
  end)

  it("is frozen: its keys and their order, on one line of a file", function()
    local folder = host.folder()
    local ready = folder .. "/ready"
    local pid = start_plain { "serve", UPPER, "-l", "tcp://127.0.0.1:0", "-l", "tcp://[::1]:0", "-l",
      "udp://127.0.0.1:0", "-l", "unix://" .. folder .. "/s", "-l", "unixgram://" .. folder .. "/d", "-l",
      "unix://@" .. folder, "--ready-file", ready }
    host.eventually("the ready file", function() return sys.stat(ready) end)
    local line = host.read(ready)
    local ports = {}
    for port in line:gmatch('"port":(%d+)') do ports[#ports + 1] = port end
    assert.are.equal(3, #ports)
    assert.are.equal(('{"event":"ready","pid":%d,"servers":{'
      .. '"upper":{"class":"AsyncTCPServer","url":"tcp://127.0.0.1:%s","host":"127.0.0.1","port":%s},'
      .. '"upper-2":{"class":"AsyncTCPServer","url":"tcp://[::1]:%s","host":"::1","port":%s},'
      .. '"upper-3":{"class":"AsyncUDPServer","url":"udp://127.0.0.1:%s","host":"127.0.0.1","port":%s},'
      .. '"upper-4":{"class":"AsyncUnixStreamServer","url":"unix://%s/s","path":"%s/s"},'
      .. '"upper-5":{"class":"AsyncUnixDatagramServer","url":"unixgram://%s/d","path":"%s/d"},'
      .. '"upper-6":{"class":"AsyncUnixStreamServer","url":"unix://@%s","path":"@%s"}}}\n')
      :format(pid, ports[1], ports[1], ports[2], ports[2], ports[3], ports[3], folder, folder, folder, folder,
        folder, folder), line)
    assert.are.equal(420, sys.stat(ready).mode)
    ends(pid)
  end)

  it("is the only thing on standard output when it goes there", function()
    local pid, folder = start_plain { "serve", UPPER, "--mixin=sync", "--listen=tcp://127.0.0.1:0", "--ready-file=-" }
    host.eventually("a line", function() return (host.read(folder .. "/out") or ""):find("\n", 1, true) end)
    local line = host.read(folder .. "/out")
    assert.matches('^{"event":"ready","pid":' .. pid .. ',"servers":{"upper":{"class":"TCPServer",'
      .. '"url":"tcp://127%.0%.0%.1:%d+","host":"127%.0%.0%.1","port":%d+}}}\n$', line)
    local c <close> = host.connect(cjson.decode(line).servers.upper.url)
    assert.are.equal("A", c:ask("a"))
    c:close()
    ends(pid)
    assert.are.equal(line, host.read(folder .. "/out"))
  end)

  it("replaces an older file, and is whole whenever it is there", function()
    local folder = host.folder()
    host.write("old", folder .. "/ready")
    local pid = start_plain { "serve", UPPER, "--listen=tcp://127.0.0.1:0", "--ready-file=" .. folder .. "/ready" }
    host.eventually("a new file", function() return host.read(folder .. "/ready") ~= "old" end)
    assert.are.equal(pid, cjson.decode((host.read(folder .. "/ready"))).pid)
    ends(pid)
  end)

  it("names a script with odd characters so that it is JSON", function()
    local script = host.write("return { handle = print }", host.folder() .. "/od\"d\\ \xff\n.lua")
    local p = host.start(script)
    local name = next(p.ready.servers)
    assert.are.equal("od\"d\\ \xc3\xbf\n", name)
    p:stop()
  end)
end)

describe("the log", function()
  after_each(host.cleanup)

  local SCRIPT = [[
    local moonport = require("moonport")
    function handle(self)
      local what = self.rfile:read("a")
      if what == "error" then error("\0\xff\n\"\\\t\u{2713}", 0) end
      for _, level in ipairs { "debug", "info", "warn", "error" } do moonport.log(level, what) end
    end]]

  local function say(url, what)
    local c <close> = host.connect(url)
    c:send(what)
    c:finish()
    c:all()
  end

  it("in JSON: one event a line, each with time, level and event first, whatever is in it", function()
    local p = host.start(host.write(SCRIPT), { args = { "--log-level=debug" } })
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    say(p:url(), table.concat(all))
    say(p:url(), "error")
    p:stop()
    for line in host.read(p.log_path):gmatch("([^\n]*)\n") do
      assert.matches('^{"time":"%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ","level":"%l+","event":"[^"]+"', line)
      assert.has_no.errors(function() cjson.decode(line) end)
      assert.is_nil(line:find("[\0-\31\127]"))
      assert.is_truthy(utf8.len(line))
    end
    local expected = {}
    for i = 0, 255 do expected[#expected + 1] = utf8.char(i) end
    local events = p:find("script")
    assert.are.equal(4, #events)
    assert.are.equal(table.concat(expected), events[1].message)
    local e = p:find("handler error")[1]
    assert.are.equal("\0\xc3\xbf\n\"\\\t\u{2713}", e.error)
    assert.matches("^stack traceback:\n", e.traceback)
  end)

  it("in text: one event a line, tracebacks and odd bytes quoted", function()
    local folder = host.folder()
    local pid, files = start_plain { "serve", host.write(SCRIPT), "--listen=unix://" .. folder .. "/s",
      "--ready-file=" .. folder .. "/ready" }
    host.eventually("ready", function() return sys.stat(folder .. "/ready") end)
    say("unix://" .. folder .. "/s", "two\nlines = 1")
    say("unix://" .. folder .. "/s", "word")
    say("unix://" .. folder .. "/s", "error")
    ends(pid)
    local log = host.read(files .. "/err")
    local lines = {}
    for line in log:gmatch("([^\n]*)\n") do
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ %l+ %l[%l ]*", line)
      lines[#lines + 1] = line:gsub("^%S+ ", "")
    end
    local function has(text) assert.is_truthy(log:find(text, 1, true), text .. "\n" .. log) end
    assert.matches("^info listening server=script class=AsyncUnixStreamServer url=unix://" .. folder:gsub("%W", "%%%0")
      .. "/s script=", lines[1])
    has('info script message="two\\nlines = 1"\n')
    has("error script message=word\n")
    has([[error="\u0000\u00ff\n\"\\\t]] .. "\u{2713}\" traceback=\"stack traceback:\\n")
    assert.is_nil(log:find("debug", 1, true))
    assert.are.equal("", host.read(files .. "/out"))
  end)

  it("has the level that was asked for, and all above it", function()
    local order = { "debug", "info", "warn", "error" }
    for i, level in ipairs(order) do
      local script = host.write(SCRIPT)
      local folder = host.folder()
      local pid, files = start_plain { "serve", script, "--listen=unix://" .. folder .. "/s", "--log-format=json",
        "--log-level", level, "--ready-file=" .. folder .. "/ready" }
      host.eventually("ready", function() return sys.stat(folder .. "/ready") end)
      say("unix://" .. folder .. "/s", "x")
      ends(pid)
      local seen = {}
      for line in host.read(files .. "/err"):gmatch("([^\n]*)\n") do
        local e = cjson.decode(line)
        if e.event == "script" then seen[#seen + 1] = e.level else assert.is_true(i <= 2 or e.level ~= "info", line) end
      end
      assert.are.same({ table.unpack(order, i) }, seen)
    end
  end)
end)

describe("moonport check", function()
  after_each(host.cleanup)

  it("says ok of what could be served, and binds and runs nothing", function()
    local folder = host.folder()
    local script = host.write("H = { server = { timeout = 3 } } function H:handle() error() end return H")
    local code, out, err = host.run { "check", UPPER, script, "--listen=unix://" .. folder .. "/s" }
    assert.are.equal(0, code)
    assert.are.equal(UPPER .. ": ok\n" .. script .. ": ok\n", out)
    assert.are.equal("", err)
    assert.is_nil(sys.stat(folder .. "/s"))
  end)

  it("looks at all scripts, and fails for one", function()
    local bad, worse = host.write("x ="), host.write("return 7")
    local code, out, err = host.run { "check", bad, UPPER, worse }
    assert.are.equal(100, code)
    assert.are.equal(UPPER .. ": ok\n", out)
    assert.matches("^moonport: [^\n]*:1: [^\n]+\nmoonport: [^\n]*has no handle[^\n]*\n$", err)
  end)

  it("goes on to the others when one would end the process", function()
    local leaves, bad = host.write("\nos.exit(0)"), host.write("x =")
    local code, out, err = host.run { "check", leaves, UPPER, bad }
    assert.are.equal(100, code)
    assert.are.equal(UPPER .. ": ok\n", out)
    assert.matches("^moonport: [^\n]*:2: only a request can end the process: [^\n]+\nmoonport: [^\n]*:1: ", err)
  end)
end)

describe("moonport try", function()
  after_each(host.cleanup)

  it("runs one request on a file", function()
    local code, out, err = host.run({ "try", UPPER }, "abc\ndef")
    assert.are.same({ 0, "ABC\nDEF\n", "" }, { code, out, err })
  end)

  it("takes empty input, and 5 MiB", function()
    assert.are.same({ 0, "", "" }, { host.run({ "try", UPPER }, "") })
    local line = ("0123456789abcdef"):rep(1000) .. "\n"
    local input = line:rep(5 << 20 // #line + 1)
    local code, out, err = host.run({ "try", UPPER }, input)
    assert.are.equal(0, code)
    assert.are.equal("", err)
    assert.are.equal(input:upper(), out)
  end)

  it("runs on a pipe, and answers before the pipe's end", function()
    local r, w = sys.pipe()
    local out_r, out_w = sys.pipe()
    local null = sys.open("/dev/null")
    local pid = sys.spawn({ host.program, "try", UPPER }, { stdin = r, stdout = out_w, stderr = null })
    sys.close(r)
    sys.close(out_w)
    sys.close(null)
    for _, word in ipairs { "one", "two" } do
      sys.write(w, word .. "\n")
      assert.is_true(sys.poll(out_r, "r", host.LIMIT))
      assert.are.equal(word:upper() .. "\n", sys.read(out_r))
    end
    sys.close(w)
    assert.are.equal(0, sys.wait(pid, host.LIMIT))
    assert.are.equal("", sys.read(out_r))
    sys.close(out_r)
  end)

  it("ends when the handler does, with input left over", function()
    local script = host.write("function handle(self) self.wfile:write(self.rfile:read(), '\\n') end")
    local code, out, err = host.run({ "try", script }, "first\n" .. ("x"):rep(1 << 20))
    assert.are.same({ 0, "first\n", "" }, { code, out, err })
  end)

  it("sends a large reply whole, however little is read", function()
    local script = host.write("function handle(self) self.wfile:write(('z'):rep(5 << 20)) end")
    local code, out = host.run({ "try", script }, "x")
    assert.are.equal(0, code)
    assert.are.equal(5 << 20, #out)
  end)

  it("exits 1 and says why when the handler fails", function()
    local script = host.write("function handle(self)\n  self.wfile:write('part')\n  error('it broke')\nend")
    local code, out, err = host.run({ "try", script }, "x\n")
    assert.are.equal(1, code)
    assert.are.equal("part", out)
    assert.matches("handler error", err)
    assert.matches("script%.lua:3: it broke", err)
    assert.matches("stack traceback", err)
    assert.matches("^[^\n]+\n$", err)
  end)

  it("exits 1 when finish or a host call fails", function()
    for _, text in ipairs {
      "H = {} function H:handle() end function H:finish() error('late') end return H",
      "function handle(self) self.request:close() self.request:recv(1) end",
      "H = { server = { handle_error = function() end } } function H:handle() error('told') end return H",
    } do
      assert.are.equal(1, (host.run({ "try", host.write(text) }, "x\n")), text)
    end
  end)

  it("takes options: attributes and the log level", function()
    local script = host.write("require('moonport').log('info', 'seen') function handle(self) "
      .. "self.wfile:write(self.server.max_line, ' ', self.server.class) end")
    local code, out, err = host.run({ "try", script, "-o", "max_line=7", "--log-level=info", "--log-format=json" }, "")
    assert.are.equal(0, code)
    assert.are.equal("7 UnixStreamServer", out)
    assert.matches('"message":"seen"', err)
    code, out, err = host.run({ "try", script }, "")
    assert.are.same({ 0, "65536 UnixStreamServer", "" }, { code, out, err })
  end)

  it("leaves quietly when nobody reads its output", function()
    local out_r, out_w = sys.pipe()
    local null = sys.open("/dev/null")
    sys.close(out_r)
    local script = host.write("function handle(self) while true do self.wfile:write(('x'):rep(10000)) end end")
    local pid = sys.spawn({ host.program, "try", script }, { stdin = null, stdout = out_w, stderr = null })
    sys.close(out_w)
    sys.close(null)
    local code = sys.wait(pid, host.LIMIT)
    if not code then sys.kill(pid, "KILL") end
    assert.is_truthy(code == 0 or code == 111, "exit code " .. tostring(code))
  end)
end)
