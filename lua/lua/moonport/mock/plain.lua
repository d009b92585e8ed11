--- Copies of data that can go to another Lua state, or to JSON.

local M = {}

local DEPTH = 60
local PLAIN = { string = true, number = true, boolean = true }

---@param value any
---@param depth integer
---@param seen table<table, table|false> the copies; false while one is being made
local function copy(value, depth, seen)
  if PLAIN[type(value)] then return value end
  if type(value) ~= "table" or depth > DEPTH then return nil end
  local out = seen[value]
  if out ~= nil then return out or nil end
  out, seen[value] = {}, false
  for k, v in pairs(value) do
    if PLAIN[type(k)] then out[k] = copy(v, depth + 1, seen) end
  end
  seen[value] = out
  return out
end

---Without functions and the like, without what is nested too deeply, and without a table inside itself. One that is
---reached twice is one in the copy as well.
---@param value any
---@return any
function M.copy(value) return copy(value, 0, {}) end

---How many tables there are when each is counted as often as it is reached: as JSON has them.
---@param value any what copy() gives
---@param seen? table<table, number>
---@return number
function M.spread(value, seen)
  if type(value) ~= "table" then return 0 end
  seen = seen or {}
  local n = seen[value]
  if n then return n end
  n = 1.0
  for _, v in pairs(value) do n = n + M.spread(v, seen) end
  seen[value] = n
  return n
end

return M
