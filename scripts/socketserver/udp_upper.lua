-- Sends every datagram back in capitals.
--
--   lua5.4 scripts/socketserver/udp_upper.lua
--   echo hello | nc -u -w 1 127.0.0.1 9999
local socketserver = require("moonport.socketserver")

local Upper = socketserver.class("Upper", socketserver.BaseRequestHandler)

function Upper:handle()
  local data, socket = self.request[1], self.request[2]
  socket:sendto(data:upper(), self.client_address) -- or self.wfile:write(data:upper())
end

local server <close> = socketserver.UDPServer({ "127.0.0.1", tonumber(arg[1]) or 9999 }, Upper)
print(server)
server:serve_forever()
