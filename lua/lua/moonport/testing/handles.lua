--- What the objects of a connection have in common: when its request is over, every use of them raises.

local args = require("moonport.testing.args")

---@type table<table, testing.Stream>
local streams = setmetatable({}, { __mode = "k" })

local M = {}

---@param meta table
---@param s testing.Stream
---@return table
function M.new(meta, s)
  local self = setmetatable({}, meta)
  streams[self] = s
  return self
end

---The stream of a method's self, of a class or one of two.
---@param self any
---@param class string
---@param or_class? string
---@return testing.Stream
function M.stream(self, class, or_class)
  local s = streams[self]
  local meta = debug.getmetatable(self)
  local name = s and meta.__name
  if name ~= class and (not name or name ~= or_class) then args.bad_type(1, class, self == nil and 0 or 1, self) end
  if s.over then
    args.fail(s.owned and "the connection is closed: it cannot be used any more"
      or "the request is over: its objects cannot be used any more")
  end
  if s.closed then args.fail("the connection is closed: the handler has closed it before") end
  return s
end

---@param self any
---@return testing.Stream? nil: over
function M.peek(self)
  local s = streams[self]
  return s and not s.over and s or nil
end

return M
