--- What has come through the upstream toxics and waits to be read: a task of its own receives, so that toxics can hold
--- bytes back while the conversation does something else.

local moonport = require("moonport")

local atomically = moonport.atomically

local MOST = 256 * 1024 -- bytes that wait; more stay in the kernel

---@class mock.Inbox
---@field pipe table of the toxics
---@field deliver fun(bytes: string) the pipe's end
---@field private pieces string[]
---@field private size integer
---@field private ended string? why no more will come
---@field private stopped boolean
---@field private idle boolean? it has stopped
---@field private interrupted boolean?
---@field private came table event
---@field private room table event
---@field private receive fun(): string?, string?, integer?
---@field private reason fun(why: string, errno: integer?): string
local Inbox = {}
local inbox_mt = { __name = "mock.Inbox", __index = Inbox }

local M = {}

-- Of these two none comes while the other is at work: a slice may end anywhere.
---@param self mock.Inbox
local function add(self, bytes)
  self.pieces[#self.pieces + 1] = bytes
  self.size = self.size + #bytes
end

---@param self mock.Inbox
local function empty(self)
  local pieces = self.pieces
  self.pieces, self.size = {}, 0
  return pieces
end

---@param receive fun(): string?, string?, integer?
---@param reason fun(why: string, errno: integer?): string
---@return mock.Inbox
function M.new(receive, reason)
  local self = setmetatable({
    pieces = {}, size = 0, stopped = false, receive = receive, reason = reason,
    came = moonport.event(), room = moonport.event(),
  }, inbox_mt)
  function self.deliver(bytes)
    atomically(add, self, bytes)
    self.came:set()
  end
  return self
end

local leaving_mt = {
  __close = function(leaving)
    local inbox = leaving.inbox
    inbox.idle = true
    inbox.came:set()
  end,
}

---@param self mock.Inbox
local function pump(self)
  local leaving <close> = setmetatable({ inbox = self }, leaving_mt) -- luacheck: ignore 211
  while not self.stopped do
    local bytes, why, errno = self.receive()
    if not bytes then
      why = self.reason(why, errno)
      if why == "closed" then self.pipe:finish() end
      self:over(why)
      return
    end
    self.pipe:write(bytes)
    while self.size > MOST and not self.stopped do self.room:wait() end
  end
end

---@param pipe table
function Inbox:start(pipe)
  self.pipe = pipe
  moonport.spawn(pump, self)
end

---@param why string
function Inbox:over(why)
  self.ended = self.ended or why
  self.came:set()
end

---Has a take() that waits return nil, "interrupted".
function Inbox:interrupt()
  self.interrupted = true
  self.came:set()
end

---Receives no more; waits for a receive that is under way.
function Inbox:stop()
  self.stopped = true
  self.room:set()
  while not (self.idle or self.ended) do self.came:wait() end
end

---@param seconds number?
---@return string? bytes
---@return string? why
function Inbox:take(seconds)
  while self.size == 0 do
    if self.ended then return nil, self.ended end
    if self.interrupted then
      self.interrupted = false
      return nil, "interrupted"
    end
    local _, why = self.came:wait(seconds)
    if why and self.size == 0 then return nil, why end
  end
  local pieces = atomically(empty, self)
  self.room:set()
  return table.concat(pieces)
end

return M
