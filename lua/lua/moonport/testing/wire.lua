--- What the kernel does between two connected stream sockets: Linux's TCP over loopback, and its Unix sockets.
---
--- Bytes that one end sends are at the other at once. What an end cannot take is left to the sender (`room`). Whoever
--- has an end sets `changed`, which is called when bytes, room, the end or a reset have come.

local LINGER <const> = 2 -- seconds that an end which the host has closed goes on taking bytes, to throw them away

---@class testing.End
---@field other testing.End
---@field changed fun()
---@field err string? a pending error's name
---@field done boolean the peer has ended its side
---@field dead boolean not connected any more
---@field private world testing.World
---@field private unix boolean
---@field private parts string[]
---@field private held integer bytes that have come and are not read
---@field private capacity integer
---@field private no_more boolean what it sends has ended
---@field private deaf boolean it was shut down for reading
---@field private gone boolean nobody has it any more
---@field private lingers boolean
local End = {}
local end_mt = { __name = "testing.End", __index = End }

local M = {}

---@param world testing.World
---@param unix boolean
---@param capacity integer bytes that an end holds for its reader
---@return testing.End, testing.End
function M.pair(world, unix, capacity)
  local function new()
    return setmetatable({ world = world, unix = unix, parts = {}, held = 0, capacity = capacity,
      changed = function() end }, end_mt)
  end
  local a, b = new(), new()
  a.other, b.other = b, a
  return a, b
end

---@return integer bytes that have come
function End:available() return self.held end

---@param max integer
---@return string? data "" at the end
---@return string? why "again", or an error's name
function End:recv(max)
  if self.held > 0 then
    local all = table.concat(self.parts)
    local data = all:sub(1, max)
    self.parts, self.held = { all:sub(#data + 1) }, #all - #data
    self.other.changed()
    return data
  end
  if self.unix and self.err then return self:fail() end
  if self.done then return "" end
  if self.err then return self:fail() end
  if self.deaf or self.dead then return "" end
  return nil, "again"
end

---@private
function End:fail()
  local err = self.err
  self.err = nil
  return nil, err
end

---The bytes that it could take from its peer.
---@return integer
function End:room() return self.capacity - self.held end

---@param data string
---@return integer? count
---@return string? why "again", or an error's name
function End:send(data)
  if self.err then return self:fail() end
  local other = self.other
  if self.dead or self.no_more or self.unix and (other.gone or other.deaf) then return nil, "EPIPE" end
  if data == "" then return 0 end
  if other.gone then -- it answers with a reset
    self:reset_by_peer()
    return #data
  end
  if other.lingers then return #data end
  local n = math.min(#data, other:room())
  if n <= 0 then return nil, "again" end
  other.parts[#other.parts + 1] = data:sub(1, n)
  other.held = other.held + n
  other.changed()
  return n
end

---@private
function End:reset_by_peer()
  if self.dead then return end
  self.err = self.done and "EPIPE" or "ECONNRESET"
  self.dead, self.no_more = true, true
  self.changed()
end

-- Both sides have ended: nothing is left of the connection.
local function settle(self)
  local other = self.other
  if self.no_more and other.no_more and not self.unix then
    self.dead, other.dead = true, true
  end
end

---@private
function End:send_end()
  if self.no_more then return end
  self.no_more = true
  self.other.done = true
  settle(self)
  self.other.changed()
end

---@param how "read"|"write"|"both"
---@return true?
---@return string? why
function End:shutdown(how)
  if self.dead then return nil, "ENOTCONN" end
  if how ~= "write" then
    self.deaf = true
    self.changed()
    if self.unix then self.other.changed() end
  end
  if how ~= "read" then self:send_end() end
  return true
end

---@param abortive? boolean by a reset
function End:close(abortive)
  if self.gone then return end
  local unread = self.held > 0 and not self.lingers
  self.gone, self.lingers = true, false
  self.parts, self.held = {}, 0
  if self.dead then return end
  if self.unix then
    if unread then self.other.err = "ECONNRESET" end
    self.other.done, self.other.no_more = true, true
    self.no_more = true
    self.other.changed()
  elseif unread or abortive then
    self.dead, self.no_more = true, true
    self.other:reset_by_peer()
  else
    self:send_end()
  end
  self.other.changed()
end

---As the host closes: the peer can read all, and is not told off for what it still sends.
function End:linger()
  if not self:shutdown("write") then return self:close() end
  self.lingers = true
  self.parts, self.held = {}, 0
  self.other.changed()
  self.world:at(self.world.now + LINGER, function() self:close() end)
end

---@return boolean getpeername(2) would say so
function End:is_connected() return not self.dead or self.unix end

return M
