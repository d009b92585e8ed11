local host = require("support.host")
local mocks = require("support.mocks")
local sys = host.sys

-- The tutorial of docs/mocks.md, as it stands there: with a client that retries each of its tests passes, with one that
-- does not each fails.

local ROOT = assert(io.popen("pwd")):read("l")

---@return table<string, string> by name, what docs/mocks.md marks as files
local function files()
  local out = {}
  local text = assert(host.read("docs/mocks.md"))
  for name, code in text:gmatch("<!%-%- file: (%S+) %-%->\n```%w+\n(.-)\n```\n") do out[name] = code .. "\n" end
  return out
end

---A folder with retry.lua and these files of the tutorial.
---@param names string[]
---@param change? table<string, string[]> by file: a pattern, and what to put in its place
---@return string path
local function folder_of(names, change)
  local folder, all = host.folder(), files()
  for _, name in ipairs { "retry.lua", table.unpack(names) } do
    local text = assert(all[name], "docs/mocks.md has no file " .. name)
    if change and change[name] then
      local changed, n = text:gsub(change[name][1], change[name][2])
      assert(n == 1, name .. " has not one " .. change[name][1])
      text = changed
    end
    host.write(text, folder .. "/" .. name)
  end
  return folder
end

---Runs a command there.
---@return boolean passed
---@return string output
local function run(names, command, change)
  local folder = folder_of(names, change)
  local p = assert(io.popen(("cd '%s' && PATH='%s/%s':\"$PATH\" %s 2>&1"):format(folder, ROOT, host.build, command)))
  local output = p:read("a")
  return p:close() == true, output
end

---@param program string
---@param package string? of Debian; nil: it may be missing
---@return boolean
local function is_there(program, package)
  local found = os.execute("command -v " .. program .. " >/dev/null 2>&1")
  assert(found or not package, ("%s is not there: apt-get install %s"):format(program, package))
  return found == true
end

---@param names string[]
---@param command string
---@param change table what makes the client one that does not retry
---@param words string[] of the output: it passed; it failed; why
local function both_ways(names, command, change, words)
  local passed, output = run(names, command)
  assert.is_true(passed, output)
  assert.is_truthy(output:find(words[1]), output)
  passed, output = run(names, command, change)
  assert.is_false(passed, output)
  assert.is_truthy(output:find(words[2]), output)
  assert.is_truthy(output:find(words[3]), output)
end

describe("the tutorial of mocks", function()
  after_each(host.cleanup)

  it("holds in pytest", function()
    is_there("/usr/bin/python3", "python3")
    assert(os.execute("/usr/bin/python3 -c 'import pytest' 2>/dev/null"),
      "pytest is not there: apt-get install python3-pytest")
    both_ways({ "kv.py", "test_kv.py" }, "/usr/bin/python3 -B -m pytest -q -p no:cacheprovider",
      { ["kv.py"] = { "ATTEMPTS = 2", "ATTEMPTS = 1" } }, { "1 passed", "1 failed", "ConnectionResetError" })
  end)

  it("holds in node:test", function()
    is_there("node", "nodejs")
    both_ways({ "kv.js", "kv.test.js" }, "node --test", { ["kv.js"] = { "ATTEMPTS = 2", "ATTEMPTS = 1" } },
      { "pass 1", "fail 1", "ECONNRESET" })
  end)

  it("holds in Go, where it is there", function()
    if not is_there("go") then return end
    both_ways({ "kv.go", "kv_test.go" }, "GO111MODULE=off go test", { ["kv.go"] = { "attempts = 2", "attempts = 1" } },
      { "ok", "FAIL", "connection reset by peer" })
  end)

  it("holds in busted", function()
    if host.sanitizer() then return end -- which cannot be loaded into busted
    local environment = ("LUA_PATH='%s/lua/?.lua;./?.lua;;' LUA_CPATH='%s/%s/?.so;;' "):format(ROOT, ROOT, host.build)
    both_ways({ "kv.lua", "kv_spec.lua" }, environment .. "busted --lua=lua5.4 kv_spec.lua",
      { ["kv.lua"] = { "ATTEMPTS = 2", "ATTEMPTS = 1" } }, { "1 success", "1 failure", "VALUE moon" })
  end)

  it("ends without a process left, also when its runner is killed", function()
    local folder = folder_of { "test_kv.py" }
    host.write([[
import time
def get(host, port, key):
    open("here", "w").close()
    time.sleep(600)
]], folder .. "/kv.py")
    local null = assert(sys.open("/dev/null", "w"))
    local runner = assert(sys.spawn({ "/usr/bin/python3", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider" }, {
      cwd = folder, env = { ("PATH=%s/%s:%s"):format(ROOT, host.build, os.getenv("PATH")) }, stdin = null,
      stdout = null, stderr = null }))
    sys.close(null)
    host.eventually("the client", function() return sys.stat(folder .. "/here") end)
    local children = (host.read(("/proc/%d/task/%d/children"):format(runner, runner)))
    local mock = tonumber(children:match("^(%d+)"))
    sys.kill(runner, "KILL")
    sys.wait(runner, host.LIMIT)
    host.eventually("the mock's end", function()
      local state = host.state(mock)
      return not state or state == "Z"
    end, host.sanitizer() and host.LIMIT or 1)
  end)
end)

describe("docs/mocks.md", function()
  after_each(host.cleanup)

  it("has scripts that load", function()
    for name, text in pairs(files()) do
      if name:find("%.lua$") and text:find("mock.server", 1, true) then
        local code, out, err = host.run { "check", host.write(text, host.folder() .. "/" .. name) }
        assert.are.equal(0, code, out .. err)
      end
    end
  end)

  it("tells a verdict as it is", function()
    local path = host.write(files()["smtp.lua"], host.folder() .. "/smtp.lua")
    local p = host.start(path, { command = "mock", listen = "" })
    local c = host.connect(p:url())
    c:send("HELO me\r\n")
    assert.are.equal("220 mock ESMTP\r\n", c:all())
    c:close()
    p:kill("TERM")
    assert.are.equal(1, p:wait())
    local function plain(text) return (text:gsub("127.0.0.1:%d+", ""):gsub("%S+/smtp.lua", "smtp.lua")) end
    local told = host.read("docs/mocks.md"):match("<!%-%- verdict of smtp.lua %-%->\n```\n(.-)```")
    local log = plain(host.read(p.log_path))
    assert.is_truthy(log:find(plain(told), 1, true), log)
  end)

  it("has every word of moonport.mock", function()
    local text = host.read("docs/mocks.md")
    local m = mocks.start('mock.server { "tcp://127.0.0.1:0", name = "s" }:on("x", "y")')
    for _, word in ipairs(m:ask("local t = {} for k in pairs(mock) do t[#t + 1] = k end return t")) do
      if word ~= "listeners" and word ~= "control" then
        assert.is_truthy(text:find("mock." .. word, 1, true), "mock." .. word .. " is not told")
      end
    end
    m:stop()
  end)
end)
