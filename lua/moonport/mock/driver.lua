--- The handler of a mock's script: it runs a conversation for each request, and hands over what the control API has
--- made when the script is replaced.

local moonport = require("moonport")
local conversation = require("moonport.mock.conversation")
local datagram = require("moonport.mock.datagram")
local handover = require("moonport.mock.handover")
local registry = require("moonport.mock.registry")
local server = require("moonport.mock.server")

local M = {}

local traceback = debug and debug.traceback -- not in a sandbox

-- Plain errors get their traceback where they are raised.
local function trace(err)
  if type(err) == "string" and traceback then return traceback(err, 2) end
  return err
end

-- The words of the journal for errors that are not the script's: how the connection has ended.
local GONE = { EPIPE = "rst", ECONNRESET = "rst", ETIMEDOUT = "rst", ECONNREFUSED = "rst", timeout = "closed" }
local HANGUP = "the peer is gone"

---@param err any
---@return string? ended nil: it is the script's fault
local function ending(err)
  local code = (type(err) == "table" or type(err) == "userdata") and err.code
  if code == "cancelled" then return tostring(err):find(HANGUP, 1, true) and "rst" or "cancelled" end
  return GONE[code]
end

---@param c mock.Conversation
---@param err any
local function failed(c, err)
  if conversation.is_over(err) then return c:finish() end
  local ended = ending(err)
  if ended then
    c:finish(ended)
  elseif c:is_closed() then -- somebody closed it meanwhile: a toxic, the control API
    c:finish("cancelled")
    return
  else
    registry.fail(c.server.name, c.id, tostring(err))
    c:finish("closed")
  end
  error(err, 0)
end

---@param c mock.Conversation
local function talk(c)
  c.server:converse(c)
  c:finish()
end

---@param c mock.Conversation
local function run(c)
  local ok, err = xpcall(talk, trace, c)
  if not ok then failed(c, err) end
end

local Handler = {}

function Handler:handle()
  local one = registry.answering(self.server.name)
  if not self.packet then return run(conversation.of_stream(one, self)) end
  local id, nth = one:count_datagram(tostring(self.client_address))
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
  if moonport.default_handler then moonport.default_handler(Handler) end
end

M.Handler = Handler

return M
