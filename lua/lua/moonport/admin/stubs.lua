--- /servers/{s}/stubs and /match.

local data = require("moonport.admin.data")
local bytes = require("moonport.admin.bytes")
local mocks = require("moonport.admin.mocks")
local near = require("moonport.admin.near")
local refuse = require("moonport.admin.refuse")

local function list(call) return { stubs = data.shown_stubs(mocks.ask(call.names.s, "stubs")) } end

-- One, without a copy of all the others; false: there is none.
local function lookup(server, id) return mocks.ask(server, "stub", { id = id }) end

local function find(server, id)
  local stub = lookup(server, id)
  if stub then return stub end
  local ids = {}
  for i, one in ipairs(mocks.ask(server, "stubs")) do ids[i] = one.id end
  refuse(404, ("%s has no stub %q%s"):format(server, id, near(id, ids)))
end

local function get(call) return data.shown_stub(find(call.names.s, call.names.id)) end

local function add(call)
  local server, spec = call.names.s, call:object()
  local at = spec.at
  spec.at = nil
  if at ~= nil and (math.type(at) ~= "integer" or at < 1) then refuse(400, "at must be a place, 1 being the first") end
  mocks.find(server)
  local stub = data.stub(spec, "the stub")
  return data.shown_stub(mocks.ask(server, "stub_add", { stub = stub, at = at })), 201
end

local function put(call)
  local server, id, spec = call.names.s, call.names.id, call:object()
  if spec.id ~= nil and spec.id ~= id then refuse(400, "the id in the body is another than in the path") end
  spec.id = id
  mocks.find(server)
  local told = mocks.ask(server, "stub_put", { id = id, stub = data.stub(spec, "the stub"), add = true })
  return data.shown_stub(told.stub), told.added and 201 or 200
end

local function delete(call)
  find(call.names.s, call.names.id)
  mocks.ask(call.names.s, "stub_delete", { id = call.names.id })
  return nil, 204
end

-- What would happen to these bytes; nothing does.
local function match(call)
  local spec = call:object({ server = true, data = true })
  if type(spec.server) ~= "string" then refuse(400, "server must be a server's name") end
  return data.shown_match_result(mocks.ask(spec.server, "match", { data = bytes.decode(spec.data, "data") }))
end

return function(routes)
  routes:add("GET", "/servers/{s}/stubs", "its stubs, in the order in which they are tried", list)
  routes:add("POST", "/servers/{s}/stubs", "adds one: match, reply, id, required, times, at", add)
  routes:add("GET", "/servers/{s}/stubs/{id}", "one stub", get)
  routes:add("PUT", "/servers/{s}/stubs/{id}", "replaces it in its place, or adds it", put)
  routes:add("DELETE", "/servers/{s}/stubs/{id}", "takes it away", delete)
  routes:add("POST", "/match", "which stub would answer: server, data", match)
end
