--- Between the classes of socketserver and the core in C: what of a server's methods and attributes is its author's
--- own, what the core is told because of it, and the course of a request in Lua where the core's will not do.

local moonport = require("moonport")
local class = require("moonport.class")

local M = {}

-- socketserver's own classes, and what they define: that the core does by itself. Kept apart, for a program may put
-- methods of its own into them.
---@type table<moonport.Class, table<string, any>>
local library = {}

---@param c moonport.Class complete
function M.take(c)
  library[c] = {}
  for name, value in pairs(c) do library[c][name] = value end
end

-- The core's, but for `timeout`: a server's limits handle_request, a handler's its reads and writes.
local ATTRIBUTES = {
  "allow_reuse_address", "allow_reuse_port", "block_on_close", "cancel_grace", "cpu_limit", "daemon_threads",
  "disable_nagle_algorithm", "drain_timeout", "idle_timeout", "ipv6_v6only", "max_children", "max_connections",
  "max_line", "max_packet_size", "max_requests_per_child", "max_threads", "memory_limit", "rbufsize",
  "request_queue_size", "request_timeout", "socket_mode", "thread_idle_timeout", "time_slice", "wbufsize",
}

-- Any of these has all of a request's course run here.
local COURSE = { "get_request", "process_request", "finish_request", "shutdown_request", "close_request" }

-- A thread has a Lua state of its own, where the server's methods are not.
local IN_THREADS = { "finish_request", "shutdown_request", "close_request", "process_request_thread" }

local TRANSPORTS = {
  SOCK_STREAM = { AF_INET = "tcp", AF_INET6 = "tcp", AF_UNIX = "unix" },
  SOCK_DGRAM = { AF_INET = "udp", AF_INET6 = "udp", AF_UNIX = "unixgram" },
}

local HOSTS = {
  AF_INET = { [""] = "0.0.0.0", localhost = "127.0.0.1" },
  AF_INET6 = { [""] = "::", localhost = "::1" },
}

---Raises a sentence that begins with the server's class.
local function complain(server, text, ...) error(class.name(class.of(server)) .. ": " .. text:format(...), 0) end

---What the object itself, or a class of its author's, has under a name; nil: the library's word stands.
---@param server socketserver.BaseServer
---@param name string
---@return any
function M.own(server, name)
  local value = rawget(server, name)
  if value ~= nil then return value end
  for _, c in ipairs(class.mro(class.of(server))) do
    value = rawget(c, name)
    if value ~= nil then
      if library[c] and library[c][name] == value then return nil end
      return value
    end
  end
end

---@param server socketserver.BaseServer
---@param names string[]
---@return string? name the first that is not the library's
local function replaced(server, names)
  for _, name in ipairs(names) do
    if M.own(server, name) ~= nil then return name end
  end
end

-- ---------------------------------------------------------------- handlers

-- Has the modules beside a script come first while it is loaded, as under `moonport serve`.
local function load_beside(path, chunk, ...)
  local folder = path:match("^(.*)/[^/]*$") or "."
  local before = package.path
  local ours = ("%s/?.lua;%s/?/init.lua;%s"):format(folder, folder, before)
  package.path = ours
  local ok, result = pcall(chunk, ...)
  if package.path == ours then package.path = before end
  if not ok then error(result, 0) end
  return result
end

---@param server socketserver.BaseServer
---@param path string
---@param name string
---@return table handler
local function load_handler(server, path, name)
  local globals = setmetatable({}, { __index = _G }) -- so that handle() of one script is not the next one's
  local chunk, why = loadfile(path, "t", globals)
  if not chunk then complain(server, "cannot load the handler: %s", why) end
  local handler = load_beside(path, chunk, name, path)
  if type(handler) == "table" then return handler end
  local handle = rawget(globals, "handle")
  if handler ~= nil or type(handle) ~= "function" then
    complain(server, "%s has no handle: return a table with a function `handle`, or define a global function "
      .. "`handle(self)`", path)
  end
  return { setup = rawget(globals, "setup"), handle = handle, finish = rawget(globals, "finish") }
end

---@param server socketserver.BaseServer
---@param name string a path if it looks like one, else a module's name
---@return string path
local function find_script(server, name)
  if name:find("/", 1, true) or name:find("%.lua$") then return name end
  local path = package.searchpath(name, package.path)
  return path or complain(server, "there is no module %s for a handler (a path ends in .lua or has a slash)", name)
end

---@param server socketserver.BaseServer
local function check_handler(server)
  local handler, threading = server.RequestHandlerClass, server._mixin == "threading"
  if type(handler) == "string" then
    server._script = find_script(server, handler)
    if threading then return end
    handler = load_handler(server, server._script, handler)
    server.RequestHandlerClass = handler
  elseif threading then
    complain(server, "each thread loads the handler into a Lua state of its own, so it cannot be a %s of this one; "
      .. "give the path of a script, or the name of a module, that returns it", type(handler))
  end
  if type(handler) ~= "function" and (type(handler) ~= "table" or type(handler.handle) ~= "function") then
    complain(server, "the handler has no function `handle`")
  end
end

---@param server socketserver.BaseServer
local function check_threads(server)
  local name = server._mixin == "threading" and replaced(server, IN_THREADS)
  if name then
    complain(server, "%s would have to run in the threads, each with a Lua state of its own, where this one's methods "
      .. "are not; put it into the handler's script, in `setup`, `handle` or `finish`", name)
  end
end

---For the constructor: raises one sentence where no such server can be.
---@param server socketserver.BaseServer
function M.check(server)
  if not moonport.serving then
    complain(server, "servers are made in a plain Lua process; a script that moonport serves has one already: "
      .. "self.server")
  end
  check_threads(server)
  check_handler(server)
end

-- ---------------------------------------------------------------- the core

---@param server socketserver.BaseServer
---@return string transport
local function transport_of(server)
  local of_type = TRANSPORTS[server.socket_type]
  if not of_type then complain(server, "socket_type must be SOCK_STREAM or SOCK_DGRAM") end
  return of_type[server.address_family] or complain(server, "address_family must be AF_INET, AF_INET6 or AF_UNIX")
end

---The core that this server shall have, from its attributes of now. It has no socket yet.
---@param server socketserver.BaseServer
---@return userdata
function M.core(server)
  if server._core and server._core:fileno() >= 0 then complain(server, "it is bound already") end
  local attributes, handler = {}, server.RequestHandlerClass
  for _, name in ipairs(ATTRIBUTES) do attributes[name] = M.own(server, name) end
  server._handler = handler
  return moonport.serving.new {
    transport = transport_of(server),
    mixin = server._mixin,
    attributes = attributes,
    handler = type(handler) == "table" and handler or nil,
    script = server._script,
    object = server,
  }
end

---The address to bind, with socketserver's names for "any" and for this machine.
---@param server socketserver.BaseServer
---@return moonport.Address
function M.address(server)
  local address, family = server.server_address, server.address_family
  if family == "AF_UNIX" then
    if type(address) ~= "string" then complain(server, "the address must be the path of a socket") end
    return (address:gsub("^%z", "@")) -- Python's way to write an abstract one
  end
  local host, port
  if type(address) == "table" then host, port = address[1] or address.host, address[2] or address.port end
  if type(host) ~= "string" or math.type(port) ~= "integer" then
    complain(server, "the address must be {host, port}, such as {\"127.0.0.1\", 9999}")
  end
  host = HOSTS[family][host] or host
  if family == "AF_INET" and host:find(":", 1, true) or family == "AF_INET6" and host:find("^[%d.]+$") then
    complain(server, "%s is no address of address_family %s", host, family)
  end
  return { host, port }
end

---@param server socketserver.BaseServer bound
---@return string
function M.url(server)
  return transport_of(server) .. "://" .. tostring(server.server_address)
end

-- ---------------------------------------------------------------- a request's course

-- Gives plain errors their traceback, once; error values stay as they are.
local function trace(err)
  if type(err) == "string" and not err:find("\nstack traceback:", 1, true) then return debug.traceback(err, 2) end
  return err
end

---@return boolean ok
---@return any ... results, or the error with its traceback
function M.try(f, ...) return xpcall(f, trace, ...) end

local function has_method(value, name)
  local kind = type(value)
  return (kind == "userdata" or kind == "table") and value[name] ~= nil
end

---@param self table an instance
---@param request any
---@param server socketserver.BaseServer
local function open_files(self, request, server)
  if server.socket_type == "SOCK_DGRAM" then
    if type(request) ~= "table" then return end -- what a get_request made up
    self.packet, self.socket, self.truncated = request[1], request[2], request.truncated
    self.rfile, self.wfile = server._core:files(request[1])
  else
    self.connection = request
    if not has_method(request, "makefile") then return end
    self.rfile, self.wfile = request:makefile("r"), request:makefile("w")
  end
end

local function setup_and_handle(self)
  if self.setup then self:setup() end
  self:handle()
end

---Makes an instance ready and runs it: what the core does by itself when nothing stands in its way.
---@param self table
---@param request any
---@param client_address moonport.Address
---@param server socketserver.BaseServer
function M.run(self, request, client_address, server)
  self.request, self.client_address, self.server = request, client_address, server
  open_files(self, request, server)
  local ok, err = M.try(setup_and_handle, self)
  local finished, why = true, nil
  if self.finish then finished, why = M.try(self.finish, self) end
  if not ok then
    if not finished then server._core:report(client_address, why) end
    error(err, 0)
  elseif not finished then
    error(why, 0)
  end
end

---Has the handler deal with a request, whatever kind of handler it is.
---@param server socketserver.BaseServer
---@param request any
---@param client_address moonport.Address
function M.finish(server, request, client_address)
  local handler = server.RequestHandlerClass
  if type(handler) == "string" then
    complain(server, "its handler lives in the threads: leave the request to ThreadingMixIn.process_request")
  elseif type(handler) == "function" or class.is(handler) and handler.__init then
    handler(request, client_address, server)
  else
    local instance = class.is(handler) and class.instance(handler) or setmetatable({}, { __index = handler })
    M.run(instance, request, client_address, server)
  end
end

---A forked child's whole life. Whatever happens, it does not go on as its parent would.
---@param server socketserver.BaseServer
---@param request any
---@param client_address moonport.Address
function M.child(server, request, client_address)
  local core = server._core
  local ok, err = M.try(server.finish_request, server, request, client_address)
  local function last(method, ...)
    local done, why = M.try(server[method], server, ...)
    if not done then core:report(client_address, why) end
  end
  if not ok then last("handle_error", request, client_address, err) end
  last("shutdown_request", request)
  core:exit_child(ok and 0 or 1)
end

-- The host ends a request by this error, which is no more the handler's than Python's SystemExit.
local function is_cancelled(err) return type(err) == "table" and rawget(err, "code") == "cancelled" end

---Python's _handle_request_noblock(), without get_request().
---@param server socketserver.BaseServer
---@param request any nil: there was none
---@param client_address moonport.Address
local function drive(server, request, client_address)
  if request == nil then return end
  local ok, err = M.try(server.verify_request, server, request, client_address)
  if ok and err then
    ok, err = M.try(server.process_request, server, request, client_address)
    if ok then return end
  end
  local cancelled = not ok and is_cancelled(err)
  if not ok and not cancelled then server:handle_error(request, client_address, err) end
  server:shutdown_request(request)
  if cancelled then error(err, 0) end
end

-- ---------------------------------------------------------------- hooks

---A method of the loop's own, whose error ends serve_forever, as in Python: raised there, not in the core.
---@param server socketserver.BaseServer
---@param name string
---@return fun(): any, any
local function guarded(server, name)
  return function()
    local ok, a, b = M.try(server[name], server)
    if ok then return a, b end
    if name == "get_request" and type(a) == "table" and a.code then return nil end -- Python: except OSError
    server._failure = { a }
    if server._serving then server._core:shutdown() end
  end
end

---@param server socketserver.BaseServer
---@return boolean
local function must_drive(server)
  if replaced(server, COURSE) then return true end
  -- What threads and children do begins when the server has said yes.
  if (server._mixin == "threading" or server._mixin == "forking") and M.own(server, "verify_request") then
    return true
  end
  if server._mixin == "threading" then return false end
  local handler = server.RequestHandlerClass
  return handler ~= server._handler or type(handler) == "function" or (handler.__init or M.run) ~= M.run
end

---What the core has to come to Lua for: nothing that the library defines.
---@param server socketserver.BaseServer
---@return table<string, function>
function M.hooks(server)
  local hooks = {}
  local function pass(name)
    if M.own(server, name) == nil then return end
    hooks[name] = function(...) return server[name](server, ...) end
  end
  check_threads(server)
  if must_drive(server) then
    function hooks.drive(request, client_address) return drive(server, request, client_address) end
    if M.own(server, "get_request") then
      hooks.get_request = guarded(server, "get_request")
      function hooks.drive() return drive(server, hooks.get_request()) end
    end
    if server._mixin == "threading" then pass("handle_error") end -- of what happens in the threads
  else
    pass("verify_request")
    pass("handle_error")
  end
  if M.own(server, "service_actions") then hooks.service_actions = guarded(server, "service_actions") end
  return hooks
end

return M
