--- request: the connected socket under a handler; and the same object for a connection that it has made.

local args = require("moonport.testing.args")
local errors = require("moonport.testing.errors")
local handles = require("moonport.testing.handles")
local rfile = require("moonport.testing.rfile")
local sockopt = require("moonport.testing.sockopt")
local stream = require("moonport.testing.stream")
local wfile = require("moonport.testing.wfile")

local REQUEST <const>, SOCKET <const> = "moonport.request", "moonport.socket"

local M = {}
local methods = {}

---@return testing.Stream
local function stream_of(self) return (handles.stream(self, REQUEST, SOCKET)) end

-- What is at hand, at most max bytes; waits when nothing is.
local function receive(self, ...)
  local n, size = select("#", ...) + 1, ...
  size = size == nil and stream.ALL or args.integer(2, n, size)
  if size < 0 then args.bad(2, "a size must not be negative") end
  local s = stream_of(self)
  s:check_reader()
  while s.input == "" and size > 0 do
    local count, why = s:fill()
    if why == "wait" then
      if s:park_in("a recv") then return nil, "timeout" end
      if s.interrupted then
        s.interrupted = false
        return nil, "interrupted"
      end
    elseif why == "yield" then
      s:yield_in("a recv")
    elseif not count then
      return rfile.failed(why)
    elseif count == 0 then
      return nil, "closed"
    end
  end
  local data = s.input:sub(1, size)
  s:consume(#data)
  return data
end

methods.recv = receive

function methods.interrupt(self) stream_of(self):interrupt() end

function methods.waitend(self, ...)
  local s = stream_of(self)
  if s:wait_end(args.seconds(2, select("#", ...) + 1, (...))) then return nil, "timeout" end
  return true
end

function methods.needpeer(self, need)
  local s = stream_of(self)
  if type(need) ~= "boolean" then args.bad(2, "boolean expected, got " .. type(need)) end
  s:check_reader()
  return s:need_peer(need)
end

function methods.getpeername(self)
  local s = stream_of(self)
  if not s.wire:is_connected() then return errors.result("ENOTCONN") end
  return s.peer_name
end

function methods.getsockname(self) return stream_of(self).own_name end

function methods.recvfrom(self, ...)
  local data, why, errno = receive(self, ...)
  if not data then
    if errno then return nil, why, errno end
    return nil, why
  end
  return data, methods.getpeername(self)
end

local function give_up(s, sent)
  if sent > 0 then s.error = "ETIMEDOUT" end -- a part has gone: nothing sensible can follow
  error(errors.timeout("send"), 0)
end

---@param all boolean
local function send(self, n, data, all)
  local s = stream_of(self)
  data = args.string(2, n, data)
  local sent = 0
  while true do
    local not_now = s:may_write()
    if not_now == "yield" and not s.error then
      s:yield_out("a send")
    elseif s.writer then
      if s:park_out("a send") then give_up(s, sent) end
    else
      s:flush()
      if s.error then error(errors.of_system("send", s.error), 0) end
      if sent >= #data then return sent end
      local count, why
      if s.output == "" then count, why = s:send(data:sub(sent + 1)) else why = "wait" end
      if count then
        sent = sent + count
        if not all then return sent end
      elseif why ~= "wait" then
        error(errors.of_system("send", why), 0)
      elseif s:park_out("a send") then
        give_up(s, sent)
      end
    end
  end
end

function methods.send(self, ...) return (send(self, select("#", ...) + 1, (...), false)) end

function methods.sendall(self, ...)
  send(self, select("#", ...) + 1, (...), true)
  return true
end

function methods.sendto(self)
  stream_of(self)
  args.fail("sendto is for datagrams: this is a connected stream, use sendall")
end

function methods.settimeout(self, ...) stream_of(self).timeout = args.seconds(2, select("#", ...) + 1, (...)) end

function methods.gettimeout(self)
  local seconds = stream_of(self).timeout
  return seconds and math.floor(seconds * 1e9) / 1e9
end

function methods.fileno(self) return stream_of(self).number end

function methods.shutdown(self, ...)
  local s = stream_of(self)
  local how = args.option(2, select("#", ...) + 1, (...), { "read", "write", "both" }, "both")
  if how ~= "read" then
    s:flush()
    while not s.error and s.output ~= "" do
      if s:park_out("a shutdown") then error(errors.timeout("shutdown"), 0) end
    end
  end
  local ok, why = s.wire:shutdown(how)
  if not ok then return errors.result(why) end
  return true
end

---@param s testing.Stream
local function shut(s)
  if s.owned then s:free() else s:shut() end
end

---@param s testing.Stream
local function close_when_sent(s)
  s:flush()
  while not s.error and not s.abortive and s.output ~= "" do
    if s:park_out("a close") then
      shut(s)
      error(errors.timeout("close"), 0)
    end
  end
  shut(s)
end

function methods.close(self)
  close_when_sent(stream_of(self))
  return true
end

function methods.setsockopt(self, ...) return sockopt.set(stream_of(self), ...) end

function methods.getsockopt(self, ...) return sockopt.get(stream_of(self), ...) end

function methods.makefile(self, ...)
  local s = stream_of(self)
  local mode = args.option(2, select("#", ...) + 1, (...), { "r", "w", "rb", "wb" }, "r")
  return (mode:sub(1, 1) == "w" and wfile or rfile).new(s)
end

function methods.isclosed(self)
  local s = handles.peek(self)
  return not s or s.closed == true
end

local function to_string(self)
  local s = handles.peek(self)
  return s and not s.closed and ("request (fd %d)"):format(s.number) or "request (closed)"
end

local request_mt = args.class(REQUEST, methods, { __tostring = to_string })
local socket_mt = args.class(SOCKET, methods, {
  __tostring = to_string,
  __close = function(self, err)
    local s = handles.peek(self)
    if not s then return end
    if err == nil and not s.closed and coroutine.isyieldable() and not s.world.barrier then
      close_when_sent(s)
    else
      s:flush()
      s:free()
    end
  end,
})

---@param s testing.Stream
---@return moonport.Request
function M.new(s) return handles.new(s.owned and socket_mt or request_mt, s) end

return M
