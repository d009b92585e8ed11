--- The name that somebody may have meant.

---@return integer edits between two names
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local before = row[0]
    row[0] = i
    for j = 1, #b do
      local up = row[j]
      row[j] = math.min(up + 1, row[j - 1] + 1, before + (a:byte(i) == b:byte(j) and 0 or 1))
      before = up
    end
  end
  return row[#b]
end

---@param name string
---@param names string[]
---@return string
return function(name, names)
  local best
  for _, one in ipairs(names) do
    if not best or distance(name, one) < distance(name, best) then best = one end
  end
  return best
end
