--- Values as messages show them.

local M = {}

local NAMED = { ["\r"] = "\\r", ["\n"] = "\\n", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }
local LONGEST = 60 -- bytes of a string that are shown

---@param c string
---@return string
local function escape(c)
  return NAMED[c] or ("\\x%02x"):format(c:byte())
end

---A string between quotes, in one line, whatever its bytes.
---@param s string
---@return string
function M.quote(s)
  local cut = #s > LONGEST and "..." or ""
  return '"' .. s:sub(1, LONGEST):gsub('[%c\\"\127-\255]', escape) .. '"' .. cut
end

---@param value any
---@return string
function M.show(value)
  local kind = type(value)
  if kind == "string" then return M.quote(value) end
  return (kind == "number" or kind == "boolean" or kind == "nil") and tostring(value) or "a " .. kind
end

return M
