--- Tasks and a clock that goes on only when all of them wait: what happens next depends on nothing outside.
---
--- A task is a coroutine; one that waits yields PARK, which the coroutine library of coroutines.lua passes outward.
--- Tasks of handlers can be cancelled, as the host's; those of peers cannot. What is to happen at once but in its turn
--- is a function in the same queue.

local args = require("moonport.testing.args")
local errors = require("moonport.testing.errors")

local create, resume, running, status, yield, isyieldable =
  coroutine.create, coroutine.resume, coroutine.running, coroutine.status, coroutine.yield, coroutine.isyieldable

local MOST_TURNS = 10000000 -- without the clock going on: more is a loop that never ends

---@class testing.Task
---@field co thread
---@field name string for the reader of a message
---@field peer boolean no handler's
---@field state "ready"|"running"|"waiting"|"ended"
---@field what string? what it waits for
---@field cancelled integer 0 no, 1 asked for, 2 raised
---@field why string? of the cancel
---@field grace number
---@field main testing.Task? it is beside this one
---@field companions testing.Task[]
---@field stream testing.Stream?
---@field ended fun(ok: boolean, err: any)?
---@field owner any
---@field private wake string?
---@field private detach function?
---@field private timer testing.Timer?
---@field private limit testing.Timer?

---@class testing.Timer
---@field time number
---@field run function
---@field dead boolean?
---@field round integer in which it was set: it is not due in the same one

---@class testing.World
---@field now number seconds since its beginning
---@field current testing.Task?
---@field running thread? the innermost coroutine
---@field barrier thread? one that stands in a C function which cannot yield
---@field barrier_name string?
---@field waiting table<thread, boolean> coroutines in a wait, which nobody else may resume
---@field inner table<thread, thread> what a waiting coroutine has resumed
---@field tasks testing.Task[]
---@field gatherer testing.Stream? whose small writes are collected
---@field private outside table what has come from outside, and peers
---@field private ready table tasks
---@field private batch table of what is due, what is done now
---@field private phase "outside"|"timers"|"tasks"
---@field private timers testing.Timer[]
---@field private random (fun(n: integer): integer)?
local World = {}
local world_mt = { __name = "testing.World", __index = World }

local M = {}

---What a task yields to wait.
local PARK = setmetatable({}, { __name = "testing.PARK" })
M.PARK = PARK

local KILLED = {} -- of coroutines that were closed

-- A generator of its own: the tests' random numbers are not touched, and it is the same everywhere.
local function generator(seed)
  local state = seed * 2 + 1
  return function(n)
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n + 1
  end
end

---@param seed? integer of the order of what could happen at the same time; none: first come, first served
---@return testing.World
function M.new(seed)
  return setmetatable({
    now = 0, ready = {}, outside = {}, batch = {}, phase = "outside", round = 0, timers = {}, tasks = {},
    random = seed and generator(seed),
    waiting = setmetatable({}, { __mode = "k" }), inner = setmetatable({}, { __mode = "k" }),
  }, world_mt)
end

---@param n integer
---@return integer? a choice from 1 to n; nil: the world is not seeded
function World:choose(n) return self.random and self.random(n) end

-- ---------------------------------------------------------------- time

---@param time number
---@param f function
---@return testing.Timer
function World:at(time, f)
  local timers, timer = self.timers, { time = time, run = f, round = self.round }
  local low, high = 1, #timers + 1
  while low < high do
    local middle = (low + high) // 2
    if timers[middle].time <= time then low = middle + 1 else high = middle end
  end
  table.insert(timers, low, timer)
  return timer
end

---@param timer testing.Timer?
local function drop(timer)
  if timer then timer.dead = true end
end
M.drop = drop

---@return testing.Timer?
local function next_timer(self)
  local timers = self.timers
  while timers[1] and timers[1].dead do table.remove(timers, 1) end
  return timers[1]
end

-- ---------------------------------------------------------------- turns

---Has f run in its turn, as something that has come from outside.
---@param f function
function World:soon(f) table.insert(self.outside, f) end

local function make_ready(self, task)
  task.state = "ready"
  table.insert(task.peer and self.outside or self.ready, task)
end

---@param self testing.World
local function take(self)
  local batch = self.batch
  if not batch or #batch == 0 then return nil end
  return table.remove(batch, self.random and self.random(#batch) or 1)
end

---What was collected goes out after each run of a task.
---@param self testing.World
local function ran(self)
  local s = self.gatherer
  if s then s:flush() s:notice_failure() end
end

---@param self testing.World
---@param task testing.Task
local function finish(self, task, ok, err)
  if task.main then
    for i, one in ipairs(task.main.companions) do
      if one == task then table.remove(task.main.companions, i) break end
    end
  else
    self:dismiss(task)
  end
  task.state = "ended"
  drop(task.timer)
  drop(task.limit)
  for i, one in ipairs(self.tasks) do
    if one == task then table.remove(self.tasks, i) break end
  end
  for _, queue in ipairs { self.ready, self.outside, self.batch } do
    for i, one in ipairs(queue) do
      if one == task then table.remove(queue, i) break end
    end
  end
  if task.ended then task.ended(ok, err) end
end

---@param self testing.World
---@param task testing.Task
local function run(self, task)
  local given = task.args
  task.args = nil
  self.current, self.running, self.barrier, self.barrier_name = task, task.co, nil, nil
  task.state, self.parked = "running", false
  self.waiting[task.co] = nil
  local ok, value
  if given then
    ok, value = resume(task.co, table.unpack(given, 1, given.n))
  else
    ok, value = resume(task.co)
  end
  if not task.peer then ran(self) end
  self.current, self.running = nil, nil
  if status(task.co) == "dead" then return finish(self, task, ok, value) end
  if value == PARK then
    self.waiting[task.co] = true
    return
  end
  coroutine.close(task.co)
  finish(self, task, false, "a coroutine yielded to the host, which has no use for that")
end

-- What is due goes on in rounds, as in the host's loop: first what has come from outside, then timers, then tasks.
---@param self testing.World
---@return table? batch
local function next_batch(self)
  for _ = 1, 3 do
    local phase = self.phase
    self.phase = phase == "outside" and "timers" or phase == "timers" and "tasks" or "outside"
    if phase == "outside" then self.round = self.round + 1 end
    local batch
    if phase == "timers" then
      batch = {}
      while true do
        local timer = next_timer(self)
        if not timer or timer.time > self.now or timer.round == self.round then break end
        batch[#batch + 1] = table.remove(self.timers, 1)
      end
    else
      local name = phase == "outside" and "outside" or "ready"
      batch = self[name]
      self[name] = {}
    end
    if #batch > 0 then return batch end
  end
end

---@param self testing.World
---@param last number?
---@return boolean
local function one_step(self, last)
  local item = take(self)
  if not item then
    self.batch = next_batch(self)
    if self.batch then return true end
    local timer = next_timer(self)
    if not timer or last and timer.time > last then return false end
    if timer.time > self.now then self.now, self.turns = timer.time, 0 end
    self.phase, self.batch, self.round = "timers", {}, self.round + 1
    return true
  end
  self.turns = (self.turns or 0) + 1
  if self.turns > MOST_TURNS then error("nothing waits for time to go on, and still there is no end", 0) end
  if type(item) == "function" then
    item()
  elseif item.co then
    run(self, item)
  elseif not item.dead then
    item.run()
  end
  return true
end

---Does one thing. False: there is nothing to do, now or later.
---@param last? number not after this time
---@return boolean
function World:step(last)
  local outer = M.stepping
  M.stepping = self
  local ok, did = pcall(one_step, self, last)
  M.stepping = outer
  if not ok then error(did, 0) end
  return did
end
-- ---------------------------------------------------------------- tasks

---@param name string
---@param f function
---@param ... any
---@return testing.Task
function World:spawn(name, f, ...)
  local task = { co = create(f), name = name, args = table.pack(...), peer = false, cancelled = 0, grace = 5,
    companions = {}, state = "ready" }
  self.waiting[task.co] = true -- nobody else may begin it
  table.insert(self.tasks, task)
  make_ready(self, task)
  return task
end

---One that is no handler's.
---@param name string
---@param f function
---@return testing.Task
function World:spawn_peer(name, f)
  local task = self:spawn(name, f)
  table.remove(self.ready) -- where it was put just now
  task.peer = true
  make_ready(self, task)
  return task
end

---One beside a task, with its limits: it ends with it.
---@param main testing.Task
---@param f function
---@return testing.Task
function World:spawn_beside(main, f, ...)
  main = main.main or main
  local task = self:spawn("a task beside " .. main.name, f, ...)
  task.main, task.owner, task.stream, task.grace = main, main.owner, main.stream, main.grace
  if main.cancelled > 0 then
    task.cancelled, task.why = 2, main.why
    self:limit(task, main.limit and main.limit.time)
  end
  table.insert(main.companions, task)
  return task
end

---@param task testing.Task
---@param time number? when it is cancelled, unless it has ended; one that was cancelled is killed
function World:limit(task, time)
  drop(task.limit)
  task.limit = time and self:at(time, function()
    if task.cancelled > 0 then return self:kill(task) end
    self:cancel(task, "request_timeout")
  end)
end

-- The name of a C function, if a module has it.
local function global_name(func)
  for module, content in pairs(package.loaded) do
    if type(module) == "string" and type(content) == "table" then
      for key, value in pairs(content) do
        if value == func and type(key) == "string" then
          return module == "_G" and key or module .. "." .. key
        end
      end
    end
  end
end

local YIELDS = { [pcall] = true, [xpcall] = true, [dofile] = true, [require] = true, [resume] = true, [yield] = true }

-- Which C function on the stack of a coroutine does not let it yield.
local function culprit(co, level)
  while true do
    local info
    if co then info = debug.getinfo(co, level, "Snf") else info = debug.getinfo(level, "Snf") end
    if not info then return "a C function" end
    if info.namewhat == "metamethod" and info.name == "gc" then return "__gc" end
    if info.what == "C" and not YIELDS[info.func] then
      local name = global_name(info.func) or info.name
      if name then return name end
    end
    level = level + 1
  end
end

---@param self testing.World
local function check_way_out(self, co)
  local stuck = self.barrier or not isyieldable() and co
  if stuck then
    local name = self.barrier_name or culprit(stuck ~= co and stuck or nil, stuck == co and 4 or 0)
    args.fail("cannot wait inside %s: that function is C and cannot be suspended", name)
  end
  if self.running ~= co then
    args.fail("cannot wait inside a coroutine that the host does not know; resume it by moonport.coroutine")
  end
end

---Has the running task wait until it is woken, or the deadline. Raises "cancelled".
---@param deadline number?
---@param detach function? takes back what was in flight if the wait ends any other way than by wake()
---@param what string for the reader of a message
---@return string? wake "timeout"; nil: it was woken
function World:park(deadline, detach, what)
  local task = self:task()
  local co = running()
  if self.barrier or self.running ~= co or not isyieldable() then
    if detach then detach() end
    check_way_out(self, co)
  end
  if task.cancelled == 1 then
    if detach then detach() end
    task.cancelled = 2
    error(errors.cancelled(task.why), 0)
  end
  task.state, task.detach, task.what, task.wake = "waiting", detach, what, nil
  drop(task.timer)
  task.timer = deadline and self:at(deadline, function()
    if task.state ~= "waiting" then return end
    self:take_back(task)
    task.wake = "timeout"
    run(self, task)
  end)
  self.parked = true
  yield(PARK)
  local wake = task.wake
  task.wake = nil
  if wake == "cancelled" then
    task.cancelled = 2
    error(errors.cancelled(task.why), 0)
  end
  return wake
end

---Puts the running task behind the others that are ready.
function World:yield()
  local task = self:task()
  if task.cancelled == 1 then
    task.cancelled = 2
    error(errors.cancelled(task.why), 0)
  end
  if self.barrier or self.running ~= running() or not isyieldable() then return end
  task.detach = nil
  self.parked = true
  make_ready(self, task)
  yield(PARK)
end

---The task that runs; raises when none does.
---@return testing.Task
function World:task()
  if not self.current or self.loading then
    args.fail("this waits, and only a request can: it was called while no request was running (a script being "
      .. "loaded, save, init or a finalizer)")
  end
  return self.current
end

---@param task testing.Task
function World:take_back(task) -- luacheck: ignore 212
  drop(task.timer)
  local detach = task.detach
  task.detach = nil
  if detach then detach() end
end

---Ends a wait: the task runs now if none runs, else soon.
---@param task testing.Task
---@param later? boolean never now
function World:wake(task, later)
  task.detach = nil
  if task.state ~= "waiting" then return end
  drop(task.timer)
  if self.current or later then return make_ready(self, task) end
  run(self, task)
end

---@param self testing.World
local function cancel_one(self, task, why)
  if task.cancelled > 0 then return end
  task.cancelled, task.why = 1, why
  self:limit(task, self.now + task.grace)
  if task.state ~= "waiting" then return end
  self:take_back(task)
  task.wake = "cancelled"
  make_ready(self, task)
end

---Has the task's wait, now or next, raise "cancelled", and those of its companions.
---@param task testing.Task
---@param why string
function World:cancel(task, why)
  if task.cancelled > 0 or task.state == "ended" then return end
  cancel_one(self, task, why)
  if task.main then return end
  for _, one in ipairs { table.unpack(task.companions) } do cancel_one(self, one, why) end
end

-- The innermost first; what they close runs now, and cannot wait.
local function close(self, co)
  local inner = self.inner[co]
  if inner then close(self, inner) end
  self.waiting[co], self.inner[co] = nil, nil
  if status(co) ~= "suspended" then return true end
  self.running = co
  return coroutine.close(co)
end

---Closes the task's coroutine without another word; not for the running task.
---@param task testing.Task
function World:kill(task)
  if task.state == "ended" then return end
  if not task.main then self:dismiss(task) end
  self:take_back(task)
  local current, inside = self.current, self.running
  self.current, task.state = task, "running"
  local ok, err = close(self, task.co)
  ran(self)
  self.current, self.running = current, inside
  local why = task.cancelled > 0 and "it went on after it was cancelled"
    or task.main and "its task has ended" or "the host stops at once"
  if not ok and task.main then return finish(self, task, false, err) end
  finish(self, task, false, setmetatable({ why = why }, KILLED))
end

---@param err any
---@return string? why the task was killed
function M.killed(err) return getmetatable(err) == KILLED and err.why or nil end

---Kills the companions of a task, the youngest first.
---@param task testing.Task
function World:dismiss(task)
  while #task.companions > 0 do
    local one = task.companions[#task.companions]
    self:kill(one)
    if task.companions[#task.companions] == one then table.remove(task.companions) end
  end
end

-- ---------------------------------------------------------------- who waits for what

local HERE = debug.getinfo(1, "S").source:match("^(.*)world%.lua$")

---@param source string
---@return boolean the file is one of moonport.testing's
function M.is_own(source) return source:sub(1, #HERE) == HERE or source == HERE:gsub("/$", "") .. ".lua" end

---@param co thread
---@return string? place the innermost line that is not of this library
local function place(co)
  local level = 0
  while true do
    local info = debug.getinfo(co, level, "Sl")
    if not info then return nil end
    if info.what ~= "C" and info.currentline > 0 and not M.is_own(info.source) then
      return ("%s:%d"):format(info.short_src, info.currentline)
    end
    level = level + 1
  end
end

---@param task testing.Task
---@return string
function World:describe(task)
  local co = task.co
  while self.inner[co] do co = self.inner[co] end
  local where = place(co) or place(task.co)
  return ("%s waits for %s%s"):format(task.name, task.what or "its turn", where and " at " .. where or "")
end

---@return string what everybody waits for
function World:waits()
  local parts = {}
  for i, task in ipairs(self.tasks) do parts[i] = self:describe(task) end
  return table.concat(parts, "; ")
end

---@return string for a message that says that nobody can go on
function World:standstill()
  return ("nobody can go on (%g s have passed): %s"):format(self.now, self:waits())
end

return M
