--- Answers frames by stubs, one after the other: what most mocks do all the time.

local moonport = require("moonport")
local journal = require("moonport.journal")
local known = require("moonport.mock.known")
local match = require("moonport.mock.match")
local reply = require("moonport.mock.reply")

local M = {}

local byte, find, text_match = string.byte, string.find, string.match
local play, returned, run, type = reply.play, reply.returned, match.run, type
local atomically, note = moonport.atomically, known.note

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
  if stub.mark or uses == times then c.server:noted_use(stub) end
  local bytes = stub.bytes
  if call then
    bytes = call(c, first, ...)
    if type(bytes) ~= "string" then
      returned(c, call, bytes)
      return true
    end
  elseif not bytes then
    play(stub.reply, c, first, ...)
    return true
  end
  if c.filter or c.over then
    c:send(bytes)
  else
    c.wire:send(bytes)
  end
  return true
end

local function used_if(c, stub, ok, ...) return ok and used(c, stub, ...) end

-- Plays the first stub that matches, and says whether there was one.
local function answered(c, frame)
  local server = c.server
  local first, always = byte(frame) or false, server.known -- a new one if the stubs change meanwhile
  local list = server.index[first] or server:candidates(first)
  for i = 1, #list do
    local stub = list[i]
    if not stub.spent then
      local m = stub.match
      local equals, pattern, captures = m.equals, m.pattern, m.captures
      if not equals and not pattern then
        always = nil -- a function may decide otherwise the next time
        if used_if(c, stub, run(m, frame, c)) then return true end
      elseif captures and captures > 1 then
        if used(c, stub, text_match(frame, pattern)) then return true end
      else
        local capture
        if captures then
          capture = text_match(frame, pattern)
        elseif equals == frame or not equals and find(frame, pattern) then
          capture = frame
        end
        if used(c, stub, capture) then
          if always then note(always, stub, frame, capture) end
          return true
        end
      end
    end
  end
  return false
end

local function unanswered(c, frame)
  local server = c.server
  if server.fallback then return play(server.fallback, c, frame) end
  journal.add("unmatched", server.name, c.id, frame)
end

---Answers one frame.
---@param c mock.Conversation
---@param frame string
function M.answer(c, frame)
  if not answered(c, frame) then unanswered(c, frame) end
end

---@param c mock.Conversation
---@param reader frame.Reader
---@param framing frame.Framing
---@return string? why there are no more frames; nil: the conversation is over
function M.run(c, reader, framing)
  local server, next_frame, received, send = c.server, reader.frame, c.received, c.wire:sender()
  while not c.over do
    local frame, why = next_frame(reader, framing)
    if not frame then return tostring(why) end
    received(frame)
    local always = server.known
    local stub = always.stubs[frame]
    if stub and not c.silent and not c.over and not c.filter then
      stub.uses = stub.uses + 1
      local call = stub.call
      if not call then
        send(stub.bytes)
      else
        local bytes = call(c, always.captures[frame])
        if (bytes == stub.said or type(bytes) == "string") and not c.over then
          stub.said = bytes -- what was a string is one
          send(bytes)
        else
          returned(c, call, bytes)
        end
      end
    elseif not c.silent and not answered(c, frame) then
      unanswered(c, frame)
    end
  end
end

return M
