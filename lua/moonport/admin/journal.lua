--- /journal: what has happened, in order; can wait for what comes next.

local journal = require("moonport.journal")
local moonport = require("moonport")

local bytes = require("moonport.admin.bytes")
local json = require("moonport.json")
local mocks = require("moonport.admin.mocks")
local near = require("moonport.admin.near")
local refuse = require("moonport.admin.refuse")
local router = require("moonport.admin.router")

local MAX_WAIT = 60 -- seconds
local MAX_BYTES = 1 << 20 -- of data in one answer
local MAX_LIMIT, LIMIT = 10000, 1000 -- records in one answer

local M = {}

M.kinds = {
  "open", "received", "unmatched", "sent", "partial", "closed", "toxic", "note", "reload", "error", "failed", "push",
}
local KNOWN = {}
for _, kind in ipairs(M.kinds) do KNOWN[kind] = true end
local ALWAYS_DATA = { received = true, unmatched = true, sent = true, partial = true, push = true }

---@param list any[]
---@return any mask for journal.next
function M.mask(list)
  if #list == 0 then refuse(400, "kind needs a kind" .. near("", M.kinds)) end
  for _, kind in ipairs(list) do
    kind = type(kind) == "string" and kind or "a " .. type(kind)
    if not KNOWN[kind] then refuse(400, ("there is no kind %q%s"):format(kind, near(kind, M.kinds))) end
  end
  return journal.mask(list)
end

---@return table
function M.shown(seq, kind, server, conn, time, data, detail, length)
  local out = { seq = seq, kind = kind, server = server, conn = conn ~= 0 and conn or nil, time = time }
  if data and (data ~= "" or ALWAYS_DATA[kind]) then out.data = bytes.encode(data) end
  if detail and detail ~= "" then out.detail = bytes.brief(detail) end
  if length and data and length > #data then out.length = length end
  return out
end

---@param text string "2s", "500ms"
---@return number seconds
local function seconds(text)
  local digits, unit = text:match("^(%d*%.?%d+)(m?s)$")
  local number = tonumber(digits)
  if number and unit == "ms" then number = number / 1000 end
  if not number or number > MAX_WAIT then
    refuse(400, ('wait must be a time such as "2s" or "500ms", at most %d s'):format(MAX_WAIT))
  end
  return number
end

---@param text string?
---@param name string
---@param default integer?
---@return integer?
local function count(text, name, default)
  if text == nil then return default end
  if not text:find("^%d+$") or #text > 18 then refuse(400, name .. " is a number of 0 or more") end
  return math.tointeger(tonumber(text))
end

---@param query table<string, string>
---@return table
local function filter_of(query)
  local kinds
  if query.kind then
    kinds = {}
    for kind in query.kind:gmatch("[^,]+") do kinds[#kinds + 1] = kind end
    kinds = M.mask(kinds)
  end
  if query.server then mocks.check(query.server) end
  return { kinds = kinds, server = query.server, conn = count(query.conn, "conn"),
    limit = math.min(count(query.limit, "limit", LIMIT), MAX_LIMIT) }
end

---Appends what there is past `after`, at most the filter's limit.
---@param out table[]
---@param after integer
---@param filter table
---@return integer next where to go on
local function collect(out, after, filter)
  local size = 0
  while #out < filter.limit and size < MAX_BYTES do
    local seq, kind, server, conn, time, data, detail, length = journal.next(after, filter.kinds, filter.server)
    if not seq then return math.max(after, kind) end -- the newest that was looked at: not one that came since
    after = seq
    if not filter.conn or conn == filter.conn then
      out[#out + 1] = M.shown(seq, kind, server, conn, time, data, detail, length)
      size = size + #(data or "")
    end
  end
  return after
end

local function get(call)
  local query = router.query(call.req.query,
    { server = true, kind = true, since = true, limit = true, conn = true, wait = true })
  local filter, after = filter_of(query), count(query.since, "since", 0)
  local deadline = moonport.monotonic() + (query.wait and seconds(query.wait) or 0)
  local records = json.array {}
  after = collect(records, after, filter)
  while #records == 0 and filter.limit > 0 do
    local left = deadline - moonport.monotonic()
    if left <= 0 or not call:wait(after, left) then break end
    after = collect(records, after, filter)
  end
  return { records = records, next = after, dropped = journal.info().dropped }
end

local function delete()
  journal.clear("records")
  return nil, 204
end

M.routes = function(routes)
  routes:add("GET", "/journal", "records: server, kind, since, limit, conn; wait=2s waits for the first", get)
  routes:add("DELETE", "/journal", "forgets the records, and nothing else", delete)
end

return setmetatable(M, { __call = function(_, routes) M.routes(routes) end })
