--- Answers frames by stubs, one after the other: what most mocks do all the time.

local journal = require("moonport.journal")
local match = require("moonport.mock.match")
local reply = require("moonport.mock.reply")

local M = {}

local byte, find, text_match = string.byte, string.find, string.match
local play, run = reply.play, match.run

---@param c mock.Conversation
---@param stub mock.Stub
---@param ... any what its pattern has captured
local function use(c, stub, ...)
  local uses, bytes = stub.uses + 1, stub.bytes
  stub.uses = uses
  if uses == 1 or uses == stub.times then c.server:noted_use(stub) end
  if not bytes then return play(stub.reply, c, ...) end
  if c.filter or c.over then return c:send(bytes) end
  return c.wire:send(bytes)
end

-- Whether its pattern, which has captures, has matched.
local function used(c, stub, first, ...)
  if first == nil then return false end
  use(c, stub, first, ...)
  return true
end

local function used_if(c, stub, ok, ...)
  if ok then use(c, stub, ...) end
  return ok
end

-- Plays the first stub that matches, and says whether there was one.
local function answered(c, frame)
  local server = c.server
  local first = byte(frame) or false
  local list = server.index[first] or server:candidates(first)
  for i = 1, #list do
    local stub = list[i]
    if not stub.spent then
      local m = stub.match
      local pattern = m.pattern
      if m.equals then
        if m.equals == frame then
          use(c, stub, frame)
          return true
        end
      elseif m.captures then
        if used(c, stub, text_match(frame, pattern)) then return true end
      elseif pattern then
        if find(frame, pattern) then
          use(c, stub, frame)
          return true
        end
      elseif used_if(c, stub, run(m, frame, c)) then
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
