--- JSON (RFC 8259), strict and exact: integers stay integers, an empty array stays one, text that is not UTF-8 is
--- refused, names do not occur twice. Of bounded depth.

local M = {}

local MAX_DEPTH = 64

local byte, find, format, match, sub = string.byte, string.find, string.format, string.match, string.sub
local concat = table.concat

local array_mt = { __name = "json.Array" }

---null in arrays and objects.
M.null = setmetatable({}, { __name = "json.null", __tostring = function() return "null" end })

---Marks a table to be written as an array, however empty; arrays that were read are marked.
---@generic T: table
---@param list T
---@return T
function M.array(list) return setmetatable(list, array_mt) end

---@param value any
---@return boolean
function M.is_array(value) return getmetatable(value) == array_mt end

-- ---------------------------------------------------------------- writing

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(c) return ESCAPES[c] or format("\\u%04x", byte(c)) end

---@param s string UTF-8
---@return string
local function quote(s)
  if find(s, '[%c"\\\127]') then s = s:gsub('[%c"\\\127]', escape) end
  return '"' .. s .. '"'
end

---@param n number
---@return string
local function number(n)
  if math.type(n) == "integer" then return format("%d", n) end
  if n ~= n or n == math.huge or n == -math.huge then error("JSON has no infinite numbers") end
  local whole = math.tointeger(n)
  if whole and whole > -2 ^ 53 and whole < 2 ^ 53 then return format("%d", whole) end
  local short = format("%.15g", n)
  return tonumber(short) == n and short or format("%.17g", n)
end

local write

---@param out string[]
---@param t table
---@param depth integer
local function write_table(out, t, depth)
  if depth > MAX_DEPTH then error("nested too deep for JSON") end
  if getmetatable(t) == array_mt or #t > 0 then
    out[#out + 1] = "["
    for i = 1, #t do
      if i > 1 then out[#out + 1] = "," end
      write(out, t[i], depth)
    end
    out[#out + 1] = "]"
    return
  end
  local names = {}
  for name in pairs(t) do
    if type(name) ~= "string" then error("JSON's objects have strings for names, not a " .. type(name)) end
    names[#names + 1] = name
  end
  table.sort(names)
  out[#out + 1] = "{"
  for i, name in ipairs(names) do
    out[#out + 1] = (i > 1 and "," or "") .. quote(name) .. ":"
    write(out, t[name], depth)
  end
  out[#out + 1] = "}"
end

function write(out, value, depth)
  local kind = type(value)
  if value == nil or value == M.null then
    out[#out + 1] = "null"
  elseif kind == "string" then
    if not utf8.len(value) then error("not UTF-8: " .. quote(value:gsub("[\128-\255]", "?"))) end
    out[#out + 1] = quote(value)
  elseif kind == "number" then
    out[#out + 1] = number(value)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(value)
  elseif kind == "table" then
    write_table(out, value, depth + 1)
  else
    error("JSON has no " .. kind)
  end
end

---The names of an object in order, on one line. Raises for what JSON cannot say.
---@param value any
---@return string
function M.encode(value)
  local out = {}
  write(out, value, 0)
  return concat(out)
end

-- ---------------------------------------------------------------- reading

local function fail(at, what) error({ at = at, what = what }, 0) end

local UNESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

---@param text string
---@param at integer of the first digit
---@return string character
---@return integer after
local function unicode(text, at)
  local hex = match(text, "^%x%x%x%x", at)
  if not hex then fail(at, "four hex digits must follow \\u") end
  local code = tonumber(hex, 16)
  if code < 0xd800 or code > 0xdfff then return utf8.char(code), at + 4 end
  local low = code < 0xdc00 and match(text, "^\\u([Dd][C-Fc-f]%x%x)", at + 4)
  if not low then fail(at, "half a surrogate pair") end
  return utf8.char(0x10000 + ((code - 0xd800) << 10) + (tonumber(low, 16) - 0xdc00)), at + 10
end

---@param text string
---@param at integer behind the opening quote
---@return string
---@return integer after
local function read_string(text, at)
  local plain, after = match(text, '^([^%c"\\]*)"()', at)
  if plain then return plain, after end
  local parts = {}
  while true do
    local piece, stop = match(text, '^([^%z\1-\31"\\]*)()', at)
    parts[#parts + 1] = piece
    local c = byte(text, stop)
    if c == 34 then return concat(parts), stop + 1 end
    if c ~= 92 then fail(stop, c and "a control character in a string" or "a string without an end") end
    local letter = sub(text, stop + 1, stop + 1)
    if letter == "u" then
      parts[#parts + 1], at = unicode(text, stop + 2)
    else
      if not UNESCAPES[letter] then fail(stop, "an unknown escape") end
      parts[#parts + 1], at = UNESCAPES[letter], stop + 2
    end
  end
end

---@param text string
---@param at integer
---@return number
---@return integer after
local function read_number(text, at)
  local digits, after = match(text, "^(%-?%d+)()", at)
  if not digits then fail(at, "a value is missing") end
  if find(digits, "^%-?0%d") then fail(at, "a number with a leading zero") end
  local fraction, behind = match(text, "^(%.%d+)()", after)
  local exponent, last = match(text, "^([eE][+-]?%d+)()", behind or after)
  local value = tonumber(digits .. (fraction or "") .. (exponent or ""))
  if not fraction and not exponent then
    if math.type(value) ~= "integer" then fail(at, "a number beyond 64 bits") end
  elseif value == math.huge or value == -math.huge then
    fail(at, "a number beyond all bounds")
  end
  return value, last or behind or after
end

local WORDS = { t = { "true", true }, f = { "false", false }, n = { "null", M.null } }

local read

local function skip(text, at) return match(text, "^[ \t\r\n]*()", at) end

local function read_array(text, at, depth)
  local list = M.array {}
  at = skip(text, at)
  if byte(text, at) == 93 then return list, at + 1 end
  while true do
    list[#list + 1], at = read(text, at, depth)
    at = skip(text, at)
    local c = byte(text, at)
    if c == 93 then return list, at + 1 end
    if c ~= 44 then fail(at, "an array goes on with , or ends with ]") end
    at = at + 1
  end
end

local function read_object(text, at, depth)
  local object, seen = {}, {}
  at = skip(text, at)
  if byte(text, at) == 125 then return object, at + 1 end
  while true do
    at = skip(text, at)
    if byte(text, at) ~= 34 then fail(at, "a name in quotes is missing") end
    local name, after = read_string(text, at + 1)
    if seen[name] then fail(at, "a name that is there already") end
    seen[name] = true
    at = skip(text, after)
    if byte(text, at) ~= 58 then fail(at, "a : is missing") end
    object[name], at = read(text, at + 1, depth)
    at = skip(text, at)
    local c = byte(text, at)
    if c == 125 then return object, at + 1 end
    if c ~= 44 then fail(at, "an object goes on with , or ends with }") end
    at = at + 1
  end
end

function read(text, at, depth)
  at = skip(text, at)
  local c = sub(text, at, at)
  if c == '"' then
    return read_string(text, at + 1)
  elseif c == "{" or c == "[" then
    if depth >= MAX_DEPTH then fail(at, "nested deeper than " .. MAX_DEPTH) end
    return (c == "{" and read_object or read_array)(text, at + 1, depth + 1)
  elseif WORDS[c] then
    local word = WORDS[c]
    if sub(text, at, at + #word[1] - 1) ~= word[1] then fail(at, "an unknown word") end
    return word[2], at + #word[1]
  end
  return read_number(text, at)
end

---@param text string
---@return any value null is `json.null`
---@return string? why
function M.decode(text)
  local _, bad = utf8.len(text)
  if bad then return nil, "byte " .. bad .. ": not UTF-8" end
  local ok, value, after = pcall(read, text, 1, 0)
  if ok then
    after = skip(text, after)
    if after <= #text then return nil, "byte " .. after .. ": more behind the value" end
    return value
  end
  if type(value) ~= "table" then error(value, 0) end
  return nil, "byte " .. value.at .. ": " .. value.what
end

---The same as plain tables, without marks and null: what that would stand for is left out.
---@param value any
---@return any
function M.plain(value)
  if value == M.null then return nil end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = M.plain(v) end
  return out
end

return M
