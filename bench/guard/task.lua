-- Answers each line from a task of its own, for which it waits, not for ever: what a task, an event and a timer cost.
local moonport = require("moonport")

local Task = {}

function Task:handle()
  for line in self.rfile:lines("L") do
    local done = moonport.event()
    moonport.spawn(function()
      self.wfile:write(line)
      done:set()
    end)
    done:wait(10)
  end
end

return Task
