--- A datagram of a mock's: read once, answered by any number of datagrams to its sender.

local journal = require("moonport.journal")

local add = journal.add

---@class mock.Datagram
---@field private packet string? until it is read
---@field private socket moonport.DatagramSocket
---@field private client moonport.Address
---@field private server mock.Server
---@field private id integer
---@field private nth integer
---@field private down table? the toxics' pipe
local Datagram = {}
local datagram_mt = { __name = "mock.Datagram", __index = Datagram }

local M = {}

---@param server mock.Server
---@param handler table the instance
---@param id integer of the sender in the journal
---@param nth integer
---@return mock.Datagram
function M.new(server, handler, id, nth)
  return setmetatable({
    packet = handler.packet, socket = handler.socket, client = handler.client_address,
    server = server, id = id, nth = nth,
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

---One datagram. Raises when the system refuses it.
---@param bytes string
---@param detail? string for the journal
function Datagram:send(bytes, detail)
  local server = self.server
  if not self.down and server:has_toxics("downstream") then
    self.down = server:pipe(self, "downstream", self.id, self.nth, function(b) self:write(b) end)
  end
  if not self.down then return self:write(bytes, detail) end
  if detail then add("note", server.name, self.id, detail) end
  self.down:write(bytes)
end

---@return string? bytes
---@return string? why
function Datagram:recv()
  local packet, server = self.packet, self.server
  self.packet = nil
  if not packet then return nil, "closed" end
  if not server:has_toxics("upstream") then return packet end
  local came = {}
  local pipe = server:pipe(self, "upstream", self.id, self.nth, function(bytes) came[#came + 1] = bytes end)
  pipe:write(packet)
  pipe:finish()
  if #came == 0 then return nil, "closed" end
  self.packet = came[2] -- a duplicate
  return came[1]
end

function Datagram:drain()
  if self.down then self.down:finish() end
end

function Datagram:is_closed() return false end -- luacheck: ignore 212

Datagram.close = Datagram.drain

function Datagram:cut() end -- luacheck: ignore 212

return M
