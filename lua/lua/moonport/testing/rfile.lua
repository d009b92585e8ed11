--- rfile: a Lua file handle that reads from the connection. A read returns data, or nil and why.

local args = require("moonport.testing.args")
local errors = require("moonport.testing.errors")
local handles = require("moonport.testing.handles")
local take = require("moonport.testing.take")

local MOST_FORMATS <const> = 200

local M = {}

---What a failed receive makes a read return.
---@param why string
---@return nil, string, integer?
function M.failed(why)
  if why == "closed" or why == "timeout" then return nil, why end
  return errors.result(why)
end

-- One wanted thing: true and the value, or false, why and errno.
---@param s testing.Stream
local function read_one(s, wanted, argument)
  while true do
    s:check_reader()
    local taken, value = wanted(s, argument)
    if taken ~= nil then return taken, value end
    local n, why = s:fill()
    if why == "wait" then
      if s:park_in("a read") then return false, "timeout" end
    elseif why == "yield" then
      s:yield_in("a read")
    elseif not n then
      local _, text, errno = M.failed(why)
      return false, text, errno
    end
  end
end

local WANTED <const> = { l = take.line, L = take.line_nl, a = take.all, n = take.number }

---@return function wanted
---@return any argument
local function format_at(index, n, format)
  if type(format) == "number" then
    local count = args.integer(index, n, format)
    if count < 0 then args.bad(index, "a count must not be negative") end
    return take.count, count
  end
  local text = args.string(index, n, format)
  local wanted = WANTED[text:match("^%*?(.)") or ""]
  if not wanted then args.bad(index, "invalid format: \"l\", \"L\", \"a\", \"n\" or a count") end
  return wanted
end

---@return testing.Stream
local function for_reading(self)
  local s = handles.stream(self, "moonport.rfile")
  if s.read_closed then args.fail("attempt to read from a closed rfile") end
  s:check_reader()
  return s
end

local function read(self, ...)
  local s = for_reading(self)
  local n, formats = select("#", ...), { ... }
  if n >= MOST_FORMATS - 1 then args.bad(2, "too many formats") end
  if n == 0 then n, formats = 1, { "l" } end
  local out, results = 0, {}
  for i = 1, n do
    local ok, value, errno = read_one(s, format_at(i + 1, n + 1, formats[i]))
    out = out + 1
    if ok then
      results[out] = value
    else
      results[out + 1], results[out + 2] = value, errno
      out = out + (errno and 2 or 1)
      break
    end
  end
  return table.unpack(results, 1, out)
end

local function single(self, wanted, argument)
  local ok, value, errno = read_one(for_reading(self), wanted, argument)
  if ok then return value end
  if errno then return nil, value, errno end
  return nil, value
end

local methods = { read = read }

function methods.readline(self) return single(self, take.line_nl) end

function methods.readexactly(self, ...)
  for_reading(self)
  local n = args.integer(2, select("#", ...) + 1, (...))
  if n < 0 then args.bad(2, "a count must not be negative") end
  return single(self, take.exactly, n)
end

function methods.readuntil(self, ...)
  for_reading(self)
  local delimiter = args.string(2, select("#", ...) + 1, (...))
  if delimiter == "" then args.bad(2, "the delimiter must not be empty") end
  return single(self, take.until_, delimiter)
end

function methods.unpack(self, ...)
  for_reading(self)
  local format = args.string(2, select("#", ...) + 1, (...))
  local data, why, errno = single(self, take.unpack, format)
  if not data then
    if errno then return nil, why, errno end
    return nil, why
  end
  local values = table.pack(pcall(string.unpack, format, data))
  if not values[1] then error(values[2], 0) end
  return table.unpack(values, 2, values.n - 1)
end

-- Nil at the end of the stream, an error for any other failure.
local function step(...)
  local n = select("#", ...)
  local value, why, errno = ...
  if value ~= nil or n < 2 then return ... end
  if why == "closed" then return nil end
  if errno then
    for _, name in ipairs { "ECONNRESET", "EPIPE", "ENOTCONN", "ETIMEDOUT" } do
      if errors.text(name) == why then error(errors.of_system("read", name), 0) end
    end
  end
  if why == "timeout" then error(errors.timeout("read"), 0) end
  error(errors.new(why, "read: " .. tostring(why)), 0)
end

local next_line = args.method(function(self) return step(single(self, take.line)) end)
local next_line_nl = args.method(function(self) return step(single(self, take.line_nl)) end)

-- The host calls read from C: what is wrong there has no place in a script.
local read_entry = args.method(read)
local function called(ok, ...)
  if not ok then error((...), 0) end
  return step(...)
end

function methods.lines(self, ...)
  for_reading(self)
  local n, formats = select("#", ...), { ... }
  if n == 0 or n == 1 and formats[1] == "l" then return next_line, self end
  if n == 1 and formats[1] == "L" then return next_line_nl, self end
  if n >= MOST_FORMATS then args.bad(2, "too many formats") end
  for i = 1, n do format_at(i + 1, n + 1, formats[i]) end
  return args.method(function() return called(pcall(read_entry, self, table.unpack(formats, 1, n))) end)
end

function methods.close(self)
  local s = handles.stream(self, "moonport.rfile")
  if s.read_closed then args.fail("attempt to close a closed rfile") end
  s.read_closed = true
  return true
end

local rfile_mt = args.class("moonport.rfile", methods, {
  __tostring = function(self)
    local s = handles.peek(self)
    return s and not s.closed and not s.read_closed and ("rfile (%p)"):format(self) or "rfile (closed)"
  end,
})

---@param s testing.Stream
---@return moonport.RFile
function M.new(s) return handles.new(rfile_mt, s) end

return M
