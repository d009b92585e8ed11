--- Whose fault an error in a conversation is: the script's, or nobody's, for the connection has ended.

local M = {}

local traceback = debug and debug.traceback -- not in a sandbox

local over_mt = { __name = "mock.Over", __tostring = function(self) return self.message end }

---What a use of c raises when the conversation is over: it ends the function, and is no error of anybody's.
---@param text string
---@return any err
function M.over(text) return setmetatable({ message = text }, over_mt) end

---@param err any
---@return boolean
function M.is_over(err) return getmetatable(err) == over_mt end

---@param err any
---@return boolean the host has raised it
local function is_of_host(err)
  local meta = getmetatable(err)
  return type(meta) == "table" and meta.__name == "moonport.error"
end

-- As the host says it.
local function text_of(err)
  local kind, meta = type(err), getmetatable(err)
  if (kind == "table" or kind == "userdata") and not (type(meta) == "table" and meta.__tostring) then
    return ("(error object is a %s value)"):format(kind)
  end
  local ok, text = pcall(tostring, err)
  return ok and text or ("(error value: a %s whose __tostring failed)"):format(kind)
end

---The message handler: a script's errors get their traceback where they are raised. Its error values become text.
---@param err any
---@return any err
function M.trace(err)
  if is_of_host(err) or M.is_over(err) then return err end
  local text = text_of(err)
  return traceback and traceback(text, 2) or text
end

---What is to be said against the script. An error of the host's has no place; it tells whose it is.
---@param c mock.Conversation
---@param err any as trace() gives it
---@return string
function M.complaint(c, err)
  if not is_of_host(err) then return tostring(err) end
  return ("mock %s, %s %d from %s: %s"):format(c.server.name, c.datagram and "datagram" or "connection", c.nth,
    tostring(c.client), tostring(err))
end

-- The words of the journal: how the connection has ended.
local GONE = {
  EPIPE = "rst", ECONNRESET = "rst", ENOTCONN = "rst", ETIMEDOUT = "rst", ECONNREFUSED = "rst",
  ENOENT = "rst", timeout = "closed", -- ENOENT: the path of a client of datagrams
}
local HANGUP = "the peer is gone"
local CLOSED = { "the connection was closed during a ", "the connection is closed: " } -- what the host says

---@param err any as trace() gives it
---@param closed boolean the connection is
---@return string? ended nil: it is the script's fault
---@return boolean? quiet not even worth a line of the log
function M.ending(err, closed)
  if is_of_host(err) then
    if err.code == "cancelled" then return err.message:find(HANGUP, 1, true) and "rst" or "cancelled" end
    return GONE[err.code]
  elseif closed and type(err) == "string" then
    local line = err:match("^[^\n]*")
    for _, words in ipairs(CLOSED) do
      if line:find(words, 1, true) then return "cancelled", true end
    end
  end
end

return M
