--- What a stub or an expect looks for in a frame: Lua patterns, exact bytes, hex, combinations, functions.

local frames = require("moonport.frame")
local pattern = require("moonport.mock.pattern")

local M = {}

local byte, find, sub = string.byte, string.find, string.sub

---@class mock.Matcher
---@field text string for people: pattern "^PING$"
---@field spec any as plain data, to be listed; {["function"]=true} stands for functions
---@field pattern string? a Lua pattern
---@field captures integer? of the pattern: those are the arguments, else the frame is
---@field equals string? the only frame that matches
---@field first integer? the byte that each matching frame begins with
---@field literal string? how each matching frame begins
---@field test (fun(frame: string, c: any): any, ...)? where there is no pattern: truthy, then the arguments

---@param bytes string
---@return string for people
local function quote(bytes)
  return '"' .. bytes:gsub('[%c"\\\127-\255]', function(c)
    if c == "\n" then return "\\n" elseif c == "\r" then return "\\r" elseif c == '"' then return '\\"' end
    return c == "\\" and c .. c or ("\\x%02x"):format(byte(c))
  end) .. '"'
end
M.quote = quote

---@param p string
---@return mock.Matcher?
---@return string? why
local function of_pattern(p)
  local facts, why = pattern.facts(p)
  if not facts then return nil, ("the pattern %s is malformed: %s"):format(quote(p), why) end
  local m = {
    text = "pattern " .. quote(p), spec = p, pattern = p, captures = facts.captures,
    literal = facts.literal, first = byte(facts.literal),
  }
  if facts.exact and not facts.captures then m.equals = facts.literal end
  return m
end

---@type table<string, fun(value: any): mock.Matcher?, string?>
local KINDS = {}

local function needs_string(name, value)
  if type(value) ~= "string" then return ("%s needs a string, not a %s"):format(name, type(value)) end
end

function KINDS.pattern(value) return of_pattern(value) end

function KINDS.equals(value)
  return { text = "equals " .. quote(value), equals = value, first = byte(value), literal = value }
end

function KINDS.starts_with(value)
  local n = #value
  return {
    text = "starts with " .. quote(value), first = byte(value), literal = value,
    test = function(frame) return sub(frame, 1, n) == value end,
  }
end

function KINDS.ends_with(value)
  local n = #value
  return {
    text = "ends with " .. quote(value),
    test = function(frame) return n == 0 or sub(frame, -n) == value end,
  }
end

function KINDS.contains(value)
  return {
    text = "contains " .. quote(value),
    test = function(frame) return find(frame, value, 1, true) ~= nil end,
  }
end

function KINDS.hex(value)
  local ok, m = pcall(frames.hex, value)
  if not ok then return nil, (tostring(m):gsub("^[^\n]-:%d+: ", "")) end
  return M.compile(m)
end

-- Whether a compiled matcher takes the frame.
local function takes(m, frame, c)
  if m.equals then return m.equals == frame end
  if m.pattern then return find(frame, m.pattern) ~= nil end
  return m.test(frame, c) and true or false
end
M.takes = takes

---@param list any
---@return mock.Matcher[]?
---@return string? why
local function compile_all(name, list)
  if type(list) ~= "table" or #list == 0 then return nil, name .. " needs a list of matchers" end
  local out = {}
  for i, value in ipairs(list) do
    local m, why = M.compile(value)
    if not m then return nil, why end
    out[i] = m
  end
  return out
end

local function specs(list)
  local out = {}
  for i, m in ipairs(list) do out[i] = m.spec end
  return out
end

local MOST_SHOWN = 20

-- Of many the first: the text goes into each message about them.
local function texts(list)
  local out = {}
  for i, m in ipairs(list) do
    if i > MOST_SHOWN then
      out[i] = ("and %d more"):format(#list - MOST_SHOWN)
      break
    end
    out[i] = m.text
  end
  return table.concat(out, ", ")
end

function KINDS.all(value)
  local list, why = compile_all("all", value)
  if not list then return nil, why end
  return {
    text = "all of (" .. texts(list) .. ")", spec = { all = specs(list) },
    test = function(frame, c)
      for _, m in ipairs(list) do
        if not takes(m, frame, c) then return false end
      end
      return true
    end,
  }
end

function KINDS.any(value)
  local list, why = compile_all("any", value)
  if not list then return nil, why end
  return {
    text = "any of (" .. texts(list) .. ")", spec = { any = specs(list) },
    test = function(frame, c)
      for _, m in ipairs(list) do
        if takes(m, frame, c) then return true end
      end
      return false
    end,
  }
end

KINDS["not"] = function(value)
  local m, why = M.compile(value)
  if not m then return nil, why end
  return {
    text = "not (" .. m.text .. ")", spec = { ["not"] = m.spec },
    test = function(frame, c) return not takes(m, frame, c) end,
  }
end

local OF_STRINGS = { pattern = true, equals = true, starts_with = true, ends_with = true, contains = true, hex = true }
local KNOWN = "pattern, equals, starts_with, ends_with, contains, hex, not, all or any"

---@param value table { equals = "..." } and the like
---@return mock.Matcher?
---@return string? why
local function of_table(value)
  local name, operand = next(value)
  local make = KINDS[name]
  if not make then
    return nil, ("a matcher needs one of %s, not %s"):format(KNOWN, name == nil and "nothing" or quote(tostring(name)))
  elseif next(value, name) ~= nil then
    return nil, "a matcher has one field (put several into `all`)"
  end
  local why = OF_STRINGS[name] and needs_string(name, operand)
  if why then return nil, why end
  local m
  m, why = make(operand)
  if m and OF_STRINGS[name] then m.spec = value end
  return m, why
end

---@param value any a pattern, a matcher of frame.hex, a table such as {equals=...}, a function
---@return mock.Matcher? matcher
---@return string? why
function M.compile(value)
  local kind = type(value)
  if kind == "string" then
    return of_pattern(value)
  elseif kind == "function" then
    return { text = "a function", spec = { ["function"] = true }, test = value }
  elseif kind ~= "table" then
    return nil, ("a matcher is a pattern, a table or a function, not a %s"):format(kind)
  end
  local m = M.of_frame(value)
  if m then return m end
  return of_table(value)
end

---A matcher that moonport.frame.hex has made.
---@param value table
---@return mock.Matcher? matcher nil: it is none
function M.of_frame(value)
  local test = value.test
  if type(test) ~= "function" then return nil end
  local first = tostring(value.hex):match("^%x%x")
  return {
    text = "hex " .. quote(value.hex), spec = { hex = value.hex }, first = first and tonumber(first, 16),
    test = function(frame) return test(frame) end,
  }
end

local MAX_KEPT = 256
local kept, n_kept = {}, 0

---The same, remembering patterns: for those that are asked for again and again.
---@param value any
---@return mock.Matcher?
---@return string? why
function M.get(value)
  local m = kept[value]
  if m or value == nil then return m, not m and "expect needs a matcher" or nil end
  local why
  m, why = M.compile(value)
  if m and type(value) == "string" then
    if n_kept >= MAX_KEPT then kept, n_kept = {}, 0 end
    kept[value], n_kept = m, n_kept + 1
  end
  return m, why
end

local function after_test(frame, ok, first, ...)
  if not ok then return false end
  if first == nil then return true, frame end
  return true, first, ...
end

local function after_match(first, ...)
  if first == nil then return false end
  return true, first, ...
end

---@param m mock.Matcher
---@param frame string
---@param c any the conversation, for functions
---@return boolean ok
---@return any ... the captures, or the frame
function M.run(m, frame, c)
  if m.equals then
    return m.equals == frame, frame
  elseif m.captures then
    return after_match(string.match(frame, m.pattern))
  elseif m.pattern then
    return find(frame, m.pattern) ~= nil, frame
  end
  return after_test(frame, m.test(frame, c))
end

return M
