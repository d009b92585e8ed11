--- Near misses, and what is to be said against a run: required stubs that were never used.

local journal = require("moonport.journal")
local diff = require("moonport.mock.diff")
local match = require("moonport.mock.match")
local registry = require("moonport.mock.registry")

local M = {}

local MOST_FRAMES = 1000 -- of the journal that are compared with a stub
local MOST_MISSES = 3

---The stubs that come nearest to a frame, the best first; those that have nothing to compare last.
---@param server mock.Server
---@param frame string
---@return { stub: mock.Stub, score: number, text: string }[]
function M.near_misses(server, frame)
  local out = {}
  for i, stub in ipairs(server.stubs) do
    out[i] = { stub = stub, score = diff.nearness(stub.match, frame), order = i }
  end
  table.sort(out, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    return a.order < b.order
  end)
  for i = #out, MOST_MISSES + 1, -1 do out[i] = nil end
  for _, miss in ipairs(out) do
    local spent = miss.stub.spent and match.takes(miss.stub.match, frame) and "  it matches, but is spent\n" or ""
    miss.text = spent .. diff.explain(miss.stub.match, frame)
  end
  return out
end

---@param server mock.Server
---@param kinds string[]
---@param m mock.Matcher
---@return string? frame the nearest of them
---@return number score
local function nearest(server, kinds, m)
  local mask, after, best, score = journal.mask(kinds), 0, nil, 0
  for _ = 1, MOST_FRAMES do
    local seq, _, _, _, _, data = journal.next(after, mask, server.name)
    if not seq then break end
    after = seq
    local s = diff.nearness(m, data)
    if s > score or not best then best, score = data, s end
  end
  return best, score
end

---@param server mock.Server
---@param stub mock.Stub
---@return string
local function complaint(server, stub)
  local text = ("mock %s: the required stub %s (%s, %s) was never used"):format(server.name, match.quote(stub.id),
    stub.match.text, stub.where)
  local frame = nearest(server, { "unmatched" }, stub.match) or nearest(server, { "received" }, stub.match)
  if not frame then return text .. "; nothing was received" end
  return text .. "; the nearest frame:\n" .. diff.explain(stub.match, frame)
end

---@param stub mock.Stub
---@return boolean
local function is_wanting(stub) return stub.required and not journal.marked(stub.mark) end

---@return string[] texts
function M.texts()
  local texts = {}
  for _, server in ipairs(registry.all()) do
    for _, stub in ipairs(server.stubs) do
      if is_wanting(stub) then texts[#texts + 1] = complaint(server, stub) .. server:lots() end
    end
  end
  return texts
end

---Required stubs that a reset is about to take away are failures if they were not used: nothing would tell later.
---@param server mock.Server
function M.settle(server)
  for _, stub in ipairs(server:passing()) do
    if is_wanting(stub) then journal.fail(server.name, nil, complaint(server, stub) .. server:lots()) end
  end
end

return M
