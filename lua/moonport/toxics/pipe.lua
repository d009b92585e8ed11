--- One direction of one connection, with its toxics in a row: what is written comes out at `deliver`, later,
--- slower, in pieces, damaged, or not at all.
---
--- Whoever makes a pipe owns it, and makes it in the task of the connection: the pipe has one task beside that
--- one, which ends with it. `write` delivers what is due at once in the writer's own task; the pipe's task does what
--- is due later. `write`, `update` and `finish` may be called from any task of the same Lua state.

local stages = require("moonport.toxics.stage")

local M = {}

local huge = math.huge

local MOST <const> = 1024 * 1024 -- bytes that may be under way before a writer waits

---@class toxics.World what a pipe needs of the world; moonport itself by default
---@field spawn fun(f: function, ...)
---@field event fun(): moonport.Event
---@field monotonic fun(): number

---@class toxics.PipeOptions
---@field toxics (toxics.Toxic|table)[]? those of the other direction and of other connections are passed over
---@field stream? "downstream"|"upstream"
---@field nth? integer which connection of the server it is, from 1 on
---@field seed? integer for toxics that have none
---@field shared? boolean it is of no one connection: each datagram comes with a ticket, and whoever owns the pipe runs
---pump() while anything waits; what deliver raises does not end it
---@field lazy? boolean only pump() delivers
---@field deliver fun(bytes: string, ticket?: toxics.Ticket) may wait, and may raise, which ends the pipe
---@field close? fun(how: "close"|"reset") a toxic ends the connection; not called by finish()
---@field note? fun(toxic: toxics.Toxic, text: string, ticket?: toxics.Ticket) what a toxic does; must not wait
---@field datagram? boolean each write is one datagram
---@field world? toxics.World

---@class toxics.Ticket whose a datagram is
---@field nth integer
---@field entered fun(self: toxics.Ticket) one more of its datagrams is under way
---@field left fun(self: toxics.Ticket) one has come out, or is lost

---@class toxics.Pipe
---@field queued integer bytes under way
---@field count integer chunks
---@field nth integer
---@field datagram boolean
---@field private stages toxics.Stage[]
---@field private out toxics.Queue due, and not yet delivered
---@field private dead? "finished"|"closed"|"failed"
---@field private cut boolean? a toxic has ended the connection, what it let by may still be under way
---@field private failure any what deliver raised
---@field private running boolean? a task is in turn()
---@field private wake number when the next thing is due
---@field private armed number when the pipe's task will look; -huge while it does
local Pipe = {}
local pipe_mt = { __name = "toxics.Pipe", __index = Pipe }

local function ignore() end

-- Whatever ends a turn, an error or the end of the writer's task.
local guard_mt = {
  __close = function(guard, err)
    local pipe = guard.pipe
    pipe.running = false
    if err ~= nil and not pipe.shared then
      pipe:die("failed", err)
    elseif pipe.wake < pipe.armed then
      pipe.changed:set()
    end
  end,
}

---@private
function Pipe:die(how, failure)
  if self.dead then return end
  self.dead, self.failure = how, failure
  for _, stage in ipairs(self.stages) do stage:discard() end
  self.stages, self.queued = {}, 0
  self.changed:set()
  self.room:set()
  self.done:set()
end

-- ---------------------------------------------------------------- the way through

---A chunk is under way.
function Pipe:enter(item)
  self.queued, self.count = self.queued + #item.data, self.count + 1
  if item.ticket then item.ticket:entered() end
end

---It has come out, or is lost.
function Pipe:leave(item)
  self.queued = self.queued - #item.data
  if self.shared then
    self.count = self.count - 1
    item.ticket:left()
  end
end

local leaving_mt = { __close = function(leaving) leaving.pipe:leave(leaving.item) end }

-- It has left whatever becomes of the task that delivers it.
---@private
function Pipe:hand_over(item)
  local leaving <close> = setmetatable({ pipe = self, item = item }, leaving_mt) -- luacheck: ignore 211
  self.deliver(item.data, item.ticket)
end

---@private
function Pipe:link()
  for i, stage in ipairs(self.stages) do
    local after = self.stages[i + 1]
    stage.next = after and after.queue or self.out
  end
end

---Takes away the first n stages: the last of them has ended the connection.
---@private
function Pipe:behead(n)
  self.cut = true
  for _ = 1, n do
    table.remove(self.stages, 1):discard()
  end
  self.room:set()
end

---Moves every chunk as far as it may go by now.
---@private
---@return number wake when there is more to do
function Pipe:advance(now)
  local wake, i = huge, 1
  while self.stages[i] do
    local stage = self.stages[i]
    local at = stage:step(now)
    if stage.closed then
      self:behead(i)
      wake, i = huge, 1
    else
      wake, i = math.min(wake, at), i + 1
    end
  end
  return wake
end

---@private
---@return boolean some whether there was anything: time may have passed
function Pipe:drain()
  local out, some = self.out, false
  local item = out:take()
  while item and not self.dead do
    some = true
    if item.eof then
      self:die(item.how and "closed" or "finished")
      if item.how then self.close(item.how) end
      return false
    end
    if self.shared then
      self:hand_over(item)
    else
      self:leave(item)
      self.deliver(item.data)
    end
    if self.waiting then self.room:set() end
    item = out:take()
  end
  return some
end

---@private
function Pipe:turn()
  local guard <close> = self.guard -- luacheck: ignore 211
  self.running = true
  repeat
    self.wake = self:advance(self.world.monotonic())
  until not self:drain()
  if self.dead then self.wake = huge end
end

---The pipe's task; of a shared one it ends when nothing waits.
function Pipe:pump()
  while not self.dead do
    self.armed = -huge
    if not self.running and not pcall(self.turn, self) and self.shared then return end -- else the next write tells
    if self.dead or self.shared and self.count == 0 then return end
    self.armed = self.running and huge or self.wake
    local left = self.armed - self.world.monotonic()
    self.changed:wait(left < huge and math.max(left, 0) or nil)
  end
end

---@private
function Pipe:check()
  if self.dead == "failed" then error(self.failure, 0) end
  return not (self.dead or self.cut)
end

---@private
function Pipe:put(item)
  local first = self.stages[1]
  local queue = first and first.queue or self.out
  queue:put(item)
  if self.lazy then
    self.changed:set()
  elseif not self.running then
    self:turn()
  end
end

---@return boolean
function Pipe:full()
  local first = self.stages[1]
  return self.queued > MOST or first ~= nil and first.queue.n >= stages.MOST
end

---Takes the bytes, and waits while too much is under way. Raises what deliver raised.
---@param bytes string for datagrams: one datagram, which may be empty
---@param ticket? toxics.Ticket of a shared pipe, which is never waited for: ask full() before
---@return boolean taken false: a toxic has closed the connection, and nobody will get them
function Pipe:write(bytes, ticket)
  if self.finished then error("write to a pipe after finish", 2) end
  if not self:check() then return false end
  if bytes == "" and not self.datagram then return true end
  local now = self.world.monotonic()
  local item = { data = bytes, stamp = now, at = now, ticket = ticket }
  self:enter(item)
  self:put(item)
  while not self.shared and not self.dead and not self.cut and self:full() do
    self.waiting = true
    self.room:wait()
  end
  return self:check()
end

---The end of the input: waits until all is delivered, and as long as toxics delay the end. Whoever calls it
---closes afterwards. Raises what deliver raised.
---@return boolean delivered false: a toxic has closed the connection, or the pipe had failed
function Pipe:finish()
  if not self.finished then
    self.finished = true
    if self:check() then self:put({ eof = true, at = self.world.monotonic() }) end
  end
  while not self.dead do self.done:wait() end
  self:check()
  return self.dead == "finished"
end

-- ---------------------------------------------------------------- toxics

---@private
function Pipe:seed_of(toxic)
  local seeds = self.seeds
  seeds[toxic.name] = toxic.seed or seeds[toxic.name] or self.seed or toxic.chosen
  return seeds[toxic.name]
end

---A stage for the toxic, if it applies to this connection.
---@private
---@return toxics.Stage?
function Pipe:cast(toxic)
  if toxic.stream ~= self.stream or toxic.toxicity <= 0 then return nil end
  if self.shared then return (stages.new(self, toxic, self:seed_of(toxic))) end
  if toxic.nth and toxic.nth ~= self.nth or toxic.first and self.nth > toxic.first then return nil end
  local seed = self:seed_of(toxic)
  local stage, draw = stages.new(self, toxic, seed)
  stage.spared = draw >= toxic.toxicity
  return stage
end

---@private
function Pipe:announce(stage)
  local toxic = stage.toxic
  local text = not stage.spared and "applies" or ("does not apply (toxicity %g)"):format(toxic.toxicity)
  if self.shared and toxic.toxicity < 1 then text = ("%s to each at a chance of %g"):format(text, toxic.toxicity) end
  if toxic:chancy() then text = ("%s, seed %d"):format(text, stage.seed) end
  stage:note(text)
end

local function key(toxic)
  return toxic.type .. " " .. toxic.name
end

---The stages that the list asks for: those there are are kept, with what they count.
---@private
---@return toxics.Stage[] wanted
---@return table<string, boolean> kept by key
function Pipe:select(list, now)
  local there, wanted, kept = {}, {}, {}
  for _, stage in ipairs(self.stages) do there[key(stage.toxic)] = stage end
  for _, toxic in ipairs(list) do
    local stage, old = self:cast(toxic), there[key(toxic)]
    if stage and not stage.spared and old then
      kept[key(toxic)] = true
      if old.toxic ~= toxic and not toxic:equals(old.toxic) then
        if old.seed ~= stage.seed then old.seed, old.random = stage.seed, stage.random end
        old:change(toxic, now)
        self:announce(old)
      end
      wanted[#wanted + 1] = old
    elseif stage and not self.cut then
      if not (self.told[key(toxic)] and stage.spared) then self:announce(stage) end
      self.told[key(toxic)] = true
      if not stage.spared then wanted[#wanted + 1] = stage end
    end
  end
  return wanted, kept
end

---Takes away the stages that are not kept, with what waits there going on.
---@private
function Pipe:remove(kept, now)
  local i = 1
  while self.stages[i] do
    local stage = self.stages[i]
    if kept[key(stage.toxic)] then
      i = i + 1
    else
      if stage.begun and stage.kind.gone then stage.kind.gone(stage, now) end
      if stage.closed then
        self:behead(i)
        i = 1
      else
        stage:note("is removed")
        stage:flush(now)
        table.remove(self.stages, i)
        self:link()
      end
    end
  end
end

---@private
function Pipe:flush_unless_in_order(wanted, now)
  local i = 1 -- those kept are what is left of self.stages
  for _, stage in ipairs(wanted) do
    if stage == self.stages[i] then i = i + 1 end
  end
  if self.stages[i] then
    for _, stage in ipairs(self.stages) do stage:flush(now) end
  end
end

---Adds, changes and takes away toxics, with effect at once. What a removed toxic held goes on at once, and so does
---the chunk that a changed one was holding; none is lost and, with streams, none overtakes another.
---@param list (toxics.Toxic|table)[]
function Pipe:update(list)
  list = self.accept(list, self.datagram)
  if self.dead then return end
  local now = self.world.monotonic()
  local wanted, kept = self:select(list, now)
  self:remove(kept, now)
  if self.cut then
    self:link()
    self.changed:set()
    return
  end
  self:flush_unless_in_order(wanted, now)
  local entered = self.out.entered
  for i = #wanted, 1, -1 do
    local stage = wanted[i]
    if not kept[key(stage.toxic)] then
      stage.queue.entered = entered
      stage.left = stage.left - entered
    end
    entered = stage.queue.entered
  end
  self.stages = wanted
  self:link()
  self.changed:set()
end

---@param options toxics.PipeOptions
---@param accept fun(list: table?, datagram: boolean): toxics.Toxic[] checks a list
---@return toxics.Pipe
function M.new(options, accept)
  accept(options.toxics, options.datagram)
  local world = options.world or require("moonport")
  local self = setmetatable({
    world = world, accept = accept, stream = options.stream or "downstream", nth = options.nth or 1,
    seed = options.seed, datagram = options.datagram or false, shared = options.shared,
    lazy = options.lazy,
    deliver = options.deliver, close = options.close or ignore, note = options.note or ignore,
    stages = {}, out = stages.queue(), queued = 0, count = 0, seeds = {}, told = {}, wake = huge, armed = -huge,
    changed = world.event(), room = world.event(), done = world.event(),
  }, pipe_mt)
  self.guard = setmetatable({ pipe = self }, guard_mt)
  self:update(options.toxics)
  if not self.shared then world.spawn(self.pump, self) end
  return self
end

return M
