--- The two ends of a mock's connection: bytes out, bytes in, and the ways to end it. TLS, where there is some, and then
--- the toxics of its server, from the first that it gets, lie in between.

local moonport = require("moonport")
local journal = require("moonport.journal")
local inbox = require("moonport.mock.inbox")
local secure = require("moonport.mock.secure")

local add = journal.add

---@class mock.Stream
---@field private request moonport.Request
---@field private wfile moonport.WFile
---@field private server mock.Server
---@field private id integer
---@field private nth integer
---@field private put fun(wfile: moonport.WFile, bytes: string)
---@field private sent fun(bytes: string, detail?: string) the journal's
---@field private version integer of the server's toxics
---@field private down table|false the toxics' pipe, as `up`
---@field private up mock.Inbox|false
---@field tls mock.Channel|false through which all goes
---@field private channel mock.Channel? the same, from before its first sealed byte on
---@field deadline number? of reads
---@field on_cut fun(how: string) a toxic has ended the connection
local Stream = {}
local stream_mt = { __name = "mock.Stream", __index = Stream }

local M = {}

---@param server mock.Server
---@param handler table the instance
---@param id integer
---@param nth integer
---@return mock.Stream
function M.new(server, handler, id, nth)
  local self = setmetatable({
    request = handler.request, wfile = handler.wfile, server = server, id = id, nth = nth, version = 0,
    put = handler.wfile.write, down = false, up = false, tls = false,
    sent = journal.writer("sent", server.name, id),
  }, stream_mt)
  server.wires[self] = true
  return self
end

---@param why string
---@param errno integer?
local function reason(why, errno)
  return errno == 104 and "reset" or why -- 104: ECONNRESET
end

local cut_off_mt = {
  __close = function(writing)
    if writing.done then return end
    local wire = writing.wire
    add("note", wire.server.name, wire.id, ("a reply of %d bytes was cut off"):format(writing.size))
  end,
}

local LARGE = 16 * 1024 -- bytes: more may wait for the peer

---@private
function Stream:write(bytes, detail)
  if #bytes > LARGE then
    local writing <close> = setmetatable({ wire = self, size = #bytes }, cut_off_mt)
    self.put(self.wfile, bytes)
    writing.done = true
  else
    self.put(self.wfile, bytes)
  end
  self.sent(bytes, detail)
end

---What toxics let through: sealed bytes are in the journal already, as they were before.
---@private
function Stream:deliver(bytes)
  if self.tls then return self.put(self.wfile, bytes) end
  self:write(bytes)
end

---For the inbox, which ends quietly when the connection is closed here meanwhile.
---@private
function Stream:receive()
  if self:is_closed() then return nil, "closed" end
  local ok, bytes, why, errno
  repeat -- it may have been interrupted before this began
    ok, bytes, why, errno = pcall(self.request.recv, self.request)
  until why ~= "interrupted"
  if ok then return bytes, why, errno end
  if self:is_closed() then return nil, "closed" end
  error(bytes, 0)
end

---The server's toxics have changed. What is under way sees them at once; the task that would first need them is waked,
---for only that can begin with them.
function Stream:toxics_changed()
  if self:is_closed() then return end
  if self.down then self.down:update(self.server.toxics) end
  if not self.up then return self.request:interrupt() end
  self.up.pipe:update(self.server.toxics)
  self.up:interrupt()
end

---It is of no more use.
function Stream:finish()
  self.server.wires[self] = nil
  if self.channel then self.channel:free() end
end

---@param self mock.Stream
local function renew(self)
  local server = self.server
  self.version = server.toxic_version
  if self.down then
    self.down:update(server.toxics)
  elseif server:has_toxics("downstream") then
    self.down = server:pipe(self, "downstream", self.id, self.nth, function(bytes) self:deliver(bytes) end)
  end
  if self.up then
    self.up.pipe:update(server.toxics)
  elseif server:has_toxics("upstream") then
    self.up = inbox.new(function() return self:receive() end, reason)
    self.up:start(server:pipe(self, "upstream", self.id, self.nth, self.up.deliver))
  end
end

---Gives new toxics to a connection that lives: to one task of it that sends, not to each.
---@private
function Stream:refresh() moonport.atomically(renew, self) end

---Waits, for slow peers and slow toxics; raises when the peer is gone.
---@param bytes string
---@param detail? string for the journal
function Stream:send(bytes, detail)
  if self.version ~= self.server.toxic_version then self:refresh() end
  if bytes == "" then return end
  if self.tls then
    self.tls:send(bytes)
    return self.sent(bytes, detail)
  end
  local down = self.down
  if not down then
    if #bytes > LARGE then return self:write(bytes, detail) end
    self.put(self.wfile, bytes)
    return self.sent(bytes, detail)
  end
  if detail then add("note", self.server.name, self.id, detail) end
  down:write(bytes)
end

---A function that is send(), and sooner done as long as nothing lies in between.
---@return fun(bytes: string)
function Stream:sender()
  local put, wfile, sent, server = self.put, self.wfile, self.sent, self.server
  return function(bytes)
    if self.down or self.tls or self.version ~= server.toxic_version or bytes == "" or #bytes > LARGE then
      return self:send(bytes)
    end
    put(wfile, bytes)
    sent(bytes)
  end
end

-- Bytes as they come, or nil and why.
---@param self mock.Stream
local function take(self)
  if self.version ~= self.server.toxic_version then self:refresh() end
  local deadline, request = self.deadline, self.request
  local left = deadline and math.max(deadline - moonport.monotonic(), 0)
  local bytes, why, errno
  if self.up then
    bytes, why = self.up:take(left)
  else
    local usual = left and request:gettimeout()
    if left then request:settimeout(left) end
    bytes, why, errno = request:recv()
    if left then request:settimeout(usual) end
  end
  if bytes then return bytes end
  if why == "interrupted" then return take(self) end
  return nil, reason(why, errno)
end

---@return string? bytes
---@return string? why "closed", "reset", "timeout", or the system's message; of TLS also "truncated": it was not closed
---as it should be
function Stream:recv()
  local tls = self.tls
  if not tls then return take(self) end
  while true do
    local bytes, why = tls:read()
    if bytes or why == "closed" then return bytes, why end
    if why ~= "wait" then return nil, "TLS: " .. why end
    bytes, why = take(self)
    if not bytes then return nil, why == "closed" and "truncated" or why end
    tls:give(bytes)
  end
end

---Begins TLS; waits for the peer's part of it.
---@param tls mock.TLS
---@param rest string bytes of the peer that were received already
---@return mock.Channel? channel
---@return string? why it did not come to that: as recv()
function Stream:secure(tls, rest)
  local channel
  channel = secure.channel(tls, function(bytes)
    if self.version ~= self.server.toxic_version then self:refresh() end
    self.tls = channel -- what was sent before is on its way by now: the peer has answered it
    if self.down then return self.down:write(bytes) end
    self.put(self.wfile, bytes)
  end)
  self.channel = channel
  channel:give(rest)
  while true do
    local done, why = channel:handshake()
    if done then break end
    if why ~= "wait" then return nil, "TLS: " .. why end
    local bytes
    bytes, why = take(self)
    if not bytes then return nil, why end
    channel:give(bytes)
  end
  -- Else the kernel may wait for a reply to carry it along, and the client's for it before it sends more.
  if self.server.url:find("^tcp:") then self.request:setsockopt("tcp_quickack", true) end
  return channel
end

---Lets toxics deliver what they hold.
function Stream:drain()
  if self.tls then pcall(self.tls.finish, self.tls) end -- a peer that is gone needs no good-bye
  if self.down then self.down:finish() end
end

---@return boolean by anybody
function Stream:is_closed() return self.request:isclosed() end

function Stream:close()
  self:drain()
  if not self:is_closed() then self.request:close() end
end

---The peer gets what the kernel has taken so far, and then a reset.
function Stream:reset()
  if self:is_closed() then return end
  self.request:setsockopt("so_linger", 0)
  self.request:close()
end

---At once, whatever toxics still hold.
---@param how "reset"|"close"
function Stream:cut(how)
  if self.up then self.up:over("closed") end
  if how == "reset" then return self:reset() end
  if not self:is_closed() then self.request:close() end
end

---@param how "read"|"write"|"both"
function Stream:shutdown(how)
  if how ~= "read" then self:drain() end
  self.request:shutdown(how)
end

---The kernel takes little more from the peer, and nobody takes it from the kernel. Waits until the peer's end is there,
---or the task is cancelled; an end behind bytes that found no room does not come.
function Stream:stall()
  self.request:setsockopt("so_rcvbuf", 1) -- the kernel makes it its least
  if not self.up then return self.request:waitend() end
  self.up:stop()
  if not self.up.ended then self.request:waitend() end
end

return M
