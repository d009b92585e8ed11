local apis = require("support.api")
local cjson = require("cjson")
local host = require("support.host")

-- Every example of docs/control-api.md, in its order, against a real mock; and its table of routes.

local TEXT = assert(host.read("docs/control-api.md"))

-- What may differ from run to run: only that it is there, and its type, is compared.
local VARIES = { time = true, pid = true, started = true, port = true, age = true, id = true, seq = true, next = true,
  conn = true, since = true }
local PLACES = { url = true, version = true, client = true, script = true }

-- Text with ports and paths that differ.
local function plain(line)
  return (line:gsub("127%.0%.0%.1:%d+", "127.0.0.1:0"):gsub("[^%s(\"]*/([%w_]+%.lua)", "%1"))
end

local function compare(told, got, path)
  assert.are.equal(type(told), type(got), path)
  if type(told) == "string" then return assert.are.equal(plain(told), plain(got), path) end
  if type(told) ~= "table" then return assert.are.equal(told, got, path) end
  for name, value in pairs(told) do
    local at = path .. "." .. tostring(name)
    assert.is_not_nil(got[name], at .. " is not there")
    if VARIES[name] and type(value) == "number" or PLACES[name] then
      assert.are.equal(type(value), type(got[name]), at)
    else
      compare(value, got[name], at)
    end
  end
  for name in pairs(got) do assert.is_not_nil(told[name], path .. "." .. tostring(name) .. " is not told") end
end

---@param command string
---@param told string what docs/control-api.md says that it prints
---@param got string
local function check(command, told, got)
  local a, b = {}, {}
  for line in told:gmatch("[^\n]+") do a[#a + 1] = line end
  for line in got:gmatch("[^\r\n]+") do b[#b + 1] = line end
  assert.are.equal(#a, #b, command .. "\n" .. got)
  for i, line in ipairs(a) do
    local body, rest = line:match("^({.*})(%d*)$")
    local body_got, rest_got = b[i]:match("^({.*})(%d*)$")
    if body then
      assert.is_truthy(body_got, command .. "\n" .. b[i])
      assert.are.equal(rest, rest_got, command)
      compare(cjson.decode(body), cjson.decode(body_got), command .. ": ")
    else
      assert.are.equal(plain(line), plain(b[i]), command)
    end
  end
end

describe("docs/control-api.md", function()
  local program, folder

  setup(function()
    folder = host.folder()
    local script = host.read("docs/mocks.md"):match("<!%-%- file: retry.lua %-%->\n```lua\n(.-)```")
    host.write(script, folder .. "/retry.lua")
    program = host.start(folder .. "/retry.lua",
      { command = "mock", listen = "", args = { "--log-level=info", "--allow-script-upload" } })
  end)

  teardown(function()
    program:stop()
    host.cleanup()
  end)

  -- The commands of a block are run by one shell; the output of each.
  local function run(commands)
    local script = ("cd '%s'; exec 2>&1; ADMIN='%s' KV=%d\n"):format(folder, program.ready.admin,
      math.tointeger(program.ready.servers.kv.port))
    for _, command in ipairs(commands) do script = script .. command .. "\necho '-- next'\n" end
    local p = assert(io.popen(script))
    local out = {}
    for text in p:read("a"):gmatch("(.-)%-%- next\n") do out[#out + 1] = text end
    p:close()
    return out
  end

  it("has examples that are true", function()
    local n = 0
    for block in TEXT:gmatch("\n```console\n(.-)```") do
      local commands, told = {}, {}
      for line in block:gmatch("[^\n]+") do
        local command = line:match("^%$ (.*)")
        commands[#commands + 1] = command
        told[#commands] = command and "" or told[#commands] .. line .. "\n"
      end
      for i, got in ipairs(run(commands)) do check(commands[i], told[i], got) end
      n = n + #commands
    end
    assert.is_true(n > 45, n)
  end)

  it("has all routes, and no other", function()
    local told, real = {}, {}
    for method, path in TEXT:gmatch("\n| `(%u+) (/%S*)` |") do told[#told + 1] = method .. " " .. path end
    local api <close> = apis.connect(program)
    for i, route in ipairs(api:must("GET", "/").routes) do real[i] = route.method .. " " .. route.path end
    assert.are.same(real, told)
  end)
end)
