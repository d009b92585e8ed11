--- Of the frames that did not match those that came nearest, and where they differ.

local bytes = require("moonport.admin.bytes")

local M = {}

local SHOWN = 5
local byte, sub = string.byte, string.sub

---How many bytes both begin with, case aside for the second number.
local function common(a, b)
  local n = 0
  while n < #a and byte(a, n + 1) == byte(b, n + 1) do n = n + 1 end
  return n
end

---@param s string
---@param at integer
---@return string
local function piece(s, at)
  if at > #s then return "the end" end
  local part = sub(s, at, at + 15)
  return bytes.printable(part) and ("%q"):format(part):gsub("\\\n", "\\n"):gsub("\r", "\\r") or bytes.hex(part)
end

---@param m mock.Matcher
---@param frame string
---@return number score higher is nearer
---@return string why
local function compare(m, frame)
  local wanted = m.equals or m.literal
  if not wanted or wanted == "" then return -math.abs(#frame - #m.text) / 1000, "it does not match " .. m.text end
  local n = common(wanted, frame)
  local score = n / #wanted
  if n == #wanted then
    if m.equals then return score, ("byte %d: expected the end, got %s"):format(n + 1, (piece(frame, n + 1))) end
    return score, ("it begins as %s does, and does not go on as it"):format(m.text)
  end
  if sub(frame, 1, #wanted):lower() == wanted:lower() then
    score = score + 0.5
    return score, ("byte %d: differs in case: expected %s, got %s"):format(n + 1, (piece(wanted, n + 1)),
      (piece(frame, n + 1)))
  end
  return score, ("byte %d: expected %s, got %s"):format(n + 1, (piece(wanted, n + 1)), (piece(frame, n + 1)))
end

---@param m mock.Matcher
---@param others table[] records with `frame` and `seq`, in any order
---@return table[] the nearest first, each with `why`
function M.rank(m, others)
  local list = {}
  for _, other in pairs(others) do
    other.score, other.why = compare(m, other.frame)
    list[#list + 1] = other
  end
  table.sort(list, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    return a.seq > b.seq
  end)
  for i = #list, SHOWN + 1, -1 do list[i] = nil end
  return list
end

return M
