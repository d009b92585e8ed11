-- Tells each client of a Unix socket who it is.
--
--   lua5.4 scripts/socketserver/unix.lua /tmp/whoami.sock
--   nc -U /tmp/whoami.sock
local socketserver = require("moonport.socketserver")

local WhoAmI = socketserver.class("WhoAmI", socketserver.StreamRequestHandler)

function WhoAmI:handle()
  local who = self.request:getsockopt("so_peercred")
  self.wfile:write("process ", who.pid, " of user ", who.uid, "\n")
end

-- The path goes away with the server, and a new server takes over one that a dead server has left.
local server <close> = socketserver.AsyncUnixStreamServer(arg[1] or "/tmp/whoami.sock", WhoAmI)
print(server)
server:serve_forever()
