--- The mocks' servers of this Lua state.

local journal = require("moonport.journal")
local server = require("moonport.mock.server")

local M = {}

---@type mock.Server[] in the order in which they were made
local servers = {}
---@type table<string, mock.Server>
local by_name = {}
local sealed = false

---@return mock.Server[]
function M.all() return servers end

---@param name string
---@return mock.Server?
function M.get(name) return by_name[name] end

---@param made mock.Server
function M.add(made)
  servers[#servers + 1] = made
  by_name[made.name] = made
end

---@param name string
function M.remove(name)
  for i, one in ipairs(servers) do
    if one.name == name then table.remove(servers, i) break end
  end
  by_name[name] = nil
end

---What mock.server does.
---@param spec table
---@return mock.Server? server
---@return string? why
function M.declare(spec)
  if sealed then return nil, "servers are made while the script is loaded; this is too late" end
  local made, why = server.new(spec)
  if not made then return nil, why end
  if not made.name and #servers > 0 then
    return nil, "a script with several servers has to give each a name: name = \"redis\""
  end
  made.name = made.name or "mock"
  if by_name[made.name] then return nil, ("there is a server named %q already"):format(made.name) end
  M.add(made)
  return made
end

---The script has been loaded: what it has made is what a reset goes back to.
function M.seal()
  if sealed then return end
  sealed = true
  for _, one in ipairs(servers) do one:keep() end
end

---@return { name: string, url: string }[]
function M.listeners()
  M.seal()
  local out = {}
  for i, one in ipairs(servers) do out[i] = { name = one.name, url = one.url } end
  return out
end

---The server that answers on a listener; under `moonport serve` the only one there is, whatever its name.
---@param name string
---@return mock.Server
function M.answering(name)
  local found = by_name[name]
  if found then return found end
  M.seal()
  if #servers == 1 and not servers[1].api then
    by_name[name] = servers[1]
    return servers[1]
  end
  local names = {}
  for i, one in ipairs(servers) do names[i] = one.name end
  error(("no mock is named %s; there are: %s"):format(name, table.concat(names, ", ")), 0)
end

---For the journal: a whole script's error.
---@param name string
---@param conn integer?
---@param text string
function M.fail(name, conn, text)
  journal.add("error", name, conn, text)
  local one = by_name[name]
  journal.fail(name, conn, text .. (one and one:lots() or ""))
end

return M
