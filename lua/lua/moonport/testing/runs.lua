--- Servers in a world of their own, and what a test does with them.

local address = require("moonport.testing.address")
local attributes = require("moonport.testing.attributes")
local course = require("moonport.testing.course")
local datagram = require("moonport.testing.datagram")
local errors = require("moonport.testing.errors")
local journal = require("moonport.testing.journal")
local loading = require("moonport.testing.loading")
local module = require("moonport.testing.module")
local nearest = require("moonport.nearest")
local peers = require("moonport.testing.peer")
local server = require("moonport.testing.server")
local stream = require("moonport.testing.stream")
local wire = require("moonport.testing.wire")
local world_of = require("moonport.testing.world")

---@class testing.Options: moonport.ServerTable
---@field url string? of the server; tcp://127.0.0.1:9999
---@field name string? of the server; the script's
---@field from moonport.Address? of the peers
---@field seed integer? of the order of what could happen at the same time, and of where sent bytes are cut
---@field window integer? bytes that the buffers of a connection take in each direction; 2 MiB
---@field epoch number? what moonport.time() is at the beginning
---@field limit number? seconds that requests may go on when all peers have ended; 86400
---@field upstreams table<string, fun(peer: testing.Peer)|"silent">? who answers moonport.connect

local OWN <const> = { url = true, name = true, from = true, seed = true, window = true, epoch = true, limit = true,
  upstreams = true }
local CLASSES <const> = { tcp = "AsyncTCPServer", udp = "AsyncUDPServer", unix = "AsyncUnixStreamServer",
  unixgram = "AsyncUnixDatagramServer" }
local EPOCH <const> = 1700000000

---@class testing.Run
---@field time number seconds that have passed
---@field log table[] events: `level`, `event`, `time`, and what the event has
---@field requests testing.Request[]
---@field outcome string? of the first request
---@field error any of the first request
---@field server moonport.Server
---@field sent { data: string, to: moonport.Address }[] datagrams to those who are no peers
---@field journal testing.Record[]
---@field handler table
---@field private world testing.World
---@field private host testing.Host
---@field private modules table<string, any>
---@field private options testing.Options
---@field private attributes table<string, any> the options that are attributes
---@field private sites testing.Site[]
---@field private senders table<string, testing.Sender>
---@field private failure { [1]: any }?
---@field private peers integer whose functions run
---@field private leaving integer whose functions have ended: they read what still comes
---@field private port integer of the next peer
local Run = {}

local run_mt = {
  __name = "testing.Run",
  __index = function(self, key)
    if key == "time" then return rawget(self, "world").now end
    if key == "outcome" or key == "error" then
      local first = rawget(self, "requests")[1]
      return first and first[key]
    end
    return Run[key]
  end,
  __close = function(self) self:close() end,
}

local M = {}

---@param options testing.Options?
---@return testing.Options with this one, unless it is there
function M.with(options, name, value)
  local out = {}
  for k, v in pairs(options or {}) do out[k] = v end
  if out[name] == nil then out[name] = value end
  return out
end

---@param options testing.Options
---@return table<string, any> those that are attributes
local function attributes_of(options)
  local out = {}
  for name, value in pairs(options) do
    if not OWN[name] then
      if not attributes.knows(name) then
        local names = attributes.names()
        for own in pairs(OWN) do names[#names + 1] = own end
        table.sort(names)
        error(("testing: unknown option %s; did you mean %s?"):format(tostring(name),
          nearest(tostring(name), names)), 0)
      end
      out[name] = value
    end
  end
  return out
end

---@param options testing.Options
---@return testing.Run
local function new(options)
  local world = world_of.new(options.seed)
  local self = setmetatable({ world = world, log = {}, requests = {}, sites = {}, senders = {}, sent = {},
    peers = 0, leaving = 0,
    options = options, port = 49152, attributes = attributes_of(options), upstreams = {} }, run_mt)
  local host = { world = world }
  function host.time() return (options.epoch or EPOCH) + world.now + 0.0 end
  function host.log(level, event, fields)
    fields.level, fields.event, fields.time = level, event, world.now
    table.insert(self.log, fields)
  end
  function host.connect(url) return self:answer_connect(url) end
  self.host = host
  self.modules = { moonport = module.new(host) }
  self.modules["moonport.journal"], self.journal = journal.new(world, host.time)
  world.module = self.modules.moonport
  world_of.latest = world
  for url, f in pairs(options.upstreams or {}) do self:serve(url, f) end
  return self
end

-- ---------------------------------------------------------------- servers

---@private
---@param handler table
---@param script_name string
---@param name string
---@param text string a URL
---@return testing.Site
function Run:add_site(handler, script_name, name, text)
  local url, why = address.parse(text)
  if not url then error(why, 0) end
  if type(url.address) == "table" and url.address.port == 0 then
    url = assert(address.parse(url.transport .. "://"
      .. tostring(address.new(url.address.host, 40000 + #self.sites))))
  end
  local site = { name = name, url = url, class = CLASSES[url.transport], handler = handler, script_name = script_name,
    counters = server.counters(), generation = 1, accepts = true }
  site.attributes = attributes.read(self.attributes, handler)
  site.object = server.new(site)
  function site.shutdown() self:shutdown(site) end
  function site.reload() return self:reload() end
  if url.kind == "datagram" then self:open_port(site) end
  table.insert(self.sites, site)
  return site
end

---@private
---@param site testing.Site
function Run:open_port(site)
  local function deliver(data, to)
    local sender = self.senders[tostring(to)]
    if sender then sender:take_in(data) else table.insert(self.sent, { data = data, to = to }) end
    site.counters.bytes_out = site.counters.bytes_out + #data
  end
  site.socket = datagram.new { own_name = site.url.address, options = {}, number = 3, send = deliver }
  function site.answer(data, to)
    if #data > datagram.MOST then return errors.text("EMSGSIZE") end
    deliver(data, to)
  end
end

---@private
---@param site testing.Site
function Run:shutdown(site)
  site.accepts = false
  self.world:at(self.world.now + site.attributes.drain_timeout, function()
    for _, r in ipairs(self.requests) do
      if r.site == site and r.outcome == "running" then self.world:cancel(r.task, "drain_timeout") end
    end
  end)
end

-- Plain data, as save() hands it over.
local function copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[copy(k)] = copy(v) end
  return out
end

---Loads the script again; requests under way go on with the old code.
---@return integer? generation
---@return string? why
function Run:reload()
  if not self.script then return nil, "the handler was given as a table: there is no script to load" end
  local ok, handler, name = pcall(loading.load, self.host, self.script, self.modules)
  local read, found = pcall(function() return attributes.read(self.attributes, handler) end)
  if not ok or not read then return nil, tostring(not ok and handler or found) end
  local data = self.handler.save and copy(self.handler.save())
  if data ~= nil and handler.init then handler.init(data) end
  self.handler = handler
  for _, site in ipairs(self.sites) do
    site.handler, site.script_name, site.attributes = handler, name, found
    site.generation = site.generation + 1
    site.counters.reloads = site.counters.reloads + 1
  end
  return self.sites[1].generation
end

---@param handler table|string
---@param options testing.Options
---@return testing.Run
function M.open(handler, options)
  local self = new(options)
  local name = "handler"
  if type(handler) == "string" then
    self.script = handler
    handler, name = loading.load(self.host, handler, self.modules)
  elseif type(handler) ~= "table" or type(handler.handle) ~= "function" then
    error("testing: the handler must be a script's path or text, or a table with a function `handle`", 3)
  end
  self.handler = handler
  local site = self:add_site(handler, name, options.name or name, options.url or "tcp://127.0.0.1:9999")
  self.server = site.object
  return self
end

-- ---------------------------------------------------------------- connections

---@private
---@return moonport.Address
function Run:client_address(site, from)
  from = from or self.options.from
  if from then
    local checked, why = address.check(from)
    if not checked and from ~= "" then error("testing: from: " .. (why or "it must be an address"), 0) end
    return checked or from
  end
  if site.url.transport:find("^unix") then return "" end
  self.port = self.port + 1
  return address.new("127.0.0.1", self.port - 1)
end

---@private
---@return testing.Site
function Run:site(name)
  if not name and #self.sites > 1 then error("testing: there are several servers; connect to which one?", 0) end
  for _, site in ipairs(self.sites) do
    if not name or site.name == name then return site end
  end
  error("testing: there is no server " .. tostring(name), 0)
end

---@private
---@param site testing.Site
---@return testing.End peer's
---@return testing.Request
function Run:accept(site, from)
  local near, far = wire.pair(self.world, site.url.transport == "unix", self.options.window or 2 << 20)
  local s = stream.new(self.world, near)
  s.peer_name, s.own_name = from, site.url.address
  s.options.tcp_nodelay = site.attributes.disable_nagle_algorithm
  local r = course.start { site = site, stream = s, client = from, log = self.host.log }
  table.insert(self.requests, r)
  return far, r
end

---@private
---@param site testing.Site
---@return testing.Sender
function Run:sender(site, from)
  local sender
  sender = peers.sender(self.world, from, function(data)
    local s, most = stream.new(self.world), site.attributes.max_packet_size
    local packet = data:sub(1, most)
    s.input = packet
    if #data > most then site.counters.truncated = site.counters.truncated + 1 end
    local r = course.start { site = site, stream = s, client = from, packet = packet, socket = site.socket,
      truncated = #data > most and #data or nil, log = self.host.log }
    table.insert(self.requests, r)
    return r
  end)
  if from ~= "" then self.senders[tostring(from)] = sender end
  return sender
end

---A peer with a connection of its own; of a datagram server, one that sends from an address of its own.
---@param name? string of the server, if there are several
---@param from? moonport.Address
---@return testing.Peer|testing.Sender
function Run:connect(name, from)
  local site = self:site(name)
  if not site.accepts then error("testing: connection refused: the server is shut down", 2) end
  from = self:client_address(site, from)
  if site.url.kind == "datagram" then return self:sender(site, from) end
  local far, r = self:accept(site, from)
  local peer = peers.new(self.world, far, from)
  peer.request = r
  return peer
end

---Who answers when a handler connects to a URL: f gets the peer, in a coroutine of its own. "silent": nobody does.
---@param text string
---@param f fun(peer: testing.Peer)|"silent"
function Run:serve(text, f)
  local url, why = address.parse(text)
  if not url then error("testing: " .. why, 2) end
  self.upstreams[url.text] = f
end

---@private
---@param url testing.Url
---@return testing.End?
---@return string? why
---@return moonport.Address? own_name
function Run:answer_connect(url)
  local f = self.upstreams[url.text]
  if f == "silent" then return nil, "silent" end
  local own_name = url.transport == "unix" and "" or address.new("127.0.0.1", self.port)
  self.port = self.port + 1
  if f then
    local near, far = wire.pair(self.world, url.transport == "unix", self.options.window or 2 << 20)
    self:start_peer("the server " .. url.text, f, peers.new(self.world, far, own_name))
    return near, nil, own_name
  end
  for _, site in ipairs(self.sites) do
    if site.url.text == url.text and site.accepts then return (self:accept(site, own_name)), nil, own_name end
  end
  return nil, "ECONNREFUSED"
end

-- ---------------------------------------------------------------- running

---@private
function Run:start_peer(name, f, peer)
  local task = self.world:spawn_peer(name, function()
    f(peer, self)
    self.peers = self.peers - 1
    self.leaving = self.leaving + 1
    peer:finish()
  end)
  self.peers = self.peers + 1
  task.ended = function(ok, err)
    if ok then self.leaving = self.leaving - 1 else self.peers = self.peers - 1 end
    if not ok and not world_of.killed(err) then self.failure = self.failure or { err } end
  end
  return task
end

---@private
---@return boolean
function Run:is_busy()
  if self.peers > 0 or self.leaving > 0 then return true end
  for _, r in ipairs(self.requests) do
    if r.outcome == "running" then return true end
  end
  return false
end

---Lets time go on until all peers and all requests have ended.
function Run:finish()
  local last
  while self:is_busy() do
    if not self.world:step(last) then
      local text = last and ("a request still goes on, %g s after the last peer: %s"):format(
        self.options.limit or 86400, self.world:waits()) or self.world:standstill()
      self:close()
      error(text, 0)
    end
    if self.failure then
      local err = self.failure[1]
      self:close()
      error(err, 0)
    end
    if self.peers == 0 then
      last = last or self.world.now + (self.options.limit or 86400)
    else
      last = nil
    end
  end
end

---Gives each function a peer, and waits for the end of all.
---@param ... fun(peer: testing.Peer, run: testing.Run)
function Run:run(...)
  for i, f in ipairs { ... } do
    self:start_peer(select("#", ...) > 1 and ("peer %d"):format(i) or "the peer", f, self:connect())
  end
  self:finish()
end

---@param seconds number of the virtual clock
function Run:sleep(seconds)
  peers.wait(self.world, {}, function() return false end, seconds, ("its sleep of %g s"):format(seconds))
end

---The events of the log of this name.
---@param name string
---@return table[]
function Run:events(name)
  local out = {}
  for _, event in ipairs(self.log) do
    if event.event == name then out[#out + 1] = event end
  end
  return out
end

---Ends everything where it stands. What `<close>` does.
function Run:close()
  while self.world.tasks[1] do self.world:kill(self.world.tasks[1]) end
end

-- ---------------------------------------------------------------- mocks

---@class testing.Mocks: testing.Run
---@field mock table the script's moonport.mock
local Mocks = {}

---@param script string|fun(mock: table)
---@param options testing.Options
---@return testing.Mocks
function M.mock(script, options)
  local self = new(options)
  for name, f in pairs(Mocks) do rawset(self, name, f) end
  local env
  if type(script) == "function" then
    env = loading.environment(self.host, nil, self.modules)
    script(env.require("moonport.mock"))
    self.handler = self.host.default_handler
  else
    self.script = script
    local handler, _
    handler, _, env = loading.load(self.host, script, self.modules)
    self.handler = handler
  end
  self.mock = env.require("moonport.mock")
  for _, one in ipairs(self.mock.listeners()) do self:add_site(self.handler, "mock", one.name, one.url) end
  self.server = self.sites[1] and self.sites[1].object
  return self
end

---What the control API would do.
---@param op string
---@param data? table
---@return any
function Mocks:control(op, data) return self.mock.control(op, data or {}) end

---What is to be said against the run: failed expects, and required stubs that were never used.
---@return string[]
function Mocks:verdict()
  local texts = self.modules["moonport.journal"].failures()
  for _, text in ipairs(self:control("verdict")) do texts[#texts + 1] = text end
  return texts
end

return M
