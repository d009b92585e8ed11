--- A generator of our own (SplitMix64), so that a toxic's chances depend on its seed alone: `math.random` is one
--- for the whole Lua state, and whoever else calls it would change what a replay gives.

local M = {}

local STEP <const> = 0x9E3779B97F4A7C15

local function mix(x)
  x = (x ~ (x >> 30)) * 0xBF58476D1CE4E5B9
  x = (x ~ (x >> 27)) * 0x94D049BB133111EB
  return x ~ (x >> 31)
end

---@param text string
---@return integer
local function hash(text) -- FNV-1a
  local h = 0xCBF29CE484222325
  for i = 1, #text do
    h = (h ~ text:byte(i)) * 0x100000001B3
  end
  return h
end

---@param seed integer
---@param salt string generators of one seed and different salts have nothing in common
---@return fun(): number draw gives a number from 0 to below 1
function M.new(seed, salt)
  local state = mix(seed) ~ hash(salt)
  return function()
    state = state + STEP
    return (mix(state) >> 11) * 0x1p-53
  end
end

---A seed for whoever gave none, short enough to be typed again.
---@return integer
function M.seed()
  return math.random(1, 0x7FFFFFFF)
end

return M
