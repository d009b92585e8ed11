--- Tables of options, of which a name that nobody knows is a mistake.

local M = {}

---@param names string[]
---@return string "id, times and at"
local function listed(names)
  local most = #names - 1
  return most == 0 and names[1] or table.concat(names, ", ", 1, most) .. " and " .. names[most + 1]
end

---@param options any
---@param names string[] that there are, in the order in which they are told
---@param example string "{ times = 2 }"
---@return string? wrong
function M.check(options, names, example)
  if type(options) ~= "table" then return "the options are a table such as " .. example end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  for name in pairs(options) do
    if not known[name] then return ("there is no option %s; there are %s"):format(tostring(name), listed(names)) end
  end
end

return M
