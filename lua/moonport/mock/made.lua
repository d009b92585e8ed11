--- Servers that the control API makes, from plain data.

local match = require("moonport.mock.match")
local plain = require("moonport.mock.plain")
local reply = require("moonport.mock.reply")
local server = require("moonport.mock.server")
local stubs = require("moonport.mock.stubs")

local M = {}

---@param one mock.Server
---@param list table[]?
---@return string? why not
local function add_stubs(one, list)
  for _, spec in ipairs(list or {}) do
    local stub, why = stubs.make(one, spec)
    if not stub then return why end
    if one:find(stub.id) then return ("there are two stubs %s"):format(match.quote(stub.id)) end
    one:add_stub(stub)
  end
end

---@param one mock.Server
---@param list table[]?
---@return string? why not
local function add_toxics(one, list)
  for _, spec in ipairs(list or {}) do
    local why = one:add_toxic(spec)
    if why then return why end
  end
end

---@param data table {name=, url=, frame=, tls=, stubs=, otherwise=, toxics=, state=}
---@return mock.Server? server
---@return string? why
function M.new(data)
  local one, why = server.new { data.url, name = data.name, frame = data.frame, tls = data.tls }
  if not one then return nil, "a server: " .. why end
  if not one.name then return nil, "a server needs a name" end
  why = add_stubs(one, data.stubs) or add_toxics(one, data.toxics)
  if why then return nil, why end
  if data.otherwise ~= nil then
    one.fallback, why = reply.compile(data.otherwise, one)
    if why then return nil, "otherwise: " .. why end
  end
  if type(data.state or {}) ~= "table" then return nil, "a state is an object" end
  one.state = plain.copy(data.state or {})
  one.api, one.made = true, plain.copy(data)
  one:keep()
  return one
end

return M
