--- What of the mocks' servers is not the script's own: stubs, toxics and servers that the control API has made, and
--- their state. As plain data it goes from one generation of the script to the next.

local made = require("moonport.mock.made")
local plain = require("moonport.mock.plain")
local registry = require("moonport.mock.registry")
local stubs = require("moonport.mock.stubs")

local M = {}

---@param one mock.Server
---@return table
local function data_of(one)
  local list, toxics = {}, nil
  for _, stub in ipairs(one.stubs) do
    if stub.api then
      list[#list + 1] = stubs.data(stub)
      list[#list].mark = stub.mark
    end
  end
  if one.toxic_version ~= one.kept_version then -- else the new script's own
    toxics = {}
    for i, toxic in ipairs(one.toxics) do toxics[i] = toxic:data() end
  end
  return { stubs = list, toxics = toxics, state = plain.copy(one.state), datagrams = one.datagrams,
    senders = one:senders(), made = one.made }
end

---@return table data plain
function M.save()
  local data = {}
  for _, one in ipairs(registry.all()) do data[one.name] = data_of(one) end
  return data
end

---@param one mock.Server
---@param list table[]
local function restore_stubs(one, list)
  if one.api then one.stubs = {} end
  for i, item in ipairs(list) do
    local mark = item.mark
    item.mark = nil
    local stub, why = stubs.make(one, item)
    if stub and one:find(stub.id) then why = "the new script has one of this id" end
    if why then
      one:warn(("the stub %s is gone: %s"):format(item.id, why))
    else
      stub.uses, stub.spent = item.uses, stub.times and item.uses >= stub.times or nil
      stub.mark = mark
      one:add_stub(stub, math.min(i, #one.stubs + 1))
    end
  end
  one:reindex()
end

---@param one mock.Server
---@param data table
local function restore(one, data)
  restore_stubs(one, data.stubs)
  if data.toxics then
    one:set_toxics({})
    for _, toxic in ipairs(data.toxics) do one:add_toxic(toxic) end
  end
  for key, value in pairs(data.state) do one.state[key] = value end
  one.datagrams = data.datagrams
  one:know(data.senders)
end

---@param data any what save() of the old generation gave
function M.init(data)
  registry.seal()
  for name, saved in pairs(data) do
    local one = registry.get(name)
    if not one and saved.made then
      one = made.new(saved.made)
      one.state = {} -- what it is now comes with the rest
      registry.add(one)
    end
    if one then restore(one, saved) end
  end
end

return M
