-- Sends every line back in capitals, by rfile and wfile; all connections at once.
--
--   lua5.4 scripts/socketserver/tcp_upper.lua
--   printf 'hello\nmoon\n' | nc -N 127.0.0.1 9999
local socketserver = require("moonport.socketserver")

local Upper = socketserver.class("Upper", socketserver.StreamRequestHandler)

function Upper:handle()
  for line in self.rfile:lines() do
    self.wfile:write(line:upper(), "\n")
  end
end

local server <close> = socketserver.AsyncTCPServer({ "127.0.0.1", tonumber(arg[1]) or 9999 }, Upper)
print(server)
server:serve_forever()
