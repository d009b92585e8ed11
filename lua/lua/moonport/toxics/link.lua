--- One direction of a server of datagrams, with its toxics: what Toxiproxy calls a link. It outlives the datagrams'
--- requests, so that one datagram can overtake another, or share a bandwidth with it, whoever has sent them.
---
--- It has no task of its own, for tasks end with their request. Who sends while nobody sees to the link becomes its
--- keeper: a task beside the keeper's own lets go what is due, and the keeper's wait() ends when nothing is left.
--- When a keeper is cancelled another of those that wait takes its place.

local pipe = require("moonport.toxics.pipe")
local toxics = require("moonport.toxics")

local MOST <const> = 1000 -- datagrams under way; more are lost, as in a router

---@class toxics.Link
---@field private pipe toxics.Pipe
---@field private world toxics.World
---@field private keeper toxics.Sender?
---@field private waiting table<toxics.Sender, boolean>
---@field private dropped boolean
---@field private atomically fun(f: function, ...): ...
local Link = {}
local link_mt = { __name = "toxics.Link", __index = Link }

---@class toxics.Sender: toxics.Ticket a request's use of a link
---@field under_way integer datagrams
---@field deliver fun(self: toxics.Sender, bytes: string)
---@field failure any what that has raised
---@field event moonport.Event
local Sender = {}
local sender_mt = { __name = "toxics.Sender", __index = Sender }

function Sender:entered() self.under_way = self.under_way + 1 end

function Sender:left()
  self.under_way = self.under_way - 1
  self.event:set()
end

local M = {}

local function call(f, ...) return f(...) end

---@param bytes string
---@param sender toxics.Sender
local function deliver(bytes, sender)
  local ok, err = pcall(sender.deliver, sender, bytes)
  if ok then return end
  if type(err) ~= "string" and err.code == "cancelled" then error(err, 0) end -- the keeper's
  sender.failure = err
end

---@class toxics.LinkOptions
---@field toxics table[]
---@field stream "downstream"|"upstream"
---@field note fun(toxic: toxics.Toxic?, text: string, sender: toxics.Sender?)
---@field lazy boolean?
---@field world toxics.World?

---@param options toxics.LinkOptions
---lazy: what is sent never comes out within send(), so that all senders that wait go on in the order in which theirs
---have come out
---@return toxics.Link
function M.new(options)
  local self = setmetatable({
    waiting = setmetatable({}, { __mode = "k" }), dropped = false, note = options.note,
    world = options.world or require("moonport"),
  }, link_mt)
  self.atomically = self.world.atomically or call
  self.pipe = pipe.new({
    toxics = options.toxics, stream = options.stream, datagram = true, shared = true, world = self.world,
    note = options.note, deliver = deliver, lazy = options.lazy,
  }, toxics.list)
  return self
end

---@param nth integer which datagram of the server it is about
---@param take fun(self: toxics.Sender, bytes: string) gets what comes out, from any task
---@return toxics.Sender
function M.sender(nth, take)
  return setmetatable({ nth = nth, under_way = 0, deliver = take, event = require("moonport").event() }, sender_mt)
end

-- Nobody may begin or cease to wait meanwhile.
local function wake_all(link)
  for sender in pairs(link.waiting) do sender.event:set() end
end

local function resign(link)
  local keeper = link.keeper
  link.keeper = nil
  if keeper then keeper.event:set() end
  wake_all(link)
end

local keeping_mt = {
  __close = function(keeping) keeping.link.atomically(resign, keeping.link) end,
}

---@param link toxics.Link
local function keep(link)
  local keeping <close> = setmetatable({ link = link }, keeping_mt) -- luacheck: ignore 211
  link.pipe:pump()
end

local function attend(link, sender)
  if link.keeper or link.dropped or link.pipe.count == 0 then return end
  link.keeper = sender
  link.world.spawn(keep, link)
end

---@private
function Link:attend(sender)
  if not self.keeper then self.atomically(attend, self, sender) end
end

---@return boolean nothing is under way
function Link:idle() return self.pipe.count == 0 end

---One datagram. Does not wait, unless it comes out at once and its delivery does.
---@param sender toxics.Sender
---@param bytes string
function Link:send(sender, bytes)
  if self.dropped then return end
  local p = self.pipe
  if p.count >= MOST or p:full() then
    return self.note(nil, ("%d datagrams wait: one of %d bytes is lost"):format(p.count, #bytes), sender)
  end
  p:write(bytes, sender)
  self:attend(sender)
end

---Waits until something of the sender has come out or is lost, or has been since it was last asked.
---@private
function Link:park(sender)
  self.waiting[sender] = true -- first: if the keeper goes now, this one is told
  self:attend(sender)
  sender.event:wait()
  self.waiting[sender] = nil
end

---Waits until all that the sender has sent has come out or is lost; a keeper as long as anything is under way.
---Raises what its delivery raised.
---@param sender toxics.Sender
function Link:wait(sender)
  while not self.dropped and (sender.under_way > 0 or self.keeper == sender) do self:park(sender) end
  if sender.failure then error(sender.failure, 0) end
end

---Waits until condition() holds or nothing of the sender is under way.
---@param sender toxics.Sender
---@param condition fun(): boolean
function Link:await(sender, condition)
  while not self.dropped and sender.under_way > 0 and not condition() do self:park(sender) end
end

---Takes other toxics, with effect at once.
---@param list table[]
function Link:update(list) self.pipe:update(list) end

---Gives up what is under way.
function Link:drop()
  self.dropped = true
  self.atomically(wake_all, self)
end

return M
