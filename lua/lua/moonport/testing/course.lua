--- A request from its beginning to its end: verify_request, setup, handle, finish, handle_error, what is left to send.

local errors = require("moonport.testing.errors")
local request = require("moonport.testing.request")
local rfile = require("moonport.testing.rfile")
local stream = require("moonport.testing.stream")
local wfile = require("moonport.testing.wfile")
local world_of = require("moonport.testing.world")

local M = {}

---What became of a request.
---@class testing.Request
---@field outcome "running"|"returned"|"error"|"timeout"|"cancelled"|"peer gone"|"refused"
---@field error any what ended it, if not itself
---@field traceback string? of an error of the handler's own
---@field began number seconds
---@field ended number? seconds
---@field client moonport.Address
---@field server string name
---@field package site testing.Site
---@field package stream testing.Stream
---@field package task testing.Task
---@field package self table
---@field package log fun(level: string, event: string, fields: table)
---@field package failed boolean

-- An error of the handler's own, with its traceback; error values of the host stay as they are.
local traced_mt = {}

local function trace(err)
  local code = errors.code(err)
  if not code then return setmetatable({ err = err, traceback = debug.traceback(nil, 2) }, traced_mt) end
  if not errors.is_peer_gone(code) and code ~= "cancelled" and code ~= "timeout" and not rawget(err, "traceback") then
    rawset(err, "traceback", debug.traceback(nil, 2))
  end
  return err
end

---@return any err
---@return string? traceback
local function untraced(err)
  if getmetatable(err) == traced_mt then return err.err, err.traceback end
  return err, type(err) == "table" and rawget(err, "traceback") or nil
end

-- As the host says it.
local function text_of(err)
  local meta = type(err) == "table" and getmetatable(err)
  if type(err) == "string" or type(err) == "number" then return tostring(err) end
  if err == nil or type(err) == "boolean" then return tostring(err) end
  if not (type(meta) == "table" and meta.__tostring) then return ("(error object is a %s value)"):format(type(err)) end
  local ok, text = pcall(tostring, err)
  return ok and text or ("(error value: a %s whose __tostring failed)"):format(type(err))
end

-- As it goes to the log, and to handle_error: the text, its traceback behind a newline.
local function with_traceback(err)
  local plain, traceback = untraced(err)
  if errors.code(plain) then return plain end
  return text_of(plain) .. (traceback and "\n" .. traceback or "")
end

-- ---------------------------------------------------------------- what is told

---@param r testing.Request
local function told(r, outcome, err, traceback)
  r.failed = true
  if r.outcome ~= "running" then return end
  r.outcome, r.error, r.traceback = outcome, err, traceback
end

local function count(r, name) r.site.counters[name] = r.site.counters[name] + 1 end

---@param r testing.Request
local function log(r, level, event, fields)
  fields.server, fields.client, fields.generation = r.server, tostring(r.client), r.site.generation
  r.log(level, event, fields)
end

---@param r testing.Request
---@param event string if it is to blame
---@param told fun(r: testing.Request, outcome: string, err: any, traceback: string?)
local function report_to(r, err, event, told) -- luacheck: ignore 431
  local why = world_of.killed(err)
  if why then
    count(r, "cancelled")
    told(r, "cancelled", why)
    return log(r, "info", "cancelled", { why = why })
  end
  local plain, traceback = untraced(err)
  local code, text = errors.code(plain), text_of(plain)
  if code == "cancelled" or code == "timeout" then
    count(r, code == "timeout" and "timeouts" or code)
    told(r, code, plain)
    log(r, "info", code, { why = text })
  elseif code and errors.is_peer_gone(code) then
    count(r, "peers_gone")
    told(r, "peer gone", plain)
    log(r, "info", "peer gone", { why = text })
  else
    count(r, "errors")
    told(r, "error", plain, traceback)
    log(r, "error", event, { error = text, traceback = traceback })
  end
end

local function report(r, err, event) report_to(r, err, event, told) end

---A task beside a request has ended by an error; the request itself goes on.
---@param r testing.Request
function M.stray(r, err)
  if world_of.killed(err) or errors.code(err) == "cancelled" then return end
  report_to(r, err, "error in a spawned task", function() end)
end

M.trace = trace

-- ---------------------------------------------------------------- its steps

local function hook_of(r, name)
  local server = r.site.handler.server
  return type(server) == "table" and server[name] or nil
end

---@param r testing.Request
---@return boolean refused
local function body(r)
  local self, verify = r.self, hook_of(r, "verify_request")
  if verify and not verify(self.server, self.request, self.client_address) then
    count(r, "refused")
    told(r, "refused")
    log(r, "info", "refused", { why = "verify_request said no" })
    return true
  end
  if self.setup then self:setup() end
  self:handle()
  return false
end

---@param r testing.Request
local function tell(r, err)
  local handle_error = hook_of(r, "handle_error")
  local plain, traceback = untraced(err)
  if errors.code(plain) or not handle_error then return report(r, err, "handler error") end
  count(r, "errors")
  told(r, "error", plain, traceback)
  local ok, late = xpcall(handle_error, trace, r.self.server, r.self.request, r.self.client_address,
    with_traceback(err))
  if not ok then report(r, late, "handler error") end
end

---@param r testing.Request
local function send_reply(r)
  local s = r.stream
  local data = s:reply()
  if data == "" then return end
  if r.client == "" then
    count(r, "unanswered")
    return log(r, "debug", "unanswered", { why = "the sender has no address" })
  end
  local why = r.site.answer(data, r.client)
  if not why then return end
  count(r, "send_errors")
  r.log("warn", "reply not sent", { server = r.server, why = why })
end

---@param r testing.Request
local function send_rest(r)
  local s = r.stream
  s.world:dismiss(r.task)
  if s.closed then return end
  if not s.wire then return send_reply(r) end
  s:flush()
  while not s.error and not s.abortive and s.output ~= "" do
    if s:park_out("a write") then error(errors.timeout("write"), 0) end
  end
  if s.error and not r.failed then
    count(r, "peers_gone")
    told(r, "peer gone", s.error)
    log(r, "info", "peer gone", { why = errors.text(s.error) })
  end
end

---@param r testing.Request
local function course(r)
  local ok, result = xpcall(body, trace, r)
  local refused = ok and result
  if not refused and r.self.finish then
    local finished, why = xpcall(r.self.finish, trace, r.self)
    if not finished then report(r, why, "handler error") end
  end
  if not ok then tell(r, result) end
  send_rest(r)
end

-- ---------------------------------------------------------------- begin and end

---@param r testing.Request
local function watch_idleness(r)
  local s, most = r.stream, r.site.attributes.idle_timeout
  local function look()
    if r.task.state == "ended" then return end
    local due = s.active + most
    if due > s.world.now then
      s.idle_timer = s.world:at(due, look)
    else
      s.world:cancel(r.task, "idle_timeout")
    end
  end
  s.idle_timer = s.world:at(s.world.now + most, look)
end

local function limit_of(value, otherwise)
  if value < 0 then return otherwise end
  return value == 0 and 1 or value
end

---@param s testing.Stream
function M.apply(s, attributes)
  s.receive_max = limit_of(attributes.rbufsize, stream.ALL)
  if attributes.wbufsize == 0 then
    s.mode = "no"
  else
    s.collect_max = limit_of(attributes.wbufsize, stream.GATHER)
  end
  s.max_line = attributes.max_line
  s.timeout = attributes.timeout
end

---@param r testing.Request
local function ended(r, ok, err)
  world_of.drop(r.stream.idle_timer)
  r.stream:free()
  if not ok then report(r, err, "handler error") end
  if r.outcome == "running" then r.outcome = "returned" end
  r.ended = r.stream.world.now
  r.site.counters.active = r.site.counters.active - 1
  if r.on_end then r.on_end() end
end

---@class testing.Arrival
---@field site testing.Site
---@field stream testing.Stream
---@field client moonport.Address
---@field packet string? of a datagram
---@field truncated integer?
---@field socket moonport.DatagramSocket?
---@field log function
---@field on_end? function

---@param a testing.Arrival
---@return testing.Request
function M.start(a)
  local site, s = a.site, a.stream
  local self = setmetatable({ server = site.object, client_address = a.client, rfile = rfile.new(s),
    wfile = wfile.new(s) }, { __index = site.handler, __name = site.script_name })
  if a.packet then
    self.packet, self.socket, self.request = a.packet, a.socket, { a.packet, a.socket }
    self.truncated = a.truncated
  else
    self.request = request.new(s)
    self.connection = self.request
  end
  local r = { outcome = "running", began = s.world.now, client = a.client, server = site.name, site = site,
    stream = s, self = self, log = a.log, failed = false, on_end = a.on_end }
  M.apply(s, site.attributes)
  count(r, "requests")
  count(r, "active")
  r.task = s.world:spawn(("the handler (%s, %s)"):format(site.name, tostring(a.client)), course, r)
  r.task.owner, r.task.stream, r.task.grace = r, s, site.attributes.cancel_grace
  r.task.ended = function(ok, err) ended(r, ok, err) end
  s.task = r.task
  if site.attributes.request_timeout then
    s.world:limit(r.task, s.world.now + site.attributes.request_timeout)
  end
  if site.attributes.idle_timeout then watch_idleness(r) end
  return r
end

return M
