--- Copies of data that can go to another Lua state, or to JSON.

local M = {}

local DEPTH = 60
local PLAIN = { string = true, number = true, boolean = true }

local function copy(value, depth, dropped)
  local kind = type(value)
  if PLAIN[kind] then return value end
  if kind ~= "table" or depth > DEPTH then
    if dropped then dropped[#dropped + 1] = kind end
    return nil
  end
  local out = {}
  for k, v in pairs(value) do
    if PLAIN[type(k)] then out[k] = copy(v, depth + 1, dropped) end
  end
  return out
end

---Without functions and the like, and without what is nested too deeply.
---@param value any
---@param dropped? string[] gets the kind of each that was left out
---@return any
function M.copy(value, dropped) return copy(value, 0, dropped) end

return M
