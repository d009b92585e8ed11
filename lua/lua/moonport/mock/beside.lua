--- Tasks that a conversation has spawned: an error in one is the script's as much as one in the conversation itself.

local moonport = require("moonport")
local blame = require("moonport.mock.blame")
local registry = require("moonport.mock.registry")

local M = {}

local running, spawn = coroutine.running, moonport.spawn

---@type table<thread, mock.Conversation> by their tasks; a coroutine of the script's own is nobody's
local talking = setmetatable({}, { __mode = "k" })

---@param c mock.Conversation
---@param f function
---@return boolean ok
---@return any err
function M.run(c, f, ...)
  talking[running()] = c
  local ok, err = xpcall(f, blame.trace, ...)
  talking[running()] = nil
  return ok, err
end

local function course(c, ...)
  local ok, err = M.run(c, ...)
  if ok or blame.is_over(err) then return end
  local ended, quiet = blame.ending(err, c:is_closed())
  if not ended then registry.fail(c.server.name, c.id, blame.complaint(c, err)) end
  if not quiet then error(err, 0) end
end

local function spawn_beside(f, ...)
  local c = type(f) == "function" and talking[running()]
  if c then return spawn(course, c, f, ...) end
  local ok, why = pcall(spawn, f, ...)
  if not ok then error(why, 2) end
end

---Has the scripts of this state spawn by it.
function M.install() moonport.spawn = spawn_beside end

return M
