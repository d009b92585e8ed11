--- The values that a host raises, and the system's words for its errors.

local M = {}

---@type table<string, { [1]: integer, [2]: string }> Linux's numbers
local SYSTEM = {
  EPIPE = { 32, "Broken pipe" },
  EMSGSIZE = { 90, "Message too long" },
  ECONNRESET = { 104, "Connection reset by peer" },
  ENOTCONN = { 107, "Transport endpoint is not connected" },
  ETIMEDOUT = { 110, "Connection timed out" },
  ECONNREFUSED = { 111, "Connection refused" },
  ECANCELED = { 125, "Operation canceled" },
}

local PEER_GONE = { EPIPE = true, ECONNRESET = true, ENOTCONN = true, ETIMEDOUT = true }

local error_mt = { __name = "moonport.error", __tostring = function(self) return tostring(self.message) end }

---@param code string
---@param message string
---@param errno? integer
---@return moonport.Error
function M.new(code, message, errno)
  return setmetatable({ code = code, message = message, errno = errno }, error_mt)
end

---@param what string such as "write"
---@param name string such as "EPIPE"
---@return moonport.Error
function M.of_system(what, name)
  return M.new(name, what .. ": " .. SYSTEM[name][2], SYSTEM[name][1])
end

---@param what string
---@return moonport.Error
function M.timeout(what) return M.new("timeout", what .. ": timeout", SYSTEM.ETIMEDOUT[1]) end

---@param why string
---@return moonport.Error
function M.cancelled(why) return M.new("cancelled", "cancelled: " .. why, SYSTEM.ECANCELED[1]) end

---What a failed read returns.
---@param name string
---@return nil, string message, integer errno
function M.result(name) return nil, SYSTEM[name][2], SYSTEM[name][1] end

---@param name string
---@return string
function M.text(name) return SYSTEM[name][2] end

---@param err any
---@return string? code of a value that a host has raised
function M.code(err)
  if type(err) ~= "table" or getmetatable(err) ~= error_mt then return nil end
  local code = rawget(err, "code")
  return type(code) == "string" and code or nil
end

---@param code string
function M.is_peer_gone(code) return PEER_GONE[code] or false end

return M
