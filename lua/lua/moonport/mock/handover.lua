--- What of the mocks' servers is not the script's own: stubs, toxics and servers that the control API has made, and
--- their state. As plain data it goes from one generation of the script to the next.

local made = require("moonport.mock.made")
local plain = require("moonport.mock.plain")
local registry = require("moonport.mock.registry")
local reply = require("moonport.mock.reply")
local secure = require("moonport.mock.secure")
local stubs = require("moonport.mock.stubs")

local M = {}

local ALL = math.maxinteger

-- Those of the API, each with the number of the script's own that are asked before it.
---@param one mock.Server
---@return table[]
local function stubs_of(one)
  local list, own = {}, 0
  for _, stub in ipairs(one.stubs) do
    if stub.api then
      list[#list + 1] = {
        stub = stubs.data(stub), mark = stub.mark, progress = reply.progress(stub.reply), behind = own,
      }
    else
      own = own + 1
    end
  end
  for _, item in ipairs(list) do
    if own > 0 and item.behind == own then item.behind = ALL end -- however many the new script has
  end
  return list
end

---@param one mock.Server
---@return table
local function data_of(one)
  local toxics
  if one.toxic_version ~= one.kept_version then -- else the new script's own
    toxics = {}
    for i, toxic in ipairs(one.toxics) do toxics[i] = toxic:data() end
  end
  return {
    stubs = stubs_of(one), toxics = toxics, state = plain.copy(one.state), datagrams = one.datagrams,
    senders = one:senders(), made = one.made, tls = one.tls and secure.save(one.tls),
  }
end

---@return table data plain
function M.save()
  local data = {}
  for _, one in ipairs(registry.all()) do data[one.name] = data_of(one) end
  return data
end

-- Where the next of the API's goes.
---@param list mock.Stub[]
---@param behind integer so many of the script's own
---@return integer
local function place(list, behind)
  local at, own = 1, 0
  while list[at] and (list[at].api or own < behind) do
    own = own + (list[at].api and 0 or 1)
    at = at + 1
  end
  return at
end

---@param one mock.Server
---@param list table[]
local function restore_stubs(one, list)
  if one.api then one.stubs = {} end
  for _, item in ipairs(list) do
    local saved = item.stub
    local stub, why = stubs.make(one, saved)
    if stub and one:find(stub.id) then why = "the new script has one of this id" end
    if why then
      one:warn(("the stub %s is gone: %s"):format(saved.id, why))
    else
      stub.uses, stub.spent = saved.uses, stub.times and saved.uses >= stub.times or nil
      stub.mark = item.mark
      reply.resume(stub.reply, item.progress)
      one:add_stub(stub, place(one.stubs, item.behind))
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
  if one.tls and data.tls then secure.restore(one.tls, data.tls) end
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
