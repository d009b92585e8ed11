-- A server that runs each request on a thread, and its clients, in one process.
--
--   lua5.4 scripts/socketserver/threading.lua
local moonport = require("moonport")

local Handler = {}

function Handler:handle()
  local line = self.rfile:read()
  os.execute("sleep 0.2") -- blocks this thread, and nobody else
  self.wfile:write(line:upper(), ", says ", self.server.class, "\n")
end

-- Each thread loads this file into a Lua state of its own, where it is no program and has no `arg`.
if not arg then return Handler end

local function ask(url, text)
  local socket <close> = assert(moonport.connect(url))
  socket:sendall(text .. "\n")
  return socket:makefile("r"):read()
end

local server <close> = moonport.start(arg[0], { mixin = "threading" })
print(server)
for i = 1, 3 do
  print(moonport.run(ask, server.url, "hello " .. i))
end
server:shutdown()
