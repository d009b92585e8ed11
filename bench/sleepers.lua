-- Sends every line back; "sleepers N" starts N tasks that sleep until their connection ends.
local moonport = require("moonport")

local Sleepers = {}

function Sleepers:handle()
  for line in self.rfile:lines("L") do
    for i = 1, tonumber(line:match("^sleepers (%d+)")) or 0 do
      moonport.spawn(moonport.sleep, 600 + i % 100)
    end
    self.wfile:write(line)
  end
end

return Sleepers
