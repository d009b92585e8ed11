--- Answers frames by stubs, one after the other: what most mocks do all the time.

local journal = require("moonport.journal")
local reply = require("moonport.mock.reply")

local M = {}

local add, play, sub = journal.add, reply.play, string.sub

local SHORT = 40 -- Lua compares strings up to this length by address

-- Those whose frame depends on nothing but its own bytes; a custom framing may say so itself, by `prefix = true`.
local PREFIX = { line = true, upto = true, delimiter = true, fixed = true, pack = true, length = true }

---@param framing frame.Framing
---@return boolean
local function is_prefix(framing)
  if framing.prefix ~= nil then return framing.prefix end
  return not framing.values and PREFIX[framing.name:match("^%a+")] or false
end

---Answers one frame.
---@param c mock.Conversation
---@param server mock.Server
---@param frame string
---@param stub mock.Stub?
---@param ... any what its pattern has captured
---@return mock.Stub? stub if it has a plain reply
local function answer(c, server, frame, stub, ...)
  if stub then
    server:use(stub)
    local bytes = stub.bytes
    if bytes then
      c:send(bytes)
      return stub
    end
    play(stub.reply, c, ...)
  elseif server.fallback then
    play(server.fallback, c, frame)
  else
    add("unmatched", server.name, c.id, frame)
  end
end

---Answers one frame.
---@param c mock.Conversation
---@param server mock.Server
---@param frame string
function M.answer(c, server, frame) answer(c, server, frame, server:pick(c, frame)) end

---@param c mock.Conversation
---@param server mock.Server
---@param reader frame.Reader
---@param framing frame.Framing
---@return string? why there are no more frames; nil: the conversation is over
function M.run(c, server, reader, framing)
  local name, id, wire, prefix = server.name, c.id, c.wire, is_prefix(framing)
  local last, size, frame, stub, index -- the last frame's text, if short; what was made of it
  while not c.over do
    local buf, pos = reader.buf, reader.pos
    -- Pipelines repeat themselves, and the same text is the same frame.
    if last and sub(buf, pos, pos + size) == last then
      reader.pos = pos + size + 1
    else
      local why
      frame, why = reader:read(framing)
      if not frame then return tostring(why) end
      if reader.pos <= pos or reader.buf ~= buf then pos = 1 end -- it came in a new piece
      size, stub = reader.pos - 1 - pos, nil
      last = prefix and size < SHORT and sub(reader.buf, pos, pos + size) or nil
    end
    add("received", name, id, frame)
    if stub and index == server.index and not stub.spent then
      server:use(stub)
      wire:send(stub.bytes)
    elseif not c.silent then
      stub = answer(c, server, frame, server:pick(c, frame))
      index = not server.stateful and server.index or nil
    end
  end
end

return M
