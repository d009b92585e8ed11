--- TLS for mocks: a server's certificate, and the bytes of one connection, sealed and opened.

local moonport = require("moonport")

local M = {}

local tls -- moonport.tls: of the host, so that mocks without it run where there is none
local atomically = moonport.atomically
local concat = table.concat

---@class mock.TLS of a server
---@field certificate string in PEM: what clients trust
---@field key string
---@field context any moonport.tls'
---@field made { names: string[], days: integer? }? we have made it, of these
---@field starttls boolean connections begin without

local FIELDS = { certificate = "string", key = "string", names = "table", days = "number", starttls = "boolean" }
local LOCAL = { "localhost", "127.0.0.1", "::1" }

---@param value table
---@return string? wrong
local function check(value)
  for name, field in pairs(value) do
    if not FIELDS[name] then
      return ("tls has no field %s; there are certificate, key, names, days and starttls"):format(tostring(name))
    elseif type(field) ~= FIELDS[name] then
      return ("tls: %s is a %s, not a %s"):format(name, FIELDS[name], type(field))
    end
  end
  if (value.certificate == nil) ~= (value.key == nil) then return "tls: certificate and key go together, in PEM" end
  if value.certificate and (value.names or value.days) then
    return "tls: names and days are for a certificate that is made here"
  end
end

---@return string? why there is no TLS
local function load_tls()
  -- The host has it in preload; to look for it elsewhere would load whatever `moonport` is found.
  if not package.preload["moonport.tls"] then return "tls: there is none here, where no host runs" end
  tls = require("moonport.tls")
end

---@param self mock.TLS
---@return string? why not
local function load_pair(self)
  local why
  self.context, why = tls.context(self)
  return why and "tls: " .. why
end

---@param value any true, "starttls", or { certificate =, key =, names =, days =, starttls = }
---@return mock.TLS?
---@return string? why
function M.of(value)
  if value == true then value = {} end
  if value == "starttls" then value = { starttls = true } end
  if type(value) ~= "table" then return nil, 'tls is true, "starttls" or a table' end
  local why = check(value) or load_tls()
  if why then return nil, why end
  local self = { certificate = value.certificate, key = value.key, starttls = value.starttls or false }
  if not self.certificate then
    self.made = { names = value.names or LOCAL, days = value.days }
    local ok, certificate, key = pcall(tls.certificate, self.made)
    if not ok or not certificate then
      return nil, "tls: " .. tostring(ok and key or certificate):gsub("^.*%((.*)%)$", "%1"):gsub("^tls: ", "")
    end
    self.certificate, self.key = certificate, key
  end
  why = load_pair(self)
  if why then return nil, why end
  return self
end

---@param self mock.TLS
---@return table data plain, for the next generation of the script
function M.save(self)
  return { certificate = self.certificate, key = self.key, made = self.made }
end

local function same(a, b)
  if not a or not b or a.days ~= b.days or #a.names ~= #b.names then return false end
  for i, name in ipairs(a.names) do
    if name ~= b.names[i] then return false end
  end
  return true
end

---Goes on with the certificate that clients know by now, unless the new script wants another.
---@param self mock.TLS
---@param saved table
function M.restore(self, saved)
  if not same(self.made, saved.made) then return end
  self.certificate, self.key = saved.certificate, saved.key
  load_pair(self)
end

---@param self mock.TLS
---@return table data plain, for people and tests
function M.data(self)
  return { certificate = self.certificate, starttls = self.starttls }
end

-- ---------------------------------------------------------------- one connection

---@class mock.Channel
---@field private engine any
---@field private emit fun(bytes: string)
---@field private queue string[] sealed, and not sent yet
---@field private n integer
---@field private sending boolean
---@field private ended boolean
local Channel = {}
local channel_mt = { __name = "mock.Channel", __index = Channel }

---@param secured mock.TLS
---@param emit fun(bytes: string) sends them; may wait
---@return mock.Channel
function M.channel(secured, emit)
  return setmetatable({
    engine = secured.context:engine(), emit = emit, queue = {}, n = 0, sending = false, ended = false,
  }, channel_mt)
end

-- Seals bytes, or takes what the engine itself has to say, and puts it behind what is there: records have an order.
---@return string? why not
local function put(self, bytes)
  local sealed, why
  if bytes then
    sealed, why = self.engine:seal(bytes)
  else
    sealed = self.engine:output()
  end
  if sealed then
    self.n = self.n + 1
    self.queue[self.n] = sealed
  end
  return why
end

-- What is next to be sent, and by whom: by who began, until nothing is left.
---@param mine boolean this task is the one
---@return string?
local function next_batch(self, mine)
  if self.sending and not mine then return nil end
  self.sending = self.n > 0
  if not self.sending then return nil end
  local batch = concat(self.queue, "", 1, self.n)
  self.queue, self.n = {}, 0
  return batch
end

local given_up_mt = {
  __close = function(turn)
    if not turn.done then turn.channel.sending = false end
  end,
}

---@private
---@param bytes? string
function Channel:flush(bytes)
  local why = atomically(put, self, bytes)
  if why then error("TLS: " .. why, 0) end
  local batch = atomically(next_batch, self, false)
  if not batch then return end
  local turn <close> = setmetatable({ channel = self }, given_up_mt)
  while batch do
    self.emit(batch)
    batch = atomically(next_batch, self, true)
  end
  turn.done = true
end

---Seals and sends. Waits for slow peers, unless another task sends just now: that sends these, too.
---@param bytes string
function Channel:send(bytes) self:flush(bytes) end

---@param bytes string from the peer
function Channel:give(bytes) self.engine:give(bytes) end

---@return boolean? done
---@return string? why "wait" for more from the peer, or what is wrong
function Channel:handshake()
  local done, why = self.engine:handshake()
  self:flush()
  return done, why
end

---@return string? bytes
---@return string? why "wait" for more from the peer, "closed", or what is wrong
function Channel:read()
  local bytes, why = self.engine:read()
  self:flush()
  return bytes, why
end

---Says to the peer that no more comes.
function Channel:finish()
  if self.ended then return end
  self.ended = true
  self.engine:close()
  self:flush()
end

---It is of no more use.
function Channel:free() self.engine:free() end

---@return { version: string, cipher: string, server_name: string? }
function Channel:info() return self.engine:info() end

return M
