--- The bytes of one connection, or of one datagram, under rfile and wfile: what the host's own streams do.

local args = require("moonport.testing.args")

local GATHER <const> = 64 * 1024 -- small writes collected before one send
local DIRECT <const> = 4 * 1024 -- a write of this size is sent by itself
local FILLS <const>, SENDS <const> = 16, 64 -- of one task in a row before others get a turn

---@class testing.Stream
---@field world testing.World
---@field wire testing.End? nil: a datagram
---@field input string received, not yet read
---@field output string written, not yet sent; a datagram's reply
---@field error string? a write failed by this error: so will all others
---@field eof boolean
---@field over boolean the request is
---@field closed boolean by the handler
---@field read_closed boolean
---@field write_closed boolean
---@field abortive boolean
---@field owned boolean a connection that the handler has made
---@field task testing.Task?
---@field timeout number?
---@field mode "full"|"line"|"no"
---@field receive_max integer
---@field collect_max integer
---@field max_line integer
---@field active number when bytes last moved
---@field reader testing.Task?
---@field writer testing.Task?
---@field options table<string, any> of the socket, as they were set
---@field number integer instead of a descriptor
---@field conn integer? in the journal
---@field private gathered string[]
---@field private collected integer
---@field private awaits_in boolean a receive is in flight
---@field private awaits_out boolean a send is
---@field private noticed boolean
---@field private fills integer
---@field private sends integer
local Stream = {}
local stream_mt = { __name = "testing.Stream", __index = Stream }

local M = { GATHER = GATHER, ALL = 64 * 1024 }

local numbers = 2

---@param world testing.World
---@param wire testing.End?
---@return testing.Stream
function M.new(world, wire)
  numbers = numbers + 1
  local s = setmetatable({
    world = world, wire = wire, input = "", output = "", eof = not wire, over = false, closed = false,
    read_closed = false, write_closed = false, abortive = false, owned = false, mode = "full", receive_max = M.ALL,
    collect_max = GATHER, max_line = 64 * 1024, active = world.now, gathered = {}, collected = 0,
    awaits_in = false, awaits_out = false, noticed = false, fills = 0, sends = 0, options = {}, number = numbers,
  }, stream_mt)
  if wire then wire.changed = function() s:notice() end end
  return s
end

-- ---------------------------------------------------------------- what the loop reports

-- In its turn, as epoll_wait(2) would, however much has happened until then.
---@private
function Stream:notice()
  if self.noticed or self.closed then return end
  self.noticed = true
  self.world:soon(function()
    self.noticed = false
    if not self.closed then self:handle_event() end
  end)
end

---@private
function Stream:handle_event()
  local wire = self.wire
  local failed = wire.err ~= nil
  local readable = failed or wire.done or wire.dead or wire.deaf or wire:available() > 0
  local writable = failed or wire.dead or wire.other:room() > 0 or wire.other.lingers or wire.other.gone
  if self.awaits_in and readable then
    self.awaits_in = false
    local reader = self.reader
    self.reader = nil
    if reader then self.world:wake(reader) end
  end
  if self.awaits_end and wire.done and not failed then
    local reader = self.reader
    self.awaits_end, self.reader = false, nil
    if reader then self.world:wake(reader) end
  end
  if self.needs_peer and wire.done and not failed then
    self.needs_peer = false
    if self.task then self.world:cancel(self.task, "the peer has ended the connection") end
  end
  if self.awaits_out and writable and not self.closed then
    self.awaits_out = false
    self:push_out()
  end
  if failed and not self.closed and not self.awaits_in and not self.awaits_out and self.task then
    self.world:cancel(self.task, "the peer is gone")
  end
end

-- Sends what is kept; wakes the writer when all of it is gone, or cannot go.
---@private
function Stream:push_out()
  while #self.output > 0 do
    local n, why = self.wire:send(self.output)
    if why == "again" then
      self.awaits_out = true
      return
    elseif not n then
      self.error, self.output = why, ""
      self:notice_failure()
      break
    end
    self.active = self.world.now
    self.output = self.output:sub(n + 1)
  end
  local writer = self.writer
  self.writer = nil
  if writer then self.world:wake(writer) end
end

---A send has failed while its task does something else: a peer that is gone shows when the connection is used.
function Stream:notice_failure()
  if self.error and self.error ~= "EPIPE" and self.error ~= "ECONNRESET" and self.task then
    self.world:cancel(self.task, "what was written could not be sent")
  end
end

-- ---------------------------------------------------------------- in

---Receives more.
---@return integer? count 0 at the end
---@return string? why "wait" (park_in), "yield" (yield_in), or an error's name
function Stream:fill()
  if self.eof then return 0 end
  if self.fills >= FILLS then
    self.fills = 0
    return nil, "yield"
  end
  local data, why = self.wire:recv(self.receive_max)
  if why == "again" then
    self.awaits_in = true
    return nil, "wait"
  elseif not data then
    return nil, why
  elseif data == "" then
    self.eof = true
    return 0
  end
  self.fills = self.fills + 1
  self.active = self.world.now
  self.input = self.input .. data
  return #data
end

---@param n integer bytes that were read
function Stream:consume(n) self.input = self.input:sub(n + 1) end

---Before a read, and before each piece of it: no other task may be in the middle of one.
function Stream:check_reader()
  if not self.reader then return end
  if self.reader ~= self.world.current then
    args.fail("another task is reading from this connection: only one can at a time")
  end
  self.reader = nil
end

---@private
function Stream:deadline() return self.timeout and self.world.now + self.timeout end

---Waits until the stream can go on, or its timeout; then, if it was closed meanwhile, raises.
---@param doing string "a read"
---@return string? "timeout"
function Stream:park_in(doing)
  self:check_reader()
  self.fills, self.sends = 0, 0
  self.reader = self.world:task()
  local wake = self.world:park(self:deadline(), function() self.reader, self.awaits_in = nil, false end, "input")
  if self.over or self.closed then args.fail("the connection was closed during %s", doing) end
  return wake
end

---Wakes the task that waits for more to be received.
function Stream:interrupt()
  local reader = self.awaits_in and self.reader
  if not reader then return end
  self.awaits_in, self.reader, self.interrupted = false, nil, true
  self.world:wake(reader, true)
end

---The peer's end, received or not, cancels the stream's task from now on; or not any more.
---@param need boolean
---@return boolean there
function Stream:need_peer(need)
  local there = not self.eof and not self.wire.done
  self.needs_peer = need and there
  return there
end

---Waits for the peer's end, received or not.
---@param seconds number?
---@return string? "timeout"
function Stream:wait_end(seconds)
  if self.eof or self.wire.done then return nil end
  self:check_reader()
  self.reader, self.awaits_end = self.world:task(), true
  local wake = self.world:park(seconds and self.world.now + seconds,
    function() self.reader, self.awaits_end = nil, false end, "end")
  if self.over or self.closed then args.fail("the connection was closed during a waitend") end
  return wake
end

---@param task testing.Task
---@return boolean
local function is_own(s, task) return s.task == task or task.main and s.task == task.main end

---Lets others run in the middle of a read.
function Stream:yield_in(doing)
  local task = self.world:task()
  self.reader = is_own(self, task) and task or nil
  self.world:yield()
  if self.over or self.closed then args.fail("the connection was closed during %s", doing) end
end

-- ---------------------------------------------------------------- out

---Sends what was collected, as far as the socket takes it; errors are kept.
function Stream:flush()
  if self.world.gatherer ~= self then return end
  self.world.gatherer = nil
  local data = table.concat(self.gathered)
  self.gathered, self.collected = {}, 0
  if self.error or data == "" then return end
  local sent = 0
  if self.wire and self.output == "" then
    local n, why = self.wire:send(data)
    self.sends = self.sends + 1
    if not n and why ~= "again" then
      self.error = why
      return
    end
    sent = n or 0
    self.active = self.world.now
    if sent == #data then return end
  end
  self.output = self.output .. data:sub(sent + 1)
  if self.wire and not self.awaits_out then self:push_out() end
end

---@return boolean bytes are written and not yet sent
function Stream:has_unsent() return self.output ~= "" or self.world.gatherer == self and self.collected > 0 end

---@private
---@return integer? count
---@return string? why
function Stream:collect(data)
  local world = self.world
  if self.wire and #self.output >= GATHER then return nil, "wait" end
  if world.gatherer ~= self then
    if world.gatherer then world.gatherer:flush() end
    world.gatherer = self
  end
  if self.collected + #data > self.collect_max or self.collected + #data > GATHER then
    self:flush()
    if self.error then return nil, self.error end
    if self.wire and self.output ~= "" then return nil, "wait" end
    world.gatherer = self
  end
  self.gathered[#self.gathered + 1] = data
  self.collected = self.collected + #data
  return #data
end

---May the running task write?
---@return string? why not: "wait" (park_out), "yield" (yield_out)
function Stream:may_write()
  local task = self.world.current
  if self.writer and self.writer == task then self.writer = nil end -- back from a yield
  if self.writer then return "wait" end
  return task and self.sends >= SENDS and is_own(self, task) and "yield" or nil
end

---Takes some of the data: how much, or nil and why: as may_write, or an error's name.
---@param data string
---@return integer? count
---@return string? why
function Stream:write(data)
  local not_now = self:may_write()
  if self.error then return nil, self.error end
  if not_now then return nil, not_now end
  if #data < DIRECT and #data <= self.collect_max then return self:collect(data) end
  self:flush()
  if self.error then return nil, self.error end
  if not self.wire then
    self.output = self.output .. data
    return #data
  end
  if self.output ~= "" then return nil, "wait" end
  return self:send(data)
end

---Sends from where it is.
---@param data string
---@return integer? count
---@return string? why
function Stream:send(data)
  self.sends = self.sends + 1
  local n, why = self.wire:send(data)
  if n then
    self.active = self.world.now
  elseif why == "again" then
    self.awaits_out = true
    return nil, "wait"
  else
    self.error = why
  end
  return n, why
end

---@param doing string
---@return string? "timeout"
function Stream:park_out(doing)
  local task = self.world:task()
  if self.writer and self.writer ~= task then
    args.fail("another task is writing to this connection: only one can at a time")
  end
  self.fills, self.sends = 0, 0
  self.writer = task
  if not self.awaits_out and self.output ~= "" then self:push_out() end
  local wake = self.world:park(self:deadline(), function()
    self.writer = nil
    if self.output == "" then -- a write from its own place ends in the middle
      self.awaits_out = false
      self.error = "ECANCELED"
    end
  end, "room for what it sends")
  if self.over or self.closed then
    args.fail(doing == "a close" and "the connection was closed twice" or "the connection was closed during " .. doing)
  end
  return wake
end

---@param doing string
function Stream:yield_out(doing)
  self.sends = 0
  self.writer = self.world:task()
  self.world:yield()
  if self.over or self.closed then args.fail("the connection was closed during %s", doing) end
end

---A datagram's reply.
---@return string
function Stream:reply()
  self:flush()
  return self.output
end

---A task beside the stream's own has ended.
---@param task testing.Task
function Stream:forget(task)
  if self.reader == task then self.reader = nil end
  if self.writer == task then self.writer = nil end
end

-- ---------------------------------------------------------------- the end

---Ends receiving and sending; what was not sent is lost.
function Stream:shut()
  for _, who in ipairs { "reader", "writer" } do
    local task = self[who]
    self[who] = nil
    if task then self.world:wake(task, true) end
  end
  if self.world.gatherer == self then self.world.gatherer = nil end
  self.gathered, self.collected, self.input, self.output = {}, 0, "", ""
  if self.wire and not self.closed then
    if self.eof or self.error or self.abortive then
      self.wire:close(self.abortive)
    else
      self.wire:linger()
    end
  end
  self.closed = true
end

---The same, and every use of its objects raises.
function Stream:free()
  self:shut()
  self.over = true
end

return M
