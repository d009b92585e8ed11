--- `moonport.journal` as a table in memory, without a bound.

local args = require("moonport.testing.args")

local KINDS <const> = { "open", "received", "unmatched", "sent", "partial", "closed", "toxic", "note", "reload",
  "error", "failed", "push" }
local DATA <const> = 64 * 1024 -- a record's longer data is cut
local LIMIT <const> = 64 * 1024 * 1024 -- what limit() says

local BIT = {}
for i, kind in ipairs(KINDS) do BIT[kind] = 1 << (i - 1) end

local M = {}

---@class testing.Record
---@field seq integer
---@field kind string
---@field server string?
---@field conn integer 0: none
---@field time number
---@field data string
---@field detail string?
---@field length integer

local function check_kind(name)
  if not BIT[name] then
    args.bad(1, ("there is no kind '%s'; the kinds are %s"):format(tostring(name), table.concat(KINDS, ", ")))
  end
end

local function new_counts()
  local counts = { bytes_in = 0, bytes_out = 0, dropped = 0 }
  for _, kind in ipairs(KINDS) do counts[kind] = 0 end
  return counts
end

---@param world testing.World
---@param time fun(): number
---@return table module
---@return testing.Record[] records
function M.new(world, time)
  local records, last, conns = {}, 0, 0
  local servers, failures, marks, waiters = {}, {}, {}, {}
  local lib = {}

  local function counts_of(name)
    servers[name] = servers[name] or new_counts()
    return servers[name]
  end

  local function add(kind, server, conn, data, detail)
    last = last + 1
    records[#records + 1] = { seq = last, kind = kind, server = server, conn = conn or 0, time = time(),
      data = data:sub(1, DATA), detail = detail, length = #data }
    if server then
      local counts = counts_of(server)
      counts[kind] = counts[kind] + 1
      if kind == "received" or kind == "partial" then counts.bytes_in = counts.bytes_in + #data end
      if kind == "sent" or kind == "push" then counts.bytes_out = counts.bytes_out + #data end
    end
    local waking = waiters
    waiters = {}
    for _, task in ipairs(waking) do world:wake(task, true) end
    return last
  end

  lib.open = args.method(function(_, server, client)
    conns = conns + 1
    add("open", server, conns, client or "")
    return conns, counts_of(server).open
  end)
  lib.add = args.method(function(kind, server, conn, data, detail)
    check_kind(kind)
    return add(kind, server, conn, data or "", detail)
  end)
  lib.writer = args.method(function(kind, server, conn)
    check_kind(kind)
    return function(data, detail) add(kind, server, conn, data, detail) end
  end)
  lib.fail = args.method(function(server, conn, text)
    failures[#failures + 1] = text
    return add("failed", server, conn, text)
  end)
  function lib.mark(key) marks[key] = true end
  function lib.marked(key) return marks[key] or false end
  lib.mask = args.method(function(kinds)
    local mask = 0
    for _, kind in ipairs(kinds) do
      check_kind(kind)
      mask = mask | BIT[kind]
    end
    return mask
  end)
  function lib.next(after, kinds, server)
    for _, r in ipairs(records) do
      if r.seq > after and (not kinds or kinds & BIT[r.kind] ~= 0) and (not server or r.server == server) then
        return r.seq, r.kind, r.server, r.conn, r.time, r.data, r.detail, r.length
      end
    end
    return nil, last
  end
  local function has(after) return records[#records] ~= nil and records[#records].seq > after end
  lib.wait = args.method(function(after, seconds)
    local deadline = seconds and world.now + seconds
    while not has(after) and seconds ~= 0 do
      table.insert(waiters, world:task())
      if world:park(deadline, nil, "a record of the journal") then break end
    end
    return has(after)
  end)
  function lib.last() return last end
  function lib.first() return records[1] and records[1].seq or last + 1 end
  function lib.info()
    local bytes = 0
    for _, r in ipairs(records) do bytes = bytes + #r.data end
    return { limit = LIMIT, bytes = bytes, records = #records, first = lib.first(), last = last, dropped = 0,
      failures = #failures, servers = servers }
  end
  function lib.failures() return { table.unpack(failures) }, #failures end
  function lib.limit() return LIMIT end
  function lib.clear(...)
    local what = {}
    for _, name in ipairs(... and { ... } or { "records", "counts", "verdict" }) do what[name] = true end
    for i = what.records and #records or 0, 1, -1 do records[i] = nil end
    if what.counts then servers = {} end
    if what.verdict then failures, marks = {}, {} end
  end
  return lib, records
end

return M
