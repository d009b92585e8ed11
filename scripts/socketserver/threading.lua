-- A server that runs each request on a thread, and three clients of it, in one process.
--
--   lua5.4 scripts/socketserver/threading.lua
local moonport = require("moonport")

local Handler = {}

function Handler:handle()
  local line = self.rfile:read()
  os.execute("sleep 0.5") -- blocks the thread, and nobody else: all three take half a second
  self.wfile:write(line:upper(), " from ", self.server.class, "\n")
end

-- The threads load this file, too, each into a Lua state of its own. There it is no program, and has no `arg`.
if not arg then return Handler end

local server <close> = moonport.start(arg[0], { mixin = "threading" })
print(server)

moonport.run(function()
  local sockets, begun = {}, moonport.monotonic()
  for i = 1, 3 do
    sockets[i] = assert(moonport.connect(server.url))
    sockets[i]:sendall("hello " .. i .. "\n")
  end
  for _, socket in ipairs(sockets) do print(socket:makefile("r"):read()) end
  print(("%.1f seconds"):format(moonport.monotonic() - begun))
end)
