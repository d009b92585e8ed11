--- One toxic at work on one direction of one connection: what waits before it, and when it may go on.
---
--- A stage belongs to its pipe (moonport.toxics.pipe), which calls it with no other task in between.
--- An item is a chunk `{data, from, stamp, at, ticket}`, of which the first `from` bytes have gone on, or
--- `{eof = true, how}`, the end of the input, with how to close if it was a toxic that ended it.
--- `stamp`: when it came into the pipe, latencies added; `at`: when it came here.

local random = require("moonport.toxics.random")

local M = {}

local huge, remove, insert, sub = math.huge, table.remove, table.insert, string.sub

local BIT <const> = 1e-9 -- seconds: what adding fractions may be off by
local LAG <const> = 0.1 -- seconds that a late wake-up is caught up on; after more the clock starts anew
M.MOST = 4096 -- chunks that may wait before a toxic

-- ---------------------------------------------------------------- queue

---@class toxics.Queue
---@field n integer chunks in it
---@field entered integer bytes that have ever come in
local Queue = {}
local queue_mt = { __index = Queue }

function M.queue()
  return setmetatable({ first = 1, last = 0, n = 0, entered = 0 }, queue_mt)
end

function Queue:put(item)
  self.last, self.n = self.last + 1, self.n + 1
  self[self.last] = item
  if item.data then self.entered = self.entered + #item.data end
end

function Queue:peek()
  return self[self.first]
end

function Queue:take()
  local item = self[self.first]
  if item then
    self[self.first] = nil
    self.first, self.n = self.first + 1, self.n - 1
  end
  return item
end

-- ---------------------------------------------------------------- stage

---@class toxics.Stage
---@field pipe toxics.Pipe
---@field toxic toxics.Toxic
---@field kind toxics.Kind
---@field attributes table<string, number>
---@field random fun(): number
---@field queue toxics.Queue what waits before it
---@field next toxics.Queue where it sends to
---@field left integer bytes that still go by before it begins
---@field begun boolean
---@field ready number? when the head may go on
---@field free number when it has done with the one before
---@field deadline number? when kind.expire is to be called
---@field held table[]? datagrams that may overtake each other, by the time when they may go
---@field judged table? the item at the head that it has decided to spare or not: `sparing`
---@field closed boolean? it has ended the connection: what comes is nobody's
local Stage = {}
local stage_mt = { __name = "toxics.Stage", __index = Stage }

---@param pipe toxics.Pipe
---@param toxic toxics.Toxic
---@param seed integer
---@return toxics.Stage
---@return number draw the toxicity's: the first number of its generator
function M.new(pipe, toxic, seed)
  local draw = random.new(seed + pipe.nth, toxic.name .. "/" .. toxic.stream)
  local self = setmetatable({
    pipe = pipe, toxic = toxic, kind = toxic.kind, attributes = toxic.attributes, seed = seed, random = draw,
    queue = M.queue(), left = toxic.after_bytes, begun = false, free = -huge,
    held = pipe.datagram and toxic.kind.hold and {} or nil,
  }, stage_mt)
  return self, draw()
end

---@param text string what the toxic does
---@param item table? to this one
function Stage:note(text, item)
  self.pipe.note(self.toxic, text, item and item.ticket)
end

---Of a pipe that is of no one connection: whether this datagram is not the toxic's.
---@param item table
---@return boolean
function Stage:spares(item)
  if not self.pipe.shared then return false end
  if self.judged ~= item then
    local toxic, nth = self.toxic, item.ticket.nth
    local other = toxic.nth and toxic.nth ~= nth or toxic.first and nth > toxic.first
    self.judged, self.sparing = item, other or toxic.toxicity < 1 and self.random() >= toxic.toxicity
  end
  return self.sparing
end

-- Forgets the bytes that have gone on.
local function trim(item)
  if item.from then item.data, item.from = sub(item.data, item.from + 1), nil end
end

---Bytes of the chunk that are still here.
---@return integer
function Stage:size(item) return #item.data - (item.from or 0) end -- luacheck: ignore 212

---Sends the item on as it is.
function Stage:send(item, at)
  trim(item)
  item.at = at
  self.next:put(item)
end

---Sends the first `size` bytes on. True if some are left.
function Stage:cut_off(item, size, at)
  if size >= self:size(item) then
    self:send(item, at)
    return false
  end
  local from = item.from or 0
  self.next:put({ data = sub(item.data, from + 1, from + size), stamp = item.stamp, at = at })
  item.from = from + size -- not the rest anew for each piece
  return true
end

function Stage:copy(item, at)
  local copy = { data = item.data, stamp = item.stamp, at = at, ticket = item.ticket }
  self.pipe:enter(copy)
  self.next:put(copy)
end

function Stage:drop(item)
  if not item.data then return end
  trim(item)
  self.pipe:leave(item)
end

---Ends the connection behind what has been sent on.
---@param how "close"|"reset"
function Stage:close(how, at, text)
  self.closed, self.deadline = true, nil
  self:note(text)
  self.next:put({ eof = true, how = how, at = at })
end

---Starts the toxic, once it is there and after_bytes have gone by.
function Stage:begin(at)
  self.begun = true
  if self.kind.start then self.kind.start(self, at) end
end

-- Before after_bytes are through: what still goes by untouched. A datagram is never cut.
---@return boolean some whether some of the item is left
function Stage:let_by(item, at)
  if item.eof then
    self:send(item, at)
    return false
  end
  local size = self.pipe.datagram and #item.data or self.left
  self.left = self.left - math.min(size, #item.data)
  local some = self:cut_off(item, size, at)
  trim(item) -- what is left is the toxic's
  return some
end

---@private
---@return number due
function Stage:due(item, now)
  local at = math.max(item.at, self.free)
  if now - at > LAG then at = now end
  self.since = at
  if not self.begun or self:spares(item) then return at end
  local due
  if item.eof then
    due = self.kind.ends
  else
    due = self.kind.due
  end
  return due and math.max(at, due(self, item, at)) or at
end

---@private
---@return boolean some whether some of the item is left
function Stage:pass(item, at)
  if not self.begun then return self:let_by(item, at) end
  if self:spares(item) then
    self:send(item, at)
    return false
  end
  self.free = at
  if self.kind.pass and not item.eof then return self.kind.pass(self, item, at) end
  self:send(item, at)
  return false
end

---Does what is due.
---@param now number
---@return number wake when there is more to do, if nothing comes
function Stage:step(now)
  local queue, next = self.queue, self.next
  if not self.begun and self.left <= 0 then self:begin(math.max(now, self.free)) end
  if self.held then return self:step_held(now) end
  while not self.closed do
    if self.deadline and self.deadline <= now + BIT then
      self.kind.expire(self, self.deadline)
      break
    end
    local item = queue:peek()
    if not item or next.n >= M.MOST then break end
    local ready = self.ready or self:due(item, now)
    self.ready = ready
    if ready > now + BIT then return math.min(ready, self.deadline or huge) end
    self.ready = nil
    if not self:pass(item, ready) then queue:take() end
    if not self.begun and self.left <= 0 then self:begin(ready) end
  end
  return self.deadline or huge
end

-- ---------------------------------------------------------------- datagrams that overtake

local function insert_by_due(held, item, ahead)
  local i = #held
  while i > 0 and (held[i].due > item.due or ahead and held[i].due == item.due) do i = i - 1 end
  insert(held, i + 1, item)
end

---@private
function Stage:step_held(now)
  local held, queue = self.held, self.queue
  while true do
    local first, item = held[1], queue:peek()
    if first and first.due <= now + BIT and (not item or first.due <= item.at) then
      self:send(remove(held, 1), first.due)
    elseif item and not item.eof and not self.begun then
      self:let_by(queue:take(), item.at)
      if self.left <= 0 then self:begin(item.at) end
    elseif item and not item.eof and self:spares(item) then
      self:send(queue:take(), item.at)
    elseif item and not item.eof then
      local ahead
      item.due, ahead = self.kind.hold(self, queue:take(), item.at)
      if item.due < item.at then item.due = item.at end
      insert_by_due(held, item, ahead)
    elseif first and first.due <= now + BIT then
      self:send(remove(held, 1), first.due)
    else
      if item and not first then self:send(queue:take(), now) end
      return first and first.due or huge
    end
  end
end

-- ---------------------------------------------------------------- changes on a live connection

---Sends the chunk on that the toxic was holding: under a changed toxic come those behind it.
---@private
function Stage:let_go(now)
  for _, item in ipairs(self.held or {}) do self:send(item, now) end
  if self.held then self.held = {} end
  local item = self.queue:peek()
  if self.begun and item and item.eof then
    item.at = now
  elseif self.begun and item and (self.ready or item.sizes) then
    self:send(self.queue:take(), now)
    item.sizes = nil
  end
  self.ready, self.free = nil, now
end

---Takes the toxic's new values. What it has counted stays.
---@param toxic toxics.Toxic
---@param now number
function Stage:change(toxic, now)
  if not self.struck then self:let_go(now) end
  self.left = self.left + toxic.after_bytes - self.toxic.after_bytes
  self.toxic, self.attributes = toxic, toxic.attributes
  if self.begun and self.kind.start then self.kind.start(self, now) end
end

---Sends on all that waits, in order: the toxic goes away.
---@param now number
function Stage:flush(now)
  self:let_go(now)
  local item = self.queue:take()
  while item do
    item.sizes = nil
    self:send(item, now)
    item = self.queue:take()
  end
end

---Gives up what waits: the connection has been ended behind it.
function Stage:discard()
  for _, item in ipairs(self.held or {}) do self:drop(item) end
  local item = self.queue:take()
  while item do
    self:drop(item)
    item = self.queue:take()
  end
end

return M
