--- One direction of one connection, with its toxics in a row: what is written comes out at `deliver`, later,
--- slower, in pieces, damaged, or not at all.
---
--- Whoever makes a pipe owns it, and makes it in the task of the connection: the pipe has one task beside that
--- one, which ends with it. `write` delivers what is due at once in the writer's own task; the pipe's task does what
--- is due later. `write`, `update` and `finish` may be called from any task of the same Lua state.
---
--- A task's slice may end anywhere. So what changes the pipe and its stages runs by the world's `atomically`, in which
--- nothing waits; waiting and delivering are outside of it.

local stages = require("moonport.toxics.stage")

local M = {}

local huge = math.huge

local MOST <const> = 1024 * 1024 -- bytes that may be under way before a writer waits
local AT_ONCE <const> = 64 -- chunks delivered before others have their turn

---@class toxics.World what a pipe needs of the world; moonport itself by default
---@field spawn fun(f: function, ...)
---@field event fun(): moonport.Event
---@field monotonic fun(): number
---@field sleep? fun(seconds: number) lets others go on
---@field atomically? fun(f: function, ...): ... calls f with no other task in between; not needed where none comes

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
---@field private running table|false the guard of the task that is in turn()
---@field private more boolean something has changed since it last looked
---@field private wake number when the next thing is due
---@field private armed number when the pipe's task will look; -huge while it does
local Pipe = {}
local pipe_mt = { __name = "toxics.Pipe", __index = Pipe }

local function ignore() end
local function call(f, ...) return f(...) end

-- The turn's end, unless there is more to do.
---@return boolean ended
local function release(pipe)
  if pipe.more then return false end
  pipe.running = false
  if pipe.wake < pipe.armed then pipe.changed:set() end
  return true
end

-- An error, or the end of the task, in a turn.
local function break_off(pipe, guard, err)
  if pipe.running ~= guard then return end
  pipe.running = false
  if err ~= nil and not pipe.shared then
    pipe:die("failed", err)
  elseif pipe.more or pipe.wake < pipe.armed then
    pipe.changed:set()
  end
end

local guard_mt = {
  __close = function(guard, err) guard.pipe.atomically(break_off, guard.pipe, guard, err) end,
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

local leaving_mt = {
  __close = function(leaving)
    local pipe, item = leaving.pipe, leaving.item
    if item then pipe.atomically(pipe.leave, pipe, item) end
  end,
}

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

-- The next that is due. It has left whatever becomes of the task that delivers it.
---@param leaving table? which tells so when it is closed
local function take(pipe, leaving)
  local item = not pipe.dead and pipe.out:take()
  if not item then return nil end
  if item.eof then
    pipe:die(item.how and "closed" or "finished")
  elseif leaving then
    leaving.item = item
  else
    pipe:leave(item)
  end
  return item
end

---@private
---@return boolean some whether there was anything
function Pipe:hand_over()
  local leaving <close> = self.shared and setmetatable({ pipe = self }, leaving_mt) or nil
  local item = self.atomically(take, self, leaving)
  if not item then return false end
  if item.eof then
    if item.how then self.close(item.how) end
    return false
  end
  self.deliver(item.data, item.ticket)
  return true
end

---@private
---@return boolean some whether there was anything: time may have passed
function Pipe:drain()
  local n, sleep = 0, self.world.sleep
  while self:hand_over() do
    if self.waiting then self.room:set() end
    n = n + 1
    if n % AT_ONCE == 0 and sleep then sleep(0) end
  end
  return n > 0
end

-- One task at a time has the turn; it looks again when others have come in vain.
local function claim(pipe, guard)
  pipe.more = true
  if pipe.running then return false end
  pipe.running = guard
  return true
end

local function look(pipe)
  pipe.more = false
  pipe.wake = pipe:advance(pipe.world.monotonic())
end

---@private
function Pipe:turn()
  local atomically = self.atomically
  local guard <close> = setmetatable({ pipe = self }, guard_mt)
  if not atomically(claim, self, guard) then return end
  repeat
    repeat atomically(look, self) until not self:drain()
    if self.dead then self.wake, self.more = huge, false end
  until atomically(release, self)
end

local function arm(pipe) pipe.armed = pipe.running and huge or pipe.wake end

---The pipe's task; of a shared one it ends when nothing waits.
function Pipe:pump()
  while not self.dead do
    self.armed = -huge
    if not self.running and not pcall(self.turn, self) and self.shared then return end -- else the next write tells
    if self.dead or self.shared and self.count == 0 then return end
    self.atomically(arm, self)
    local left = self.armed - self.world.monotonic()
    self.changed:wait(left < huge and math.max(left, 0) or nil)
  end
end

---@private
function Pipe:check()
  if self.dead == "failed" then error(self.failure, 0) end
  return not (self.dead or self.cut)
end

---@return boolean taken
local function put(pipe, item)
  if not pipe:check() then return false end
  local first = pipe.stages[1]
  local queue = first and first.queue or pipe.out
  if item.data then pipe:enter(item) end
  queue:put(item)
  pipe.more = true
  return true
end

---@private
---@return boolean taken
function Pipe:take_in(item)
  if not self.atomically(put, self, item) then return false end
  if self.lazy then
    self.changed:set()
  elseif not self.running then
    self:turn()
  end
  return true
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
  if not self:take_in(item) then return false end
  local waited = false
  while not self.shared and not self.dead and not self.cut and self:full() do
    self.waiting, waited = true, true
    self.room:wait()
  end
  if waited then self.room:set() end -- for one who was just about to wait
  return self:check()
end

---The end of the input: waits until all is delivered, and as long as toxics delay the end. Whoever calls it
---closes afterwards. Raises what deliver raised.
---@return boolean delivered false: a toxic has closed the connection, or the pipe had failed
function Pipe:finish()
  if not self.finished then
    self.finished = true
    self:take_in({ eof = true, at = self.world.monotonic() })
  end
  while not self.dead do self.done:wait() end
  self.done:set() -- as above
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

---@private
function Pipe:rearrange(list)
  if self.dead then return end
  self.more = true
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

---Adds, changes and takes away toxics, with effect at once. What a removed toxic held goes on at once, and so does
---the chunk that a changed one was holding; none is lost and, with streams, none overtakes another.
---@param list (toxics.Toxic|table)[]
function Pipe:update(list) self.atomically(self.rearrange, self, self.accept(list, self.datagram)) end

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
    changed = world.event(), room = world.event(), done = world.event(), running = false, more = false,
    atomically = world.atomically or call,
  }, pipe_mt)
  self:update(options.toxics)
  if not self.shared then world.spawn(self.pump, self) end
  return self
end

return M
