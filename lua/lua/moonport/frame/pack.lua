--- string.pack formats as framings: how many bytes one takes, found out while they come.

local text = require("moonport.frame.text")

local M = {}

local find, sub, unpack = string.find, string.sub, string.unpack

local HUGE = 1 << 53
local NATIVE = string.pack("=I2", 1) == "\1\0" and "<" or ">"
local ALIGN = string.packsize("!Bi16") - 16 -- what "!" means without a number

local SIZES = {}
for option in ("bBhHlLjJTfdn"):gmatch(".") do
  SIZES[option] = string.packsize(option)
end
local INT, SIZE_T = string.packsize("i"), string.packsize("T")

---One thing that a format says of its bytes.
---@class frame.PackStep
---@field skip integer? so many bytes of any value
---@field align integer? up to the next multiple of this
---@field length (fun(buf: string, at: integer): integer?)? a number, and so many bytes behind it
---@field size integer? of that number
---@field zero boolean? up to a zero byte

---@class frame.PackScan
---@field format string
---@field at integer
---@field endian string
---@field align integer
---@field steps frame.PackStep[]
---@field values integer how many values there are
---@field strings integer how many of them are strings
---@field wide boolean? integers that may be too large for Lua

---@param scan frame.PackScan
---@param why string
local function bad(scan, why)
  error(("bad pack format %s: %s"):format(text.quote(scan.format), why), 0)
end

---The number after an option.
---@param scan frame.PackScan
---@return integer?
local function number(scan)
  local digits = scan.format:match("^%d+", scan.at)
  if not digits then return nil end
  scan.at = scan.at + #digits
  return #digits < 16 and math.tointeger(tonumber(digits)) or HUGE
end

---@param scan frame.PackScan
---@param option string
---@param otherwise integer
---@return integer
local function limited(scan, option, otherwise)
  local n = number(scan) or otherwise
  if n < 1 or n > 16 then bad(scan, ("the size after '%s' must be 1 to 16, not %d"):format(option, n)) end
  return n
end

---An unsigned number, nil if it is larger than any integer of Lua.
---@param size integer
---@param endian string
---@return fun(buf: string, at: integer): integer?
local function unsigned(size, endian)
  local format = endian .. "I" .. size
  if size < 8 then return function(buf, at) return (unpack(format, buf, at)) end end
  return function(buf, at)
    local fits, value = pcall(unpack, format, buf, at)
    if fits and value >= 0 then return value end
  end
end

---@param scan frame.PackScan
---@param size integer
local function align(scan, size)
  local a = size < scan.align and size or scan.align
  if a & (a - 1) ~= 0 then bad(scan, ("an alignment of %d bytes is no power of 2"):format(a)) end
  if a > 1 then scan.steps[#scan.steps + 1] = { align = a } end
end

---@param scan frame.PackScan
---@param n integer
local function skip(scan, n)
  local last = scan.steps[#scan.steps]
  if last and last.skip then
    last.skip = math.min(last.skip + n, HUGE)
  else
    scan.steps[#scan.steps + 1] = { skip = n }
  end
end

---The size of a number option, nil if it is none.
---@param scan frame.PackScan
---@param option string
---@return integer?
local function number_size(scan, option)
  if option == "i" or option == "I" then return limited(scan, option, INT) end
  return SIZES[option]
end

local OPTIONS = {
  [" "] = function() end,
  ["<"] = function(scan) scan.endian = "<" end,
  [">"] = function(scan) scan.endian = ">" end,
  ["="] = function(scan) scan.endian = NATIVE end,
  ["!"] = function(scan) scan.align = limited(scan, "!", ALIGN) end,
  x = function(scan) skip(scan, 1) end,
  z = function(scan)
    scan.steps[#scan.steps + 1] = { zero = true }
    scan.values, scan.strings = scan.values + 1, scan.strings + 1
  end,
  c = function(scan)
    skip(scan, number(scan) or bad(scan, "the size after 'c' is missing"))
    scan.values, scan.strings = scan.values + 1, scan.strings + 1
  end,
  s = function(scan)
    local size = limited(scan, "s", SIZE_T)
    align(scan, size)
    scan.steps[#scan.steps + 1] = { length = unsigned(size, scan.endian), size = size }
    scan.values, scan.strings = scan.values + 1, scan.strings + 1
  end,
  X = function(scan)
    local option = scan.format:sub(scan.at, scan.at)
    scan.at = scan.at + 1
    local size = number_size(scan, option)
      or option == "s" and limited(scan, "s", SIZE_T) or option == "x" and 1
    align(scan, size or bad(scan, "after 'X' comes an option that has an alignment"))
  end,
}

---@param format string
---@return frame.PackScan
local function compile(format)
  local scan = { format = format, at = 1, endian = NATIVE, align = 1, steps = {}, values = 0, strings = 0 }
  while scan.at <= #format do
    local option = format:sub(scan.at, scan.at)
    scan.at = scan.at + 1
    local size = number_size(scan, option)
    if size then
      scan.wide = scan.wide or size > 8 and find("iI", option, 1, true) ~= nil
      align(scan, size)
      skip(scan, size)
      scan.values = scan.values + 1
    elseif OPTIONS[option] then
      OPTIONS[option](scan)
    else
      bad(scan, ("there is no option %s"):format(text.quote(option)))
    end
  end
  return scan
end

---@param at integer
---@param a integer
---@return integer
local function aligned(at, a)
  return at + (a - 1) & ~(a - 1)
end

---The fewest bytes that the format takes.
---@param steps frame.PackStep[]
---@return integer
local function least(steps)
  local at = 0
  for _, step in ipairs(steps) do
    at = step.align and aligned(at, step.align) or math.min(at + (step.skip or step.size or 1), HUGE)
  end
  return at
end

---How many bytes the format takes of those from pos on. If `done` is false, `n` is how many there must be at
---least, and `seek` what must be among them; nil: more than any string has.
---@param steps frame.PackStep[]
---@param buf string
---@param pos integer
---@param max integer
---@return boolean done
---@return integer? n
---@return string? seek
local function measure(steps, buf, pos, max)
  local at, have = 0, #buf - pos + 1
  for i = 1, #steps do
    local step = steps[i]
    if step.skip then
      at = at + step.skip
    elseif step.align then
      at = aligned(at, step.align)
    elseif step.length then
      at = at + step.size
      if at > max then return false end
      if at > have then return false, at end
      local n = step.length(buf, pos + at - step.size)
      if not n or n > max then return false end
      at = at + n
    else
      local zero = at < have and find(buf, "\0", pos + at, true)
      at = zero and zero - pos + 1 or (at > have and at or have) + 1
      if at > max then return false end
      if not zero then return false, at, "\0" end
    end
    if at > max then return false end
  end
  return at <= have, at
end

---Only a string with its length before it: what is asked of most binary protocols.
---@param step frame.PackStep
---@param max integer
---@param why string
local function counted(step, max, why)
  local size, length = step.size, step.length
  local most = max - size
  return function(buf, pos)
    local have = #buf - pos + 1
    if have < size then return nil, size end
    local n = length(buf, pos)
    if not n or n > most then return nil, nil, why end
    if have < size + n then return nil, size + n end
    return sub(buf, pos + size, pos + size + n - 1), pos + size + n
  end
end

---Checks a format by having string.unpack take the smallest frame.
---@param scan frame.PackScan
---@param name string
---@param max integer
local function check(scan, name, max)
  local n = least(scan.steps)
  if n == 0 then error(("%s: its frames would be of no bytes"):format(name), 0) end
  if n > max then error(("%s: its frames are longer than max, %d bytes"):format(name, max), 0) end
  local fine, why = pcall(unpack, scan.format, ("\0"):rep(n))
  if not fine then bad(scan, why) end
end

-- The first n of their arguments: string.unpack gives a position behind the values.
local FIRST = {
  [0] = function() end,
  function(a) return a end,
  function(a, b) return a, b end,
  function(a, b, c) return a, b, c end,
  function(a, b, c, d) return a, b, c, d end,
}

---@param count integer
---@return fun(...): ...
local function first(count)
  return FIRST[count] or function(...) return table.unpack({ ... }, 1, count) end
end

---Gives a framing its `next`.
---@param framing frame.Framing
---@param format string
---@param why string what to say of a frame that is too long
---@return frame.Framing
function M.fill(framing, format, why)
  local scan = compile(format)
  local steps, max, count = scan.steps, framing.max, scan.values
  check(scan, framing.name, max)
  local single = count == 1 and scan.strings == 1
  if single and #steps == 1 and steps[1].length then
    framing.next = counted(steps[1], max, why)
    return framing
  end
  framing.values = not single or nil
  local values = first(count)
  ---Integers of more than 8 bytes: the peer's may be too large for Lua.
  local function wide(raw, after, fine, ...)
    if not fine then return nil, nil, ("a number is too large for Lua (%s)"):format(framing.name) end
    return raw, after, values(...)
  end
  function framing.next(buf, pos)
    local done, n, seek = measure(steps, buf, pos, max)
    if not n then return nil, nil, why end
    if not done then return nil, n, seek end
    local raw = sub(buf, pos, pos + n - 1) -- alignment counts from its first byte
    if single then return (unpack(format, raw)), pos + n end
    if scan.wide then return wide(raw, pos + n, pcall(unpack, format, raw)) end
    return raw, pos + n, values(unpack(format, raw))
  end
  return framing
end

---A format of one integer.
---@param name string
---@param format string
---@return integer width
---@return fun(buf: string, at: integer): integer? number nil: more than any integer of Lua
function M.integer(name, format)
  local endian, option = nil, nil
  if type(format) == "string" then
    endian, option = format:match("^%s*([<>=]?)%s*([bBhHiIlLjJT]%d*)%s*$")
  end
  local fits, width = pcall(string.packsize, option or "?")
  if not fits then
    error(("%s: the format must be of one integer, such as \">I4\""):format(name), 0)
  end
  endian = (endian == "" or endian == "=") and NATIVE or endian
  if option:find("^%u") then return width, unsigned(width, endian) end
  local plain = endian .. option
  return width, function(buf, at)
    local fine, value = pcall(unpack, plain, buf, at)
    if fine then return value end
  end
end

return M
