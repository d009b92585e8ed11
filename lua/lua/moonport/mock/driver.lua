--- The handler of a mock's script: it runs a conversation for each request, and hands over what the control API has
--- made when the script is replaced.

local moonport = require("moonport")
local journal = require("moonport.journal")
local beside = require("moonport.mock.beside")
local blame = require("moonport.mock.blame")
local conversation = require("moonport.mock.conversation")
local datagram = require("moonport.mock.datagram")
local handover = require("moonport.mock.handover")
local registry = require("moonport.mock.registry")
local server = require("moonport.mock.server")

local M = {}

---@param c mock.Conversation
---@param err any
local function failed(c, err)
  if blame.is_over(err) then return c:finish() end
  local ended, quiet = blame.ending(err, c:is_closed())
  if not ended then registry.fail(c.server.name, c.id, blame.complaint(c, err)) end
  c:finish(ended or c.wire:is_closed() and "cancelled" or "closed")
  if not quiet then error(err, 0) end
end

---@param c mock.Conversation
local function talk(c)
  c.server:converse(c)
  c:finish()
end

---@param c mock.Conversation
local function run(c)
  local ok, err = beside.run(c, talk, c)
  if not ok then failed(c, err) end
end

local Handler = {
  server = { max_packet_size = 65536 }, -- more than UDP has, and as much as there is
}

function Handler:handle()
  local one = registry.answering(self.server.name)
  if not self.packet then return run(conversation.of_stream(one, self)) end
  local id, nth = one:count_datagram(tostring(self.client_address))
  if self.truncated then
    journal.add("note", one.name, id,
      ("a datagram longer than max_packet_size was cut to %d bytes"):format(#self.packet))
  end
  datagram.arrive(one, self.packet, id, nth, function(packet)
    run(conversation.of_datagram(one, self, packet, id, nth))
  end)
end

function Handler.save() return handover.save() end

---@param data any
function Handler.init(data) handover.init(data) end

---Makes it the handler of the script that is being loaded, which may return one of its servers.
function M.install()
  server.metatable.__handler = Handler
  beside.install()
  if moonport.default_handler then moonport.default_handler(Handler) end
end

M.Handler = Handler

return M
