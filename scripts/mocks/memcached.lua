-- A memcached, in its text protocol: set, add, replace, get, delete, incr, decr, touch, flush_all, stats.
--
--   moonport mock scripts/mocks/memcached.lua
--   memccp --servers=127.0.0.1:PORT notes.txt; memccat --servers=127.0.0.1:PORT notes.txt
--   printf 'set a 0 0 2\r\nhi\r\nget a\r\n' | nc -N 127.0.0.1 PORT
--
-- A command's line comes to the stubs, so that a fault is one line:
--   memcached:on("^get flaky$", { mock.reset, "SERVER_ERROR out of memory\r\n", mock.silence }, { at = 1 })
-- Its state: `items`, from key to { value=, flags=, ends= }. Items expire when they are asked for.
local mock = require("moonport.mock")
local moonport = require("moonport")

local MONTH = 30 * 24 * 3600 -- more seconds than that are a date

local memcached = mock.server { "tcp://127.0.0.1:0", name = "memcached", frame = mock.line "\r\n" }

memcached.state.items = {}

local function find(key)
  local items = memcached.state.items
  local item = items[key]
  if item and item.ends and item.ends <= moonport.time() then
    items[key], item = nil, nil
  end
  return item
end

---@param seconds integer as clients say it: 0 for ever, a time from now, or a date
---@return number? when it ends
local function ending(seconds)
  if seconds == 0 then return nil end
  return seconds > MONTH and seconds or moonport.time() + seconds
end

-- set, add and replace: the data follows the line, in a frame of its own.
local function store(allowed)
  return function(c, key, flags, seconds, size, quiet)
    local data = c:recv(mock.fixed(size + 2))
    if not data then return end
    local stored = allowed(key)
    if stored then
      memcached.state.items[key] = {
        value = data:sub(1, -3), flags = math.tointeger(flags), ends = ending(math.tointeger(seconds)),
      }
    end
    return quiet == "" and (stored and "STORED\r\n" or "NOT_STORED\r\n")
  end
end

for name, allowed in pairs {
  set = function() return true end,
  add = function(key) return not find(key) end,
  replace = function(key) return find(key) ~= nil end,
} do
  memcached:on("^" .. name .. " (%S+) (%d+) (%-?%d+) (%d+)(.*)$", store(allowed))
end

memcached:on("^get (.+)$", function(c, keys)
  for key in keys:gmatch("%S+") do
    local item = find(key)
    if item then c:send(("VALUE %s %d %d\r\n%s\r\n"):format(key, item.flags, #item.value, item.value)) end
  end
  return "END\r\n"
end)

memcached:on("^delete (%S+)(.*)$", function(_, key, quiet)
  local found = find(key)
  memcached.state.items[key] = nil
  return quiet == "" and (found and "DELETED\r\n" or "NOT_FOUND\r\n")
end)

local function add(key, n, quiet)
  local item = find(key)
  if not item then return quiet == "" and "NOT_FOUND\r\n" end
  local old = math.tointeger(item.value)
  if not old then return "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n" end
  item.value = tostring(math.max(old + n, 0))
  return quiet == "" and item.value .. "\r\n"
end
memcached:on("^incr (%S+) (%d+)(.*)$", function(_, key, n, quiet) return add(key, math.tointeger(n), quiet) end)
memcached:on("^decr (%S+) (%d+)(.*)$", function(_, key, n, quiet) return add(key, -math.tointeger(n), quiet) end)

memcached:on("^touch (%S+) (%-?%d+)(.*)$", function(_, key, seconds, quiet)
  local item = find(key)
  if item then item.ends = ending(math.tointeger(seconds)) end
  return quiet == "" and (item and "TOUCHED\r\n" or "NOT_FOUND\r\n")
end)
memcached:on("^flush_all", function()
  memcached.state.items = {}
  return "OK\r\n"
end)

memcached:on("^version", "VERSION 1.6.0\r\n")
memcached:on("^verbosity", "OK\r\n")
memcached:on("^stats", function()
  local n = 0
  for _ in pairs(memcached.state.items) do n = n + 1 end
  return ("STAT pid 1\r\nSTAT version 1.6.0\r\nSTAT curr_items %d\r\nEND\r\n"):format(n)
end)
memcached:on("^quit", mock.close)
memcached:otherwise "ERROR\r\n"

return memcached -- for variants: see redis_flaky.lua
