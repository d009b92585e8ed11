--- --watch: a change on disk is a reload, and nothing else is.

local host = require("support.host")
local sys = host.sys

local SOON = 3 -- seconds in which a change must be live; it takes a fraction of one

-- A script that answers each line with a word.
local function version(word)
  return ([[
    local H = {}
    function H:handle()
      for line in self.rfile:lines() do self.wfile:write("%s ", line, "\n") end
    end
    return H
  ]]):format(word)
end

-- As an editor saves: the file is another one afterwards.
local function save(text, path)
  host.write(text, path .. ".new")
  assert(os.rename(path .. ".new", path))
end

-- Has a link point elsewhere, at one stroke.
local function swap(target, path)
  assert(sys.symlink(target, path .. ".new"))
  assert(os.rename(path .. ".new", path))
end

local function folder(path)
  assert(os.execute("mkdir -p '" .. path .. "'"))
  return path
end

local function watched(script, options)
  options = options or {}
  options.args = options.args or {}
  table.insert(options.args, "--watch")
  return host.start(script, options)
end

-- What a new connection gets as an answer.
local function answer(p)
  local c <close> = host.connect(p:url())
  return c:ask("x")
end

-- Waits until new requests run this code.
local function live(p, word)
  host.eventually(("%q live; log:\n%s"):format(word, host.read(p.log_path)), function()
    return answer(p) == word .. " x"
  end, SOON)
end

local function failed(p, n)
  return host.eventually("reload failed", function() return p:find("reload failed")[n or 1] end, SOON)
end

-- For longer than a change needs to be noticed there is none: so many reloads, and so many that failed, it stays.
local function quiet(p, reloads, failures)
  local ends = sys.now() + 0.8
  repeat
    assert.are.equal(reloads, #p:find("reloaded"), host.read(p.log_path))
    assert.are.equal(failures or 0, #p:find("reload failed"), host.read(p.log_path))
    sys.poll(-1, "r", 0.05)
  until sys.now() > ends
end

describe("--watch", function()
  after_each(host.cleanup)

  -- How a script gets from "one" to "two"; prepare: returns its path, and whatever change needs.
  local changes = {
    { "an editor's rename",
      function(top) return host.write(version("one"), top .. "/script.lua") end,
      function(_, path) save(version("two"), path) end },
    { "truncate and write",
      function(top) return host.write(version("one"), top .. "/script.lua") end,
      function(_, path) host.write(version("two"), path) end },
    { "a touch",
      function(top) return host.write("local word = io.open(... or '" .. top .. "/word'):read('a')\n" ..
        version("one"):gsub('"one ",', "word, ' ',"), host.write("one", top .. "/word") and top .. "/script.lua") end,
      function(top, path)
        host.write("two", top .. "/word")
        assert(os.execute("touch " .. path))
      end },
    { "delete and write",
      function(top) return host.write(version("one"), top .. "/script.lua") end,
      function(_, path)
        assert(os.remove(path))
        host.write(version("two"), path)
      end },
    { "a swap of its link",
      function(top)
        host.write(version("one"), top .. "/one.lua")
        host.write(version("two"), top .. "/two.lua")
        assert(sys.symlink("one.lua", top .. "/script.lua"))
        return top .. "/script.lua"
      end,
      function(_, path) swap("two.lua", path) end },
    { "a swap of its folder's link",
      function(top)
        host.write(version("one"), folder(top .. "/releases/1") .. "/script.lua")
        host.write(version("two"), folder(top .. "/releases/2") .. "/script.lua")
        assert(sys.symlink("releases/1", top .. "/current"))
        return top .. "/current/script.lua"
      end,
      function(top) swap("releases/2", top .. "/current") end },
    { "a swap of its folder",
      function(top)
        host.write(version("two"), folder(top .. "/next") .. "/script.lua")
        return host.write(version("one"), folder(top .. "/app") .. "/script.lua")
      end,
      function(top)
        assert(os.rename(top .. "/app", top .. "/last"))
        assert(os.rename(top .. "/next", top .. "/app"))
      end },
    { "a swap of the link of mounted data",
      function(top)
        host.write(version("one"), folder(top .. "/..1") .. "/script.lua")
        assert(sys.symlink("..1", top .. "/..data"))
        assert(sys.symlink("..data/script.lua", top .. "/script.lua"))
        return top .. "/script.lua"
      end,
      function(top)
        host.write(version("two"), folder(top .. "/..2") .. "/script.lua")
        swap("..2", top .. "/..data")
        assert(os.execute("rm -r '" .. top .. "/..1'"))
      end },
    { "a rename of its module",
      function(top)
        host.write("return 'one'", folder(top .. "/lib") .. "/word.lua")
        return host.write("local word = require('lib.word')\n" .. version("one"):gsub('"one ",', "word, ' ',"),
          top .. "/script.lua")
      end,
      function(top) save("return 'two'", top .. "/lib/word.lua") end },
    { "a module that was missing",
      function(top)
        return host.write("local ok, word = pcall(require, 'word') if not ok then word = 'one' end\n" ..
          version("one"):gsub('"one ",', "word, ' ',"), top .. "/script.lua")
      end,
      function(top) host.write("return 'two'", top .. "/word.lua") end },
    { "a module that is found before the other",
      function(top)
        host.write("return 'one'", folder(top .. "/word") .. "/init.lua")
        return host.write("local word = require('word')\n" .. version("one"):gsub('"one ",', "word, ' ',"),
          top .. "/script.lua")
      end,
      function(top) host.write("return 'two'", top .. "/word.lua") end },
  }
  for _, case in ipairs(changes) do
    local name, prepare, change = table.unpack(case)
    it("notices " .. name, function()
      local top = host.folder()
      local path = prepare(top)
      local p = watched(path)
      local old <close> = host.connect(p:url())
      assert.are.equal("one a", old:ask("a"))
      quiet(p, 0)
      change(top, path)
      live(p, "two")
      quiet(p, 1)
      assert.are.equal(2, p:find("reloaded")[1].generation)
      assert.are.equal("one b", old:ask("b"))
      old:close()
      p:stop()
    end)
  end

  for _, mixin in ipairs { "threading", "forking", "sync" } do
    it("works with --mixin " .. mixin, function()
      local path = host.write(version("one"))
      local p = watched(path, { args = { "--mixin=" .. mixin } })
      assert.are.equal("one x", answer(p))
      save(version("two"), path)
      live(p, "two")
      save(version("three"), path)
      live(p, "three")
      p:stop()
    end)
  end

  it("is relative to where the program stands", function()
    local path = host.write(version("one"))
    local p = watched("script.lua", {
      wrap = { "sh", "-c", "cd '" .. path:match("^(.*)/") .. "' && exec \"$OLDPWD/$0\" \"$@\"" },
    })
    save(version("two"), path)
    live(p, "two")
    p:stop()
  end)

  it("never runs half a file while its writer goes on", function()
    local path = host.write(version("one"))
    local p = watched(path)
    -- the half is a script as well
    local half = version("half"):gsub("return H", "H.whole = {}\nfunction H.whole:handle() " ..
      "for line in self.rfile:lines() do self.wfile:write('whole ', line, '\\n') end end\nreturn H"):gsub("%s*$", "")
    local f <close> = assert(io.open(path, "wb"))
    f:setvbuf("no")
    assert(f:write(half))
    local ends = sys.now() + 0.5
    repeat assert.are.equal("one x", answer(p)) until sys.now() > ends
    assert(f:write(".whole\n"))
    assert(f:close())
    host.eventually("the whole file", function()
      local word = answer(p)
      assert.are_not.equal("half x", word)
      return word == "whole x"
    end, SOON)
    quiet(p, 1)
    p:stop()
  end)

  it("keeps the old code while the file is away", function()
    local path = host.write(version("one"))
    local p = watched(path)
    assert(os.remove(path))
    assert.is_truthy(failed(p).why:find("No such file or directory", 1, true))
    quiet(p, 0, 1)
    assert.are.equal("one x", answer(p))
    host.write(version("two"), path)
    live(p, "two")
    assert(os.remove(path))
    failed(p, 2)
    folder(path)
    failed(p, 3)
    assert.are.equal("two x", answer(p))
    assert(os.remove(path))
    host.write(version("three"), path)
    live(p, "three")
    p:stop()
  end)

  it("keeps the old code while the whole folder is away", function()
    local top = host.folder()
    local path = host.write(version("one"), folder(top .. "/a/b") .. "/script.lua")
    local p = watched(path)
    assert(os.execute("rm -r '" .. top .. "/a'"))
    failed(p)
    assert.are.equal("one x", answer(p))
    folder(top .. "/a/b")
    host.write(version("two"), path)
    live(p, "two")
    p:stop()
  end)

  it("keeps the old code while the file may not be read", function()
    if sys.isroot() then return pending("root may read everything") end
    local path = host.write(version("one"))
    local p = watched(path)
    assert(sys.chmod(path, 0))
    assert.is_truthy(failed(p).why:find("Permission denied", 1, true))
    assert.are.equal("one x", answer(p))
    assert(sys.chmod(path, 420))
    live(p, "one")
    p:stop()
  end)

  -- The disk fails and recovers: nothing of that is an event.
  it("keeps the old code while the disk fails, and finds out when it works again", function()
    local path = host.write(version("one"))
    local p = watched(path, { env = { host.traced() } })
    local said = host.folder() .. "/strace"
    local out = assert(sys.open(said, "w"))
    local tracer = assert(sys.spawn({ "strace", "-f", "-p", tostring(p.pid), "-P", path,
      "-e", "trace=openat", "-e", "inject=openat:error=EIO" }, { stdout = out, stderr = out }))
    sys.close(out)
    host.eventually("strace", function()
      if sys.wait(tracer, 0) then tracer = nil end
      return not tracer or host.read(said):find("attached", 1, true)
    end)
    if not tracer then
      p:stop()
      return pending("strace may not attach: " .. host.read(said))
    end
    save(version("two"), path)
    assert.is_truthy(failed(p).why:find("Input/output error", 1, true))
    assert.are.equal("one x", answer(p))
    quiet(p, 0, 1)
    assert(sys.kill(tracer, "TERM"))
    assert(sys.wait(tracer, host.LIMIT))
    live(p, "two")
    p:stop()
  end)

  it("says once what is wrong with the new code, and takes it once it is right", function()
    local path = host.write(version("one"))
    local p = watched(path)
    local old <close> = host.connect(p:url())
    assert.are.equal("one a", old:ask("a"))
    save("local H = {}\nfunction H:handle(\n", path)
    local e = failed(p)
    assert.are.same({ "error", path, 1 }, { e.level, e.script, e.generation })
    assert.matches("script%.lua:%d+: ", e.why)
    quiet(p, 0, 1)
    assert.are.equal("one x", answer(p))
    save(version("two"), path)
    live(p, "two")
    quiet(p, 1, 1)
    assert.are.equal("one b", old:ask("b"))
    old:close()
    p:stop()
  end)

  it("takes a new script once its new module is right", function()
    local top = host.folder()
    local path = host.write(version("one"), top .. "/script.lua")
    local p = watched(path)
    host.write("return return", top .. "/word.lua")
    save("local word = require('word')\n" .. version("one"):gsub('"one ",', "word, ' ',"), path)
    assert.matches("word%.lua:1: ", failed(p).why)
    quiet(p, #p:find("reloaded"), 1)
    host.write("return 'two'", top .. "/word.lua")
    live(p, "two")
    p:stop()
  end)

  it("reloads the script that has changed, and no other", function()
    local top = host.folder()
    local a = host.write(version("one"), folder(top .. "/a") .. "/a.lua")
    local b = host.write(version("one"), folder(top .. "/b") .. "/b.lua")
    local p = watched({ a, "--listen=tcp://127.0.0.1:0", b, "--listen=tcp://127.0.0.1:0" }, { listen = "" })
    save(version("two"), b)
    local e = p:find("reloaded", true)[1]
    assert.are.same({ b, 2 }, { e.script, e.generation })
    quiet(p, 1)
    for name, word in pairs { a = "one", b = "two" } do
      local c <close> = host.connect(p:url(name))
      assert.are.equal(word .. " x", c:ask("x"))
    end
    p:stop()
  end)

  it("knows the modules of code that came by a signal", function()
    local top = host.folder()
    host.write("return 'one'", folder(top .. "/lib") .. "/word.lua")
    local path = host.write(version("one"), top .. "/script.lua")
    local p = watched(path)
    save("local word = require('lib.word')\n" .. version("one"):gsub('"one ",', "word, ' ',"), path)
    p:kill("HUP")
    p:find("reloaded", true)
    -- by the signal, and perhaps once more by the watch
    host.eventually("no more reloads", function()
      local n = #p:find("reloaded")
      sys.poll(-1, "r", 0.3)
      return #p:find("reloaded") == n
    end)
    save("return 'two'", top .. "/lib/word.lua")
    live(p, "two")
    p:stop()
  end)

  it("leaves alone what does not concern it", function()
    local top = host.folder()
    host.write("return 1", top .. "/other.lua")
    local path = host.write(version("one"), top .. "/script.lua")
    local p = watched(path, { listen = "unix://" .. top .. "/socket" })
    host.write("text", top .. "/notes.txt")
    host.write("return 2", top .. "/other.lua")
    save("return 3", top .. "/other.lua")
    host.write("editor's", top .. "/.script.lua.swp")
    host.write("editor's", top .. "/script.lua~")
    host.write("return 4", folder(top .. "/sub") .. "/x.lua")
    assert(host.read(path))
    assert(os.execute("cat '" .. path .. "' >/dev/null"))
    quiet(p, 0)
    assert(os.remove(top .. "/notes.txt"))
    assert(os.remove(top .. "/other.lua"))
    quiet(p, 0)
    p:stop()
  end)

  it("is not asked for by default", function()
    local path = host.write(version("one"))
    local p = host.start(path)
    save(version("two"), path)
    quiet(p, 0)
    assert.are.equal("one x", answer(p))
    p:stop()
  end)

  it("ends up with what is there after a storm of writes", function()
    local top = host.folder()
    local word = host.write("word = 'one'\n", top .. "/word.lua")
    local path = host.write("require('word')\n" .. version("one"):gsub('"one ",', "tostring(word), ' ',"),
      top .. "/script.lua")
    local p = watched(path)
    local old <close> = host.connect(p:url())
    local writes, began = 0, sys.now()
    repeat
      for _ = 1, 1000 do
        writes = writes + 1
        local more <close> = assert(io.open(word, "ab"))
        more:write("word = ", writes, "\n")
      end
      assert.are.equal("one a", old:ask("a"))
      assert.matches("^%w+ x$", answer(p))
    until sys.now() - began > 3
    local last <close> = assert(io.open(word, "ab"))
    last:write("word = 'last'\n")
    last:close()
    live(p, "last")
    assert.is_true(writes > 10000, writes .. " writes")
    assert.are.equal("one b", old:ask("b"))
    old:close()
    p:stop()
  end)

  it("ends up with what is there after more events than the kernel keeps", function()
    local top = host.folder()
    local path = host.write(version("one"), top .. "/script.lua")
    local p = watched(path)
    assert(p:kill("STOP"))
    for _ = 1, 20000 do
      local f = assert(io.open(top .. "/noise", "ab"))
      f:close()
      assert(os.remove(top .. "/noise"))
    end
    save(version("two"), path)
    assert(p:kill("CONT"))
    live(p, "two")
    save(version("three"), path)
    live(p, "three")
    p:stop()
  end)

  for _, fault in ipairs { "inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC" } do
    it("looks at the files where it cannot watch the folders: " .. fault, function()
      local path = host.write(version("one"))
      local p = watched(path, { inject = { fault } })
      save(version("two"), path)
      live(p, "two")
      host.write(version("three"), path)
      live(p, "three")
      assert.are.equal(1, #p:find("watching without inotify"))
      p:stop()
    end)
  end

  it("leaves nothing behind", function()
    local path = host.write(version("one"))
    local p = watched(path)
    local descriptors = p:descriptors()
    for i = 1, 5 do
      save(version("n" .. i), path)
      live(p, "n" .. i)
    end
    host.eventually("descriptors back", function() return p:descriptors() == descriptors end)
    p:stop()
  end)
end)
