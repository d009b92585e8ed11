--- What was expected beside what came, for people: as text and as hex, the first difference marked.

local match = require("moonport.mock.match")
local pattern = require("moonport.mock.pattern")

local M = {}

local WIDTH = 16 -- bytes in a row
local ROWS = 4
local LONGEST = 200 -- bytes of a frame that are shown in one line

local byte, sub = string.byte, string.sub

---@param bytes string
---@return string
local function quote(bytes)
  if #bytes <= LONGEST then return match.quote(bytes) end
  return ("%s and %d bytes more"):format(match.quote(sub(bytes, 1, LONGEST)), #bytes - LONGEST)
end

---@param name string
---@param bytes string
---@param from integer
---@return string
local function row(name, bytes, from)
  local part = sub(bytes, from, from + WIDTH - 1)
  local hex = part:gsub(".", function(c) return ("%02x "):format(byte(c)) end)
  local text = part:gsub("[^\32-\126]", ".")
  return ("  %-9s %04x  %-" .. WIDTH * 3 .. "s %s"):format(name, from - 1, hex, text)
end

---@param at integer of the byte in its row, from 0
---@return string
local function marks(at)
  return (" "):rep(18 + at * 3) .. "^^" .. (" "):rep((WIDTH - at) * 3 - 1) .. (" "):rep(at) .. "^"
end

---@param at integer the first byte that differs
---@return string[] lines
local function rows(expected, came, at)
  local lines, longest = {}, math.max(expected and #expected or 0, #came)
  local first = (at - 1) // WIDTH * WIDTH + 1
  local from = math.max(first - WIDTH, 1)
  for start = from, math.min(longest, from + ROWS * WIDTH - 1), WIDTH do
    if expected then lines[#lines + 1] = row("expected", expected, start) end
    lines[#lines + 1] = row("received", came, start)
    if start == first then lines[#lines + 1] = marks(at - first):gsub("%s+$", "") end
  end
  return lines
end

---@param a string
---@param b string
---@return integer bytes that agree
function M.common(a, b)
  local n = math.min(#a, #b)
  for i = 1, n do
    if byte(a, i) ~= byte(b, i) then return i - 1 end
  end
  return n
end

---@param m mock.Matcher
---@param frame string
---@return integer? bytes that agree; nil: nothing is known
---@return string? expected what was, if it is known byte for byte
---@return string? rest of a pattern
local function agreement(m, frame)
  if m.equals then return M.common(m.equals, frame), m.equals end
  if m.pattern and m.first then
    local n, rest = pattern.agreement(m.pattern, frame)
    return n, nil, rest
  end
  if m.literal and m.literal ~= "" then return M.common(m.literal, frame), m.literal end
end

---Why a frame is not what was wanted.
---@param m mock.Matcher
---@param frame string
---@return string lines
function M.explain(m, frame)
  local agree, expected, rest = agreement(m, frame)
  local lines = { "  expected  " .. m.text, ("  received  %s (%d bytes)"):format(quote(frame), #frame) }
  if agree and (rest or agree > 0) then
    local after = rest and rest ~= "" and (", then %s was expected"):format(match.quote(rest)) or ""
    lines[#lines + 1] = ("  the first %d bytes agree%s"):format(agree, after)
  end
  for _, line in ipairs(rows(expected, frame, (agree or 0) + 1)) do lines[#lines + 1] = line end
  return table.concat(lines, "\n")
end

---@param where string
---@param m mock.Matcher
---@param frame string
---@return string
function M.mismatch(where, m, frame)
  return ("%sexpect failed\n%s"):format(where, M.explain(m, frame))
end

local REASONS = {
  closed = "the peer closed the connection", reset = "the peer reset the connection",
}

---@param where string
---@param m mock.Matcher
---@param why string of the read
---@param rest string what has come of a frame
---@param seconds number?
---@return string
function M.missing(where, m, why, rest, seconds)
  local reason = REASONS[why] or why
  if why == "timeout" then reason = ("no whole frame came within %g seconds"):format(seconds or 0) end
  local lines = { ("%sexpect failed: %s"):format(where, reason), "  expected  " .. m.text }
  if rest ~= "" then
    lines[#lines + 1] = ("  received  a part of a frame: %s (%d bytes)"):format(quote(rest), #rest)
    for _, line in ipairs(rows(nil, sub(rest, 1, ROWS * WIDTH), 1)) do lines[#lines + 1] = line end
  else
    lines[#lines + 1] = "  received  nothing"
  end
  return table.concat(lines, "\n")
end

---How near a frame comes to a matcher, from 0 to 1.
---@param m mock.Matcher
---@param frame string
---@return number
function M.nearness(m, frame)
  local goal = m.equals or m.literal
  if not goal or goal == "" or frame == "" then return 0 end
  local prefix = M.common(goal, frame) / #goal
  local tail = m.equals and M.common(goal:reverse():sub(1, 64), frame:reverse():sub(1, 64)) / #goal or 0
  local folded = M.common(goal:lower(), frame:lower()) / #goal
  return math.min(1, math.max(prefix, 0.9 * folded, 0.7 * (prefix + tail)))
end

return M
