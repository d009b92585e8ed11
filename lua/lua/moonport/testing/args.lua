--- Methods that complain as a C function does: by the place of their caller, with the number of the argument.

local M = {}

-- What stands for a C function: see M.method.
local entries = setmetatable({}, { __mode = "k" })

local function give(...) return ... end

---A function that its errors below take for the one that was called. Not a tail call, or its place would be lost.
---@param f function
---@return function
function M.method(f)
  local function entry(...) return give(f(...)) end
  entries[entry] = true
  return entry
end

---@return integer level of the innermost entry, as seen by the caller's caller
local function entry_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "f")
    if not info then return level end
    if entries[info.func] then return level - 1 end
    level = level + 1
  end
end

---Raises an ordinary error at the place where the entry was called.
---@param text string
---@param ... any for string.format
function M.fail(text, ...)
  error(select("#", ...) > 0 and text:format(...) or text, entry_level() + 1)
end

---@return string where the entry was called: "script.lua:12: ", or ""
function M.where()
  local info = debug.getinfo(entry_level() + 1, "Sl")
  return info and info.currentline > 0 and ("%s:%d: "):format(info.short_src, info.currentline) or ""
end

---@param index integer with self as 1
---@param text string
function M.bad(index, text)
  local level = entry_level()
  local info = debug.getinfo(level, "n")
  local name = info and info.name or "?"
  if info and info.namewhat == "method" then
    index = index - 1
    if index == 0 then error(("calling '%s' on bad self (%s)"):format(name, text), level + 1) end
  end
  error(("bad argument #%d to '%s' (%s)"):format(index, name, text), level + 1)
end

---@param value any
local function type_name(value)
  local meta = debug.getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return type(name) == "string" and name or type(value)
end

---@param index integer
---@param expected string
---@param n integer arguments that there are
---@param value any
function M.bad_type(index, expected, n, value)
  M.bad(index, ("%s expected, got %s"):format(expected, index > n and "no value" or type_name(value)))
end

---@return string
function M.string(index, n, value)
  local t = type(value)
  if t == "number" then return tostring(value) end
  if t ~= "string" then M.bad_type(index, "string", n, value) end
  return value
end

---@return number
function M.number(index, n, value)
  local number = type(value) ~= "boolean" and tonumber(value)
  if not number or type(value) == "table" then M.bad_type(index, "number", n, value) end
  return number
end

---@return integer
function M.integer(index, n, value)
  local number = M.number(index, n, value)
  local integer = math.tointeger(number)
  if not integer then M.bad(index, "number has no integer representation") end
  return integer
end

---A duration: nil, or as good as for ever, is none.
---@return number?
function M.seconds(index, n, value)
  if value == nil then return nil end
  local seconds = M.number(index, n, value)
  if seconds < 0 or seconds ~= seconds then M.bad(index, "seconds must not be negative") end
  return seconds < 1e9 and seconds or nil
end

---@param names string[]
---@param default? string
---@return string
function M.option(index, n, value, names, default)
  if value == nil and default then value = default end
  local text = M.string(index, n, value)
  for _, name in ipairs(names) do
    if name == text then return name end
  end
  M.bad(index, ("invalid option '%s'"):format(text))
end

---An object of one of the classes that stand for userdata: no fields of its own, no metatable to be seen.
---@param name string "moonport.rfile"
---@param methods table<string, function>
---@param more? table metamethods
---@return table metatable
function M.class(name, methods, more)
  local wrapped = {}
  for key, f in pairs(methods) do wrapped[key] = M.method(f) end
  local meta = { __name = name, __index = wrapped, __metatable = false }
  function meta.__newindex() error("attempt to index a userdata value", 2) end
  for key, f in pairs(more or {}) do meta[key] = f end
  return meta
end

return M
