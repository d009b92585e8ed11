-- A small Redis: strings in memory, shared by all connections, gone at exit.
--
--   moonport serve scripts/redis_lite.lua --listen tcp://127.0.0.1:6380
--   redis-cli -p 6380 set greeting hello
--   redis-cli -p 6380 get greeting
--   redis-benchmark -p 6380 -t ping,set,get,incr -P 16 -n 200000 -q
local resp = require("moonport.resp")

local Redis = {}
local store = {} -- one table for all: a request runs alone until it waits
local commands = {}
local words = { ECHO = 2, GET = 2, SET = 3, INCR = 2 } -- the name included

function commands.PING(w, args, n)
  if n == 1 then w:write("+PONG\r\n") else resp.bulk(w, args[2]) end
end
function commands.ECHO(w, args) resp.bulk(w, args[2]) end
function commands.GET(w, args) resp.bulk(w, store[args[2]]) end
function commands.SET(w, args)
  store[args[2]] = args[3]
  w:write("+OK\r\n")
end
function commands.DEL(w, args, n)
  local gone = 0
  for i = 2, n do
    if store[args[i]] then gone, store[args[i]] = gone + 1, nil end
  end
  w:write(":", gone, "\r\n")
end
function commands.INCR(w, args)
  local old = store[args[2]] or "0"
  local value = math.tointeger(tonumber(old))
  if not value or tostring(value) ~= old then
    return w:write("-ERR value is not an integer or out of range\r\n")
  elseif value == math.maxinteger then
    return w:write("-ERR increment or decrement would overflow\r\n")
  end
  store[args[2]] = tostring(value + 1)
  w:write(":", value + 1, "\r\n")
end
function commands.CONFIG(w, args) -- redis-benchmark asks for two settings, to print them
  w:write("*2\r\n")
  resp.bulk(w, args[3] or "")
  resp.bulk(w, "")
end
function commands.COMMAND(w) w:write("*0\r\n") end -- redis-cli asks for its completions
function commands.INFO(w) resp.bulk(w, "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n") end
function commands.QUIT(w)
  w:write("+OK\r\n")
  return "quit"
end

function Redis:handle()
  resp.serve(self, commands, words)
end

return Redis
