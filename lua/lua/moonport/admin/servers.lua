--- /servers: make, list, switch off and on, take away; scripts; state.

local moonport = require("moonport")
local control = require("moonport.control")
local json = require("moonport.json")

local data = require("moonport.admin.data")
local mocks = require("moonport.admin.mocks")
local refuse = require("moonport.admin.refuse")

local FIELDS = { "name", "url", "host", "port", "path", "transport", "class", "script", "generation", "enabled", "api" }

---@param server admin.Server
---@return table
local function shown(server)
  local out = {}
  for _, field in ipairs(FIELDS) do out[field] = server[field] end
  if server.api then out.script = nil end
  return out
end

local function list()
  local out = json.array {}
  for _, server in ipairs(control.servers()) do out[#out + 1] = shown(server) end
  table.sort(out, function(a, b) return a.name < b.name end)
  return { servers = out }
end

local function get(call)
  local server = mocks.find(call.names.s)
  local out = shown(server)
  local told = server.unit ~= nil and control.call(server.unit, "describe", { server = server.name }) or nil
  if type(told) == "table" then
    for field, value in pairs(data.described(told)) do
      if out[field] == nil then out[field] = value end
    end
  end
  return out
end

local EINVAL = 22

-- Names that are being made or taken away.
local busy = {}

local function claim(name)
  if busy[name] then return false end
  busy[name] = true
  return true
end

---Nobody else makes or takes away a server of this name while the value lives.
---@param name string
local function hold(name)
  if not moonport.atomically(claim, name) then
    refuse(409, ("the server %q is just being made or taken away"):format(name))
  end
  return setmetatable({}, { __close = function() busy[name] = nil end })
end

---@param name any
---@return string
local function new_name(name)
  if name == nil then
    local n = 0
    repeat
      n = n + 1
      name = n == 1 and "mock" or "mock-" .. n
    until not busy[name] and not mocks.lookup(name)
  end
  if type(name) ~= "string" or not name:find("^[%w_][%w_.-]*$") or #name > 100 then
    refuse(400, "a server's name has 1 to 100 letters, digits, _, . and -, and begins with none of the last two")
  end
  if mocks.lookup(name) then refuse(409, ("there is a server %q already"):format(name)) end
  return name
end

local CREATE = {
  name = true, url = true, frame = true, tls = true, stubs = true, otherwise = true, toxics = true, state = true,
}

local function create(call)
  local spec = call:object(CREATE)
  local name = new_name(spec.name)
  local url = spec.url or "tcp://127.0.0.1:0"
  if type(url) ~= "string" then refuse(400, 'url must be a string such as "tcp://127.0.0.1:0"') end
  local _ <close> = hold(name)
  local unit, failed = control.api_unit()
  if not unit then refuse(503, tostring(failed)) end
  -- Nobody listens by that name: if there is a mock of it, its maker went away half-way.
  mocks.call(unit, "create", {
    anew = true, name = name, url = url, frame = data.frame(spec.frame), stubs = data.stubs(spec.stubs),
    otherwise = data.reply(spec.otherwise, "otherwise"), toxics = data.toxics(spec.toxics),
    state = data.state(spec.state), tls = data.plain(spec.tls),
  })
  local ok, why, errno = control.open(unit, name, url)
  if not ok then
    control.call(unit, "delete", { name = name })
    refuse(errno == EINVAL and 400 or 409, tostring(why))
  end
  return shown(mocks.find(name)), 201, "Location: /servers/" .. name .. "\r\n"
end

local function patch(call)
  local spec = call:object({ enabled = true })
  local server = mocks.find(call.names.s)
  if type(spec.enabled) ~= "boolean" then refuse(400, "enabled must be true or false") end
  local ok, why = control.enable(server.name, spec.enabled)
  if not ok then refuse(409, tostring(why)) end
  return shown(mocks.find(server.name))
end

local function delete(call)
  local server = mocks.find(call.names.s)
  if not server.api then
    refuse(409, ("the server %q is its script's (%s); PATCH it with {\"enabled\": false}"):format(server.name,
      server.script or "?"))
  end
  local _ <close> = hold(server.name)
  local ok, why = control.close(server.name)
  if not ok then refuse(409, tostring(why)) end
  mocks.call(server.unit, "delete", { name = server.name })
  return nil, 204
end

-- ---------------------------------------------------------------- scripts

---@param server admin.Server
---@param text? string
local function reload(server, text)
  if server.api then refuse(409, ("the server %q was made over the API and has no script"):format(server.name)) end
  local generation, why = control.reload(server.unit, text)
  if not generation then refuse(422, tostring(why)) end
  return { generation = generation }
end

local function upload(call)
  if not control.options().allow_script_upload then
    refuse(403, "scripts can be replaced only where the host was started with --allow-script-upload")
  end
  local server = mocks.find(call.names.s)
  local text
  if call:is_lua() then
    text = call:body()
  else
    text = call:object({ script = true }).script
  end
  if type(text) ~= "string" then
    refuse(400, 'the body must be {"script": "..."}, or the script itself as text/x-lua')
  end
  return reload(server, text)
end

-- ---------------------------------------------------------------- state

local function get_state(call) return data.shown(mocks.ask(call.names.s, "state_get") or {}) end

local function put_state(call)
  local state = data.state(call:object())
  mocks.ask(call.names.s, "state_put", { state = state })
  return get_state(call)
end

return function(routes)
  routes:add("GET", "/servers", "all servers", list)
  routes:add("POST", "/servers", "make one: name, url, frame, tls, stubs, otherwise, toxics, state", create)
  routes:add("GET", "/servers/{s}", "one, with its stubs and toxics", get)
  routes:add("PATCH", "/servers/{s}", "enabled: false refuses connections, and keeps the port", patch)
  routes:add("DELETE", "/servers/{s}", "takes away one that was made here", delete)
  routes:add("PUT", "/servers/{s}/script", "replaces its script, if that was allowed", upload).script = true
  routes:add("POST", "/servers/{s}/reload", "loads its script again", function(call)
    call:object({})
    return reload(mocks.find(call.names.s))
  end)
  routes:add("GET", "/servers/{s}/state", "its state table", get_state)
  routes:add("PUT", "/servers/{s}/state", "replaces it", put_state)
end
