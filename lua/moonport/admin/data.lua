--- Stubs, replies, matchers and state between JSON and the plain data that mocks take, in which bytes are strings.

local bytes = require("moonport.admin.bytes")
local json = require("moonport.json")
local refuse = require("moonport.admin.refuse")

local M = {}

local BYTES = { equals = true, starts_with = true, ends_with = true, contains = true, pattern = true }
local LISTS = { all = true, any = true }

---@param list any
---@param where string
---@param one fun(value: any, where: string): any
---@return any[]
local function each(list, where, one)
  if not json.is_array(list) then refuse(400, where .. " needs a list") end
  local out = {}
  for i, value in ipairs(list) do out[i] = one(value, where .. "[" .. i .. "]") end
  return out
end

-- ---------------------------------------------------------------- in

---@param value any
---@return any
function M.plain(value)
  if value == json.null then return nil end
  return json.plain(value)
end

---@param value any
---@param where string
---@return table
function M.toxic(value, where)
  if type(value) ~= "table" or json.is_array(value) or value == json.null then
    refuse(400, where .. " needs an object with type")
  end
  return json.plain(value)
end

---@param value any
---@return table[]?
function M.toxics(value)
  if value == nil or value == json.null then return nil end
  return each(value, "toxics", M.toxic)
end

---A framing: a string.pack format, or {"line": "\r\n"} and the like, whose values may be bytes.
---@param value any
---@return any
function M.frame(value)
  if value == nil or value == json.null then return nil end
  if type(value) ~= "table" then return value end
  local out = json.plain(value)
  for name, operand in pairs(value) do
    if type(operand) == "table" and bytes.is(operand) then out[name] = bytes.decode(operand, "frame." .. name) end
  end
  return out
end

---A matcher: a string is a pattern, {"hex": "08 .."} a whole frame with wildcards, {"text"} or {"base64"} a whole
---frame.
---@param value any
---@param where string
---@return any
function M.match(value, where)
  if type(value) == "string" then return value end
  if type(value) ~= "table" or json.is_array(value) or next(value) == nil then
    refuse(400, where .. ' needs a matcher: a pattern, or {"equals": ...} and the like')
  end
  if next(value, (next(value))) ~= nil then refuse(400, where .. " has one field (put several into `all`)") end
  local out = {}
  for name, operand in pairs(value) do
    if LISTS[name] then
      out[name] = each(operand, where .. "." .. name, M.match)
    elseif name == "not" then
      out[name] = M.match(operand, where .. ".not")
    elseif BYTES[name] then
      out[name] = bytes.decode(operand, where .. "." .. name)
    elseif name == "text" or name == "base64" then
      out.equals = bytes.decode({ [name] = operand }, where)
    else
      out[name] = json.plain(operand)
    end
  end
  return out
end

---@param value any bytes, {"fault": "reset"}, {"delay": 20, "reply": ...} and the like, or a list of these
---@param where string
---@return any
function M.reply(value, where)
  if value == nil or value == json.null then return nil end
  if bytes.is(value) then return bytes.decode(value, where) end
  if json.is_array(value) then return { replies = each(value, where, M.reply) } end
  if type(value) ~= "table" then refuse(400, where .. " needs a reply: bytes, a list of replies or a fault") end
  local out = json.plain(value)
  if value.reply ~= nil then out.reply = M.reply(value.reply, where .. ".reply") end
  if value.replies ~= nil then out.replies = each(value.replies, where .. ".replies", M.reply) end
  return out
end

local STUB = { id = "string", required = "boolean", times = "number" }
local TOLD = { uses = true, api = true, where = true } -- what a mock tells: a stub that was read can be sent back

---@param value any
---@param where string
---@return table
function M.stub(value, where)
  if type(value) ~= "table" or json.is_array(value) then
    refuse(400, where .. " needs an object with match and reply")
  end
  local out = {}
  for name, field in pairs(value) do
    if name == "match" then
      out.match = M.match(field, where .. ".match")
    elseif name == "reply" then
      out.reply = M.reply(field, where .. ".reply")
    elseif not STUB[name] and not TOLD[name] then
      refuse(400, ("%s has no field %q; there are id, match, reply, required and times"):format(where, name))
    elseif field ~= json.null and STUB[name] then
      if type(field) ~= STUB[name] then refuse(400, ("%s.%s must be a %s"):format(where, name, STUB[name])) end
      out[name] = field
    end
  end
  if out.match == nil or out.reply == nil then refuse(400, where .. " needs match and reply") end
  return out
end

---@param value any
---@return table[]?
function M.stubs(value)
  if value == nil or value == json.null then return nil end
  return each(value, "stubs", M.stub)
end

local part_of_state

---@param list any[]
---@param where string
---@return any[]
local function list_of_state(list, where)
  return each(list, where, function(value, place)
    if value == json.null then refuse(400, place .. ": a list of a state cannot hold null, nor can a list of Lua") end
    return part_of_state(value, place)
  end)
end

---Any JSON, with bytes that are no text as {"hex": ...}.
---@param value any
---@param where string
---@return any
function part_of_state(value, where)
  if value == json.null then return nil end
  if type(value) ~= "table" then return value end
  if json.is_array(value) then return list_of_state(value, where) end
  local only, hex = next(value)
  if only == "hex" and type(hex) == "string" and next(value, only) == nil then return bytes.unhex(hex, where) end
  local out = {}
  for k, v in pairs(value) do out[k] = part_of_state(v, where .. "." .. k) end
  return out
end

---@param value any
---@return table?
function M.state(value)
  if value == nil or value == json.null then return nil end
  local state = not json.is_array(value) and part_of_state(value, "state")
  if type(state) ~= "table" then refuse(400, "state must be an object") end
  return state
end

-- ---------------------------------------------------------------- out

---Any plain data: bytes that are no text become {"hex": ...}, keys become strings.
---@param value any
---@return any
function M.shown(value)
  local kind = type(value)
  if kind == "string" then
    return bytes.brief(value)
  elseif kind == "number" then
    if value ~= value or value == math.huge or value == -math.huge then return tostring(value) end
    return value
  elseif kind ~= "table" then
    return value
  end
  local out, n = {}, #value
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  if n > 0 and count == n then
    for i = 1, n do out[i] = M.shown(value[i]) end
    return json.array(out)
  end
  for k, v in pairs(value) do
    local key = tostring(k)
    out[bytes.printable(key) and key or bytes.hex(key)] = M.shown(v)
  end
  return out
end

local function shown_list(list, one)
  local out = json.array {}
  for i, value in ipairs(list or {}) do out[i] = one(value) end
  return out
end

---@param match any
---@return any
function M.shown_match(match)
  if type(match) ~= "table" then return M.shown(match) end
  local out = {}
  for name, operand in pairs(match) do
    if LISTS[name] then
      out[name] = shown_list(operand, M.shown_match)
    elseif name == "not" then
      out[name] = M.shown_match(operand)
    else
      out[name] = M.shown(operand)
    end
  end
  return out
end

---@param reply any
---@return any
function M.shown_reply(reply)
  if type(reply) == "string" then return bytes.encode(reply) end
  if type(reply) ~= "table" then return reply end
  local out = M.shown(reply)
  if reply.reply ~= nil then out.reply = M.shown_reply(reply.reply) end
  if reply.replies ~= nil then out.replies = shown_list(reply.replies, M.shown_reply) end
  return out
end

---@param stub table
---@return table
function M.shown_stub(stub)
  local out = M.shown(stub)
  out.match, out.reply = M.shown_match(stub.match), M.shown_reply(stub.reply)
  return out
end

---@param list table[]?
---@return table[]
function M.shown_stubs(list) return shown_list(list, M.shown_stub) end

---@param list string[]
---@return table[]
function M.shown_texts(list) return shown_list(list, bytes.brief) end

---@param list table[]?
---@return table[]
function M.shown_toxics(list) return shown_list(list, M.shown) end

---What a mock would do with a frame.
---@param told table
---@return table
function M.shown_match_result(told)
  local out = M.shown(told)
  out.matched = told.stub ~= nil
  if told.stub then
    out.stub = M.shown_stub(told.stub)
  else
    out.near_misses = shown_list(told.near_misses, M.shown)
    if told.otherwise ~= nil then out.otherwise = M.shown_reply(told.otherwise) end
  end
  return out
end

---What a mock tells of itself.
---@param told table
---@return table
function M.described(told)
  local out = M.shown(told)
  out.stubs, out.toxics = M.shown_stubs(told.stubs), M.shown_toxics(told.toxics)
  if told.otherwise ~= nil then out.otherwise = M.shown_reply(told.otherwise) end
  if told.state ~= nil then out.state = M.shown(told.state) end
  return out
end

return M
