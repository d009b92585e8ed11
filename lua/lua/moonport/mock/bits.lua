--- Bit errors that come out the same each time.

local M = {}

local byte, char, concat, sub = string.byte, string.char, table.concat, string.sub

---Marsaglia's xorshift64: the same numbers on every machine.
---@param seed integer
---@return fun(n: integer): integer from 1 to n
function M.random(seed)
  local x = seed ~ 0x9E3779B97F4A7C15
  if x == 0 then x = 1 end
  return function(n)
    x = x ~ x << 13
    x = x ~ x >> 7
    x = x ~ x << 17
    return (x >> 11) % n + 1
  end
end

---@param bytes string
---@param flips table<integer, integer> the bits to turn over of the byte at each place
---@return string
local function flip(bytes, flips)
  local places, out, from = {}, {}, 1
  for at in pairs(flips) do places[#places + 1] = at end
  table.sort(places)
  for _, at in ipairs(places) do
    out[#out + 1] = sub(bytes, from, at - 1)
    out[#out + 1] = char(byte(bytes, at) ~ flips[at])
    from = at + 1
  end
  out[#out + 1] = sub(bytes, from)
  return concat(out)
end

---Turns the lowest bit of the bytes at these places over; places that are not in the text are passed over.
---@param bytes string
---@param places integer[]
---@param offset integer of the text's first byte, 0 if it is the first of all
---@return string
function M.at(bytes, places, offset)
  local flips = {}
  for _, at in ipairs(places) do
    if at > offset and at <= offset + #bytes then flips[at - offset] = 1 end
  end
  return flip(bytes, flips)
end

---Turns one bit of each of n bytes over.
---@param bytes string
---@param random fun(n: integer): integer
---@param n integer
---@return string
function M.seeded(bytes, random, n)
  local flips, left = {}, math.min(n, #bytes)
  while left > 0 do
    local at = random(#bytes)
    if not flips[at] then
      flips[at], left = 1 << random(8) - 1, left - 1
    end
  end
  return flip(bytes, flips)
end

return M
