--- Of the frames that did not match those that came nearest, and where they differ.

local bytes = require("moonport.admin.bytes")
local diff = require("moonport.mock.diff")

local M = {}

local SHOWN = 5
local sub = string.sub

---@param s string
---@param at integer
---@return string for people
local function piece(s, at)
  if at > #s then return "the end" end
  local part = sub(s, at, at + 15)
  if not bytes.printable(part) or part:find("%c") then return "hex " .. bytes.hex(part) end
  return '"' .. part .. '"'
end

---@param m mock.Matcher
---@param frame string
---@return string why one line
local function compare(m, frame)
  local wanted = m.equals or m.literal
  if not wanted or wanted == "" then return "it does not match " .. m.text end
  local n = diff.common(wanted, frame)
  if n == #wanted and not m.equals then return ("it begins as %s does, and does not go on so"):format(m.text) end
  local same = n < #wanted and sub(frame, 1, #wanted):lower() == wanted:lower()
  return ("byte %d: expected %s, got %s%s"):format(n + 1, piece(wanted, n + 1), piece(frame, n + 1),
    same and " (upper and lower case differ)" or "")
end

---@param m mock.Matcher
---@param others table[] records with `frame` and `seq`, in any order
---@return table[] the nearest first, each with `why`
function M.rank(m, others)
  local list = {}
  for _, other in pairs(others) do
    other.score, other.why = diff.nearness(m, other.frame), compare(m, other.frame)
    local kept = #other.frame
    if other.length and other.length > kept then
      other.why = ("%s; of its %d bytes only the first %d are kept"):format(other.why, other.length, kept)
    else
      other.length = nil
    end
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
