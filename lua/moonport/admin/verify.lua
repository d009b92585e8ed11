--- /verify: whether something has happened, or happens within some time. Looks at each record once, and sleeps in
--- between until there is another.

local journal = require("moonport.journal")
local diff = require("moonport.mock.diff")
local match = require("moonport.mock.match")
local moonport = require("moonport")

local bytes = require("moonport.admin.bytes")
local data = require("moonport.admin.data")
local json = require("moonport.json")
local mocks = require("moonport.admin.mocks")
local nearness = require("moonport.admin.nearness")
local records = require("moonport.admin.journal")
local refuse = require("moonport.admin.refuse")

local MAX_WITHIN = 600000 -- ms
local SHOWN = 10 -- records in the answer
local KEPT = 32 -- that did not match, the last ones
local MAX_ORDER = 1000

local FIELDS = { server = true, match = true, kind = true, times = true, order = true, strict = true, within = true,
  settle = true, conn = true, since = true }

-- ---------------------------------------------------------------- what is asked

---@param value any
---@param where string
---@return mock.Matcher
local function matcher(value, where)
  local m, why = match.compile(data.match(value, where))
  if not m then refuse(400, where .. ": " .. (why or "no such matcher")) end
  return m
end

local function whole(value, where, least)
  if math.type(value) ~= "integer" or value < least then
    refuse(400, where .. " must be a whole number, at least " .. least)
  end
  return value
end

local function milliseconds(value, where)
  if value == nil then return 0 end
  if type(value) ~= "number" or value < 0 or value > MAX_WITHIN then
    refuse(400, where .. " must be milliseconds, at most " .. MAX_WITHIN)
  end
  return value / 1000
end

---@param times any
---@return integer least
---@return integer most
---@return string text
local function bounds(times)
  if times == nil then return 1, math.maxinteger, "at least 1" end
  if type(times) == "number" then times = { exactly = times } end
  if type(times) ~= "table" or next(times) == nil then refuse(400, "times needs exactly, atLeast or atMost") end
  for name in pairs(times) do
    if name ~= "exactly" and name ~= "atLeast" and name ~= "atMost" then
      refuse(400, ("times has no %q; there are exactly, atLeast and atMost"):format(name))
    end
    whole(times[name], "times." .. name, 0)
  end
  if times.exactly then
    if times.atLeast or times.atMost then refuse(400, "times has exactly, or atLeast and atMost") end
    return times.exactly, times.exactly, "exactly " .. times.exactly
  end
  local least, most = times.atLeast or 0, times.atMost or math.maxinteger
  if least > most then refuse(400, "times.atLeast is more than times.atMost") end
  local text = times.atLeast and "at least " .. least or ""
  if times.atMost then text = text .. (times.atLeast and " and " or "") .. "at most " .. most end
  return least, most, text
end

---@param name any
local function check_server(name)
  if name == nil then return end
  if type(name) ~= "string" then refuse(400, "server must be a server's name") end
  mocks.check(name)
end

local STEP = { match = true, server = true }

---One of an order, with a server of its own.
---@param value table
---@param where string
---@return { match: mock.Matcher, server: string? }
local function step_of(value, where)
  for name in pairs(value) do
    if not STEP[name] then refuse(400, ("%s has no %q; there are match and server"):format(where, name)) end
  end
  local server = value.server ~= json.null and value.server or nil
  check_server(server)
  return { match = matcher(value.match, where), server = server }
end

---@param order any
---@return { match: mock.Matcher, server: string? }[]
local function steps(order)
  if not json.is_array(order) or #order == 0 or #order > MAX_ORDER then
    refuse(400, "order needs a list of 1 to " .. MAX_ORDER .. " matchers")
  end
  local out = {}
  for i, value in ipairs(order) do
    local where = "order[" .. i .. "]"
    local is_step = type(value) == "table" and value.match ~= nil
    out[i] = is_step and step_of(value, where) or { match = matcher(value, where) }
  end
  return out
end

---@param kind any
---@return any mask
local function kinds_of(kind)
  if kind == nil then return records.mask { "received" } end
  local list = type(kind) == "string" and { kind } or kind
  if type(list) ~= "table" then refuse(400, 'kind must be a kind such as "received", or a list of them') end
  return records.mask(list)
end

-- ---------------------------------------------------------------- what has come

---@class admin.Question
---@field kinds any
---@field server string?
---@field conn integer?
---@field after integer the last record that was seen
---@field count integer that matched
---@field found table[] the first of these
---@field others table[] the last that did not match
---@field take fun(self: admin.Question, server: string, frame: string): boolean
---@field done fun(self: admin.Question): boolean? nil: not yet; false: never any more
---@field expected string
local Question = {}
local question_mt = { __index = Question }

---Looks at all records that it has not seen.
function Question:look()
  local last = journal.last()
  while true do
    local seq, kind, server, conn, time, frame, detail, length = journal.next(self.after, self.kinds, self.server)
    if not seq then break end
    self.after = seq
    if not self.conn or conn == self.conn then
      if self:take(server, frame) then
        self.count = self.count + 1
        if #self.found < SHOWN then
          self.found[#self.found + 1] = records.shown(seq, kind, server, conn, time, frame, detail, length)
        end
      else
        self.others[seq % KEPT] = { seq = seq, kind = kind, server = server, conn = conn, frame = frame,
          length = length }
      end
      if self:done() == false then return end
    end
  end
  self.after = math.max(self.after, last)
end

---@param q admin.Question
---@param spec table
local function ask_count(q, spec)
  local m = matcher(spec.match, "match")
  local least, most, text = bounds(spec.times)
  q.matcher, q.expected = m, ("%s of %s"):format(text, m.text)
  function q.take(_, _, frame) return match.takes(m, frame) end
  function q:done()
    if self.count > most then return false end
    return self.count >= least or nil
  end
end

---@param q admin.Question
---@param spec table
local function ask_order(q, spec)
  local list, texts = steps(spec.order), {}
  for i, step in ipairs(list) do texts[i] = step.match.text end
  q.expected = "in this order" .. (spec.strict and ", with none in between" or "") .. ": " .. table.concat(texts, ", ")
  local reached, best = { [0] = true }, 0 -- how many steps may be behind us
  local function fits(i, server, frame)
    local step = list[i]
    return step and (not step.server or step.server == server) and match.takes(step.match, frame)
  end
  function q.take(self, server, frame)
    local next_reached, fitted = { [0] = true }, false
    if spec.strict then
      for i in pairs(reached) do
        if fits(i + 1, server, frame) then next_reached[i + 1], fitted = true, true end
      end
      reached = next_reached
      for i in pairs(reached) do best = math.max(best, i) end
    elseif fits(best + 1, server, frame) then
      best, fitted = best + 1, true
    end
    self.matcher = list[math.min(best + 1, #list)].match
    self.reached = best
    return fitted
  end
  function q.done() return best == #list or nil end
  q.matcher, q.reached = list[1].match, 0
end

---@param spec table
---@return admin.Question
local function question(spec)
  if (spec.match == nil) == (spec.order == nil) then refuse(400, "verify needs match, or order") end
  if spec.order ~= nil and spec.times ~= nil then refuse(400, "order and times do not go together") end
  if spec.strict ~= nil and type(spec.strict) ~= "boolean" then refuse(400, "strict must be true or false") end
  if spec.strict and not spec.order then refuse(400, "strict is of an order") end
  check_server(spec.server)
  local q = setmetatable({
    kinds = kinds_of(spec.kind), server = spec.server,
    conn = spec.conn ~= nil and whole(spec.conn, "conn", 1) or nil,
    after = spec.since ~= nil and whole(spec.since, "since", 0) or 0, count = 0, found = json.array {}, others = {},
  }, question_mt);
  (spec.order and ask_order or ask_count)(q, spec)
  return q
end

---Waits for the answer. An answer that is right must stay so for `settle` seconds.
---@param call admin.Call
---@param q admin.Question
---@param within number seconds
---@param settle number seconds
---@return boolean
local function wait(call, q, within, settle)
  local deadline, settled = moonport.monotonic() + within, nil
  while true do
    q:look()
    local done, now = q:done(), moonport.monotonic()
    if done == false then return false end
    if done and not settled then
      settled = now + settle
    elseif not done then
      settled = nil
    end
    local left = (settled or deadline) - now
    if left <= 0 then return done == true end
    call:wait(q.after, left)
  end
end

local function shown_near(q)
  local list = json.array {}
  for i, miss in ipairs(nearness.rank(q.matcher, q.others)) do
    list[i] = { seq = miss.seq, kind = miss.kind, server = miss.server, conn = miss.conn,
      data = bytes.encode(miss.frame), length = miss.length, why = miss.why,
      diff = diff.explain(q.matcher, miss.frame) }
  end
  return list
end

local function verify(call)
  local spec = call:object(FIELDS)
  for name, value in pairs(spec) do
    if value == json.null then spec[name] = nil end
  end
  local within, settle = milliseconds(spec.within, "within"), milliseconds(spec.settle, "settle")
  local q = question(spec)
  local satisfied = wait(call, q, within, settle)
  local dropped = journal.info().dropped
  if satisfied then
    return { satisfied = true, count = q.count, records = q.found, dropped = dropped, next = q.after }
  end
  local got = q.reached and q.reached .. " of these" or tostring(q.count)
  local text = ("expected %s, but got %s"):format(q.expected, got)
  refuse(406, text, { satisfied = false, count = q.count, expected = q.expected, reached = q.reached, records = q.found,
    near = shown_near(q), dropped = dropped, next = q.after })
end

return function(routes)
  routes:add("POST", "/verify", "waits until it is so: server, match, times, order, within; else 406", verify)
end
