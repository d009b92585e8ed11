--- Scripts for `moonport mock` that need nothing of moonport.mock but what the host asks of it: listeners() and
--- control(). Their mocks answer a line with the script's own word, the mock's name and that line.

local host = require("support.host")

local M = {}

local FAKE = [[
local required = %s
package.loaded["moonport.mock"] = {
  listeners = function() return %s end,
  control = function(op) if op == "verdict" then return required end end,
}
local word = %q
require("moonport").default_handler{ handle = function(self)
  if self.packet then
    self.wfile:write(word, " ", self.server.name, " ", self.packet)
    return
  end
  for line in self.rfile:lines() do
    if line == "fail" then required[#required + 1] = "what failed" end
    self.wfile:write(word, " ", self.server.name, " ", line, "\n")
  end
end }
]]

local function list(t, item)
  local parts = {}
  for i, v in ipairs(t) do parts[i] = item(v) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

---@param mocks { [1]: string, [2]: string }[] name and URL of each
---@param options? { word?: string, verdict?: string[] }
---@return string code
function M.code(mocks, options)
  options = options or {}
  return FAKE:format(list(options.verdict or {}, function(text) return ("%q"):format(text) end),
    list(mocks, function(m) return ("{ name = %q, url = %q }"):format(m[1], m[2]) end), options.word or "one")
end

---The same as a file of its own.
---@return string path
function M.script(mocks, options) return host.write(M.code(mocks, options)) end

return M
