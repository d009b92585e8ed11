--- The control API of a host: HTTP/1.1 and JSON, as a handler like any other. In full: docs/mocks.md.
--- For each request: a strict reader, the guard, a route; nothing that a route does waits for another's.

local control = require("moonport.control")
local http = require("moonport.http")
local journal = require("moonport.journal")
local moonport = require("moonport")

local bytes = require("moonport.admin.bytes")
local guard = require("moonport.admin.guard")
local json = require("moonport.json")
local refuse = require("moonport.admin.refuse")

local MAX_BODY = 4 * 1024 * 1024
local MAX_SENTENCE = 16384 -- bytes, of an error; a request may name something of megabytes
local MAX_IDLE = 256 -- connections; with more, those that are idle give way

---@class moonport.Admin: moonport.StreamHandler
---@field limits http.Limits
---@field private under_way http.Request? the last that a route was run for
local Admin = {
  limits = { idle = 60, head_time = 10, body_time = 30 },
  rbufsize = 4096, -- a head is 16 KiB at most: so little is read for somebody unknown
  server = {
    max_connections = 2 * MAX_IDLE, -- with those that wait for the journal
    drain_timeout = 0.1, -- those are not waited for
  },
}

---@class admin.Call
---@field req http.Request
---@field names table<string, string> of the path
---@field private reader http.Reader
---@field private request moonport.Request
local Call = {}
local call_mt = { __name = "admin.Call", __index = Call }

---@return string
function Call:body()
  local body, why, status = self.reader:body(self.req, MAX_BODY)
  if body then return body end
  self.req.keep_alive = false
  if not status then error("the client left in the middle of its request", 0) end
  refuse(status, why)
end

---The body, which must be an object, or absent.
---@param known? table<string, boolean> the names that it may have
---@return table
function Call:object(known)
  local text = self:body()
  if text == "" then return {} end
  local value, why = json.decode(text)
  if why then refuse(400, "the body is not JSON: " .. why) end
  if type(value) ~= "table" or json.is_array(value) or value == json.null then
    refuse(400, "the body must be a JSON object")
  end
  for name in pairs(known and value or {}) do
    if not known[name] then
      local names = {}
      for k in pairs(known) do names[#names + 1] = k end
      table.sort(names)
      refuse(400, ("the body has no %q here; there are %s"):format(name, table.concat(names, ", ")))
    end
  end
  return value
end

---Waits for a record of the journal past `after`, as long as the client is there: an end of what it sends is taken for
---its end. Nothing else may be under way.
---@param after integer
---@param seconds number
---@return boolean there_is
function Call:wait(after, seconds)
  local request = self.request
  if not request:needpeer(true) then refuse(503, "the client has ended its side; nobody waits then") end
  local there_is = journal.wait(after, seconds)
  request:needpeer(false)
  return there_is
end

---@return boolean whether the body is Lua and not JSON
function Call:is_lua()
  return (self.req.headers["content-type"] or ""):lower():find("^%s*text/x%-lua") ~= nil
end

local SAFE = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

---@param wfile moonport.WFile
---@param req http.Request?
---@param status integer
---@param value any a string: text as it is
---@param headers? string
local function reply(wfile, req, status, value, headers)
  if req and req.unread then req.keep_alive = false end -- nobody reads the rest
  local text, kind = value, "text/plain; version=0.0.4; charset=utf-8"
  if value == nil then
    text = ""
  elseif type(value) ~= "string" then
    text, kind = json.encode(value) .. "\n", "application/json"
  end
  if req then req.answered = true end
  http.reply(wfile, req, status, text, SAFE .. (headers or ""), kind)
end

---@param message any
---@return string
local function sentence(message)
  local text = tostring(message)
  if #text > MAX_SENTENCE then text = text:sub(1, MAX_SENTENCE):gsub("[\x80-\xff]*$", "") .. " ..." end
  return bytes.printable(text) and text or (text:gsub("[^\t\n\32-\126]", "?"))
end

-- The host's own errors, cancelled ones among them, pass as they are.
local function trace(err)
  if type(err) == "table" or type(err) == "userdata" then return err end
  local text = tostring(err)
  return { traceback = debug and debug.traceback(text, 2) or text } -- a sandbox has no debug
end

---Runs a route. They are loaded with the first request: a test suite waits for the start.
---@param handler moonport.Admin
---@param reader http.Reader
---@param req http.Request
local function run(handler, reader, req)
  local call = setmetatable({ req = req, reader = reader, request = handler.request }, call_mt)
  handler.under_way = req
  local ok, status, value, headers = xpcall(function()
    local route, names = require("moonport.admin.routes"):find(req.method, req.path)
    call.names = names
    if call:is_lua() and not route.script then refuse(415, "a body must have Content-Type: application/json here") end
    local value, status, headers = route.run(call)
    return status or 200, value, headers
  end, trace)
  if ok then return reply(handler.wfile, req, status, value, headers) end
  local err = status
  if refuse.is(err) then
    local body = err.extra or {}
    body.error = sentence(err.message)
    return reply(handler.wfile, req, err.status, body, err.headers)
  end
  req.keep_alive = false
  if err.code == "cancelled" then return reply(handler.wfile, req, 503, { error = sentence(err) }) end
  moonport.log("error", ("control API: %s %s: %s"):format(req.method, req.path, err.traceback or tostring(err)))
  reply(handler.wfile, req, 500, { error = "the control API failed; the host's log has the traceback" })
end

---@param handler moonport.Admin
---@return admin.Who
local function who_of(handler)
  local options, own = control.options(), { "127.0.0.1", "localhost", "[::1]" }
  local port
  for _, address in ipairs { handler.server.server_address, handler.request:getsockname() or nil } do
    if type(address) == "table" then
      port = address.port
      own[#own + 1] = address.host:find(":", 1, true) and "[" .. address.host .. "]" or address.host
    end
  end
  return { own = own, port = port, hosts = options.hosts, token = options.token }
end

-- Who waits for a client's next request, by the time since when; and how many connections there are.
local idle, connections = {}, 0

-- The one that has been idle for longest reads its end, answers what it has got before that, and ends.
local function give_way()
  local oldest
  for handler, since in pairs(idle) do
    if not oldest or since < idle[oldest] then oldest = handler end
  end
  if not oldest then return end
  idle[oldest] = nil
  oldest.request:shutdown("read")
end

function Admin.setup()
  connections = connections + 1
  if connections > MAX_IDLE then give_way() end
end

-- A route that computes past cpu_limit is ended from outside: nothing behind it runs but this.
local TOO_LONG = { error = "this took more computing than cpu_limit allows, and was ended" }

function Admin:finish()
  connections = connections - 1
  idle[self] = nil
  local req = self.under_way
  if not req or req.answered or self.request:isclosed() then return end
  req.keep_alive = false
  reply(self.wfile, req, 503, TOO_LONG)
end

---@param handler moonport.Admin
---@param reader http.Reader
local function next_request(handler, reader)
  idle[handler] = moonport.monotonic()
  local req, why, status, headers = reader:read()
  idle[handler] = nil
  return req, why, status, headers
end

function Admin:handle()
  local reader, who = http.reader(self, self.limits), who_of(self)
  local open = true
  while open do
    local req, why, status, headers = next_request(self, reader)
    if req then
      status, why, headers = guard.check(req, who)
      if status then
        req.keep_alive = false
      else
        run(self, reader, req)
      end
    end
    if status then reply(self.wfile, req, status, { error = why }, headers) end
    open = req ~= nil and req.keep_alive
  end
end

return Admin
