-- Lines on cqueues, a coroutine for each connection: tcp|unix PORT|PATH.
local cqueues, socket = require("cqueues"), require("cqueues.socket")
local kind, where = arg[1], arg[2]
local queue = cqueues.new()
local server = kind == "unix" and socket.listen({ path = where })
  or socket.listen({ host = "127.0.0.1", port = tonumber(where) })

queue:wrap(function()
  while true do
    local client = server:accept({ nodelay = true }) -- without it long lines wait 44 ms
    queue:wrap(function()
      client:setmode("b", "bf")
      for line in client:lines("*L") do
        if not client:write(line) or not client:flush() then break end
      end
      client:close()
    end)
  end
end)
assert(queue:loop())
