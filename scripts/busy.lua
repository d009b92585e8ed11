-- Computes for ever when it is told to; docs/limits.md has what that does to others.
--
--   moonport serve scripts/busy.lua --option cpu_limit=1
--   echo spin | nc 127.0.0.1 9999 &
--   printf 'hello\nmoon\n' | nc -N 127.0.0.1 9999

local Busy = {}

function Busy:handle()
  for line in self.rfile:lines() do
    if line == "spin" then
      while true do pcall(error) end
    end
    self.wfile:write(line, "\n")
  end
end

return Busy
