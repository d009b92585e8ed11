-- Counts the primes below each number that it is told. That takes long and never waits, so every client has a process
-- of its own: they use all processors, and hold up nobody.
--
--   lua5.4 scripts/socketserver/forking.lua
--   echo 3000000 | nc -N 127.0.0.1 9999
local socketserver = require("moonport.socketserver")

local Primes = socketserver.class("Primes", socketserver.StreamRequestHandler)
Primes.timeout = 60 -- seconds that a client may say nothing

---@param n integer
---@return integer
local function primes_below(n)
  local composite, count = {}, 0
  for i = 2, n - 1 do
    if not composite[i] then
      count = count + 1
      for k = i * i, n - 1, i do composite[k] = true end
    end
  end
  return count
end

function Primes:handle()
  for line in self.rfile:lines() do
    local n = math.tointeger(tonumber(line))
    self.wfile:write(n and n <= 5000000 and primes_below(n) or "a number up to 5000000, please", "\n")
  end
end

local Server = socketserver.class("Server", socketserver.ForkingMixIn, socketserver.TCPServer)
Server.max_children = 8 -- processes at once; more clients wait

local server <close> = Server({ "127.0.0.1", tonumber(arg[1]) or 9999 }, Primes)
print(server)
server:serve_forever()
