-- A redis: strings with expiry, counters, SUBSCRIBE and PUBLISH, and what clients say first (HELLO, CLIENT, COMMAND).
--
--   moonport mock scripts/mocks/redis.lua
--   redis-cli -p PORT set greeting "hello world"            # PORT: as the ready line says
--   redis-benchmark -p PORT -t ping,set,get -P 16 -n 100000 -q
--
-- A command comes to the stubs as people write it, "SET greeting hello world", so that a fault is one line:
--   redis:on("^GET flaky$", { mock.reset, "-BUSY try again\r\n", mock.delay(2, "$2\r\nok\r\n") }, { at = 1 })
-- What it holds is its state: GET and PUT /servers/redis/state of the control API read and replace it.
-- Spaces in words are not told from those between them, save in the last word of SET and PUBLISH.
local mock = require("moonport.mock")
local moonport = require("moonport")
local resp = require("moonport.resp")

local redis = mock.server { "tcp://127.0.0.1:0", name = "redis", frame = resp.framing { max = 64 << 20 } }
redis.state.strings = {}
redis.state.expires = {} -- key to the time of its end, in seconds as moonport.time() has them
local subscribers = {} -- channel to the conversations that listen to it

local NULL, WRONG = "$-1\r\n", "-ERR value is not an integer or out of range\r\n"

local function bulk(s) return "$" .. #s .. "\r\n" .. s .. "\r\n" end

local function list(items) return ("*%d\r\n%s"):format(#items, table.concat(items)) end

-- What a key holds, if it has not expired.
local function get(key)
  local state = redis.state
  local value, ends = state.strings[key], state.expires[key]
  if not ends or ends > moonport.time() then return value end
  state.strings[key], state.expires[key] = nil, nil
end

local function set(key, value, seconds)
  redis.state.strings[key] = value
  redis.state.expires[key] = seconds and moonport.time() + seconds or nil
end

-- How many of these keys there were; f is called for each.
local function count(keys, f)
  local n = 0
  for key in keys:gmatch("%S+") do
    if get(key) then
      n = n + 1
      f(key)
    end
  end
  return (":%d\r\n"):format(n)
end

redis:on("^PING$", "+PONG\r\n")
redis:on("^GET (%S+)$", function(_, key)
  local value = get(key)
  if value then return bulk(value) end
  return NULL
end)
redis:on("^SET (%S+) (.*)$", function(_, key, value)
  if not value:find(" ", 1, true) then
    set(key, value)
  else
    local short, unit, time = value:match("^(.*) ([EePp][Xx]) (%d+)$")
    set(key, short or value, short and (unit:upper() == "EX" and time or time / 1000))
  end
  return "+OK\r\n"
end)
redis:on("^DEL (.+)$", function(_, keys)
  return count(keys, function(key) set(key, nil) end)
end)
redis:on("^EXISTS (.+)$", function(_, keys) return count(keys, function() end) end)
redis:on("^INCR (%S+)$", function(_, key)
  local n = math.tointeger(tonumber(get(key) or "0"))
  if not n or n == math.maxinteger then return WRONG end
  redis.state.strings[key] = tostring(n + 1)
  return (":%d\r\n"):format(n + 1)
end)
redis:on("^EXPIRE (%S+) (%-?%d+)$", function(_, key, seconds)
  return count(key, function() redis.state.expires[key] = moonport.time() + seconds end)
end)
redis:on("^TTL (%S+)$", function(_, key)
  local ends = get(key) and redis.state.expires[key]
  return (":%d\r\n"):format(ends and math.ceil(ends - moonport.time()) or get(key) and -1 or -2)
end)

redis:on("^SUBSCRIBE (.+)$", function(c, channels)
  c.state.channels = c.state.channels or 0
  for channel in channels:gmatch("%S+") do
    subscribers[channel] = subscribers[channel] or {}
    subscribers[channel][c] = true
    c.state.channels = c.state.channels + 1
    c:send(list { bulk "subscribe", bulk(channel), (":%d\r\n"):format(c.state.channels) })
  end
end)
redis:on("^PUBLISH (%S+) (.*)$", function(_, channel, message)
  local n = 0
  for c in pairs(subscribers[channel] or {}) do
    if c:is_closed() then
      subscribers[channel][c] = nil
    else
      n = n + 1
      c:send(list { bulk "message", bulk(channel), bulk(message) })
    end
  end
  return (":%d\r\n"):format(n)
end)

-- What clients say before they come to the point.
redis:on("^HELLO 3", "-NOPROTO unsupported protocol version\r\n") -- they go on with version 2 then
redis:on("^HELLO", list { bulk "server", bulk "redis", bulk "version", bulk "7.0.0", bulk "proto", ":2\r\n" })
redis:on("^CLIENT ", "+OK\r\n")
redis:on("^AUTH ", "+OK\r\n")
redis:on("^SELECT ", "+OK\r\n")
redis:on("^COMMAND", "*0\r\n")
redis:on("^CONFIG GET (%S+)$", function(_, name) return list { bulk(name), bulk "" } end)
redis:on("^INFO", bulk "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n")
redis:on("^QUIT$", function(c)
  c:send("+OK\r\n")
  c:close()
end)
redis:on("^$", mock.none) -- an empty line
redis:otherwise(function(_, line)
  return ("-ERR unknown command '%s'\r\n"):format(line:match("^%S*"))
end)

return redis -- for variants: see redis_flaky.lua
