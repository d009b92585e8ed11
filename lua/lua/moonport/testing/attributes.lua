--- The attributes of servers and handlers: names, defaults, what is allowed. As of the host.

local nearest = require("moonport.nearest")

local M = {}

---@class testing.Attribute
---@field name string
---@field kind "count"|"size"|"mode"|"flag"|"seconds"|"optional"
---@field initial any
---@field min number
---@field max number

---@type testing.Attribute[]
local TABLE = {}
for _, row in ipairs {
  { "request_queue_size", "count", 511, 1, 65535 }, { "max_connections", "count", 1024, 1, 10000000 },
  { "max_threads", "count", 256, 1, 65535 }, { "thread_idle_timeout", "seconds", 60.0, 0, 1e9 },
  { "max_children", "count", 40, 1, 65535 }, { "max_requests_per_child", "count", 1, 1, 1e12 },
  { "daemon_threads", "flag", false }, { "block_on_close", "flag", true },
  { "max_packet_size", "size", 8192, 1, 65536 }, { "max_line", "size", 65536, 1, 1 << 30 },
  { "memory_limit", "size", 256 << 20, 1 << 20, 1e15 }, { "rbufsize", "size", -1, -1, 65536 },
  { "wbufsize", "size", -1, -1, 65536 }, { "socket_mode", "mode", 384, 0, 511 },
  { "allow_reuse_address", "flag", true }, { "allow_reuse_port", "flag", false }, { "ipv6_v6only", "flag", false },
  { "disable_nagle_algorithm", "flag", true }, { "timeout", "optional", nil, 0, 1e9 },
  { "idle_timeout", "optional", nil, 0, 1e9 }, { "request_timeout", "optional", nil, 0, 1e9 },
  { "cpu_limit", "optional", 5.0, 0.01, 1e9 }, { "time_slice", "optional", 0.01, 0.001, 1e9 },
  { "retire_timeout", "seconds", 60.0, 0, 1e9 }, { "drain_timeout", "seconds", 15.0, 0, 1e9 },
  { "cancel_grace", "seconds", 5.0, 0, 1e9 },
} do
  local attribute = { name = row[1], kind = row[2], initial = row[3], min = row[4], max = row[5] }
  TABLE[#TABLE + 1], TABLE[attribute.name] = attribute, attribute
end

local HOOKS = { "verify_request", "handle_error", "handle_timeout" }

---@return string[]
function M.names()
  local names = {}
  for i, attribute in ipairs(TABLE) do names[i] = attribute.name end
  return names
end

---@param name string
function M.knows(name) return TABLE[name] ~= nil end

---@param with_hooks boolean
local function suggest(name, with_hooks)
  local names = M.names()
  if with_hooks then table.move(HOOKS, 1, #HOOKS, #names + 1, names) end
  return nearest(name, names)
end

local RIGHT <const> = {
  flag = "true or false",
  mode = "an octal number from 0 to 777, such as 660",
  seconds = "a number of seconds from %g to %g",
  optional = "a number of seconds from %g to %g, or none",
  size = "a number of bytes from %.0f to %.0f (K, M and G are understood)",
  count = "a whole number from %.0f to %.0f",
}

local UNITS <const> = { K = 1 << 10, M = 1 << 20, G = 1 << 30 }

---@param attribute testing.Attribute
---@param text string
local function parse(attribute, text)
  if attribute.kind == "flag" then
    if text == "true" or text == "false" then return text == "true" end
    return nil
  end
  if attribute.kind == "optional" and (text == "none" or text == "false") then return false end
  if not text:find("^[-.%d]") or text:find("[xXpP]") then return nil end
  if attribute.kind == "mode" then return tonumber(text, 8) end
  local number, unit = text:match("^(.-)([KMG]?)$")
  if attribute.kind ~= "size" and unit ~= "" then return nil end
  local value = tonumber(number)
  return value and value * (UNITS[unit] or 1)
end

-- Nil: it is not a good value; false: none.
---@param attribute testing.Attribute
local function value_of(attribute, given)
  local value = given
  if type(given) == "string" then value = parse(attribute, given) end
  local kind = attribute.kind
  if kind == "flag" then
    if type(value) == "boolean" then return value end
    return nil
  end
  if kind == "optional" and value == false then return false end
  if type(value) ~= "number" or value < attribute.min or value > attribute.max then return nil end
  if kind == "seconds" or kind == "optional" then return value + 0.0 end
  return math.tointeger(value)
end

---@param attributes table<string, any>
---@param fixed table<string, boolean> names that are not to be changed any more
---@param where string "" or "server."
local function store(attributes, fixed, attribute, given, where)
  local value = value_of(attribute, given)
  if value == nil then
    local right = attribute.min and RIGHT[attribute.kind]:format(attribute.min, attribute.max) or RIGHT[attribute.kind]
    error(("%s%s: it must be %s"):format(where, attribute.name, right), 0)
  end
  if fixed[attribute.name] then return end
  if attribute.kind == "optional" and value == false then value = nil end
  attributes[attribute.name] = value
end

local function is_hook(name)
  for _, hook in ipairs(HOOKS) do
    if hook == name then return true end
  end
end

---@param attributes table<string, any>
local function read_server_table(attributes, fixed, server)
  for name, value in pairs(server) do
    if TABLE[name] then
      store(attributes, fixed, TABLE[name], value, "server.")
    elseif not is_hook(name) then
      name = type(name) == "string" and name or "?"
      error(("server.%s: no such attribute; did you mean %s?"):format(name, suggest(name, true)), 0)
    elseif type(value) ~= "function" then
      error(("server.%s: it must be a function"):format(name), 0)
    end
  end
end

---The attributes in force: options go before what stands in the handler or its server table.
---@param options table<string, any>
---@param handler table
---@return table<string, any>
function M.read(options, handler)
  local attributes, fixed = {}, {}
  for _, attribute in ipairs(TABLE) do attributes[attribute.name] = attribute.initial end
  for name, value in pairs(options) do
    if not TABLE[name] then
      error(("unknown option %s; did you mean %s?"):format(tostring(name), suggest(tostring(name), false)), 0)
    end
    store(attributes, {}, TABLE[name], value, "option ")
    fixed[name] = true
  end
  for _, attribute in ipairs(TABLE) do
    local given = handler[attribute.name]
    if given ~= nil then store(attributes, fixed, attribute, given, "") end
  end
  local server = handler.server
  if type(server) == "table" then
    read_server_table(attributes, fixed, server)
  elseif server ~= nil then
    error("server: it must be a table of server attributes", 0)
  end
  return attributes
end

return M
