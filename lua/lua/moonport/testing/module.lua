--- `require "moonport"` as scripts find it: its time is the world's, its connections lead to scripted peers.

local address = require("moonport.testing.address")
local args = require("moonport.testing.args")
local coroutines = require("moonport.testing.coroutines")
local course = require("moonport.testing.course")
local errors = require("moonport.testing.errors")
local request = require("moonport.testing.request")
local stream = require("moonport.testing.stream")

local LEVELS <const> = { "debug", "info", "warn", "error" }

local M = {}

-- ---------------------------------------------------------------- events

---@class testing.Event
---@field world testing.World
---@field is_set boolean and nobody was waiting
---@field waiters testing.Task[]

---@type table<table, testing.Event>
local events = setmetatable({}, { __mode = "k" })

local event_mt = args.class("moonport.event", {
  set = function(self)
    local e = events[self] or args.bad_type(1, "moonport.event", 1, self)
    local waiters = e.waiters
    e.waiters, e.is_set = {}, #waiters == 0
    for _, task in ipairs(waiters) do e.world:wake(task, true) end
  end,
  wait = function(self, ...)
    local e = events[self] or args.bad_type(1, "moonport.event", 1, self)
    local seconds = args.seconds(2, select("#", ...) + 1, (...))
    local world = e.world
    local task = world:task()
    if e.is_set then
      e.is_set = false
      return true
    end
    table.insert(e.waiters, task)
    local wake = world:park(seconds and world.now + seconds, function()
      for i, one in ipairs(e.waiters) do
        if one == task then table.remove(e.waiters, i) break end
      end
    end, "an event")
    if wake then return nil, "timeout" end
    return true
  end,
})

-- ---------------------------------------------------------------- beside the request

---@param world testing.World
local function spawn(world, f, ...)
  if not world.current or world.loading or not world.current.owner then
    args.fail("moonport.spawn is for a running request: it was called while none was running (a script being "
      .. "loaded, save, init or a finalizer)")
  end
  if type(f) ~= "function" then args.bad_type(1, "function", f == nil and 0 or 1, f) end
  local owner = world.current.owner
  local task
  task = world:spawn_beside(world.current, function(...)
    local ok, err = xpcall(f, course.trace, ...)
    if not ok then error(err, 0) end
  end, ...)
  task.ended = function(ok, err)
    if task.stream then task.stream:forget(task) end
    if not ok then course.stray(owner, err) end
  end
end

-- ---------------------------------------------------------------- nobody in between

local barrier_mt = {
  __close = function(old) old.world.barrier, old.world.barrier_name = old.barrier, old.name end,
}

-- Nobody comes in between anyway, unless f waits.
---@param world testing.World
local function atomically(world, n, f, ...)
  if type(f) ~= "function" then args.bad_type(1, "function", n, f) end
  local old <close> = setmetatable({ world = world, barrier = world.barrier, name = world.barrier_name }, barrier_mt)
  if not old.barrier then world.barrier, world.barrier_name = coroutine.running(), "moonport.atomically" end
  return f(...)
end

-- ---------------------------------------------------------------- the module

---@class testing.Host what the module needs of the test
---@field world testing.World
---@field log fun(level: string, event: string, fields: table)
---@field connect fun(url: testing.Url): testing.End?, string?, moonport.Address?
---@field time fun(): number
---@field default_handler table?

---@param host testing.Host
local function connect(host, n, text, seconds)
  text = args.string(1, n, text)
  seconds = args.seconds(2, n, seconds)
  local world = host.world
  world:task()
  local url, why = address.parse(text)
  if not url then args.bad(1, why) end
  if url.kind ~= "stream" then args.bad(1, "connect is for tcp:// and unix://") end
  local wire, own_name
  wire, why, own_name = host.connect(url)
  if why == "silent" then
    world:park(seconds and world.now + seconds, nil, "a connection to " .. text)
    return nil, "timeout"
  elseif not wire then
    return errors.result(why)
  end
  world:yield() -- a connection is not there at once
  local s = stream.new(world, wire)
  s.owned, s.peer_name, s.own_name = true, url.address, own_name
  s.options.tcp_nodelay = true
  return request.new(s)
end

---@param host testing.Host
---@return moonport
function M.new(host)
  local world = host.world
  local lib = { version = "testing", coroutine = coroutines.new(world) }

  lib.sleep = args.method(function(...)
    local seconds = args.seconds(1, select("#", ...), (...))
    args.number(1, select("#", ...), (...))
    world:park(seconds and world.now + seconds, nil, ("its sleep of %g s"):format(seconds or math.huge))
  end)
  lib.atomically = args.method(function(...) return atomically(world, select("#", ...), ...) end)
  function lib.monotonic() return world.now + 0.0 end
  function lib.time() return host.time() end
  lib.log = args.method(function(...)
    local level, message = ...
    level = args.option(1, select("#", ...), level, LEVELS)
    host.log(level, "script", { message = tostring(message) })
  end)
  lib.event = args.method(function()
    local self = setmetatable({}, event_mt)
    events[self] = { world = world, is_set = false, waiters = {} }
    return self
  end)
  lib.spawn = args.method(function(...) spawn(world, ...) end)
  lib.connect = args.method(function(...)
    local url, seconds = ...
    return connect(host, select("#", ...), url, seconds)
  end)
  lib.default_handler = args.method(function(handler)
    if type(handler) ~= "table" then args.bad_type(1, "table", handler == nil and 0 or 1, handler) end
    if type(handler.handle) ~= "function" then args.bad(1, "the handler needs a function `handle`") end
    host.default_handler = handler
  end)
  function lib.base_setup() end
  function lib.base_finish() end
  return lib
end

return M
