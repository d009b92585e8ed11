--- Looks into Lua patterns: whether they are well-formed, what they capture, what a matching text must begin with.

local M = {}

local byte, find, sub = string.byte, string.find, string.sub

---The end of a set that begins at `at`.
---@param p string
---@param at integer of its bracket
---@return integer? last its closing bracket
local function set_end(p, at)
  at = at + 1
  if sub(p, at, at) == "^" then at = at + 1 end
  repeat -- a bracket that comes first stands for itself
    if at > #p then return nil end
    at = at + (sub(p, at, at) == "%" and 2 or 1)
  until sub(p, at, at) == "]"
  return at
end

---@param p string
---@param at integer of the percent sign
---@return integer? last
---@return string? why
local function escape_end(p, at)
  local class = sub(p, at + 1, at + 1)
  if class == "" then
    return nil, "it ends with a '%' (to mean the sign itself, write '%%')"
  elseif class == "b" then
    if at + 3 > #p then return nil, "'%b' needs two characters" end
    return at + 3
  elseif class == "f" then
    if sub(p, at + 2, at + 2) ~= "[" then return nil, "'%f' needs a set in brackets" end
    local last = set_end(p, at + 2)
    return last, not last and "a set has no ']'" or nil
  end
  return at + 1
end

---One item from `at` on, its repetition included.
---@return string kind "(" | ")" | "any" | "literal": a byte that must come, once
---@return integer? last nil: the pattern is malformed
---@return string? why
local function item(p, at)
  local c, last = sub(p, at, at), at
  if c == "(" or c == ")" then return c, at end
  local kind = find(c, "[%%.%[]") and "any" or "literal"
  if c == "%" then
    local why
    last, why = escape_end(p, at)
    if not last then return kind, nil, why end
    if not find(p, "^%w", at + 1) then kind = "literal" end
  elseif c == "[" then
    last = set_end(p, at)
    if not last then return kind, nil, "a set has no ']'" end
  elseif c == "$" and at == #p then
    return "end", at
  end
  local special = find(p, "^%%[bf%d]", at)
  if not special and find(p, "^[*+?-]", last + 1) then return "any", last + 1 end
  return kind, last
end

local MOST_CAPTURES = 32 -- Lua's own limit

---Follows the captures, item by item: text that does not match is no test of them.
---@param seen { n: integer, open: integer[], closed: table<integer, boolean> }
---@param p string
---@param kind string of the item
---@param at integer where it begins
---@return string? why it cannot stand there
local function follow(seen, p, kind, at)
  if kind == "(" then
    seen.n = seen.n + 1
    if seen.n > MOST_CAPTURES then return ("it has more than %d captures"):format(MOST_CAPTURES) end
    seen.open[#seen.open + 1] = seen.n
  elseif kind == ")" then
    local n = table.remove(seen.open)
    if not n then return "a ')' has no '('" end
    seen.closed[n] = true
  else
    local n = p:match("^%%(%d)", at)
    if n and not seen.closed[tonumber(n)] then return ("'%%%s' has no capture that ends before it"):format(n) end
  end
end

---@class mock.PatternItem
---@field kind string
---@field first integer
---@field last integer

---@param p string
---@return mock.PatternItem[]? items without the anchor
---@return string? why it is malformed
function M.items(p)
  local items, at = {}, sub(p, 1, 1) == "^" and 2 or 1
  local seen = { n = 0, open = {}, closed = {} }
  while at <= #p do
    local kind, last, why = item(p, at)
    why = why or follow(seen, p, kind, at)
    if not last or why then return nil, why end
    items[#items + 1] = { kind = kind, first = at, last = last }
    at = last + 1
  end
  if seen.open[1] then return nil, "a '(' has no ')'" end
  local ok, why = pcall(find, "", p)
  if not ok then return nil, (why:gsub("^.-:%d+: ", "")) end
  return items
end

---@class mock.PatternFacts
---@field captures integer? how many, if any
---@field literal string what each match begins with, as far as that is known; "" unless it is anchored
---@field exact boolean it is the whole of what matches

---@param p string
---@return mock.PatternFacts? facts
---@return string? why it is malformed
function M.facts(p)
  local items, why = M.items(p)
  if not items then return nil, why end
  local literal, exact, captures = {}, false, 0
  local reading = sub(p, 1, 1) == "^"
  for _, it in ipairs(items) do
    if it.kind == "(" then
      captures = captures + 1
    elseif it.kind == "end" then
      exact = reading
    elseif it.kind == "literal" and reading then
      literal[#literal + 1] = sub(p, it.last, it.last)
    elseif it.kind ~= ")" then
      reading = false
    end
  end
  return { captures = captures > 0 and captures or nil, literal = table.concat(literal), exact = exact }
end

---How far a frame goes along with an anchored pattern that does not match it.
---@param p string well-formed
---@param frame string
---@return integer bytes of the frame that agree
---@return string rest of the pattern, which does not
function M.agreement(p, frame)
  local items = M.items(p)
  if byte(p) ~= 94 then return 0, p end -- 94: "^"
  for n = #items, 1, -1 do
    local part, open = sub(p, 1, items[n].last), 0
    for i = 1, n do
      open = open + (items[i].kind == "(" and 1 or items[i].kind == ")" and -1 or 0)
    end
    local ok, _, last = pcall(find, frame, part .. (")"):rep(open))
    if ok and last then return last, sub(p, items[n].last + 1) end
  end
  return 0, sub(p, 2)
end

return M
