--- --sandbox: what a script may not do, and what it still may.

local host = require("support.host")

-- The script's folder, and a place beside it that is none of its business.
local function places()
  local base = host.folder()
  local folder = base .. "/app"
  assert(os.execute("mkdir " .. folder .. " " .. folder .. "/sub " .. base .. "/apple"))
  host.write("secret\n", base .. "/outside.txt")
  host.write("return 'secret'", base .. "/outside.lua")
  host.write("inside\nsecond\n", folder .. "/inside.txt")
  host.write("return 'inside'", folder .. "/mod.lua")
  host.sys.symlink(base .. "/outside.txt", folder .. "/out.txt")
  host.sys.symlink("../outside.txt", folder .. "/up.txt")
  host.sys.symlink(base .. "/outside.lua", folder .. "/out.lua")
  host.sys.symlink(base, folder .. "/updir")
  host.sys.symlink("/", folder .. "/rootdir")
  host.sys.symlink("inside.txt", folder .. "/link.txt")
  return folder, base
end

-- Runs a chunk as a request of a sandboxed script in the folder: what it returns, as one text.
local function boxed(folder, chunk, more)
  local path = host.write(([[
    local FOLDER, BASE = %q, %q
    local function run() %s end
    local H = {}
    function H:handle()
      local r = table.pack(run())
      for i = 1, r.n do r[i] = tostring(r[i]) end
      self.wfile:write(table.concat(r, "|"))
    end
    return H]]):format(folder, folder:match("^(.*)/"), chunk), folder .. "/script.lua")
  local code, out, err = host.run { "try", path, "--sandbox", table.unpack(more or {}) }
  return out .. (code == 0 and "" or "!" .. code .. " " .. err), err
end

describe("--sandbox", function()
  after_each(host.cleanup)

  it("leaves out what runs programs, changes the process or looks into other code", function()
    local folder = places()
    for _, name in ipairs {
      "os.execute", "os.exit", "os.setlocale", "os.tmpname", "io.popen", "io.tmpfile", "package.loadlib", "string.dump",
      "debug.getinfo", "debug.sethook", "debug.getupvalue", "debug.setupvalue", "debug.upvaluejoin", "debug.getlocal",
      "debug.setlocal", "debug.getregistry", "debug.getmetatable", "debug.setmetatable", "debug.getuservalue",
      "debug.setuservalue", "debug.debug", "debug.upvalueid", "debug.gethook", "debug.setcstacklimit",
    } do
      local library, entry = name:match("(%w+)%.(%w+)")
      assert.are.equal("nil|nil|nil", boxed(folder, ("return %s, require(%q).%s, package.loaded[%q].%s"):format(
        name, library, entry, library, entry)), name)
    end
    assert.are.equal("nil|nil", boxed(folder, "return ('').dump, getmetatable('').__index.dump"))
  end)

  it("keeps nothing else of these libraries than is known to do no harm", function()
    local folder = places()
    local said = boxed(folder, [[
      local names = {}
      for _, library in ipairs { "os", "io", "package", "debug" } do
        for k in pairs(_G[library]) do names[#names + 1] = library .. "." .. k end
      end
      for k in pairs(_G) do names[#names + 1] = k end
      table.sort(names)
      return table.concat(names, " ")]])
    assert.are.equal("_G _VERSION assert collectgarbage coroutine debug debug.traceback dofile error getmetatable io "
      .. "io.close io.flush io.input io.lines io.open io.output io.read io.stderr io.stdin io.stdout io.type io.write "
      .. "ipairs load loadfile math next os os.clock os.date os.difftime os.getenv os.remove os.rename os.time package "
      .. "package.config package.cpath package.loaded package.path package.preload package.searchers "
      .. "package.searchpath pairs pcall print rawequal rawget rawlen rawset require select setmetatable string table "
      .. "tonumber tostring type utf8 warn xpcall", said)
  end)

  -- Each gives a true first value if it has got out.
  local attacks = {
    "return io.open('/etc/passwd')",
    "return io.open(BASE .. '/outside.txt')",
    "return io.open(FOLDER .. '/../outside.txt')",
    "return io.open(FOLDER .. '/sub/../../outside.txt')",
    "return io.open(FOLDER .. '/./sub//..///../outside.txt')",
    "return io.open(FOLDER .. '/out.txt')",
    "return io.open(FOLDER .. '/up.txt')",
    "return io.open(FOLDER .. '/updir/outside.txt')",
    "return io.open(FOLDER .. '/rootdir/etc/passwd')",
    "return io.open(FOLDER .. '/updir/app/inside.txt')",
    "return io.open(FOLDER .. 'le/file', 'w')",
    "return io.open(BASE .. '/new.txt', 'w')",
    "return io.open(BASE .. '/outside.txt', 'a')",
    "return io.open(FOLDER .. '/out.txt', 'r+')",
    "return io.open(FOLDER .. '/up.txt', 'w')",
    "return io.open(FOLDER .. '/updir/new.txt', 'w+')",
    "return io.open('/proc/self/fd/1', 'w')",
    "return io.open('/proc/self/root/etc/passwd')",
    "return io.open('/proc/self/mem', 'r+')",
    "return io.open('/dev/stdin')",
    "return io.open('README.md')",
    "return io.open('.')",
    "return io.open('')",
    "return io.open('/')",
    "return io.open(FOLDER .. '/..')",
    "return io.open(BASE)",
    "return io.open('/etc/passwd\\0' .. FOLDER)",
    "return pcall(io.lines, '/etc/passwd')",
    "return pcall(io.lines, FOLDER .. '/out.txt')",
    "return pcall(io.input, '/etc/passwd')",
    "return pcall(io.output, BASE .. '/new.txt')",
    "return pcall(io.output, FOLDER .. '/updir/new.txt')",
    "return pcall(dofile, BASE .. '/outside.lua')",
    "return pcall(dofile, FOLDER .. '/out.lua')",
    "return pcall(dofile)",
    "return loadfile(BASE .. '/outside.lua')",
    "return loadfile(FOLDER .. '/out.lua')",
    "return loadfile('/etc/passwd', 't', {})",
    "return os.remove(BASE .. '/outside.txt')",
    "return os.remove(FOLDER .. '/updir/outside.txt')",
    "return os.remove(FOLDER .. '/../apple')",
    "return os.remove(FOLDER)",
    "return os.rename(FOLDER .. '/inside.txt', BASE .. '/stolen.txt')",
    "return os.rename(BASE .. '/outside.txt', FOLDER .. '/got.txt')",
    "return os.rename(FOLDER .. '/inside.txt', FOLDER .. '/updir/stolen.txt')",
    "return os.rename(FOLDER, BASE .. '/moved')",
    "return pcall(require, 'cjson')",
    "return pcall(require, 'outside')",
    "package.path = BASE .. '/?.lua'; return pcall(require, 'outside')",
    "package.path = FOLDER .. '/../?.lua'; return pcall(require, 'outside')",
    "package.path = FOLDER .. '/?.lua'; return pcall(require, 'out')",
    "package.path = FOLDER .. '/updir/?.lua'; return pcall(require, 'outside')",
    "package.path = '/etc/?'; return pcall(require, 'passwd')",
    "package.cpath = '/usr/lib/x86_64-linux-gnu/lua/5.4/?.so'; return pcall(require, 'cjson')",
    "package.path = '/usr/lib/x86_64-linux-gnu/lua/5.4/?.so'; return pcall(require, 'cjson')",
    "return pcall(require, '../outside')",
    "return pcall(require, BASE .. '/outside')",
    "package.searchpath = function() return BASE .. '/outside.lua' end; return pcall(require, 'anything')",
    "return package.searchpath('passwd', '/etc/?')",
    "return package.searchpath('outside', BASE .. '/?.lua')",
    "return package.searchpath('x/outside', FOLDER .. '/?.lua', 'x', '..')",
    "return package.searchpath('out', FOLDER .. '/?.lua')",
    "return io.open((assert(package.searchpath('moonport.http', package.path))))",
    "return loadfile((assert(package.searchpath('moonport.http', package.path))))",
    "return package.searchpath('meta.moonport', package.path)",
    "return package.searchers[4]",
    "for _, s in ipairs(package.searchers) do\n"
      .. " local _, loader, extra = pcall(s, 'cjson')\n"
      .. " if type(loader) == 'function' then return true, extra end end",
    "return pcall(require('os').execute or error, 'true')",
    "return load('\\27Lua')",
    "return load(coroutine.wrap(function() coroutine.yield('\\27') coroutine.yield('Lua') end), 'x', 'b')",
    "return load(io.open(FOLDER .. '/bytecode.lua'):read('a'), 'x', 'b')",
    "return string.dump or rawget(getmetatable('').__index, 'dump')",
    "return loadfile(FOLDER .. '/bytecode.lua', 'b')",
    "return pcall(dofile, FOLDER .. '/bytecode.lua')",
    "return pcall(require, 'bytecode')",
    "return getmetatable(io.stdout).__index.popen",
    "local m = getmetatable(io.stdout); return m.__index.execute or m.open",
    "return io.stdout.open or io.stdout.lines == nil",
    "for name, f in pairs(package.preload) do if not name:find('^moonport%.') then return f end end",
    "return coroutine.wrap(function() return io.popen end)()",
    "return coroutine.running() and debug.getinfo",
    "local t = setmetatable({}, { __gc = function() end }); return os.execute or t[1]",
    "for k, v in pairs(package.loaded) do if type(v) == 'table' then\n"
      .. " for n in pairs(v) do if n == 'execute' or n == 'popen' or n == 'loadlib' or n == 'getregistry'\n"
      .. " or n == 'dump' or n == 'sethook' then return true, k .. n end end end end",
    "return require('moonport').debug or require('moonport').start",
  }

  it("holds against attempts to get out", function()
    local folder, base = places()
    host.write(string.dump(function() return 1 end), folder .. "/bytecode.lua")
    local chunks = {}
    for i, attack in ipairs(attacks) do
      chunks[i] = ("do local ok, first, second = pcall(function() %s end) " ..
        "if ok and first then out[#out + 1] = %q .. ' -> ' .. tostring(first) .. ' ' .. tostring(second) end end")
        :format(attack, attack)
    end
    local said = boxed(folder, "local path, cpath, find = package.path, package.cpath, package.searchpath\n"
      .. "local out = {}\n"
      .. table.concat(chunks, "\npackage.path, package.cpath, package.searchpath = path, cpath, find\n")
      .. "\nreturn table.concat(out, '\\n')")
    assert.are.equal("", said)
    assert.are.equal("secret\n", host.read(base .. "/outside.txt"))
    assert.are.equal("inside\nsecond\n", host.read(folder .. "/inside.txt"))
    assert.is_nil(host.read(base .. "/new.txt"))
  end)

  it("is what stops these: without it, they work", function()
    local folder, base = places()
    local path = host.write(([[
      local BASE = %q
      assert(io.open("/etc/passwd")):close()
      assert(dofile(BASE .. "/outside.lua") == "secret")
      package.path = BASE .. "/?.lua"
      assert(require("outside") == "secret" and require("cjson").encode and debug.getinfo and os.execute("true"))
      return { handle = print }]]):format(base), folder .. "/script.lua")
    assert.are.equal(0, (host.run { "check", path }))
    assert.are.equal(100, (host.run { "check", path, "--sandbox" }))
  end)

  it("says what was refused, as Lua's functions say it", function()
    local folder, base = places()
    local outside = base .. "/outside.txt"
    local sentence = outside .. ": it is outside the script's folder (--sandbox)"
    assert.are.equal("nil|" .. sentence .. "|13", boxed(folder, "return io.open(BASE .. '/outside.txt')"))
    assert.are.equal("nil|" .. sentence .. "|13", boxed(folder, "return os.remove(BASE .. '/outside.txt')"))
    assert.are.equal("nil|" .. folder .. "/out.txt: it is outside the script's folder (--sandbox)|13",
      boxed(folder, "return io.open(FOLDER .. '/out.txt')"))
    assert.matches("^false|.*outside%.txt: it is outside",
      boxed(folder, "return pcall(io.lines, BASE .. '/outside.txt')"))
    assert.matches("^nil|.*outside%.txt: it is outside", boxed(folder, "return loadfile(BASE .. '/outside.txt')"))
    assert.matches("^false|.*module 'cjson' is a C library %(/.*cjson%.so%): %-%-sandbox loads none",
      boxed(folder, "return pcall(require, 'cjson')"))
    assert.matches("^false|.*module 'busted' %(/.*busted.*%.lua%) is outside the script's folder %(%-%-sandbox%)",
      boxed(folder, "return pcall(require, 'busted')"))
    assert.matches("^false|.*module 'nothing' not found:", boxed(folder, "return pcall(require, 'nothing')"))
    -- what is not there is what Lua says it is
    assert.are.equal("nil|" .. folder .. "/none: No such file or directory|2",
      boxed(folder, "return io.open(FOLDER .. '/none')"))
    local code, _, err = host.run { "check", host.write("return require('cjson')", folder .. "/c.lua"), "--sandbox" }
    assert.are.equal(100, code)
    assert.matches("module 'cjson' is a C library", err)
  end)

  it("lets files of the folder be read, written, renamed and removed", function()
    local folder = places()
    assert.are.equal("inside|second|nil|closed file", boxed(folder, [[
      local f <close> = assert(io.open(FOLDER .. "/inside.txt"))
      local a, b, c = f:read("l", "l", "l")
      f:close()
      return a, b, c, io.type(f)]]))
    assert.are.equal("inside", boxed(folder, "return io.open(FOLDER .. '/link.txt'):read()"))
    assert.are.equal("inside", boxed(folder, "return io.open(FOLDER .. '/sub/../link.txt'):read()"))
    assert.are.equal("one two|true|true|nil|nil", boxed(folder, [[
      local f = assert(io.open(FOLDER .. "/sub/new", "w"))
      f:write("one"):close()
      f = assert(io.open(FOLDER .. "/sub/new", "a+b"))
      f:write(" two")
      f:seek("set")
      local text = f:read("a")
      f:close()
      local renamed, removed = os.rename(FOLDER .. "/sub/new", FOLDER .. "/old"), os.remove(FOLDER .. "/old")
      os.remove(FOLDER .. "/sub")
      return text, renamed, removed, io.open(FOLDER .. "/old"), (io.open(FOLDER .. "/sub"))]]))
    assert.matches("^false|.*invalid mode", (boxed(folder, "return pcall(io.open, FOLDER .. '/x', 'rw')")))
    assert.are.equal("inside", boxed(folder, "return dofile(FOLDER .. '/mod.lua')"))
    assert.are.equal("7", boxed(folder, [[
      io.open(FOLDER .. "/env.lua", "w"):write("x = 7"):close()
      local env = {}
      loadfile(FOLDER .. "/env.lua", "t", env)()
      return env.x]]))
  end)

  it("has io.lines, io.input and io.output as Lua has them", function()
    local folder = places()
    local compare = [[
      local out = {}
      local function note(...)
        for i = 1, select("#", ...) do out[#out + 1] = tostring((select(i, ...))):gsub("0x%x+", "") end
      end
      local name = FOLDER .. "/inside.txt"
      for line in io.lines(name) do note(line) end
      for a, b in io.lines(name, 1, "L") do note(a, b) end
      for n in io.lines(name, "n") do note(n) end
      local next, state, control, file = io.lines(name)
      note(type(next), state, control, io.type(file), next(), next(), next(), io.type(file), pcall(next))
      for line in io.lines(name) do note(line) break end
      note(pcall(io.lines, FOLDER .. "/none"))
      note(pcall(io.lines, name, "x"))
      note(pcall(function() for _ in io.lines(name, "x") do note("never") end end))
      note(pcall(io.lines, name, table.unpack({}, 1, 251)))
      note(io.type(io.input(name)), io.read("a"), io.input() == io.stdin)
      io.input():close()
      io.input(io.stdin)
      local f = io.output(FOLDER .. "/written")
      io.write("text")
      f:close()
      io.output(io.stdout)
      note(io.open(FOLDER .. "/written"):read("a"))
      note(pcall(io.input, FOLDER .. "/none"))
      note(pcall(io.open, name, "x"))
      note(pcall(io.open))
      note(os.remove(FOLDER .. "/none"))
      note((os.rename(FOLDER .. "/none", FOLDER .. "/other")))
      return table.concat(out, "\n")]]
    local path = host.write("local FOLDER = ... or '" .. folder .. "'\nlocal function run()\n" .. compare
      .. "\nend\nio.stdout:write((run()))", folder .. "/compare.lua")
    local p = assert(io.popen("lua5.4 " .. path))
    local plain = p:read("a")
    p:close()
    -- where an error was raised, and the name of the function that is in its sentence, is not the point
    local function bare(text)
      return (text:gsub("[^\n]*script%.lua:%d+: ", ""):gsub("[^\n]*compare%.lua:%d+: ", ""):gsub("to '[^']*'", ""))
    end
    assert.are.equal(bare(plain), bare((boxed(folder, compare))))
  end)

  it("lets modules be required: the folder's and the host's own", function()
    local folder = places()
    host.write("return ... ", folder .. "/sub/init.lua")
    assert.are.equal("inside|sub|table|table|true", boxed(folder, [[
      local class, http = require("moonport.class"), require("moonport.http")
      require("moonport.socketserver") require("moonport.resp")
      local file = package.searchpath("mod", package.path)
      return require("mod"), require("sub"), type(class), type(http), file == FOLDER .. "/mod.lua"]]))
    assert.are.equal("from a searcher", boxed(folder, [[
      package.preload.mine = function() return "from a searcher" end
      return (require("mine"))]]))
    assert.matches("traceback:", (boxed(folder, "return select(2, xpcall(error, debug.traceback, 'x'))")))
  end)

  it("means the folder of the name, whatever the name is", function()
    local folder, base = places()
    host.sys.symlink("app", base .. "/current")
    local script = [[
      local H = {}
      function H:handle()
        self.wfile:write(tostring((io.open(arg_name .. "/inside.txt"))):sub(1, 4), " ", (require("mod")))
      end
      return H]]
    for _, c in ipairs {
      { "current", "current" }, { "current", "app" }, { "app", "app" }, { "apple/../app", "app" },
    } do
      local path = base .. "/" .. c[1] .. "/script.lua"
      host.write("arg_name = '" .. base .. "/" .. c[2] .. "'\n" .. script, path)
      local code, out, err = host.run { "try", path, "--sandbox" }
      assert.are.equal("file inside", out, c[1] .. err)
      assert.are.equal(0, code)
    end
    -- a relative name
    local here = base:gsub("^/", ("../"):rep(20))
    host.write("arg_name = '" .. base .. "/app'\n" .. script, folder .. "/script.lua")
    local _, out = host.run { "try", here .. "/app/script.lua", "--sandbox" }
    assert.are.equal("file inside", out)
  end)

  it("holds under every mixin, and after a reload", function()
    for _, mixin in ipairs { "async", "threading", "forking", "sync" } do
      local folder, base = places()
      local text = ([[
        local H = {}
        function H:handle()
          local _, why = io.open(%q)
          self.wfile:write(tostring(os.execute), " ", tostring(debug.getinfo), " ", why, " ",
            io.open(%q):read(), " ", require("mod"), "\n")
        end
        return H]]):format(base .. "/outside.txt", folder .. "/inside.txt")
      local path = host.write(text, folder .. "/script.lua")
      local p = host.start(path, { args = { "--sandbox", "--mixin=" .. mixin } })
      local want = "nil nil " .. base .. "/outside.txt: it is outside the script's folder (--sandbox) inside inside"
      local one <close> = host.connect(p:url())
      assert.are.equal(want, one:line())
      p:kill("HUP")
      p:find("reloaded", true)
      local two <close> = host.connect(p:url())
      assert.are.equal(want, two:line())
      one:close()
      two:close()
      p:stop()
    end
  end)

  it("opens files that a forked child does not take over", function()
    local folder = places()
    local path = host.write(([[
      local name = %q
      local open = { assert(io.open(name)), assert(io.input(name)), (select(4, io.lines(name))) }
      local H = {}
      function H:handle()
        for i, f in ipairs(open) do self.wfile:write(io.type(f), i < #open and ", " or "\n") end
      end
      return H]]):format(folder .. "/inside.txt"), folder .. "/script.lua")
    local p = host.start(path, { args = { "--sandbox", "--mixin=forking" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("closed file, closed file, closed file", c:line())
    c:close()
    p:stop()
  end)

  it("holds where the kernel has no openat2", function()
    local folder = places()
    local path = host.write(([[
      local FOLDER = %q
      local H = {}
      function H:handle()
        for _, name in ipairs { "/inside.txt", "/sub/../inside.txt", "/out.txt", "/updir/outside.txt", "/link.txt",
          "/../outside.txt", "/none", "/sub/none", "/none/x" } do
          local f, _, errno = io.open(FOLDER .. name)
          self.wfile:write(name, " ", f and f:read() or errno, "\n")
        end
        self.wfile:write(tostring(os.rename(FOLDER .. "/inside.txt", FOLDER .. "/sub/moved")), "\n")
        return false
      end
      return H]]):format(folder), folder .. "/script.lua")
    local p = host.start(path, { args = { "--sandbox" }, inject = { "openat2:error=ENOSYS" } })
    local c <close> = host.connect(p:url())
    assert.are.equal("/inside.txt inside\n/sub/../inside.txt inside\n/out.txt 13\n/updir/outside.txt 20\n/link.txt 13\n"
      .. "/../outside.txt 13\n/none 2\n/sub/none 2\n/none/x 2\ntrue\n", c:all())
    c:close()
    p:stop()
  end)
end)
