--- Patterns of whole frames in hexadecimal: "08 00 .. *", where `..` is one byte of any value and `*` any bytes.

local text = require("moonport.frame.text")

local M = {}

local find = string.find

---@class frame.Hex
---@field hex string the pattern, in lower case with single spaces
---@field text string for people: hex "08 00 .. *"
---@field test fun(bytes: string): boolean whether all of the bytes match
---@field equals string? the only bytes that match
---@field literal string how all bytes that match begin

---@param source string
---@param column integer where no byte and no wildcard begins
local function refuse(source, column)
  local why
  if find(source, "^%x[^%s]", column) then
    column = column + 1
    why = text.quote(source:sub(column, column)) .. " is no hex digit"
  elseif find(source, "^%x", column) then
    why = "a byte has two hex digits"
  elseif find(source, "^%.", column) then
    why = "two dots stand for a byte"
  else
    why = text.quote(source:sub(column, column)) .. " is neither hex nor a wildcard (.. or *)"
  end
  error(("bad hex %s: column %d: %s"):format(text.quote(source), column, why), 0)
end

---@param source string
---@return string[] words two hex digits in lower case, ".." or "*"
local function split(source)
  local words = {}
  local at = find(source, "%S")
  while at do
    local word = source:match("^%x%x", at) or source:match("^%.%.", at) or source:match("^%*", at)
    if not word then refuse(source, at) end
    words[#words + 1] = word:lower()
    at = find(source, "%S", at + #word)
  end
  return words
end

---@param words string[]
---@return { [1]: string, [2]: integer }[] parts what stands between the `*`: a Lua pattern and its length in bytes
---@return string literal the bytes before the first wildcard
---@return boolean exact whether that is all
local function parse(words)
  local parts, pattern, literal, exact, n = {}, {}, {}, true, 0
  for _, word in ipairs(words) do
    exact = exact and word ~= "*" and word ~= ".."
    if word == "*" then
      parts[#parts + 1], pattern, n = { table.concat(pattern), n }, {}, 0
    else
      local char = word ~= ".." and string.char(tonumber(word, 16))
      n = n + 1
      pattern[n] = char and char:gsub("%p", "%%%0") or "."
      if exact then literal[n] = char end
    end
  end
  parts[#parts + 1] = { table.concat(pattern), n }
  return parts, table.concat(literal), exact
end

---What is between two `*` may be taken where it is found first: no search goes back.
---@param parts { [1]: string, [2]: integer }[]
---@return fun(bytes: string): boolean
local function tester(parts)
  local count = #parts
  local first, last = "^" .. parts[1][1], "^" .. parts[count][1]
  local first_n, last_n = parts[1][2], parts[count][2]
  return function(bytes)
    local n = #bytes
    if count == 1 then return n == first_n and find(bytes, first) ~= nil end
    if not find(bytes, first) then return false end
    local at = first_n + 1
    for i = 2, count - 1 do
      local _, stop = find(bytes, parts[i][1], at)
      if not stop then return false end
      at = stop + 1
    end
    local from = n - last_n + 1
    return from >= at and find(bytes, last, from) ~= nil
  end
end

local hex_mt = { __name = "frame.Hex", __tostring = function(self) return self.text end }

---@param source string
---@return frame.Hex
function M.new(source)
  if type(source) ~= "string" then
    error(("hex: a string such as \"08 00 .. *\" is needed, not %s"):format(text.show(source)), 0)
  end
  local words = split(source)
  local parts, literal, exact = parse(words)
  local hex = table.concat(words, " ")
  return setmetatable({ hex = hex, text = 'hex "' .. hex .. '"', test = tester(parts),
    equals = exact and literal or nil, literal = literal }, hex_mt)
end

return M
