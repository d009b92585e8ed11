--- A datagram of a mock's: read once, answered by any number of datagrams to its sender. Where the server has toxics
--- it and the answers go through the server's links, which may hold them back, lose or double them.

local journal = require("moonport.journal")
local link = require("moonport.toxics.link")

local add = journal.add

---@class mock.Datagram
---@field private packet string? until it is read
---@field private socket moonport.DatagramSocket
---@field private client moonport.Address
---@field private server mock.Server
---@field private id integer
---@field private nth integer
---@field private down toxics.Link?
---@field private sender toxics.Sender?
local Datagram = {}
local datagram_mt = { __name = "mock.Datagram", __index = Datagram }

local M = {}

---@param server mock.Server
---@param handler table the instance
---@param packet string
---@param id integer of the sender in the journal
---@param nth integer
---@return mock.Datagram
function M.new(server, handler, packet, id, nth)
  return setmetatable({
    packet = packet, socket = handler.socket, client = handler.client_address, server = server, id = id, nth = nth,
  }, datagram_mt)
end

---@private
function Datagram:write(bytes, detail)
  if self.client == "" then
    add("note", self.server.name, self.id, "the sender has no address: a reply was not sent")
    return
  end
  self.socket:sendto(bytes, self.client)
  add("sent", self.server.name, self.id, bytes, detail)
end

---@return fun(bytes: string) that is send()
function Datagram:sender()
  return function(bytes) self:send(bytes) end
end

---One datagram. Raises when the system refuses it.
---@param bytes string
---@param detail? string for the journal
function Datagram:send(bytes, detail)
  local down = self.server:link("downstream", self.id)
  if not down then return self:write(bytes, detail) end
  if down ~= self.down then
    if self.down then self.down:wait(self.sender) end
    self.down = down
    self.sender = link.sender(self.nth, function(_, b) self:write(b) end)
    self.sender.id = self.id
  end
  if detail then add("note", self.server.name, self.id, detail) end
  down:send(self.sender, bytes)
end

---@return string? bytes
---@return string? why
function Datagram:recv()
  local packet = self.packet
  self.packet = nil
  if not packet then return nil, "closed" end
  return packet
end

---Waits until toxics have let go what was sent.
function Datagram:drain()
  if self.down then self.down:wait(self.sender) end
end

function Datagram:finish() end -- luacheck: ignore 212

function Datagram:is_closed() return false end -- luacheck: ignore 212

function Datagram:close() end -- luacheck: ignore 212

function Datagram:cut() end -- luacheck: ignore 212

---Calls talk(packet) for the datagram as it has come through the toxics: not at all, or for each of its doubles.
---@param server mock.Server
---@param packet string
---@param id integer
---@param nth integer
---@param talk fun(packet: string)
function M.arrive(server, packet, id, nth, talk)
  local up = server:link("upstream", id)
  if not up then return talk(packet) end
  local came, first, last = {}, 1, 0
  local sender = link.sender(nth, function(_, bytes)
    last = last + 1
    came[last] = bytes
  end)
  sender.id = id
  up:send(sender, packet)
  local function arrived() return first <= last end
  repeat
    up:await(sender, arrived)
    local bytes = came[first]
    came[first], first = nil, first + 1
    if bytes then talk(bytes) end
  until not bytes
  up:wait(sender)
end

return M
