--- The coroutine library that scripts find: what waits inside a coroutine of theirs waits for the whole request.

local args = require("moonport.testing.args")
local world_of = require("moonport.testing.world")

local real = coroutine
local PARK = world_of.PARK

local M = {}

---@param world testing.World
---@param co thread
local function is_task(world, co)
  return world.current ~= nil and world.current.co == co or world.waiting[co] == true
end

---@param world testing.World
local function is_main(world, co) return world.current ~= nil and world.current.co == co end

---@param world testing.World
local function status_of(world, co)
  if co == real.running() then return "running" end
  if is_task(world, co) then return "normal" end
  return real.status(co)
end

---@param world testing.World
local function refusal(world, co)
  local status = status_of(world, co)
  if status ~= "suspended" then
    return ("cannot resume %s coroutine"):format(status == "dead" and "dead" or "non-suspended")
  end
end

---@param world testing.World
local drive
local function driven(world, co, from, inside, barrier, ok, ...)
  world.running, world.barrier = inside, barrier
  if not (ok and world.parked and (...) == PARK and real.status(co) == "suspended") then return ok, ... end
  world.waiting[co], world.inner[from] = true, co
  real.yield(PARK)
  world.waiting[co], world.inner[from] = nil, nil
  return drive(world, co)
end

---Resumes co; passes its waits outward, and goes on with it after each.
function drive(world, co, ...)
  local from, inside, barrier = real.running(), world.running, world.barrier
  if not barrier and not real.isyieldable() then world.barrier = from end
  world.running = co
  return driven(world, co, from, inside, barrier, real.resume(co, ...))
end

---Runs what co still has to close; there it cannot wait.
---@param world testing.World
local function close(world, co, name)
  local inside, barrier, barrier_name = world.running, world.barrier, world.barrier_name
  if not barrier then world.barrier, world.barrier_name = real.running(), name end
  world.running = co
  local ok, err = real.close(co)
  world.running, world.barrier, world.barrier_name = inside, barrier, barrier_name
  return ok, err
end

---@param world testing.World
local function wrapped(world, co, ok, ...)
  if ok then return ... end
  local err = ...
  local closed, why = close(world, co, "coroutine.wrap")
  if not closed and why ~= nil then err = why end
  if type(err) == "string" then err = args.where() .. err end
  error(err, 0)
end

local function check(co)
  if type(co) ~= "thread" then args.bad_type(1, "thread", co == nil and 0 or 1, co) end
end

---@param world testing.World
---@return coroutinelib
function M.new(world)
  local lib = { create = real.create }

  lib.resume = args.method(function(co, ...)
    check(co)
    local why = refusal(world, co)
    if why then return false, why end
    return drive(world, co, ...)
  end)

  function lib.wrap(f)
    local co = real.create(f)
    return args.method(function(...)
      local why = refusal(world, co)
      if why then args.fail("%s", why) end
      return wrapped(world, co, drive(world, co, ...))
    end)
  end

  lib.yield = function(...)
    if is_main(world, real.running()) then error("attempt to yield from outside a coroutine", 2) end
    return real.yield(...)
  end

  function lib.isyieldable(co)
    co = co or real.running()
    return real.isyieldable(co) and not is_main(world, co)
  end

  function lib.running()
    local co, main = real.running()
    return co, main or is_main(world, co)
  end

  lib.status = args.method(function(co)
    check(co)
    return status_of(world, co)
  end)

  lib.close = args.method(function(co)
    check(co)
    local status = status_of(world, co)
    if status ~= "dead" and status ~= "suspended" then args.fail("cannot close a %s coroutine", status) end
    local ok, err = close(world, co, "coroutine.close")
    if ok then return true end
    return false, err
  end)
  return lib
end

return M
