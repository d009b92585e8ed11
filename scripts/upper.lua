-- Sends every line back in capitals.    moonport serve scripts/upper.lua
--                                       nc 127.0.0.1 9999
local Upper = {}

function Upper:handle()
  for line in self.rfile:lines() do
    self.wfile:write(line:upper(), "\n")
  end
end

return Upper
