--- Starts mocks for a spec, with a back door: one more server of the same script that runs Lua in the mocks' state,
--- so that a spec sees the journal and gives orders without the control API.

local cjson = require("cjson")
local host = require("support.host")

local M = {}

local HEAD = [[local mock = require("moonport.mock")
]]

-- One line, so that the script's own lines keep their numbers.
local DOOR = [[

do
  local mock, cjson, journal = require("moonport.mock"), require("cjson"), require("moonport.journal")
  local door = mock.server { "tcp://127.0.0.1:0", name = "door", frame = ">s4" }
  local env = setmetatable({ mock = mock, journal = journal }, { __index = _G })
  function env.records(server, ...)
    local out, after, kinds = {}, 0, ... and journal.mask { ... } or nil
    while true do
      local seq, kind, _, conn, _, data, detail = journal.next(after, kinds, server)
      if not seq then return out end
      out[#out + 1] = { kind = kind, conn = conn, data = data, detail = detail }
      after = seq
    end
  end
  door:on({ starts_with = "" }, function(_, code)
    local f, why = load(code, "=door", "t", env)
    local ok, result = false, why
    if f then ok, result = pcall(f) end
    if not ok and type(result) ~= "table" then result = tostring(result) end
    return string.pack(">s4", cjson.encode { ok = ok, result = result })
  end)
end
]]

---@class spec.Mocks
---@field program spec.Program
local Mocks = {}
Mocks.__index = Mocks

---Starts `moonport mock` with a script that has `mock` as a local; its lines are numbered from 1.
---@param text string
---@param options? spec.Options
---@return spec.Mocks
function M.start(text, options)
  options = options or {}
  options.command, options.listen = "mock", options.listen or ""
  options.args = { "--log-level=info", table.unpack(options.args or {}) } -- the last event says what is left
  local path = host.write(M.script(text))
  return setmetatable({ program = host.start(path, options), path = path }, Mocks)
end

---@param text string
---@return string
function M.script(text) return HEAD:gsub("\n", " ") .. text .. DOOR end

---@param name string
---@param options? table
---@return spec.Client
function Mocks:connect(name, options) return host.connect(self.program:url(name), options) end

---Runs Lua in the mocks' state.
---@param code string
---@return any result of it
---@return boolean ok
function Mocks:run(code)
  self.door = self.door or self:connect("door")
  assert(self.door:send(string.pack(">s4", code)))
  local n = string.unpack(">I4", assert(self.door:receive(4)))
  local answer = cjson.decode((assert(self.door:receive(n))))
  return answer.result, answer.ok
end

---The same, but it must not fail.
function Mocks:ask(code)
  local result, ok = self:run(code)
  assert(ok, ok or cjson.encode(result))
  return result
end

---What the journal has of a server: "kind data", with the detail in brackets.
---@param server string
---@param ... string kinds; all
---@return string[]
function Mocks:journal(server, ...)
  local kinds = {}
  for i, kind in ipairs { ... } do kinds[i] = (", %q"):format(kind) end
  local out = {}
  for i, r in ipairs(self:ask(("return records(%q%s)"):format(server, table.concat(kinds)))) do
    out[i] = r.kind .. (r.data ~= "" and " " .. r.data or "") .. (r.detail and " [" .. r.detail .. "]" or "")
  end
  return out
end

---Waits until the journal of a server holds such a line.
---@param server string
---@param line string
function Mocks:await(server, line)
  host.eventually("'" .. line .. "' in the journal of " .. server, function()
    for _, one in ipairs(self:journal(server)) do
      if one == line then return true end
    end
  end)
end

---Ends it; the exit code and the log.
---@return integer code
---@return string log
function Mocks:finish()
  if self.door then self.door:close() end
  self.program:kill("TERM")
  return self.program:wait(), host.read(self.program.log_path)
end

---Ends it: nothing may be left, and nothing to be said against it.
function Mocks:stop()
  if self.door then self.door:close() end
  return self.program:stop()
end

return M
