-- Answers each datagram with the time.
--
--   moonport serve scripts/udp_time.lua --listen udp://127.0.0.1:9999
--   echo | nc -u -w 1 127.0.0.1 9999
local moonport = require("moonport")

local Time = {}

function Time:handle()
  local now = moonport.time()
  local ms = math.floor(now % 1 * 1000)
  self.wfile:write(os.date("!%Y-%m-%dT%H:%M:%S", math.floor(now)), (".%03dZ\n"):format(ms))
end

return Time
