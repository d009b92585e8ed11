-- Sends back what comes, by the socket itself; one connection at a time, and the others wait their turn.
--
--   lua5.4 scripts/socketserver/tcp_echo.lua
--   nc 127.0.0.1 9999
--
-- AsyncTCPServer in place of TCPServer serves them all at once; nothing else changes.
local socketserver = require("moonport.socketserver")

local Echo = socketserver.class("Echo", socketserver.BaseRequestHandler)

function Echo:handle()
  local data = self.request:recv(1024) -- what has come; nil at the end
  while data do
    self.request:sendall(data)
    data = self.request:recv(1024)
  end
end

local server <close> = socketserver.TCPServer({ "127.0.0.1", tonumber(arg[1]) or 9999 }, Echo)
print(server)
server:serve_forever()
