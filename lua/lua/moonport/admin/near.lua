--- What to say of a name that is not there.

local nearest = require("moonport.nearest")

---@param word string
---@param names string[]
---@return string hint "; did you mean x?", or the names there are
local function near(word, names)
  local best, likely = nearest(word, names)
  if likely then return ("; did you mean %q?"):format(best) end
  if #names == 0 then return "; there are none" end
  return "; there are " .. table.concat(names, ", ", 1, math.min(#names, 10)) .. (#names > 10 and ", ..." or "")
end

return near
