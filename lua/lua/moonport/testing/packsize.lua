--- How many bytes a string.pack format needs, as far as those at hand tell.

---@class testing.Scan
---@field f string the rest of the format
---@field little boolean
---@field align integer
---@field at integer|number

local SIZES <const> = { b = 1, B = 1, h = 2, H = 2, l = 8, L = 8, j = 8, J = 8, T = 8, f = 4, d = 8, n = 8 }

local function number(s, otherwise)
  local digits, rest = s.f:match("^(%d+)(.*)$")
  if not digits then return otherwise end
  s.f = rest
  return #digits < 10 and tonumber(digits) or 1000000000
end

-- A size that string.unpack refuses ends the scan: nothing more is needed.
local function refusable(s, size)
  if size >= 1 and size <= 16 then return size end
  s.f = ""
  return 0
end

local function fixed_size(s, c)
  if c == "i" or c == "I" then return refusable(s, number(s, 4)) end
  return SIZES[c] or 0
end

---@return boolean
local function pad(s, size)
  local a = math.min(size, s.align)
  if a & (a - 1) ~= 0 or s.align > 16 or s.align == 0 then
    s.f = ""
    return false
  end
  if a > 1 and s.at < math.huge then s.at = (s.at + a - 1) & ~(a - 1) end
  return true
end

-- A string's length: what no string can have is as good as infinite.
local function length(s, p, size)
  local bytes = p:sub(s.at + 1, s.at + size)
  local low = s.little and bytes:sub(1, 8) or bytes:sub(-8)
  local v = string.unpack((s.little and "<I" or ">I") .. #low, low)
  return (v < 0 or v > 1 << 62) and math.huge or v
end

local function counted(s, p)
  local size = refusable(s, number(s, 8))
  if not pad(s, size) then return true end
  if s.at + size > #p or size == 0 then
    s.at = s.at + size
    return s.at <= #p
  end
  local more = length(s, p, size)
  s.at = s.at + size + more
  return s.at <= #p
end

-- One option. False: more than the bytes at hand are needed.
local function step(s, p)
  local c = s.f:sub(1, 1)
  s.f = s.f:sub(2)
  local size = fixed_size(s, c)
  if size > 0 then
    if pad(s, size) then s.at = s.at + size end
  elseif c == "<" or c == "=" or c == ">" then
    s.little = c ~= ">"
  elseif c == "!" then
    s.align = number(s, 8)
  elseif c == "x" then
    s.at = s.at + 1
  elseif c == "X" then
    local next = s.f ~= "" and s.f:sub(1, 1) or " "
    s.f = s.f:sub(2)
    size = fixed_size(s, next)
    pad(s, size > 0 and size or 1)
  elseif c == "c" then
    local n = number(s, 0)
    if n >= 1000000000 or s.f:find("^%d") then s.f = "" else s.at = s.at + n end
  elseif c == "s" then
    return counted(s, p)
  elseif c == "z" then
    local nul = s.at < #p and p:find("\0", s.at + 1, true)
    if not nul then
      s.at = math.max(s.at, #p) + 1
      return false
    end
    s.at = nul
  end
  return s.at <= #p
end

---@param format string
---@param p string the bytes at hand
---@return boolean enough
---@return integer|number need at least
return function(format, p)
  local s = { f = format:match("^%Z*"), little = true, align = 1, at = 0 }
  local enough = true
  while s.f ~= "" and enough do enough = step(s, p) end
  return enough, s.at
end
