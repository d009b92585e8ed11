-- The time in one line, then the connection closes (RFC 867).
--
--   moonport serve scripts/daytime.lua
--   nc 127.0.0.1 9999
--
-- It reads nothing, so it serves datagrams as well: --listen udp://127.0.0.1:9999
local Daytime = {}

function Daytime:handle()
  self.wfile:write(os.date("!%A, %B %d, %Y %H:%M:%S-UTC"), "\r\n")
end

return Daytime
