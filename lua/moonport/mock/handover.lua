--- What of the mocks' servers is not the script's own: stubs, toxics and servers that the control API has made, and
--- their state. As plain data it goes from one generation of the script to the next.

local plain = require("moonport.mock.plain")
local registry = require("moonport.mock.registry")
local server = require("moonport.mock.server")
local stubs = require("moonport.mock.stubs")

local M = {}

---@param one mock.Server
---@return table
local function data_of(one)
  local data = { stubs = {}, toxics = {}, state = plain.copy(one.state), datagrams = one.datagrams }
  for _, stub in ipairs(one.stubs) do
    if stub.api then
      local item = stubs.data(stub)
      item.uses = stub.uses
      data.stubs[#data.stubs + 1] = item
    end
  end
  for _, toxic in ipairs(one.toxics) do data.toxics[#data.toxics + 1] = toxic:data() end
  if one.toxic_version == one.kept_toxics then data.toxics = nil end -- the new script's own
  if one.api then data.made = one.made end
  return data
end

---@return table data plain
function M.save()
  local data = {}
  for _, one in ipairs(registry.all()) do data[one.name] = data_of(one) end
  return data
end

---@param one mock.Server
---@param data table
local function restore(one, data)
  for i, item in ipairs(data.stubs) do
    local stub = stubs.make(one, item)
    if stub and not one:find(stub.id) then
      stub.uses, stub.spent = item.uses, stub.times and item.uses >= stub.times or nil
      one:add_stub(stub, i)
    end
  end
  if data.toxics then
    one:set_toxics({})
    for _, toxic in ipairs(data.toxics) do one:add_toxic(toxic) end
  end
  for key, value in pairs(data.state) do one.state[key] = value end
  one.datagrams = data.datagrams
end

---@param data any what save() of the old generation gave
function M.init(data)
  registry.seal()
  for name, saved in pairs(data) do
    local one = registry.get(name)
    if not one and saved.made then
      one = server.new(saved.made)
      one.api, one.made = true, saved.made
      registry.add(one)
      if saved.made.otherwise ~= nil then one:otherwise(saved.made.otherwise) end
      one:keep()
    end
    if one then restore(one, saved) end
  end
end

return M
