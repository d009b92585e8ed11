--- Answers frames by stubs, one after the other: what most mocks do all the time.

local moonport = require("moonport")
local journal = require("moonport.journal")
local match = require("moonport.mock.match")
local reply = require("moonport.mock.reply")

local M = {}

local byte, find, text_match = string.byte, string.find, string.match
local play, returned, run, type = reply.play, reply.returned, match.run, type
local atomically = moonport.atomically

---@param c mock.Conversation
---@param bytes string
local function send(c, bytes)
  if c.filter or c.over then return c:send(bytes) end
  return c.wire:send(bytes)
end

-- Answers with what a stub's function has returned.
local function say(c, call, result)
  if type(result) == "string" then return send(c, result) end
  return returned(c, call, result)
end

-- Takes one of the times that a stub may be used; false: meanwhile others have taken all.
local function take(stub)
  local uses = stub.uses + 1
  if uses > stub.times then return false end
  stub.uses = uses
  return uses
end

-- Its pattern, or whatever it has, gave first and the others; nil: it has not matched.
local function used(c, stub, first, ...)
  if first == nil then return false end
  local uses, times, call = stub.uses + 1, stub.times, stub.call
  if times then
    uses = atomically(take, stub)
    if not uses then return false end
  else
    stub.uses = uses -- only told: one that is lost at the end of a slice does no harm
  end
  if uses == 1 or uses == times then c.server:noted_use(stub) end
  if call then
    say(c, call, call(c, first, ...))
  elseif stub.bytes then
    send(c, stub.bytes)
  else
    play(stub.reply, c, first, ...)
  end
  return true
end

local function used_if(c, stub, ok, ...) return ok and used(c, stub, ...) end

-- Plays the first stub that matches, and says whether there was one.
local function answered(c, frame)
  local server = c.server
  local first = byte(frame) or false
  local list = server.index[first] or server:candidates(first)
  for i = 1, #list do
    local stub = list[i]
    if not stub.spent then
      local m = stub.match
      local equals, pattern = m.equals, m.pattern
      if equals then
        if equals == frame and used(c, stub, frame) then return true end
      elseif not pattern then
        if used_if(c, stub, run(m, frame, c)) then return true end
      elseif m.captures then
        if used(c, stub, text_match(frame, pattern)) then return true end
      elseif find(frame, pattern) and used(c, stub, frame) then
        return true
      end
    end
  end
  return false
end

---Answers one frame.
---@param c mock.Conversation
---@param frame string
function M.answer(c, frame)
  if answered(c, frame) then return end
  local server = c.server
  if server.fallback then return play(server.fallback, c, frame) end
  journal.add("unmatched", server.name, c.id, frame)
end

local answer = M.answer

---@param c mock.Conversation
---@param reader frame.Reader
---@param framing frame.Framing
---@return string? why there are no more frames; nil: the conversation is over
function M.run(c, reader, framing)
  local next_frame, received = reader.frame, c.received
  while not c.over do
    local frame, why = next_frame(reader, framing)
    if not frame then return tostring(why) end
    received(frame)
    if not c.silent then answer(c, frame) end
  end
end

return M
