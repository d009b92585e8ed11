--- A world without a wall clock: tasks are coroutines, and time goes on only when all of them wait.
--- What `spawn`, `event`, `sleep` and `monotonic` of a world do is what moonport's own do.

local M = {}

local LIMIT <const> = 1000000 -- turns: more is a loop that never ends

---@class spec.Virtual
---@field now number
---@field world table
local Virtual = {}
Virtual.__index = Virtual

local Event = {}
Event.__index = Event

function Event:set()
  self.is_set = true
  local waiting = self.waiting
  self.waiting = {}
  for _, waiter in ipairs(waiting) do
    if not waiter.woken then
      waiter.woken, self.is_set = true, false
      self.virtual:ready(waiter.thread, true)
    end
  end
end

function Event:wait(seconds)
  if self.is_set then
    self.is_set = false
    return true
  end
  local waiter = { thread = coroutine.running() }
  table.insert(self.waiting, waiter)
  if seconds then
    self.virtual:at(self.virtual.now + math.max(seconds, 0), function()
      if waiter.woken then return end
      waiter.woken = true
      self.virtual:ready(waiter.thread, nil, "timeout")
    end)
  end
  return coroutine.yield()
end

function Virtual:ready(thread, ...)
  table.insert(self.runnable, { thread, ... })
end

-- The timers stay sorted; those of one moment keep their order.
function Virtual:at(time, f)
  local i = #self.timers
  while i > 0 and self.timers[i].time > time do i = i - 1 end
  table.insert(self.timers, i + 1, { time = time, f = f })
end

function Virtual:spawn(f, ...)
  self.spawned = self.spawned + 1
  self:ready(coroutine.create(f), ...)
end

function Virtual:sleep(seconds)
  local thread = coroutine.running()
  self:at(self.now + seconds, function() self:ready(thread) end)
  coroutine.yield()
end

---Runs until every task has ended or waits for what nobody will do. What a task raises is raised here.
function Virtual:run()
  for _ = 1, LIMIT do
    local next = table.remove(self.runnable, 1)
    if next then
      local ok, why = coroutine.resume(table.unpack(next, 1, 3))
      if not ok then error(why, 0) end
    else
      local timer = table.remove(self.timers, 1)
      if not timer then return end
      self.now = math.max(self.now, timer.time)
      timer.f()
    end
  end
  error("a million turns, and still no end")
end

---@return spec.Virtual
function M.new()
  local v = setmetatable({ now = 0, timers = {}, runnable = {}, spawned = 0 }, Virtual)
  v.world = {
    spawn = function(f, ...) v:spawn(f, ...) end,
    event = function() return setmetatable({ waiting = {}, virtual = v }, Event) end,
    sleep = function(seconds) v:sleep(seconds) end,
    monotonic = function() return v.now end,
  }
  return v
end

return M
