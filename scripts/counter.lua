-- Counts visits, and keeps the number when the code is replaced.
--
--   moonport serve --watch scripts/counter.lua        nc 127.0.0.1 9999

local Counter = {}

local visits = 0
local greeting = "visit %d\n"

function Counter:handle()
  for _ in self.rfile:lines() do
    visits = visits + 1
    self.wfile:write(greeting:format(visits))
  end
end

function Counter.save() return { visits = visits } end          -- of the old code: plain data

function Counter.init(data) visits = data.visits end            -- of the new code

return Counter
