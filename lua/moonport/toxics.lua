--- Toxiproxy's toxics, by its names, parameters and units, for a mock's own connections; and what Toxiproxy lacks:
--- toxics for the nth connection, the first few, or after so many bytes, chances that can be replayed, datagrams.
--- In full: docs/toxics.md.
---
---     local slow = toxics.new { type = "latency", latency = 200, jitter = 50, first = 3, seed = 42 }
---     local pipe = toxics.pipe { toxics = { slow }, nth = 1, deliver = send, close = close }
---     pipe:write("hello\r\n")
---     pipe:finish()

local kinds = require("moonport.toxics.kinds")
local naming = require("moonport.naming")
local nearest = require("moonport.nearest")
local pipe = require("moonport.toxics.pipe")
local random = require("moonport.toxics.random")

local M = {}

local COMMON <const> = {
  name = "a string", type = "a string", stream = '"downstream" or "upstream"', attributes = "a table",
  toxicity = "a chance from 0 to 1", nth = "the number of a connection, the first being 1",
  first = "a number of connections, at least 1", after_bytes = "a number of bytes", seed = "an integer",
}

---@class toxics.Toxic
---@field name string
---@field type string
---@field stream "downstream"|"upstream"
---@field toxicity number
---@field attributes table<string, number>
---@field nth integer?
---@field first integer?
---@field after_bytes integer
---@field seed integer? as it was given
---@field chosen integer in place of a seed that was not given
---@field kind toxics.Kind
local Toxic = {}
local toxic_mt = { __name = "toxics.Toxic", __index = Toxic }

-- ---------------------------------------------------------------- errors

-- "; did you mean latency?", or the names there are.
local function hint(word, names)
  local best, likely = nearest(word, names)
  if likely then return "; did you mean " .. best .. "?" end
  return "; there are " .. table.concat(names, ", ")
end

local function sorted_keys(...)
  local names = {}
  for _, t in ipairs { ... } do
    for name in pairs(t) do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function show(value)
  if type(value) == "string" then return (("%q"):format(value):gsub("\n", "n")) end
  return type(value) == "table" and "a table" or tostring(value)
end

local function fail(who, ...)
  error(("toxic %s: "):format(who) .. string.format(...), 0)
end

-- ---------------------------------------------------------------- reading a spec

local function number_of(who, name, value, field)
  local number = type(value) == "number" and value or nil
  if number and field.integer then number = math.tointeger(number) end
  local least = field.least or 0
  if not number or number < least or number > (field.most or math.maxinteger) or number ~= number then
    local from = field.most and "" or (", %d or more"):format(least)
    fail(who, "%s must be %s%s%s, not %s", name, field.integer and "a whole number, " or "", field.unit, from,
      show(value))
  end
  return number
end

local function whole(who, spec, name, least)
  local value = spec[name]
  if value == nil then return nil end
  local number = type(value) == "number" and math.tointeger(value) or nil
  if not number or number < least then fail(who, "%s must be %s, not %s", name, COMMON[name], show(value)) end
  return number
end

local function attributes_of(who, spec, kind)
  local given, known = spec.attributes or {}, kind.attributes
  if type(given) ~= "table" then fail(who, "attributes must be a table, not %s", show(given)) end
  for name in pairs(given) do
    if not known[name] then
      local names = sorted_keys(known)
      fail(who, "%s has no attribute %s%s", spec.type, show(name), #names > 0 and hint(tostring(name), names) or "")
    end
  end
  local attributes = {}
  for name, field in pairs(known) do
    local value = given[name]
    if value == nil then value = spec[name] end
    if value == nil then value = field.default end
    if value ~= nil then
      attributes[name] = number_of(who, name, value, field)
    elseif not field.optional then
      fail(who, "%s needs %s: %s", spec.type, name, field.unit)
    end
  end
  return attributes
end

local function check_names(who, spec, kind)
  for name in pairs(spec) do
    if not COMMON[name] and not kind.attributes[name] then
      local names = sorted_keys(kind.attributes, COMMON)
      fail(who, "%s has no field %s%s", spec.type, show(name), hint(tostring(name), names))
    end
  end
end

local function kind_of(who, spec)
  local kind = type(spec.type) == "string" and kinds[spec.type]
  if kind then return kind end
  if type(spec.type) ~= "string" then
    fail(who, 'type must be a string such as "latency", not %s', show(spec.type))
  end
  fail(who, "there is no type %s%s", show(spec.type), hint(spec.type, sorted_keys(kinds)))
end

local function name_of(spec)
  local name = spec.name
  if name == nil and type(spec.type) == "string" then
    return ("%s_%s"):format(spec.type, spec.stream == nil and "downstream" or tostring(spec.stream))
  elseif name ~= nil and not naming.is(name) then
    fail(show(name), "name %s", naming.RULE)
  end
  return name or "without a name"
end

---Reads a toxic: Toxiproxy's JSON as a table, or the same with the attributes beside the other fields.
---@param spec table
---@param datagram? boolean true: it must work on datagrams; false: on streams; nil is not checked here
---@return toxics.Toxic
function M.new(spec, datagram)
  if type(spec) ~= "table" then
    error(("a toxic must be a table such as {type = \"latency\", latency = 100}, not %s"):format(show(spec)), 0)
  end
  local who = name_of(spec)
  local kind = kind_of(who, spec)
  check_names(who, spec, kind)
  local stream = spec.stream == nil and "downstream" or spec.stream
  if stream ~= "downstream" and stream ~= "upstream" then
    fail(who, "stream must be %s, not %s", COMMON.stream, show(stream))
  end
  local self = setmetatable({
    name = who, type = spec.type, kind = kind, stream = stream,
    toxicity = number_of(who, "toxicity", spec.toxicity == nil and 1 or spec.toxicity,
      { unit = COMMON.toxicity, most = 1 }),
    attributes = attributes_of(who, spec, kind),
    nth = whole(who, spec, "nth", 1), first = whole(who, spec, "first", 1),
    after_bytes = whole(who, spec, "after_bytes", 0) or 0,
    seed = whole(who, spec, "seed", math.mininteger), chosen = random.seed(),
  }, toxic_mt)
  self:check(datagram)
  return self
end

---Raises what is wrong, if the toxic cannot work on datagrams, or on streams.
---@param datagram boolean? nil: whichever
function Toxic:check(datagram)
  local kind = self.kind
  if datagram and not kind.datagram then
    fail(self.name, "%s does not work on datagrams, only on streams", self.type)
  elseif datagram == false and not kind.stream then
    fail(self.name, "%s works on datagrams, not on a stream, where nothing is lost or overtaken", self.type)
  end
  local why = kind.check and kind.check(self.attributes, datagram)
  if why then fail(self.name, "%s", why) end
end

---Whether it draws lots, so that the seed matters.
---@return boolean
function Toxic:chancy()
  return self.toxicity < 1 or self.kind.chance ~= nil and self.kind.chance(self.attributes)
end

---@param other toxics.Toxic
---@return boolean
function Toxic:equals(other)
  if self.type ~= other.type or self.after_bytes ~= other.after_bytes then return false end
  if self.toxicity ~= other.toxicity or (self.seed or other.seed) ~= other.seed then return false end
  for name in pairs(self.kind.attributes) do
    if self.attributes[name] ~= other.attributes[name] then return false end
  end
  return true
end

---The toxic as Toxiproxy's JSON would tell it. new() takes it back.
---@return table
function Toxic:data()
  local attributes = {}
  for name, value in pairs(self.attributes) do attributes[name] = value end
  return {
    name = self.name, type = self.type, stream = self.stream, toxicity = self.toxicity, attributes = attributes,
    nth = self.nth, first = self.first, after_bytes = self.after_bytes > 0 and self.after_bytes or nil,
    seed = self.seed,
  }
end

---Reads a list of toxics and specs of toxics. Raises what is wrong with one of them, or two of one name.
---@param list (toxics.Toxic|table)[]?
---@param datagram? boolean
---@return toxics.Toxic[]
function M.list(list, datagram)
  local out, names = {}, {}
  for i, item in ipairs(list or {}) do
    local toxic = item
    if getmetatable(item) ~= toxic_mt then toxic = M.new(item, datagram) else toxic:check(datagram) end
    if names[toxic.name] then fail(toxic.name, "there is another of this name: give one of them a name of its own") end
    out[i], names[toxic.name] = toxic, true
  end
  return out
end

---@param options toxics.PipeOptions
---@return toxics.Pipe
function M.pipe(options)
  return pipe.new(options, M.list)
end

return M
