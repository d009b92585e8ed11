--- The names that a path of the control API can have: those of stubs and toxics, whoever gives them.

local M = {}

M.MAX = 256

M.RULE = ("must be 1 to %d bytes of UTF-8 without /, \\, control characters, . and .."):format(M.MAX)

---@param name any
---@return boolean
function M.is(name)
  return type(name) == "string" and name ~= "" and name ~= "." and name ~= ".." and #name <= M.MAX
    and not name:find("[%c/\\]") and utf8.len(name) ~= nil
end

return M
