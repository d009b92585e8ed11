--- What a mock says and hears on one connection, or about one datagram: the `c` of sessions and stubs.

local moonport = require("moonport")
local frames = require("moonport.frame")
local journal = require("moonport.journal")
local blame = require("moonport.mock.blame")
local datagram = require("moonport.mock.datagram")
local diff = require("moonport.mock.diff")
local match = require("moonport.mock.match")
local known_options = require("moonport.mock.options")
local serving = require("moonport.mock.serving")
local stream = require("moonport.mock.stream")

local add = journal.add

local M = {}

---@class mock.Conversation
---@field server mock.Server
---@field id integer of the connection in the journal; of a datagram's sender
---@field nth integer which connection of the server it is, from 1; which datagram
---@field client moonport.Address
---@field state table of this conversation alone
---@field datagram boolean
---@field over string|false what has ended it: "c:reset()"
---@field ended string? the journal's word for that
---@field peer "fin"|"rst"|nil what the peer has done
---@field filter (fun(bytes: string, detail?: string))|false a fault that replies pass through
---@field wire mock.Stream|mock.Datagram
---@field finished boolean?
---@field received fun(frame: string) the journal's
---@field tls { version: string, cipher: string, server_name: string? }? once it speaks TLS
---@field private reader frame.Reader
---@field private framing frame.Framing
---@field silent boolean it answers no more
local Conversation = {}
local conversation_mt = { __name = "mock.Conversation", __index = Conversation }

---@param self mock.Conversation
local function begin(self, wire)
  self.wire = wire
  self.framing = self.server.framing
  self.received = journal.writer("received", self.server.name, self.id)
  self.state = {}
  self.over, self.filter, self.silent = false, false, false -- a field that is nil costs a look into the class
  self.reader = frames.reader(function() return wire:recv() end)
  function wire.on_cut(how) self:cut(how) end
  return setmetatable(self, conversation_mt)
end

---@param server mock.Server
---@param handler table the instance
---@return mock.Conversation
function M.of_stream(server, handler)
  local id, nth = journal.open(handler.request, server.name, tostring(handler.client_address))
  return begin({ server = server, id = id, nth = nth, client = handler.client_address, datagram = false },
    stream.new(server, handler, id, nth))
end

---@param server mock.Server
---@param handler table the instance
---@param packet string
---@param id integer of its sender in the journal
---@param nth integer datagram of the server
---@return mock.Conversation
function M.of_datagram(server, handler, packet, id, nth)
  return begin({ server = server, id = id, nth = nth, client = handler.client_address, datagram = true },
    datagram.new(server, handler, packet, id, nth))
end

---@param self mock.Conversation
---@param method string
local function check(self, method)
  if self.over then
    error(blame.over(("c:%s: the conversation is over, by %s"):format(method, self.over)), 0)
  end
end

---@param self mock.Conversation
---@param method string
local function needs_connection(self, method)
  check(self, method)
  if self.datagram then
    error(("c:%s needs a connection, and datagrams have none"):format(method), 3)
  end
end

-- The place in the script of a call of one of the methods below, which asks: "smtp.lua:12: ".
local function position()
  local _, where = pcall(error, "", 4)
  return tostring(where)
end

-- ---------------------------------------------------------------- out

---Sends all; of a datagram mock one datagram. Raises when the peer is gone, which ends the conversation quietly.
---@param bytes string|number
---@param ... string|number
function Conversation:send(bytes, ...)
  if type(bytes) ~= "string" or ... then
    local ok, all = pcall(table.concat, { bytes, ... })
    if not ok or bytes == nil then error("c:send needs strings", 2) end
    bytes = all
  end
  if self.over then check(self, "send") end
  local filter = self.filter
  if filter then return filter(bytes) end
  return self.wire:send(bytes)
end

---What faults send by, past all others.
---@param bytes string
---@param detail? string
function Conversation:emit(bytes, detail)
  check(self, "send")
  return self.wire:send(bytes, detail)
end

---@param seconds number
function Conversation:sleep(seconds)
  check(self, "sleep")
  if type(seconds) ~= "number" or seconds < 0 or seconds ~= seconds then
    error("c:sleep needs a number of seconds, 0 or more, not " .. tostring(seconds), 2)
  end
  moonport.sleep(seconds)
end

---@param text any for the journal
function Conversation:note(text)
  add("note", self.server.name, self.id, tostring(text))
end

local HALVES = { read = true, write = true, both = true }

---Half-closes: the peer sees the end, and can go on sending.
---@param how? "read"|"write"|"both" "write" unless given
function Conversation:shutdown(how)
  needs_connection(self, "shutdown")
  how = how or "write"
  if not HALVES[how] then error('c:shutdown needs "read", "write" or "both", not ' .. tostring(how), 2) end
  self.wire:shutdown(how)
end

---Sends what was sent, and closes. The next use of c ends the function.
function Conversation:close()
  check(self, "close")
  self.over, self.ended = "c:close()", "closed"
  self.wire:close()
end

---A real RST. A Unix socket has none: there the peer gets ECONNRESET if bytes that it has sent were not read yet, else
---the end of the stream, and EPIPE when it writes. The next use of c ends the function.
function Conversation:reset()
  needs_connection(self, "reset")
  self.over, self.ended = "c:reset()", "reset"
  self.wire:reset()
end

---Takes nothing more from the peer, and waits until that is gone or the connection is killed. Then the conversation is
---over.
function Conversation:stall()
  needs_connection(self, "stall")
  self:note("stalled")
  self.wire:stall()
  self.over, self.peer = "the peer's end", "fin"
end

---Answers nothing any more; stubs are asked no more, and what comes is read and journaled.
function Conversation:silence()
  check(self, "silence")
  self.silent = true
end

---A toxic ends the connection.
---@param how "reset"|"close"
function Conversation:cut(how)
  if self.over then return end
  self.over, self.ended = "a toxic", how == "reset" and "reset" or "closed"
  self.wire:cut(how)
end

-- ---------------------------------------------------------------- in

local MAX_KEPT = 64
local kept, n_kept = {}, 0

-- To be called by a method: the error is one of the script's line that calls that.
---@param self mock.Conversation
---@param value any nil: the usual one
---@return frame.Framing
local function framing_of(self, value)
  if value == nil then return self.framing end
  local framing = kept[value]
  if framing then return framing end
  local ok
  ok, framing = pcall(frames.of, value)
  if not ok then error(tostring(framing), 3) end
  if type(value) == "string" then
    if n_kept >= MAX_KEPT then kept, n_kept = {}, 0 end
    kept[value], n_kept = framing, n_kept + 1
  end
  return framing
end

-- Notes why there are no more frames.
---@param self mock.Conversation
---@param why string
local function input_over(self, why)
  if why == "timeout" or self.peer then return end
  if why == "truncated" then add("note", self.server.name, self.id, "TLS was cut off: no close_notify") end
  if why == "closed" or why == "reset" or why == "truncated" then
    self.peer = why == "reset" and "rst" or "fin"
    local rest = self.reader:rest()
    if rest ~= "" then add("partial", self.server.name, self.id, rest) end
  end
end

---@param self mock.Conversation
local function received(self, frame, ...)
  self.wire.deadline = nil
  if frame then
    self.received(frame)
    return frame, ...
  end
  input_over(self, (...))
  return nil, (...)
end

-- To be called by a method, as framing_of().
---@param method string
---@param seconds any
local function check_limit(method, seconds)
  if seconds ~= nil and type(seconds) ~= "number" then
    error(("c:%s: a time limit is a number of seconds, not %s"):format(method, tostring(seconds)), 3)
  end
end

---@param self mock.Conversation
---@param framing frame.Framing
---@param seconds number?
local function read(self, framing, seconds)
  self.wire.deadline = seconds and moonport.monotonic() + seconds
  return received(self, self.reader:read(framing))
end

---The next frame, and the values of its format if it has several.
---@param framing? any for this frame only
---@param seconds? number for the whole frame
---@return string? frame
---@return any ... values; or why: "closed", "reset", "timeout", "truncated" (TLS was), what is wrong with the frame
function Conversation:recv(framing, seconds)
  check(self, "recv")
  check_limit("recv", seconds)
  return read(self, framing_of(self, framing), seconds)
end

-- Ends the conversation: it did not go as its author said.
---@param self mock.Conversation
---@param text string
local function fail(self, text)
  text = ("mock %s, %s %d from %s: %s"):format(self.server.name, self.datagram and "datagram" or "connection",
    self.nth, tostring(self.client), text) .. self.server:lots()
  journal.fail(self.server.name, self.id, text)
  moonport.log("warn", text:match("[^\n]*"))
  self:close()
  self.over = "a failed expect"
  check(self, "expect")
end

local EXPECT = { "framing", "timeout" }

---The next frame, which has to match: its captures, or all of it. Else the conversation fails and ends.
---@param what any a matcher
---@param options? { framing?: any, timeout?: number }
---@return any ... the captures, or the frame
function Conversation:expect(what, options)
  check(self, "expect")
  local m, wrong = match.get(what)
  if not m then error("c:expect: " .. wrong, 2) end
  if options ~= nil then wrong = known_options.check(options, EXPECT, "{ timeout = 2 }") end
  if wrong then error("c:expect: " .. wrong, 2) end
  options = options or {}
  local seconds = options.timeout
  check_limit("expect", seconds)
  local frame, why = read(self, framing_of(self, options.framing), seconds)
  if not frame then
    return fail(self, diff.missing(position(), m, why, self.reader:rest(), seconds))
  end
  local results = table.pack(match.run(m, frame, self))
  if not results[1] then return fail(self, diff.mismatch(position(), m, frame)) end
  return table.unpack(results, 2, results.n)
end

-- ---------------------------------------------------------------- TLS

local HANDSHAKE = 10 -- seconds that it may take

-- That the peer does not want the certificate is an end like others, and may be what a test is about.
---@param self mock.Conversation
---@param why string
local function no_tls(self, why)
  if why == "timeout" then why = ("TLS: no handshake within %d s"):format(HANDSHAKE) end
  input_over(self, why)
  if not self.peer then add("error", self.server.name, self.id, why) end
  self:close()
  self.over = "the end of the TLS handshake: " .. why
  check(self, "starttls")
end

---@param self mock.Conversation
local function begin_tls(self)
  self.wire.deadline = moonport.monotonic() + HANDSHAKE
  local channel, why = self.wire:secure(self.server.tls, self.reader:give_up())
  self.wire.deadline = nil
  if not channel then return no_tls(self, why) end
  self.tls = channel:info()
  self:note(("%s, %s%s"):format(self.tls.version, self.tls.cipher,
    self.tls.server_name and ", for " .. self.tls.server_name or ""))
end

---Has the peer begin TLS, after whatever the protocol says before that, and waits until it has. If it does not come to
---that the conversation is over.
function Conversation:starttls()
  needs_connection(self, "starttls")
  if not self.server.tls then
    error('c:starttls needs a certificate: mock.server { ..., tls = "starttls" }', 2)
  elseif self.tls then
    error("c:starttls: the conversation speaks TLS already", 2)
  end
  begin_tls(self)
end

---What mock.starttls does, which stands for whatever the peer asks: that it asks twice is its fault, not the script's.
function Conversation:secure()
  check(self, "starttls")
  if self.tls then return no_tls(self, "TLS: the client asks for it, and speaks it already") end
  begin_tls(self)
end

-- ---------------------------------------------------------------- stubs

---Answers by the server's stubs until the peer is gone or one of them ends the conversation.
---@param framing? any from here on
function Conversation:serve(framing)
  check(self, "serve")
  self.framing = framing_of(self, framing)
  local why = serving.run(self, self.reader, self.framing)
  if not why then return end
  input_over(self, why)
  if not self.peer then add("error", self.server.name, self.id, why) end
end

---All frames until the peer is gone: for frame in c:frames() do ... end
---@param framing? any
---@return fun(): string?
function Conversation:frames(framing)
  local each = framing ~= nil and framing_of(self, framing) or nil
  return function() return (self:recv(each)) end
end

---Answers one frame by the server's stubs: for sessions that read by themselves.
---@param frame string
function Conversation:answer(frame)
  check(self, "answer")
  if not self.silent then serving.answer(self, frame) end
end

-- ---------------------------------------------------------------- the end

-- In the journal, whatever becomes of the task that waits for toxics.
local last_mt = {
  __close = function(last, err)
    local c = last.c
    c.finished = true
    c.wire:finish()
    if c.datagram then return end
    local how = err ~= nil and "cancelled" or last.how or "closed"
    add("closed", c.server.name, c.id, "", c.ended or c.peer or how)
  end,
}

---The last of it, in the journal; for datagrams nothing.
---@param how? string unless something has ended it before
function Conversation:finish(how)
  if self.finished then return end
  local last <close> = setmetatable({ c = self, how = how }, last_mt) -- luacheck: ignore 211
  if how == "cancelled" or how == "rst" then return end -- nobody is there to wait
  if self.datagram or not self.over then self.wire:drain() end
end

---@return boolean the connection was closed, by whomever
function Conversation:is_closed() return self.over ~= false or self.wire:is_closed() end

return M
