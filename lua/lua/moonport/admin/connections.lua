--- /connections: what is connected now; push bytes, end one.

local control = require("moonport.control")

local bytes = require("moonport.admin.bytes")
local json = require("moonport.json")
local mocks = require("moonport.admin.mocks")
local refuse = require("moonport.admin.refuse")
local router = require("moonport.admin.router")

local FIELDS = { "id", "server", "client", "age", "generation" }

local function list()
  local out = json.array {}
  for _, c in ipairs(control.connections()) do
    local one = {}
    for _, field in ipairs(FIELDS) do one[field] = c[field] end
    one.client = c.client ~= nil and tostring(c.client) or nil
    out[#out + 1] = one
  end
  return { connections = out }
end

---@param text string
---@return integer id
---@return string server
local function find(text)
  local id = text:find("^%d+$") and #text < 19 and math.tointeger(tonumber(text))
  if not id then refuse(400, "a connection's id is a number") end
  for _, c in ipairs(control.connections()) do
    if c.id == id then return id, c.server end
  end
  refuse(404, ("there is no connection %d (any more)"):format(id))
end

local function push(call)
  local spec = call:object({ data = true, text = true, hex = true, base64 = true })
  local what = bytes.decode(spec.data == nil and spec or spec.data, "the body")
  local id, server = find(call.names.id)
  if mocks.lookup(server) and mocks.ask(server, "sealed", { id = id }) then
    refuse(409, ("connection %d speaks TLS, which bytes cannot be pushed into; let the script send them"):format(id))
  end
  local ok, why = control.push(id, what)
  if not ok then refuse(409, tostring(why)) end
  return { sent = #what }
end

local function kill(call)
  local how = router.query(call.req.query, { how = true }).how or "fin"
  if how ~= "fin" and how ~= "rst" then refuse(400, 'how is "fin" or "rst"') end
  local ok, why = control.kill(find(call.names.id), how)
  if not ok then refuse(409, tostring(why)) end
  return nil, 204
end

return function(routes)
  routes:add("GET", "/connections", "what is connected to mocks now", list)
  routes:add("POST", "/connections/{id}/send", "sends bytes on it: data", push)
  routes:add("DELETE", "/connections/{id}", "ends it: how=fin or how=rst", kill)
end
