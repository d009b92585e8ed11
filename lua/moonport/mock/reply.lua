--- What a stub answers with: bytes, a function, a sequence, a fault, or one of these sent in a faulty way.

local moonport = require("moonport")
local bits = require("moonport.mock.bits")
local known_options = require("moonport.mock.options")

local M = {}

local sub = string.sub
local atomically = moonport.atomically
local getinfo = debug and debug.getinfo -- not in a sandbox

---@class mock.Fault
---@field kind string
local fault_mt = { __name = "mock.Fault" }

---@param kind string
---@param fields? table
---@return mock.Fault
local function fault(kind, fields)
  fields = fields or {}
  fields.kind = kind
  return setmetatable(fields, fault_mt)
end

-- Those that need nothing more. All but the last two are of a connection.
M.faults = {
  reset = fault("reset"), close = fault("close"), shutdown = fault("shutdown"), stall = fault("stall"),
  silence = fault("silence"), none = fault("none"),
}
local OF_CONNECTIONS = { reset = true, close = true, shutdown = true, stall = true }

---@class mock.Reply
---@field kind string
---@field bytes string? of a plain one

-- ---------------------------------------------------------------- made from what the author wrote

---@type table<string, fun(fault: table, server: mock.Server?): mock.Reply?, string?>
local FAULTS = {}

local function plain_fault(value, server)
  if server and server.datagram and OF_CONNECTIONS[value.kind] then
    return nil, ("mock.%s needs a connection, and datagrams have none"):format(value.kind)
  end
  return { kind = value.kind }
end
for name in pairs(M.faults) do FAULTS[name] = plain_fault end

local function is_count(value, least) return math.type(value) == "integer" and value >= least end
local function is_seconds(value) return type(value) == "number" and value >= 0 and value < math.huge end

function FAULTS.delay(value, server)
  if not is_seconds(value.seconds) then return nil, "mock.delay needs a number of seconds, 0 or more" end
  local reply, why = M.compile(value.reply, server)
  return reply and { kind = "delay", seconds = value.seconds, reply = reply }, why
end

function FAULTS.drip(value, server)
  local size, delay = value.size or 1, value.delay or 0.01
  if not is_count(size, 1) then return nil, "mock.drip: size must be a number of bytes, 1 or more" end
  if not is_seconds(delay) then return nil, "mock.drip: delay must be a number of seconds, 0 or more" end
  local reply, why = M.compile(value.reply, server)
  return reply and { kind = "drip", size = size, delay = delay, reply = reply }, why
end

function FAULTS.truncate(value, server)
  if not is_count(value.n, 0) then return nil, "mock.truncate needs a number of bytes, 0 or more" end
  local how = value.how or M.faults.close
  if how ~= M.faults.close and how ~= M.faults.reset then
    return nil, "mock.truncate ends with mock.close or mock.reset"
  elseif type(value.reply) == "string" and #value.reply <= value.n then
    return nil, ("mock.truncate: the reply has only %d bytes, so none would be missing after %d"):format(#value.reply,
      value.n)
  end
  local reply, why = M.compile(value.reply, server)
  return reply and { kind = "truncate", n = value.n, how = how.kind, reply = reply }, why
end

---@param server mock.Server
---@return string? why
local function no_starttls(server)
  if server.datagram then return "mock.starttls needs a connection, and datagrams have none" end
  if not server.tls then return 'mock.starttls needs a certificate: mock.server { ..., tls = "starttls" }' end
  if not server.tls.starttls then
    return 'mock.starttls needs connections that begin without TLS: mock.server { ..., tls = "starttls" }'
  end
end

function FAULTS.starttls(value, server)
  local why = server and no_starttls(server)
  if why then return nil, why end
  local reply
  reply, why = M.compile(value.reply, server)
  return reply and { kind = "starttls", reply = reply }, why
end

local function check_places(places)
  if type(places) ~= "table" or #places == 0 then
    return "mock.corrupt: at needs a list of places, 1 is the first byte"
  end
  for _, at in ipairs(places) do
    if not is_count(at, 1) then return "mock.corrupt: a place is a number of 1 or more" end
  end
end

function FAULTS.corrupt(value, server)
  local at, seed, n = value.at, value.seed, value.bytes or 1
  local wrong
  if at ~= nil then wrong = check_places(at) end
  if seed ~= nil and math.type(seed) ~= "integer" then wrong = "mock.corrupt: the seed must be an integer" end
  if not is_count(n, 1) then wrong = "mock.corrupt: bytes must be a number of 1 or more" end
  if wrong then return nil, wrong end
  local reply, why = M.compile(value.reply, server)
  if not at and not seed then seed = math.random(1 << 31) end
  return reply and { kind = "corrupt", at = at, seed = seed, n = n, reply = reply }, why
end

---@param list any[]
---@return mock.Reply?
---@return string? why
local function sequence(list, server)
  local replies = {}
  for i, value in ipairs(list) do
    local reply, why = M.compile(value, server)
    if not reply then return nil, why end
    if reply.kind == "sequence" then return nil, "a sequence cannot stand in a sequence" end
    replies[i] = reply
  end
  return { kind = "sequence", replies = replies, at = 0 }
end

---@param value any
---@param server? mock.Server whose reply it is; nil: not known yet, and not asked
---@return mock.Reply? reply
---@return string? why
function M.compile(value, server)
  local kind = type(value)
  if kind == "string" then
    return { kind = "bytes", bytes = value }
  elseif kind == "function" then
    return { kind = "call", f = value }
  elseif getmetatable(value) == fault_mt then
    return FAULTS[value.kind](value, server)
  elseif kind == "table" and #value > 0 then
    return sequence(value, server)
  elseif kind == "table" and next(value) ~= nil then
    local of_data, why = M.of_data(value)
    if of_data == nil then return nil, why end
    return M.compile(of_data, server)
  end
  return nil, ("a reply is a string, a list of replies, a function or a fault such as mock.reset, not %s")
    :format(kind == "table" and "an empty table" or "a " .. kind)
end

-- ---------------------------------------------------------------- as data

---@type table<string, fun(value: table): any, string?>
local OF_DATA = {}

function OF_DATA.fault(value)
  local f = M.faults[value.fault]
  if f then return f end
  return nil, ("there is no fault %q; there are close, none, reset, shutdown, silence and stall")
    :format(tostring(value.fault))
end

local function seconds_of(ms) return type(ms) == "number" and ms / 1000 or ms end

function OF_DATA.delay(value) return fault("delay", { seconds = seconds_of(value.delay), reply = value.reply }) end

function OF_DATA.drip(value)
  return fault("drip", { size = value.drip.size, delay = seconds_of(value.drip.delay), reply = value.reply })
end

function OF_DATA.truncate(value)
  local how = value.how and (M.faults[value.how] or false)
  if how == false then return nil, "truncate: `how` is \"close\" or \"reset\"" end
  return fault("truncate", { n = value.truncate, how = how, reply = value.reply })
end

function OF_DATA.corrupt(value)
  local spec = value.corrupt
  return fault("corrupt", { at = spec.at, seed = spec.seed, bytes = spec.bytes, reply = value.reply })
end

function OF_DATA.starttls(value)
  if value.starttls ~= true then return nil, "starttls: true, and the reply before it" end
  return fault("starttls", { reply = value.reply })
end

function OF_DATA.replies(value)
  if type(value.replies) ~= "table" or #value.replies == 0 then return nil, "replies needs a list" end
  return value.replies
end

-- What may stand beside the name, and in the object that is its value.
local BESIDE = {
  fault = {}, delay = { reply = true }, drip = { reply = true }, truncate = { reply = true, how = true },
  corrupt = { reply = true }, starttls = { reply = true }, replies = {},
}
local INSIDE = { drip = { size = true, delay = true }, corrupt = { at = true, seed = true, bytes = true } }

---@param value table
---@return string? name
---@return string? why
local function name_of(value)
  local name, other
  for one in pairs(OF_DATA) do
    if value[one] ~= nil then name, other = one, name end
  end
  if not name then
    return nil, "a reply is bytes, or has one of fault, delay, drip, truncate, corrupt, starttls or replies"
  end
  if not other then return name end
  if other < name then name, other = other, name end
  return nil, ("a reply has %s or %s, not both: put one into the other's reply"):format(name, other)
end

---@param value table
---@param name string
---@return string? wrong
local function check_fields(value, name)
  for field in pairs(value) do
    if field ~= name and not BESIDE[name][field] then
      return ("a reply with %s has no field %q"):format(name, tostring(field))
    end
  end
  local inside = INSIDE[name]
  if inside and type(value[name]) ~= "table" then return ("%s needs an object"):format(name) end
  for field in pairs(inside and value[name] or {}) do
    if not inside[field] then return ("%s has no field %q"):format(name, tostring(field)) end
  end
end

---@param value table {fault="reset"}, {delay=20, reply="..."} and the like: times are milliseconds
---@return any value as an author would have written it
---@return string? why
function M.of_data(value)
  local name, why = name_of(value)
  why = why or check_fields(value, name)
  if why then return nil, why end
  return OF_DATA[name](value)
end

---@type table<string, fun(reply: table): any>
local TO_DATA = {}

function TO_DATA.bytes(reply) return reply.bytes end
function TO_DATA.call() return { ["function"] = true } end
function TO_DATA.delay(reply) return { delay = reply.seconds * 1000, reply = M.data(reply.reply) } end

function TO_DATA.drip(reply)
  return { drip = { size = reply.size, delay = reply.delay * 1000 }, reply = M.data(reply.reply) }
end

function TO_DATA.truncate(reply) return { truncate = reply.n, how = reply.how, reply = M.data(reply.reply) } end

function TO_DATA.corrupt(reply)
  return { corrupt = { at = reply.at, seed = reply.seed, bytes = reply.seed and reply.n },
    reply = M.data(reply.reply) }
end

function TO_DATA.starttls(reply) return { starttls = true, reply = M.data(reply.reply) } end

function TO_DATA.sequence(reply)
  local replies = {}
  for i, one in ipairs(reply.replies) do replies[i] = M.data(one) end
  return { replies = replies }
end

---The other way; a function is {["function"]=true}.
---@param reply mock.Reply
---@return any
function M.data(reply)
  local make = TO_DATA[reply.kind]
  return make and make(reply) or { fault = reply.kind }
end

-- ---------------------------------------------------------------- played

---@type table<string, fun(reply: table, c: mock.Conversation, ...)>
local PLAY = {}

---@param reply mock.Reply
---@param c mock.Conversation
---@param ... any what was captured, for functions
local function play(reply, c, ...) return PLAY[reply.kind](reply, c, ...) end
M.play = play

function PLAY.bytes(reply, c) c:send(reply.bytes) end
function PLAY.none() end
function PLAY.reset(_, c) c:reset() end
function PLAY.close(_, c) c:close() end
function PLAY.shutdown(_, c) c:shutdown("write") end
function PLAY.stall(_, c) c:stall() end
function PLAY.silence(_, c) c:silence() end

-- "smtp.lua:12: ", where the function begins.
local function place_of(f)
  local info = getinfo and getinfo(f, "S")
  return info and info.what ~= "C" and ("%s:%d: "):format(info.short_src, info.linedefined) or ""
end

-- What a stub's function f has returned is a reply, too.
local function returned(c, f, result)
  if type(result) == "string" then return c:send(result) end
  if not result or result == true then return end
  local inner, why = M.compile(result, c.server)
  if inner and inner.kind == "sequence" then why = "a sequence has no place there: give it to :on instead" end
  if why then error(("%swhat this function returned is no reply: %s"):format(place_of(f), why), 0) end
  return play(inner, c)
end
M.returned = returned

function PLAY.call(reply, c, ...) return returned(c, reply.f, reply.f(c, ...)) end

-- The next of a sequence: two conversations do not get the same.
local function next_of(reply)
  reply.at = math.min(reply.at + 1, #reply.replies)
  return reply.replies[reply.at]
end

function PLAY.sequence(reply, c, ...) return play(atomically(next_of, reply), c, ...) end

function PLAY.delay(reply, c, ...)
  c:sleep(reply.seconds)
  return play(reply.reply, c, ...)
end

function PLAY.starttls(reply, c, ...)
  if not c.tls then play(reply.reply, c, ...) end
  c:secure()
end

local restore_mt = { __close = function(was) was.c.filter = was.filter end }

-- Has all that the inner reply sends pass through `through(bytes, detail, emit)`.
local function filtered(reply, c, through, ...)
  local outer = c.filter
  local function emit(bytes, detail)
    if outer then return outer(bytes, detail) end
    return c:emit(bytes, detail)
  end
  local was <close> = setmetatable({ c = c, filter = outer }, restore_mt) -- luacheck: ignore 211
  c.filter = function(bytes, detail) return through(bytes, detail, emit) end
  play(reply.reply, c, ...)
end

function PLAY.drip(reply, c, ...)
  local size, delay = reply.size, reply.delay
  filtered(reply, c, function(bytes, detail, emit)
    for at = 1, #bytes, size do
      if at > 1 then c:sleep(delay) end
      emit(sub(bytes, at, at + size - 1), detail)
    end
  end, ...)
end

function PLAY.truncate(reply, c, ...)
  local left = reply.n
  filtered(reply, c, function(bytes, detail, emit)
    local part = sub(bytes, 1, left)
    left = left - #part
    if part ~= "" then emit(part, #part < #bytes and ("cut from %d bytes"):format(#bytes) or detail) end
    if #part < #bytes and not c.datagram then c[reply.how](c) end
  end, ...)
  if not c.over and not c.datagram then c[reply.how](c) end
end

function PLAY.corrupt(reply, c, ...)
  local random, offset = reply.seed and bits.random(reply.seed), 0
  local detail = reply.at and "corrupt at " .. table.concat(reply.at, ",") or "corrupt seed " .. reply.seed
  filtered(reply, c, function(bytes, _, emit)
    local bad = random and bits.seeded(bytes, random, reply.n) or bits.at(bytes, reply.at, offset)
    offset = offset + #bytes
    emit(bad, detail)
  end, ...)
end

---@param reply mock.Reply
---@param f fun(one: mock.Reply)
local function each_sequence(reply, f)
  if reply.kind == "sequence" then f(reply) end
  if reply.reply then each_sequence(reply.reply, f) end
  for _, inner in ipairs(reply.replies or {}) do each_sequence(inner, f) end
end

---Begins sequences anew.
---@param reply mock.Reply
function M.rewind(reply)
  each_sequence(reply, function(one) one.at = 0 end)
end

---@param reply mock.Reply
---@return integer[] progress where its sequences are
function M.progress(reply)
  local progress = {}
  each_sequence(reply, function(one) progress[#progress + 1] = one.at end)
  return progress
end

---Has sequences go on from there.
---@param reply mock.Reply made of the same data
---@param progress integer[]
function M.resume(reply, progress)
  local i = 0
  each_sequence(reply, function(one)
    i = i + 1
    one.at = progress[i]
  end)
end

-- ---------------------------------------------------------------- for authors

---@param seconds number
---@param reply any
function M.delay(seconds, reply) return fault("delay", { seconds = seconds, reply = reply }) end

---@param reply any
---@param options? { size?: integer, delay?: number } bytes at once; seconds in between
---@return mock.Fault?
---@return string? why
function M.drip(reply, options)
  options = options or {}
  local wrong = known_options.check(options, { "size", "delay" }, "{ size = 2 }")
  if wrong then return nil, "mock.drip: " .. wrong end
  return fault("drip", { reply = reply, size = options.size, delay = options.delay })
end

---@param reply any
---@param n integer bytes that are sent
---@param how? mock.Fault mock.close unless given
function M.truncate(reply, n, how) return fault("truncate", { reply = reply, n = n, how = how }) end

---@param reply any the last that is sent without TLS
function M.starttls(reply) return fault("starttls", { reply = reply }) end

---@param reply any
---@param options? { at?: integer[], seed?: integer, bytes?: integer }
---@return mock.Fault?
---@return string? why
function M.corrupt(reply, options)
  options = options or {}
  local wrong = known_options.check(options, { "at", "seed", "bytes" }, "{ at = { 3 } }")
  if wrong then return nil, "mock.corrupt: " .. wrong end
  return fault("corrupt", { reply = reply, at = options.at, seed = options.seed, bytes = options.bytes })
end

return M
