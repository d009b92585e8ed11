--- What the control API asks of the mocks of a script: plain data in, plain data out.

local moonport = require("moonport")
local made = require("moonport.mock.made")
local plain = require("moonport.mock.plain")
local registry = require("moonport.mock.registry")
local reply = require("moonport.mock.reply")
local secure = require("moonport.mock.secure")
local stubs = require("moonport.mock.stubs")
local verdict = require("moonport.mock.verdict")

local M = {}

---@class mock.Refusal
---@field status integer of HTTP
---@field message string

---@param status integer
---@param text string
local function refuse(status, text, ...)
  error({ status = status, message = text:format(...) }, 0)
end

local function bad(why) refuse(400, "%s", why) end

---@param name any
---@return mock.Server
local function server_of(name)
  local one = registry.get(name)
  if not one then refuse(404, "there is no mock named %s", tostring(name)) end
  return one
end

---@param one mock.Server
---@param id any
---@return integer index
---@return mock.Stub stub
local function stub_of(one, id)
  local i, stub = one:find(id)
  if not i then refuse(404, "mock %s has no stub %s", one.name, tostring(id)) end
  return i, stub
end

---@param one mock.Server
---@param name any
---@return integer index
local function toxic_of(one, name)
  local i = one:find_toxic(name)
  if not i then refuse(404, "mock %s has no toxic %s", one.name, tostring(name)) end
  return i
end

---@type table<string, fun(data: table): any>
local ops = {}

-- ---------------------------------------------------------------- servers

---@param one mock.Server
---@return table
local function describe(one)
  local list, toxics = {}, {}
  for i, stub in ipairs(one.stubs) do list[i] = stubs.data(stub) end
  for i, toxic in ipairs(one.toxics) do toxics[i] = toxic:data() end
  return {
    name = one.name, url = one.url, frame = one.framing.name, stubs = list, toxics = toxics,
    otherwise = one.fallback and reply.data(one.fallback) or nil, session = one.talk ~= nil, api = one.api,
    tls = one.tls and secure.data(one.tls) or nil,
  }
end

function ops.describe(data)
  if data.server ~= nil then return describe(server_of(data.server)) end
  local out = {}
  for i, one in ipairs(registry.all()) do out[i] = describe(one) end
  return out
end

function ops.create(data)
  registry.seal()
  if data.anew then registry.remove(data.name) end
  if registry.get(data.name) then refuse(409, "there is a mock named %s already", tostring(data.name)) end
  local one, why = made.new(data)
  if not one then bad(why) end
  registry.add(one)
  return describe(one)
end

function ops.delete(data)
  local one = server_of(data.name or data.server)
  registry.remove(one.name)
  return true
end

function ops.reset(data)
  local list = data.server ~= nil and { server_of(data.server) } or registry.all()
  for _, one in ipairs(list) do
    verdict.settle(one)
    one:reset()
  end
  return true
end

-- Whether a connection speaks TLS, or may: of an earlier generation that is not known.
function ops.sealed(data)
  local one = server_of(data.server)
  if not one.tls or not one.tls.starttls then return one.tls ~= nil end
  for wire in pairs(one.wires) do
    if wire.id == data.id then return wire.tls and true or false end
  end
  return true
end

-- ---------------------------------------------------------------- stubs

function ops.stubs(data)
  local out = {}
  for i, stub in ipairs(server_of(data.server).stubs) do out[i] = stubs.data(stub) end
  return out
end

-- False: there is none of that id.
function ops.stub(data)
  local _, stub = server_of(data.server):find(data.id)
  return stub and stubs.data(stub) or false
end

---@param one mock.Server
---@param at any
---@return integer
local function place(one, at)
  local last = 1 -- before the script's, behind those that came by the API
  while one.stubs[last] and one.stubs[last].api do last = last + 1 end
  if at == nil then return last end
  if math.type(at) ~= "integer" or at < 1 or at > #one.stubs + 1 then
    bad(("at must be from 1 to %d"):format(#one.stubs + 1))
  end
  return at
end

function ops.stub_add(data)
  local one = server_of(data.server)
  local at = place(one, data.at)
  local stub, why = stubs.make(one, data.stub)
  if not stub then bad(why) end
  if one:find(stub.id) then refuse(409, "mock %s has a stub %s already", one.name, stub.id) end
  one:add_stub(stub, at)
  return stubs.data(stub)
end

function ops.stub_put(data)
  local one = server_of(data.server)
  local spec = plain.copy(data.stub)
  if type(spec) ~= "table" then bad("a stub is an object with match and reply") end
  local id = data.id or spec.id
  if spec.id ~= nil and spec.id ~= id then bad("a stub's id stays what it is") end
  local i = one:find(id)
  if not i and not data.add then stub_of(one, id) end
  spec.id = id
  local stub, why = stubs.make(one, spec)
  if not stub then bad(why) end
  if not i then
    one:add_stub(stub, place(one))
    return { stub = stubs.data(stub), added = true }
  end
  one.stubs[i] = stub
  one:reindex()
  return { stub = stubs.data(stub) }
end

function ops.stub_delete(data)
  local one = server_of(data.server)
  table.remove(one.stubs, (stub_of(one, data.id)))
  one:reindex()
  return true
end

function ops.match(data)
  local one = server_of(data.server)
  if type(data.data) ~= "string" then bad("match needs the bytes of a frame") end
  local stub = one:pick(data.data)
  if stub then return { stub = stubs.data(stub) } end
  local out = { otherwise = one.fallback and reply.data(one.fallback) or nil, near_misses = {} }
  for i, miss in ipairs(verdict.near_misses(one, data.data)) do
    out.near_misses[i] = { id = miss.stub.id, score = miss.score, match = miss.stub.match.text, text = miss.text }
  end
  return out
end

-- ---------------------------------------------------------------- toxics

function ops.toxics(data)
  local out = {}
  for i, toxic in ipairs(server_of(data.server).toxics) do out[i] = toxic:data() end
  return out
end

function ops.toxic_add(data)
  local one = server_of(data.server)
  local spec = data.toxic
  local name = type(spec) == "table"
    and (spec.name or ("%s_%s"):format(tostring(spec.type), spec.stream or "downstream"))
  if name and one:find_toxic(name) then refuse(409, "mock %s has a toxic %s already", one.name, tostring(name)) end
  local why = one:add_toxic(spec)
  if why then bad(why) end
  return one.toxics[#one.toxics]:data()
end

-- The fields of the change go over those of the toxic; so do attributes one by one, as Toxiproxy does it.
local function merged(old, change)
  if type(change) ~= "table" then bad("a change of a toxic is an object") end
  for field, value in pairs(change) do
    if field == "attributes" and type(value) == "table" then
      for name, v in pairs(value) do old.attributes[name] = v end
    elseif old.attributes[field] ~= nil then
      old.attributes[field] = value
    else
      old[field] = value
    end
  end
  return old
end

function ops.toxic_patch(data)
  local one = server_of(data.server)
  local i = toxic_of(one, data.name)
  local why = one:add_toxic(merged(one.toxics[i]:data(), data.toxic), i)
  if why then bad(why) end
  return one.toxics[i]:data()
end

function ops.toxic_delete(data)
  local one = server_of(data.server)
  local list, i = table.move(one.toxics, 1, #one.toxics, 1, {}), toxic_of(one, data.name)
  table.remove(list, i)
  one:set_toxics(list)
  return true
end

-- ---------------------------------------------------------------- state, verdict

local MOST_TABLES = 100000 -- of a state that is told

function ops.state_get(data)
  local one = server_of(data.server)
  local state = plain.copy(one.state)
  if plain.spread(state) > MOST_TABLES then
    refuse(400, "the state of mock %s has more than %d tables, each counted as often as it is reached: too many to "
      .. "show", one.name, MOST_TABLES)
  end
  return state
end

function ops.state_put(data)
  local one = server_of(data.server)
  if type(data.state) ~= "table" then bad("a state is an object") end
  one.state = plain.copy(data.state)
  return plain.copy(one.state)
end

function ops.verdict() return verdict.texts() end

---Raises a mock.Refusal for what cannot be done.
---@param op string
---@param data? table
---@return any result plain data
function M.control(op, data)
  local f = ops[op]
  if not f then refuse(404, "there is no operation %s", tostring(op)) end
  if data ~= nil and type(data) ~= "table" then bad("data must be a table") end
  if f == ops.match then return f(data or {}) end -- asks the script's functions, which may wait
  return moonport.atomically(f, data or {})
end

return M
