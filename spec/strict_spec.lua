--- --strict: code that others could have changed is not run.

local host = require("support.host")
local sys = host.sys

local SCRIPT = "local H = {} function H:handle() self.wfile:write('%s\\n') end return H"

local function script(word)
  local path = host.write(SCRIPT:format(word or "ok"))
  sys.chmod(path, tonumber("644", 8))
  return path, path:match("^(.*)/")
end

local function chmod(path, mode) assert(sys.chmod(path, tonumber(mode, 8))) end

local function check(path, ...)
  local code, out, err = host.run { "check", path, "--strict", ... }
  return code, code == 0 and out or err
end

describe("--strict", function()
  after_each(host.cleanup)

  it("loads what only its owner can change", function()
    local path = script()
    for _, mode in ipairs { "644", "600", "400", "755" } do
      chmod(path, mode)
      assert.are.equal(0, (check(path)))
    end
    -- the group's right matters only where the group is another one
    chmod(path, "664")
    assert.are.equal(0, (check(path)))
  end)

  it("refuses a script that everybody can write to", function()
    local path = script()
    chmod(path, "666")
    assert.are.equal(0, (host.run { "check", path }))
    local code, err = check(path)
    assert.are.equal(100, code)
    assert.are.equal("moonport: cannot load " .. path
      .. ": it is writable by everybody (mode 0666), and --strict is on; chmod o-w it\n", err)
    for _, command in ipairs { "serve", "try" } do
      code, _, err = host.run { command, path, "--strict" }
      assert.are.equal(100, code)
      assert.matches("writable by everybody", err)
    end
  end)

  it("refuses one in a folder that everybody can write to, unless that is sticky", function()
    local path, folder = script()
    chmod(folder, "777")
    local code, err = check(path)
    assert.are.equal(100, code)
    assert.matches("its folder " .. folder .. " is writable by everybody (mode 0777), and --strict is on; chmod o-w it",
      err, 1, true)
    chmod(folder, "1777")
    assert.are.equal(0, (check(path)))
  end)

  it("looks through links: at the file, at its folder, and at the link's folder", function()
    local path, folder = script()
    local _, other = script()
    local link = other .. "/link.lua"
    assert(sys.symlink(path, link))
    assert.are.equal(0, (check(link)))
    for _, c in ipairs { { folder, "777", "its folder" }, { other, "777", "its folder" }, { path, "646", "it is" } } do
      local mode = c[1] == path and "644" or "700"
      chmod(c[1], c[2])
      local code, err = check(link)
      assert.are.equal(100, code)
      assert.matches("cannot load " .. link .. ": " .. c[3], err, 1, true)
      chmod(c[1], mode)
    end
    assert.are.equal(0, (check(link)))
  end)

  it("refuses another user's, and a foreign group's", function()
    if not sys.isroot() then pending("only root can give files away") return end
    local path, folder = script()
    assert(os.execute("chown 12345 " .. path))
    local code, err = check(path)
    assert.are.equal(100, code)
    assert.matches("it is owned by user 12345, who is neither root nor this process's, and --strict is on",
      err, 1, true)
    assert(os.execute("chown 0:12345 " .. path))
    assert.are.equal(0, (check(path)))
    chmod(path, "664")
    code, err = check(path)
    assert.are.equal(100, code)
    assert.matches("it is writable by group 12345 (mode 0664), which is not this process's", err, 1, true)
    chmod(path, "644")
    assert(os.execute("chown 12345 " .. folder .. " && chmod 1755 " .. folder))
    code, err = check(path)
    assert.are.equal(100, code)
    assert.matches("its folder " .. folder .. " is owned by user 12345", err, 1, true)
  end)

  it("refuses modules, whenever they are loaded, and what loadfile and dofile read", function()
    local path, folder = script()
    local module = host.write("return 1", folder .. "/mod.lua")
    chmod(module, "646")
    for _, code in ipairs {
      "require('mod')", "assert(loadfile('%s'))", "dofile('%s')",
    } do
      host.write("function handle() end\n" .. code:format(module), path)
      assert.are.equal(0, (host.run { "check", path }))
      local status, err = check(path)
      assert.are.equal(100, status)
      assert.matches("cannot load " .. module .. ": it is writable by everybody (mode 0646)", err, 1, true)
    end
    host.write("function handle(self) self.wfile:write(tostring(select(2, pcall(require, 'mod')))) end", path)
    for _, args in ipairs { { "--strict" }, { "--strict", "--sandbox" } } do
      local _, out = host.run { "try", path, table.unpack(args) }
      assert.matches("it is writable by everybody", out, 1, true)
    end
    chmod(module, "644")
    local _, out = host.run { "try", path, "--strict" }
    assert.are.equal("1", out)
  end)

  it("refuses C libraries", function()
    local path, folder = script()
    local library = folder .. "/sys.so"
    assert(os.execute(("cp %s/sys.so %s"):format(host.build, library)))
    chmod(library, "644")
    for _, code in ipairs {
      "package.cpath = '%s/?.so' assert(require('sys').now)", "assert(package.loadlib('%s/sys.so', 'luaopen_sys'))",
      "package.cpath = '%s/?.so' assert(not pcall(require, 'sys.none'))",
    } do
      host.write("function handle() end\n" .. code:format(folder), path)
      local status, err = check(path)
      assert.are.equal(0, status, err)
    end
    chmod(library, "666")
    for _, code in ipairs {
      "package.cpath = '%s/?.so' require('sys')", "assert(package.loadlib('%s/sys.so', 'luaopen_sys'))",
      "package.cpath = '%s/?.so' require('sys.none')",
    } do
      host.write("function handle() end\n" .. code:format(folder), path)
      local status, err = check(path)
      assert.are.equal(100, status, code)
      assert.matches("cannot load " .. library .. ": it is writable by everybody", err, 1, true)
    end
  end)

  it("keeps the old code when a reload is refused", function()
    for _, mixin in ipairs { "async", "threading", "forking" } do
      local path = script("old")
      local p = host.start(path, { args = { "--strict", "--mixin=" .. mixin } })
      host.write(SCRIPT:format("new"), path)
      chmod(path, "666")
      p:kill("HUP")
      assert.matches("it is writable by everybody (mode 0666), and --strict is on",
        p:find("reload failed", true)[1].why, 1, true)
      local one <close> = host.connect(p:url())
      assert.are.equal("old", one:line())
      chmod(path, "644")
      p:kill("HUP")
      p:find("reloaded", true)
      local two <close> = host.connect(p:url())
      assert.are.equal("new", two:line())
      one:close()
      two:close()
      p:stop()
    end
  end)
end)
