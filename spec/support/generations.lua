--- What the specs of reloads have in common.

local host = require("support.host")

local M = {}

---A script that answers each line with a word, and more when told.
---@param word string
---@param extra? string Lua
function M.version(word, extra)
  return ([[
    local H = {}
    %s
    function H:handle()
      for line in self.rfile:lines() do
        if line == "fail" then error("failed as %s") end
        self.wfile:write("%s ", line, "\n")
      end
      return false
    end
    return H
  ]]):format(extra or "", word, word)
end

---Asks for a reload and waits for what comes of it: the log event.
---@param p spec.Program
---@param event "reloaded"|"reload failed"
---@return table
function M.reload(p, event)
  local n = #p:find("reloaded") + #p:find("reload failed")
  p:kill("HUP")
  host.eventually("the end of a reload in:\n" .. host.read(p.log_path), function()
    return #p:find("reloaded") + #p:find("reload failed") > n
  end)
  local all = p:find(event)
  if #p:find("reloaded") + #p:find("reload failed") ~= n + 1 or #all == 0 then
    error(("no '%s' in:\n%s"):format(event, host.read(p.log_path)), 2)
  end
  return all[#all]
end

---What a new connection is answered.
---@param p spec.Program
---@param line string
---@param name? string of the server
function M.ask(p, line, name)
  local c <close> = host.connect(p:url(name))
  return (c:ask(line))
end

return M
