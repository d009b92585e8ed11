--- wfile: a Lua file handle that writes to the connection. A write takes every byte, or raises.

local args = require("moonport.testing.args")
local errors = require("moonport.testing.errors")
local handles = require("moonport.testing.handles")
local stream = require("moonport.testing.stream")

local M = {}

---@param s testing.Stream
local function fail(s, why)
  if why == "timeout" then
    s.error = "ETIMEDOUT" -- how much of it went is not known to the peer's reader
    error(errors.timeout("write"), 0)
  end
  error(errors.of_system("write", why), 0)
end

-- Sends at once what the buffering mode does not let wait.
---@param s testing.Stream
local function settle(s, pieces)
  if not s.wire or s.mode == "full" then return end
  local now = s.mode == "no"
  for _, piece in ipairs(pieces) do now = now or piece:find("\n", 1, true) end
  if now then s:flush() end
end

---@param s testing.Stream
---@param data string
local function write_all(s, data)
  while data ~= "" do
    local n, why = s:write(data)
    if n then
      data = data:sub(n + 1)
    elseif why == "yield" then
      s:yield_out("a write")
    elseif why == "wait" then
      if s:park_out("a write") then fail(s, "timeout") end
    else
      fail(s, why)
    end
  end
end

local methods = {}

function methods.write(self, ...)
  local s = handles.stream(self, "moonport.wfile")
  local n, pieces = select("#", ...), { ... }
  for i = 1, n do pieces[i] = args.string(i + 1, n + 1, pieces[i]) end
  if s.write_closed then args.fail("attempt to write to a closed wfile") end
  for i = 1, n do write_all(s, pieces[i]) end
  settle(s, pieces)
  return self
end

---@param s testing.Stream
local function flush(s)
  while true do
    s:flush()
    if s.error then fail(s, s.error) end
    if not s.wire or not s:has_unsent() then return end
    if s:park_out("a flush") then fail(s, "timeout") end
  end
end

function methods.flush(self)
  flush(handles.stream(self, "moonport.wfile"))
  return self
end

function methods.close(self)
  local s = handles.stream(self, "moonport.wfile")
  if s.write_closed then args.fail("attempt to close a closed wfile") end
  s.write_closed = true
  flush(s)
  return true
end

function methods.setvbuf(self, ...)
  local s = handles.stream(self, "moonport.wfile")
  local n = select("#", ...) + 1
  local mode, size = ...
  mode = args.option(2, n, mode, { "full", "line", "no" })
  size = size == nil and stream.GATHER or args.integer(3, n, size)
  if size < 0 then args.bad(3, "size must not be negative") end
  s.mode, s.collect_max = mode, math.min(size, stream.GATHER)
  settle(s, {})
  return true
end

local wfile_mt = args.class("moonport.wfile", methods, {
  __tostring = function(self)
    local s = handles.peek(self)
    return s and not s.closed and not s.write_closed and ("wfile (%p)"):format(self) or "wfile (closed)"
  end,
})

---@param s testing.Stream
---@return moonport.WFile
function M.new(s) return handles.new(wfile_mt, s) end

return M
