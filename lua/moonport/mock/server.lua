--- A mock's server: its stubs, its session, its toxics, its state.

local moonport = require("moonport")
local frames = require("moonport.frame")
local journal = require("moonport.journal")
local known = require("moonport.mock.known")
local link = require("moonport.toxics.link")
local match = require("moonport.mock.match")
local naming = require("moonport.naming")
local known_options = require("moonport.mock.options")
local plain = require("moonport.mock.plain")
local reply = require("moonport.mock.reply")
local secure = require("moonport.mock.secure")
local toxics = require("moonport.toxics")

local M = {}

local byte = string.byte
local atomically = moonport.atomically -- what follows is shared by tasks, whose slices may end anywhere

---@class mock.Stub
---@field id string
---@field match mock.Matcher
---@field reply mock.Reply
---@field bytes string? of a plain reply
---@field call function? of one that is a function
---@field uses integer
---@field times integer? then it is spent
---@field required boolean
---@field api boolean it came by the control API
---@field where string the line of the script, "smtp.lua:12"
---@field last string? frame that it answered
---@field said any what its function returned last, if that was a string
---@field mark string? key of the journal's flag that it was used; outlives the script's generation

---@class mock.Server
---@field name string
---@field url string
---@field datagram boolean
---@field framing frame.Framing
---@field frame_spec any as it was given
---@field tls mock.TLS?
---@field state table shared by all conversations; plain data
---@field stubs mock.Stub[] in the order in which they are asked
---@field fallback mock.Reply? what `otherwise` was given
---@field toxics table[]
---@field toxic_version integer counts the changes of toxics
---@field kept_version integer? its value while they are what the script said
---@field api boolean the whole server came by the control API
---@field made table? from this
---@field index table<integer|false, mock.Stub[]> by a frame's first byte; a new table when the stubs have changed
---@field private links table<string, toxics.Link> of datagrams, by direction
---@field known mock.Known which stub answers a frame, whatever happens; a new one when the stubs have changed
---@field private talk fun(c: mock.Conversation)?
---@field private ids table<string, integer>
---@field private datagrams integer
---@field private peers table<string, integer>
---@field private n_peers integer
---@field private older_peers table<string, integer> those before `peers`, which begins anew when it is full
---@field private baseline table?
---@field wires table<mock.Stream, boolean> of live connections
local Server = {}
local server_mt = { __name = "mock.Server", __index = Server }
M.metatable = server_mt

local WEAK = { __mode = "k" }
local FIELDS = { [1] = true, name = true, url = true, frame = true, tls = true }
local TRANSPORTS = { tcp = false, unix = false, udp = true, unixgram = true } -- whether of datagrams

---@param spec table
---@return string? wrong
local function check_spec(spec)
  if type(spec) ~= "table" then return "it needs a table such as { \"tcp://127.0.0.1:0\", name = \"redis\" }" end
  for field in pairs(spec) do
    if not FIELDS[field] then
      return ("it has no field %s; there are the URL, name, frame and tls"):format(tostring(field))
    end
  end
  local url = spec[1] or spec.url
  local transport = type(url) == "string" and url:match("^(%a+)://.")
  if TRANSPORTS[transport] == nil then
    return ("it needs a URL such as \"tcp://127.0.0.1:0\" (or udp://, unix://, unixgram://), not %s"):format(
      type(url) == "string" and match.quote(url) or "a " .. type(url))
  end
  local name = spec.name
  if name ~= nil and (type(name) ~= "string" or not name:find("^[%w_][%w_.-]*$") or #name > 100) then
    return "its name must be of letters, digits, '_', '.' and '-', at most 100"
  end
end

---@param spec table
---@return mock.Server? server
---@return string? why
function M.new(spec)
  local wrong = check_spec(spec)
  if wrong then return nil, wrong end
  local url = spec[1] or spec.url
  local of_datagrams = TRANSPORTS[url:match("^%a+")]
  local ok, framing
  if spec.frame ~= nil then
    ok, framing = pcall(frames.of, spec.frame)
    if not ok then return nil, tostring(framing) end
  end
  local tls
  if spec.tls then
    if of_datagrams then return nil, "tls needs connections, and datagrams have none" end
    tls, wrong = secure.of(spec.tls)
    if not tls then return nil, wrong end
  end
  return setmetatable({
    name = spec.name, url = url, datagram = of_datagrams, tls = tls,
    framing = framing or (of_datagrams and frames.datagram() or frames.line()), frame_spec = spec.frame,
    state = {}, stubs = {}, toxics = {}, toxic_version = 0, index = {}, known = known.new(), ids = {}, api = false,
    links = {}, wires = setmetatable({}, WEAK), datagrams = 0, peers = {}, n_peers = 0, older_peers = {},
  }, server_mt)
end

-- ---------------------------------------------------------------- stubs

local OPTIONS = { "id", "required", "times", "at" }

---@param options table
---@return string? wrong
local function check_options(options)
  local wrong = known_options.check(options, OPTIONS, "{ times = 2 }")
  if wrong then return wrong end
  local times, id, at = options.times, options.id, options.at
  if at ~= nil and (math.type(at) ~= "integer" or at < 1) then return "at is a place in the list, 1 for the first" end
  if times ~= nil and (math.type(times) ~= "integer" or times < 1) then return "times must be a number of 1 or more" end
  if id ~= nil and not naming.is(id) then return "an id " .. naming.RULE end
end

---@param id string
---@return integer? index
---@return mock.Stub?
function Server:find(id)
  for i, stub in ipairs(self.stubs) do
    if stub.id == id then return i, stub end
  end
end

-- "1", "2" and so on; those of the API are "a1", "a2", so that a new script's own do not meet them.
---@param server mock.Server
---@param prefix string
---@return string
local function next_id(server, prefix)
  local id, n
  repeat
    n = server.ids[prefix] or 1
    id, server.ids[prefix] = prefix .. n, n + 1
  until not server:find(id)
  return id
end

local function new_id(...) return atomically(next_id, ...) end

---@param pattern any
---@param answer any
---@param options? table
---@param where string
---@param api? boolean
---@return mock.Stub? stub
---@return string? why
function Server:make_stub(pattern, answer, options, where, api)
  options = options or {}
  local wrong = check_options(options)
  if wrong then return nil, wrong end
  local m, made
  m, wrong = match.compile(pattern)
  if not m then return nil, wrong end
  if answer == nil then return nil, "what is the reply?" end
  made, wrong = reply.compile(answer, self)
  if not made then return nil, wrong end
  local stub = {
    id = options.id or new_id(self, api and "a" or ""), match = m, reply = made, bytes = made.bytes, call = made.f,
    uses = 0, times = options.times, required = options.required and true or false, api = api or false, where = where,
  }
  -- One of the API is another than an earlier one of the same id, which was used before this number.
  if stub.required then stub.mark = ("used %s %s %d"):format(self.name, stub.id, api and journal.last() or 0) end
  return stub
end

-- To be called when the list has changed.
function Server:reindex()
  self.index = {} -- first: what the old one finds must not be kept as known from here on
  self.known = known.new()
end

---@param stub mock.Stub
---@param at? integer
function Server:add_stub(stub, at)
  table.insert(self.stubs, at or #self.stubs + 1, stub)
  self:reindex()
end

-- The place in the script of a call of one of the methods below, which asks.
local function position()
  local _, where = pcall(error, "", 4)
  return (tostring(where):gsub(": $", ""))
end

---Answers the frames that match. The first that matches, of those that are not spent, is taken.
---@param pattern any a Lua pattern, mock.hex, a table such as {equals="..."}, or function(frame, c)
---@param answer any bytes, a list of replies of which the last repeats, a fault, or function(c, captures...)
---@param options? { id?: string, required?: boolean, times?: integer, at?: integer } at 1: asked before all others
---@return mock.Server self
function Server:on(pattern, answer, options)
  local stub, why = self:make_stub(pattern, answer, options, position())
  if stub and self:find(stub.id) then why = ("there is a stub %s already"):format(match.quote(stub.id)) end
  if why then error(("mock %s:on: %s"):format(self.name or "", why), 2) end
  self:add_stub(stub, options and options.at and math.min(options.at, #self.stubs + 1))
  return self
end

---Answers the frames that no stub takes; without it they are journaled as unmatched, and not answered.
---@param answer any as on's; a function gets c and the frame
---@return mock.Server self
function Server:otherwise(answer)
  local made, why = reply.compile(answer, self)
  if not made then error(("mock %s:otherwise: %s"):format(self.name or "", why), 2) end
  self.fallback = made
  return self
end

---Runs for each connection (of a datagram mock: for each datagram) in place of the stubs; `return c:serve()` goes
---on with them.
---@param f fun(c: mock.Conversation)
---@return mock.Server self
function Server:session(f)
  if type(f) ~= "function" then
    error(("mock %s:session needs a function, not a %s"):format(self.name or "", type(f)), 2)
  end
  self.talk = f
  return self
end

---@param server mock.Server
local function gather(server, first)
  local list = {}
  for _, stub in ipairs(server.stubs) do
    local wants = stub.match.first
    if not wants or wants == first then list[#list + 1] = stub end
  end
  server.index[first] = list
  return list
end

---Those that a frame with this first byte may match, spent ones among them, in the order in which they are asked.
---@param first integer|false
---@return mock.Stub[]
function Server:candidates(first) return self.index[first] or atomically(gather, self, first) end

---The stub that would answer.
---@param frame string
---@return mock.Stub?
function Server:pick(frame)
  for _, stub in ipairs(self:candidates(byte(frame) or false)) do
    if not stub.spent and match.takes(stub.match, frame) then return stub end
  end
end

---To be called at each use of a stub with a mark, which the journal may have forgotten, and at the last one that any
---may have.
---@param stub mock.Stub
function Server.noted_use(_, stub)
  if stub.uses == stub.times then stub.spent = true end
  if stub.mark then journal.mark(stub.mark) end
end

-- ---------------------------------------------------------------- toxics

---Toxiproxy's, with its names and parameters; see moonport.toxics.
---@param spec table
---@return mock.Server self
function Server:toxic(spec)
  local why = self:add_toxic(spec)
  if why then error(("mock %s:toxic: %s"):format(self.name or "", why), 2) end
  return self
end

---@param name string
---@return integer? index
function Server:find_toxic(name)
  for i, toxic in ipairs(self.toxics) do
    if toxic.name == name then return i end
  end
end

---@param spec table
---@param at? integer in place of the one that is there
---@return string? why not
function Server:add_toxic(spec, at)
  local ok, toxic = pcall(toxics.new, spec, self.datagram)
  if not ok then return tostring(toxic) end
  local other = self:find_toxic(toxic.name)
  if other and other ~= at then return ("there is a toxic %s already"):format(match.quote(toxic.name)) end
  local list = table.move(self.toxics, 1, #self.toxics, 1, {})
  if at then toxic.chosen = list[at].chosen end
  list[at or #list + 1] = toxic
  self:set_toxics(list)
end

---@param server mock.Server
local function change_toxics(server, list)
  server.toxics = list
  server.toxic_version = server.toxic_version + 1
  for _, one in pairs(server.links) do one:update(list) end
  for wire in pairs(server.wires) do wire:toxics_changed() end
end

---Live connections and datagrams under way take them over.
---@param list table[]
function Server:set_toxics(list) atomically(change_toxics, self, list) end

---@param stream string
---@return boolean
function Server:has_toxics(stream)
  for _, toxic in ipairs(self.toxics) do
    if toxic.stream == stream then return true end
  end
  return false
end

---@param wire mock.Stream|mock.Datagram
---@param stream "downstream"|"upstream"
---@param deliver fun(bytes: string)
---@return table pipe
function Server:pipe(wire, stream, id, nth, deliver)
  return toxics.pipe {
    toxics = self.toxics, stream = stream, nth = nth, deliver = deliver,
    close = function(how)
      if wire.on_cut then wire.on_cut(how) end
    end,
    note = function(toxic, text) journal.add("toxic", self.name, id, ("%s %s"):format(toxic.name, text)) end,
  }
end

---For the text of a failure: what a run needs to draw the same lots again.
---@return string
function Server:lots()
  local lines = {}
  for _, toxic in ipairs(self.toxics) do
    if toxic:chancy() then
      lines[#lines + 1] = ("\n  toxic %s drew lots: seed = %d"):format(toxic.name, toxic.seed or toxic.chosen)
    end
  end
  return table.concat(lines)
end

---@param server mock.Server
local function new_link(server, stream, id)
  local there = server.links[stream]
  if there then return there end
  there = link.new {
    toxics = server.toxics, stream = stream, lazy = stream == "upstream", note = function(toxic, text, sender)
      if toxic then text = ("%s %s"):format(toxic.name, text) end
      journal.add("toxic", server.name, sender and sender.id or id, text)
    end,
  }
  server.links[stream] = there
  return there
end

---Where datagrams go through the toxics; nil if there are none, and nothing waits there.
---@param stream "downstream"|"upstream"
---@param id integer the connection that asks
---@return toxics.Link?
function Server:link(stream, id)
  local there = self.links[stream]
  if self:has_toxics(stream) then return there or atomically(new_link, self, stream, id) end
  return there and not there:idle() and there or nil
end

---Gives up the datagrams that toxics hold; chances begin anew.
function Server:drop_links()
  for _, one in pairs(self.links) do one:drop() end
  self.links = {}
end

-- ---------------------------------------------------------------- datagrams

local MAX_PEERS = 1024

---@param self mock.Server
local function count(self, client)
  self.datagrams = self.datagrams + 1
  local id = self.peers[client]
  if not id then
    if self.n_peers >= MAX_PEERS then self.older_peers, self.peers, self.n_peers = self.peers, {}, 0 end
    id = self.older_peers[client] or journal.open(nil, self.name, client)
    self.peers[client], self.n_peers = id, self.n_peers + 1
  end
  return id, self.datagrams
end

---A sender of datagrams is a connection in the journal, from its first datagram on. Of the last 1024 none is forgotten.
---@param client string
---@return integer id of the sender
---@return integer nth datagram of the server
function Server:count_datagram(client) return atomically(count, self, client) end

---For the next generation of the script, and from the one before: senders and their connections in the journal.
---@return table<string, integer>
function Server:senders()
  local all = plain.copy(self.older_peers)
  for client, id in pairs(self.peers) do all[client] = id end
  return all
end

---@param all table<string, integer>
function Server:know(all) self.older_peers = all end

-- ---------------------------------------------------------------- a conversation

---@param c mock.Conversation
function Server:converse(c)
  if self.tls and not self.tls.starttls and not c.datagram then c:starttls() end
  if self.talk then return self.talk(c) end
  return c:serve()
end

-- ---------------------------------------------------------------- what the script said

---Remembers how the script has left it.
function Server:keep()
  if self.baseline then return end
  self.kept_version = self.toxic_version
  self.baseline = {
    stubs = table.move(self.stubs, 1, #self.stubs, 1, {}), fallback = self.fallback,
    toxics = table.move(self.toxics, 1, #self.toxics, 1, {}), state = plain.copy(self.state),
  }
end

---@return mock.Stub[] those that a reset takes away
function Server:passing()
  local stay, out = {}, {}
  for _, stub in ipairs(self.baseline.stubs) do stay[stub] = true end
  for _, stub in ipairs(self.stubs) do
    if not stay[stub] then out[#out + 1] = stub end
  end
  return out
end

---Goes back to that; what only the API has brought is gone.
function Server:reset()
  local b = self.baseline
  self.stubs = table.move(b.stubs, 1, #b.stubs, 1, {})
  for _, stub in ipairs(self.stubs) do
    stub.uses, stub.spent = 0, nil
    reply.rewind(stub.reply)
  end
  if b.fallback then reply.rewind(b.fallback) end
  self:drop_links()
  self.peers, self.n_peers, self.older_peers = {}, 0, {}
  self.fallback, self.state, self.datagrams = b.fallback, plain.copy(b.state), 0
  self:set_toxics(table.move(b.toxics, 1, #b.toxics, 1, {}))
  self.kept_version = self.toxic_version
  self:reindex()
end

---@param text string one line of the log, about this server
function Server:warn(text) moonport.log("warn", ("mock %s: %s"):format(self.name, text)) end

return M
