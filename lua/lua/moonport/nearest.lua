--- The known word that somebody may have meant.

local MOST = 500 -- names that are looked at
local LONG = 64 -- bytes of each

-- Levenshtein's distance, of short words.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local change = corner + (a:byte(i) == b:byte(j) and 0 or 1)
      corner, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, change)
    end
  end
  return row[#b]
end

---@param word string
---@param names string[]
---@return string? name nil: there are none
---@return boolean? likely whether it may be what was meant
return function(word, names)
  local best, least
  word = word:sub(1, LONG)
  for i = 1, math.min(#names, MOST) do
    local d = distance(word, names[i]:sub(1, LONG))
    if not least or d < least then best, least = names[i], d end
  end
  return best, best and least <= math.max(1, #word // 2)
end
