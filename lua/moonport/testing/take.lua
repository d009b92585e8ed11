--- What a read wants, looked for in the bytes that a stream has at hand. Each gives true and a value (the bytes are
--- gone), false and why (they stay), or nil: more must be received first.

local packsize = require("moonport.testing.packsize")

local NUMERAL <const> = 200 -- the longest that Lua's own io library reads

---@param s testing.Stream
local function take(s, n, skip)
  local data = s.input:sub(1, n)
  s:consume(n + (skip or 0))
  return true, data
end

local function line(s, keep)
  local at = s.input:find("\n", 1, true)
  local n = at and at - 1 or #s.input
  if n > s.max_line then return false, "line too long" end
  if at then return take(s, keep and at or n, keep and 0 or 1) end
  if not s.eof then return nil end
  if n > 0 then return take(s, n) end
  return false, "closed"
end

local M = {}

function M.line(s) return line(s, false) end
function M.line_nl(s) return line(s, true) end

function M.until_(s, delimiter)
  local at = s.input:find(delimiter, 1, true)
  if (at and at - 1 or #s.input) > s.max_line then return false, "line too long" end
  if at then return take(s, at - 1 + #delimiter) end
  if s.eof then return false, "closed" end
end

local function count(s, n, exactly)
  local have = #s.input
  if have >= n and (have > 0 or exactly) then return take(s, n) end
  if not s.eof then return nil end
  if have > 0 and not exactly then return take(s, math.min(n, have)) end
  return false, "closed"
end

function M.count(s, n) return count(s, n, false) end
function M.exactly(s, n) return count(s, n, true) end

function M.all(s)
  if s.eof then return take(s, #s.input) end
end

---Of the bytes of a format; the values are the caller's.
function M.unpack(s, format)
  local enough, need = packsize(format, s.input)
  if enough then need = math.min(need, #s.input) end -- more: a format that is to be refused
  if need > s.max_line and format:find("^%Z*[sz]") then return false, "line too long" end
  if enough then return take(s, need) end
  if s.eof then return false, "closed" end
end

-- The longest prefix that could be a numeral, as liolib takes it.
local function numeral(text)
  local at, out = 1, {}
  local function next_is(set)
    local c = text:sub(at, at)
    if c == "" or #out == NUMERAL or not set:find(c, 1, true) then return false end
    out[#out + 1] = c
    at = at + 1
    return true
  end
  local function digits(set)
    local n = 0
    while next_is(set) do n = n + 1 end
    return n
  end
  local decimal, n, exponent = "0123456789", 0, "eE"
  local set = decimal
  next_is("+-")
  if next_is("0") then
    if next_is("xX") then set, exponent = decimal .. "abcdefABCDEF", "pP" else n = 1 end
  end
  n = n + digits(set)
  if next_is(".") then n = n + digits(set) end
  if n > 0 and next_is(exponent) then
    next_is("+-")
    digits(decimal)
  end
  return table.concat(out)
end

function M.number(s)
  local _, spaces = s.input:find("^[ \t\n\v\f\r]+")
  if spaces then s:consume(spaces) end -- they are gone for good
  local had = #s.input
  local text = numeral(s.input)
  if #text == had and not s.eof and #text < NUMERAL then return nil end -- the next byte may belong to it
  s:consume(#text)
  local value = #text < NUMERAL and tonumber(text)
  if value then return true, value end
  return false, had == 0 and "closed" or "not a number"
end

return M
