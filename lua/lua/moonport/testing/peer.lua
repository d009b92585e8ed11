--- The other side of a connection, in the hands of a test.
---
--- In a function that testing.run was given its methods wait as a handler does. Elsewhere, in the test itself, they run
--- the world until what they wait for is there.

local errors = require("moonport.testing.errors")

---@class testing.Peer
---@field address moonport.Address as the handler sees it
---@field request testing.Request? what becomes of its request; nil: it is the handler that has connected
---@field private world testing.World
---@field private wire testing.End
---@field private held string
---@field private waiter testing.Task?
local Peer = {}
local peer_mt = { __name = "testing.Peer", __index = Peer }

local M = {}

---@param world testing.World
---@param wire testing.End
---@param address moonport.Address
---@return testing.Peer
function M.new(world, wire, address)
  local self = setmetatable({ world = world, wire = wire, address = address, held = "" }, peer_mt)
  function wire.changed() self:wake() end
  return self
end

---@private
function Peer:wake()
  local task = self.waiter
  self.waiter = nil
  if task then self.world:wake(task, true) end
end

---Waits until ready() is true; nil, "timeout" if that takes longer.
---@param world testing.World
---@param peer { waiter: testing.Task? }
---@param ready fun(): boolean?
---@param seconds number?
---@param what string
---@return true?
---@return string?
function M.wait(world, peer, ready, seconds, what)
  local deadline = seconds and world.now + seconds
  while not ready() do
    if world.current then
      peer.waiter = world.current
      if world:park(deadline, function() peer.waiter = nil end, what) then return nil, "timeout" end
    elseif not world:step(deadline) then
      if not deadline then
        error(("%s; the test waits for %s"):format(world:standstill(), what), 0)
      end
      world.now = math.max(world.now, deadline)
      return nil, "timeout"
    end
  end
  return true
end

-- ---------------------------------------------------------------- out

-- A seeded world cuts what is sent, so that a handler which counts on whole messages is found out.
---@private
function Peer:cut(data)
  local n = #data > 1 and self.world:choose(2) == 1 and self.world:choose(#data)
  return n or #data
end

---Sends all of it; waits while the handler's buffers are full. Raises if the connection is gone.
---@param ... string|number
function Peer:send(...)
  local data = table.concat { ... }
  local world = self.world
  while data ~= "" do
    local size = self:cut(data)
    local n, why = self.wire:send(data:sub(1, size))
    if n then
      data = data:sub(n + 1)
      if data ~= "" and n == size then self:sleep(0) end
    elseif why == "again" then
      M.wait(world, self, function() return self.wire.other:room() > 0 or self.wire.dead end, nil, "room to send")
    else
      error(errors.of_system("peer:send", why), 2)
    end
  end
end

---The end of what it sends; it can go on reading.
function Peer:shutdown() self.wire:shutdown("write") end

---Closes, as a program does: if there is something that it has not read, the handler gets a reset.
function Peer:close()
  if self.held == "" then self:fill() end
  local unread = self.held ~= ""
  self.held = ""
  self.wire:close(unread)
end

---Closes by a reset.
function Peer:reset()
  self.held = ""
  self.wire:close(true)
end

-- ---------------------------------------------------------------- in

---@private
---@return string? why there is no more: "again" maybe later
function Peer:fill()
  local data, why = self.wire:recv(1 << 30)
  if data and data ~= "" then
    self.held = self.held .. data
    return nil
  end
  return data and "closed" or why == "again" and why or "reset"
end

-- Waits until enough() of what is held; nil and why else.
---@private
function Peer:need(enough, seconds, what)
  local why
  local function ready()
    while not enough(self.held) do
      why = self:fill()
      if why == "again" then return false end
      if why then return true end
    end
    return true
  end
  local ok, late = M.wait(self.world, self, ready, seconds, what)
  if not ok then return nil, late end
  if why then return nil, why end
  return true
end

---@private
function Peer:take(n)
  local data = self.held:sub(1, n)
  self.held = self.held:sub(n + 1)
  return data
end

---Exactly n bytes; without n whatever has come, at least one.
---@param n? integer
---@param seconds? number
---@return string? data
---@return string? why "closed", "reset", "timeout"; what has come stays
function Peer:receive(n, seconds)
  local ok, why = self:need(function(held) return #held >= (n or 1) end, seconds,
    n and ("%d bytes"):format(n) or "something to read")
  if not ok then return nil, why end
  if not n then self:fill() end
  return self:take(n or #self.held)
end

---A line, without its newline.
---@param seconds? number
---@return string? line
---@return string? why
function Peer:line(seconds)
  local at
  local ok, why = self:need(function(held)
    at = held:find("\n", 1, true)
    return at
  end, seconds, "a line")
  if not ok then return nil, why end
  return self:take(at):sub(1, -2)
end

---All to the end.
---@param seconds? number
---@return string? data
---@return string? why "closed", "reset"; nil, "timeout"
function Peer:all(seconds)
  local _, why = self:need(function() return false end, seconds, "the end")
  if why == "timeout" then return nil, why end
  return self:take(#self.held), why
end

---Reads as many bytes as these, which they have to be.
---@param bytes string
---@param seconds? number
function Peer:expect(bytes, seconds)
  local data, why = self:receive(#bytes, seconds)
  if data == bytes then return end
  local got = data and ("%q"):format(data) or ("%q and then: %s"):format(self.held, why)
  error(("expected %q, got %s"):format(bytes, got), 2)
end

---What a string.pack format describes.
---@param format string
---@return any ... the values; or nil, why
function Peer:unpack(format)
  local values
  local ok, why = self:need(function(held)
    values = table.pack(pcall(string.unpack, format, held))
    return values[1]
  end, nil, ("what %q describes"):format(format))
  if not ok then return nil, why end
  self:take(values[values.n] - 1)
  return table.unpack(values, 2, values.n - 1)
end

-- ---------------------------------------------------------------- time

---@param seconds number of the virtual clock
function Peer:sleep(seconds)
  M.wait(self.world, {}, function() return false end, seconds, ("its sleep of %g s"):format(seconds))
end

---What a peer does at the end of its function: it reads to the end, and closes.
function Peer:finish()
  if self.wire.gone then return end
  self:shutdown()
  self:need(function() self.held = "" return false end, nil, "the end")
  self.wire:close()
end

-- ---------------------------------------------------------------- datagrams

---@class testing.Sender
---@field address moonport.Address
---@field request testing.Request? of the last datagram
---@field inbox string[]
---@field private world testing.World
---@field private deliver fun(data: string): testing.Request
---@field private waiter testing.Task?
local Sender = {}
local sender_mt = { __name = "testing.Sender", __index = Sender }

---@param world testing.World
---@param address moonport.Address
---@param deliver fun(data: string): testing.Request
---@return testing.Sender
function M.sender(world, address, deliver)
  return setmetatable({ world = world, address = address, deliver = deliver, inbox = {} }, sender_mt)
end

---One datagram.
---@param data string
function Sender:send(data) self.request = self.deliver(data) end

---@param data string
function Sender:take_in(data)
  table.insert(self.inbox, data)
  local task = self.waiter
  self.waiter = nil
  if task then self.world:wake(task, true) end
end

---One datagram that was sent to it; nil, "timeout" if none comes. Without seconds it waits until the request of the
---last one is over.
---@param seconds? number
---@return string? data
---@return string? why
function Sender:receive(seconds)
  local function ready()
    return #self.inbox > 0 or not seconds and (not self.request or self.request.outcome ~= "running")
  end
  if self.request then
    self.request.on_end = function()
      local task = self.waiter
      self.waiter = nil
      if task then self.world:wake(task, true) end
    end
  end
  M.wait(self.world, self, ready, seconds, "a datagram")
  if #self.inbox == 0 then return nil, "timeout" end
  return table.remove(self.inbox, 1)
end

Sender.sleep = Peer.sleep
function Sender:finish() end -- luacheck: ignore 212
Sender.close = Sender.finish

return M
