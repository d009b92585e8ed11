-- Lines on Copas, with Lua 5.1: Debian has it for no later one.  tcp PORT
local socket, copas = require("socket"), require("copas")

copas.addserver(assert(socket.bind("127.0.0.1", tonumber(arg[2]), 1024)), function(client)
  client:setoption("tcp-nodelay", true) -- without it long lines wait 44 ms
  while true do
    local line = copas.receive(client, "*l")
    if not line then break end
    copas.send(client, line .. "\n")
  end
  client:close()
end)
copas.loop()
