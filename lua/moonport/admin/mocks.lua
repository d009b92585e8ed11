--- Asks the mocks, which live in Lua states of their own, and finds the servers that they are.

local control = require("moonport.control")
local journal = require("moonport.journal")
local near = require("moonport.admin.near")
local refuse = require("moonport.admin.refuse")

local M = {}

---@class admin.Server what moonport.control tells
---@field name string
---@field url string
---@field unit any
---@field enabled boolean
---@field api boolean made over the API
---@field script string?

---@param name string
---@return admin.Server? server
---@return string[] names of all
function M.lookup(name)
  local names = {}
  for _, server in ipairs(control.servers()) do
    if server.name == name then return server, names end
    names[#names + 1] = server.name
  end
  return nil, names
end

---@param name string
---@return admin.Server
function M.find(name)
  local server, names = M.lookup(name)
  if not server then
    table.sort(names)
    refuse(404, ("there is no server %q%s"):format(name, near(name, names)))
  end
  return server
end

---Refuses the name of a server that neither is there nor was: the journal knows those.
---@param name string
function M.check(name)
  if not journal.info().servers[name] then M.find(name) end
end

---@param unit any
---@param op string one of moonport.mock.control's
---@param data table plain
---@return any
function M.call(unit, op, data)
  local result, why = control.call(unit, op, data)
  if result == nil and why ~= nil then
    if type(why) == "table" then refuse(why.status or 400, why.message or "the mock refused that") end
    refuse(400, tostring(why))
  end
  return result
end

---@param name string of a server
---@param op string
---@param data? table
---@return any
function M.ask(name, op, data)
  data = data or {}
  data.server = name
  return M.call(M.find(name).unit, op, data)
end

return M
