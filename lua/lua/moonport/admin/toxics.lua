--- /servers/{s}/toxics, in Toxiproxy's JSON.

local data = require("moonport.admin.data")
local mocks = require("moonport.admin.mocks")
local near = require("moonport.admin.near")
local refuse = require("moonport.admin.refuse")

local function list(call) return { toxics = data.shown_toxics(mocks.ask(call.names.s, "toxics")) } end

local function lookup(server, name)
  local names = {}
  for _, toxic in ipairs(mocks.ask(server, "toxics") or {}) do
    if toxic.name == name then return toxic, names end
    names[#names + 1] = tostring(toxic.name)
  end
  return nil, names
end

local function find(server, name)
  local toxic, names = lookup(server, name)
  if not toxic then refuse(404, ("%s has no toxic %q%s"):format(server, name, near(name, names))) end
  return toxic
end

local function get(call) return data.shown(find(call.names.s, call.names.t)) end

local function add(call)
  local toxic = data.toxic(call:object(), "the toxic")
  return data.shown(mocks.ask(call.names.s, "toxic_add", { toxic = toxic })), 201
end

local function patch(call)
  local server, name = call.names.s, call.names.t
  find(server, name)
  local toxic = data.toxic(call:object(), "the toxic")
  return data.shown(mocks.ask(server, "toxic_patch", { name = name, toxic = toxic }))
end

local function delete(call)
  find(call.names.s, call.names.t)
  mocks.ask(call.names.s, "toxic_delete", { name = call.names.t })
  return nil, 204
end

return function(routes)
  routes:add("GET", "/servers/{s}/toxics", "its toxics", list)
  routes:add("POST", "/servers/{s}/toxics", "adds one, in Toxiproxy's JSON", add)
  routes:add("GET", "/servers/{s}/toxics/{t}", "one toxic", get)
  routes:add("POST", "/servers/{s}/toxics/{t}", "changes it, as Toxiproxy does", patch)
  routes:add("PATCH", "/servers/{s}/toxics/{t}", "the same", patch)
  routes:add("DELETE", "/servers/{s}/toxics/{t}", "takes it away", delete)
end
