-- Sends every line back.        moonport serve scripts/echo.lua
--                               nc 127.0.0.1 9999
local Echo = {}

function Echo:handle()
  for line in self.rfile:lines("L") do
    self.wfile:write(line)
  end
end

return Echo
