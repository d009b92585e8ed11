-- Bytes back on luv (libuv): tcp|unix|udp PORT|PATH.
local uv = require("luv")
local kind, where = arg[1], arg[2]

local function stream() return kind == "unix" and uv.new_pipe(false) or uv.new_tcp() end

if kind == "udp" then
  local server = uv.new_udp()
  server:bind("127.0.0.1", tonumber(where))
  server:recv_start(function(_, data, from)
    if data and from then server:try_send(data, from.ip, from.port) end
  end)
else
  local server = stream()
  if kind == "unix" then server:bind(where) else server:bind("127.0.0.1", tonumber(where)) end
  server:listen(1024, function()
    local client = stream()
    server:accept(client)
    client:read_start(function(_, data)
      if data then client:write(data) else client:close() end
    end)
  end)
end
uv.run()
