-- Answers each line after a sleep in a task of its own: what a timer and a task cost.
local moonport = require("moonport")

local Sleep = {}

function Sleep:handle()
  for line in self.rfile:lines("L") do
    local slept = moonport.event()
    moonport.spawn(function()
      moonport.sleep(0.001)
      slept:set()
    end)
    slept:wait(10)
    self.wfile:write(line)
  end
end

return Sleep
