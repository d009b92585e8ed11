--- The known word that somebody may have meant.

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
---@return string hint "; did you mean x?", or the names there are
local function near(word, names)
  local best, least
  if #word <= 64 then
    for i = 1, math.min(#names, 500) do
      local d = distance(word, names[i]:sub(1, 64))
      if not least or d < least then best, least = names[i], d end
    end
  end
  if best and least <= math.max(1, #word // 2) then return ("; did you mean %q?"):format(best) end
  if #names == 0 then return "; there are none" end
  return "; there are " .. table.concat(names, ", ", 1, math.min(#names, 10)) .. (#names > 10 and ", ..." or "")
end

return near
