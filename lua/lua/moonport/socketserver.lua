--- Python's socketserver, in Lua: servers as classes, whose methods and attributes have its names and its meaning.
---
---     local socketserver = require("moonport.socketserver")
---
---     local Upper = socketserver.class("Upper", socketserver.StreamRequestHandler)
---     function Upper:handle()
---       for line in self.rfile:lines() do self.wfile:write(line:upper(), "\n") end
---     end
---
---     local server <close> = socketserver.AsyncTCPServer({ "127.0.0.1", 9999 }, Upper)
---     server:serve_forever()
---
--- Any method may be replaced, in a derived class or in one server, and is then called where Python calls it; it may
--- call the one that it replaces by its class: `socketserver.TCPServer.server_bind(self)`. What is not replaced the
--- host does by itself, without Lua. Every server is a plain Lua process's; handler classes work under `moonport
--- serve` as well.

-- luacheck: ignore 212
-- Methods that do nothing show what those that replace them are given.

local moonport = require("moonport")
local class = require("moonport.class")
local driver = require("moonport.driver")

---@class moonport.socketserver
local M = {}

---A handler class, or any table with `handle`; or a script that returns one, by its path or its name as a module, for
---threading servers nothing else; or a function, which is called as Python calls a class.
---@alias socketserver.Handler table|string|fun(request: any, client_address: moonport.Address, server: table)

---@alias socketserver.Family "AF_INET"|"AF_INET6"|"AF_UNIX"

M.isinstance = class.isinstance
M.super = class.super

-- ---------------------------------------------------------------- BaseServer

---What all servers have. `<close>` closes it, as Python's `with`.
---@class socketserver.BaseServer
---@field server_address moonport.Address as given; once bound, where it listens
---@field RequestHandlerClass socketserver.Handler a script that was named is here as what it returned, but for threads
---@field timeout? number seconds that handle_request() waits for a request; nil: for ever
---@field private _mixin string
---@field private _core userdata?
---@field private _serving true?
---@field private _stop true?
---@field private _failure table?
---@overload fun(addr: moonport.Address, handler: socketserver.Handler): socketserver.BaseServer
local BaseServer = class.new("BaseServer")
M.BaseServer = BaseServer

BaseServer._mixin = "sync"

---The constructor, Python's `__init__`. One that replaces it calls it: `socketserver.TCPServer.__init(self, ...)`.
---@param server_address moonport.Address
---@param RequestHandlerClass socketserver.Handler
function BaseServer:__init(server_address, RequestHandlerClass)
  self.server_address = server_address
  self.RequestHandlerClass = RequestHandlerClass
end

---@param server socketserver.BaseServer
---@return userdata core
local function core_of(server)
  local core = server._core
  if core and core:fileno() >= 0 then return core end
  error(("%s: it %s"):format(class.name(class.of(server)),
    core and "is closed" or "is not bound yet: that takes server_bind() and server_activate()"), 0)
end

---Raises what ended the call into the core, or what a method of the loop has raised meanwhile.
---@param server socketserver.BaseServer
local function settle(server, ok, result)
  local failure = server._failure
  server._failure = nil
  if not ok then error(result, 0) end
  if failure then error(failure[1], 0) end
  return result
end

---Serves until shutdown(), and until the requests that run in this Lua state have ended.
---@param poll_interval? number seconds that may pass between two calls of service_actions(); 0.5
function BaseServer:serve_forever(poll_interval)
  local core, hooks = core_of(self), driver.hooks(self)
  if self._serving then error("the server serves already", 2) end
  if self._stop then
    self._stop = nil
    return
  end
  self._serving = true
  local ok, err = pcall(core.serve, core, poll_interval or 0.5, hooks)
  self._serving = nil
  settle(self, ok, err)
end

---Has serve_forever() end, or the next one if none runs. Returns at once: it may be called by a handler.
function BaseServer:shutdown()
  if self._serving then
    self._core:shutdown()
  else
    self._stop = true
  end
end

---@param a? number|false
---@param b? number|false
---@return number?
local function shorter(a, b)
  return a and b and math.min(a, b) or a or b or nil
end

---Serves one request, or calls handle_timeout() if none comes in time.
function BaseServer:handle_request()
  local core, hooks, socket = core_of(self), driver.hooks(self), self.socket
  local patience = socket and socket.gettimeout and socket:gettimeout()
  hooks.service_actions = nil -- serve_forever's alone
  local outcome = settle(self, pcall(core.handle_request, core, shorter(patience, self.timeout), hooks))
  if outcome == "timeout" then self:handle_timeout() end
end

---Called by the constructor, to listen.
function BaseServer:server_activate() end

---Called to clean up the server.
function BaseServer:server_close() end

---Called by serve_forever() again and again. An error ends serve_forever.
function BaseServer:service_actions() end

---Called when no request came within `timeout`.
function BaseServer:handle_timeout() end

---@param request any
---@param client_address moonport.Address
---@return boolean serve false: it is closed, and no handler sees it
function BaseServer:verify_request(request, client_address) return true end

---Deals with a request to its end, or hands it to a thread or process.
---@param request any
---@param client_address moonport.Address
function BaseServer:process_request(request, client_address)
  self:finish_request(request, client_address)
  self:shutdown_request(request)
end

---Makes an instance of the handler, which deals with the request.
---@param request any
---@param client_address moonport.Address
function BaseServer:finish_request(request, client_address)
  driver.finish(self, request, client_address)
end

---Ends a request, served or not.
---@param request any
function BaseServer:shutdown_request(request) self:close_request(request) end

---Called by shutdown_request(), and by a forking server for the request that its child has.
---@param request any
function BaseServer:close_request(request) end

---Called for an error of a handler; writes it to the log.
---@param request any under threading nil: it is the thread's
---@param client_address moonport.Address
---@param err any with its traceback, if it is a string
function BaseServer:handle_error(request, client_address, err)
  self._core:report(client_address, err)
end

---@return table counters of the host
function BaseServer:stats() return self._core and self._core:stats() or {} end

function BaseServer:__close() self:server_close() end

function BaseServer:__tostring()
  return ("%s (%s)"):format(class.name(class.of(self)), self.url or "not bound")
end

-- ---------------------------------------------------------------- the four transports

---Streams over IP, one request at a time.
---@class socketserver.TCPServer: socketserver.BaseServer
---@field address_family socketserver.Family
---@field socket_type "SOCK_STREAM"|"SOCK_DGRAM"
---@field request_queue_size integer connections that the kernel keeps waiting
---@field allow_reuse_address boolean
---@field allow_reuse_port boolean
---@field socket? moonport.DatagramSocket the listening socket, once bound
---@field url? string the same place: "tcp://127.0.0.1:9999"
---@field class? string name of its class
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.TCPServer
local TCPServer = class.new("TCPServer", BaseServer)
M.TCPServer = TCPServer

TCPServer.address_family = "AF_INET"
TCPServer.socket_type = "SOCK_STREAM"
TCPServer.request_queue_size = 511
TCPServer.allow_reuse_address = true
TCPServer.allow_reuse_port = false

---@param server socketserver.TCPServer
local function bind_and_activate_it(server)
  server:server_bind()
  server:server_activate()
end

---@param server_address moonport.Address
---@param RequestHandlerClass socketserver.Handler
---@param bind_and_activate? boolean false: neither, so that attributes may be set before
function TCPServer:__init(server_address, RequestHandlerClass, bind_and_activate)
  BaseServer.__init(self, server_address, RequestHandlerClass)
  driver.check(self)
  if bind_and_activate == false then return end
  local ok, err = pcall(bind_and_activate_it, self)
  if not ok then
    self:server_close()
    error(err, 0)
  end
end

---Makes and binds the socket, by the attributes as they are now.
function TCPServer:server_bind()
  self._core = driver.core(self)
  self.server_address = self._core:bind(driver.address(self))
  self.socket = self._core:socket()
  self.url, self.class = driver.url(self), class.name(class.of(self))
end

function TCPServer:server_activate() self._core:activate() end

---Frees the address. A mixin's requests are waited for as block_on_close and daemon_threads say.
function TCPServer:server_close()
  if self._core then self._core:close() end
end

---@return integer descriptor -1 when there is none
function TCPServer:fileno() return self._core and self._core:fileno() or -1 end

---@return any request
---@return moonport.Address client_address
function TCPServer:get_request() return self._core:accept() end

-- In Python an error of shutdown() is passed over, and close() may be called again and again.

---@param request any
function TCPServer:shutdown_request(request)
  pcall(request.shutdown, request, "write")
  self:close_request(request)
end

---@param request any
function TCPServer:close_request(request) pcall(request.close, request) end

---Datagrams over IP; a request is {data, socket}.
---@class socketserver.UDPServer: socketserver.TCPServer
---@field max_packet_size integer|string
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.UDPServer
local UDPServer = class.new("UDPServer", TCPServer)
M.UDPServer = UDPServer

UDPServer.socket_type = "SOCK_DGRAM"
UDPServer.max_packet_size = 8192

function UDPServer:server_activate() end

function UDPServer:shutdown_request(request) self:close_request(request) end

function UDPServer:close_request(request) end

---Local streams; the address is a path, or "@name".
---@class socketserver.UnixStreamServer: socketserver.TCPServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.UnixStreamServer
local UnixStreamServer = class.new("UnixStreamServer", TCPServer)
M.UnixStreamServer = UnixStreamServer

UnixStreamServer.address_family = "AF_UNIX"

---Local datagrams.
---@class socketserver.UnixDatagramServer: socketserver.UDPServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.UnixDatagramServer
local UnixDatagramServer = class.new("UnixDatagramServer", UDPServer)
M.UnixDatagramServer = UnixDatagramServer

UnixDatagramServer.address_family = "AF_UNIX"

-- ---------------------------------------------------------------- the mixins

-- There is nothing of them before a server is bound, as in Python before the first request.
local function active_children(server, key)
  local core = key == "active_children" and rawget(server, "_core")
  return core and core:active_children() or nil
end

---Each request in a process of its own. Goes before the server's class.
---@class socketserver.ForkingMixIn
---@field timeout number
---@field max_children integer processes at once; more requests wait
---@field block_on_close boolean server_close() waits for the processes
---@field active_children? integer[] their numbers
---@field private _core userdata
---@field private _mixin string
local ForkingMixIn = class.new("ForkingMixIn")
M.ForkingMixIn = ForkingMixIn

ForkingMixIn._mixin = "forking"
ForkingMixIn.timeout = 300
ForkingMixIn.max_children = 40
ForkingMixIn.block_on_close = true
ForkingMixIn.__index = active_children

---Notes which processes have ended.
---@param blocking? boolean waits for all
function ForkingMixIn:collect_children(blocking)
  if self._core then self._core:collect_children(blocking or false) end
end

function ForkingMixIn:handle_timeout() self:collect_children() end

function ForkingMixIn:service_actions() self:collect_children() end

---@param request any
---@param client_address moonport.Address
function ForkingMixIn:process_request(request, client_address)
  local pid = self._core:fork()
  if pid == 0 then
    driver.child(self, request, client_address) -- does not return
  elseif pid then
    self:close_request(request) -- this process's; the child has its own
  else -- a child that was forked before its requests came
    self:finish_request(request, client_address)
    self:shutdown_request(request)
  end
end

---Each request in a thread of its own, with a Lua state of its own, where a script makes the handler. Goes before the
---server's class.
---@class socketserver.ThreadingMixIn
---@field daemon_threads boolean server_close() and the end of the process do not wait for threads
---@field block_on_close boolean server_close() waits for the threads
---@field max_threads? integer requests at once; more wait
---@field active_children? integer[] numbers of the requests that run
---@field private _core userdata
---@field private _mixin string
local ThreadingMixIn = class.new("ThreadingMixIn")
M.ThreadingMixIn = ThreadingMixIn

ThreadingMixIn._mixin = "threading"
ThreadingMixIn.daemon_threads = false
ThreadingMixIn.block_on_close = true
ThreadingMixIn.__index = active_children

---@param request any dead afterwards: it is the thread's
---@param client_address moonport.Address
function ThreadingMixIn:process_request(request, client_address)
  self._core:hand_over()
end

---Each request in a coroutine of its own: while one waits, others run. Goes before the server's class.
---@class socketserver.AsyncMixIn
---@field max_connections? integer requests at once; more wait
---@field private _mixin string
local AsyncMixIn = class.new("AsyncMixIn")
M.AsyncMixIn = AsyncMixIn

AsyncMixIn._mixin = "async"

-- ---------------------------------------------------------------- handlers

---Deals with one request: `setup`, `handle`, `finish`. Derive from it and write `handle`.
---@class socketserver.BaseRequestHandler: moonport.Handler
---@field server socketserver.TCPServer
---@field request any
---@overload fun(request: any, client_address: moonport.Address, server: table): socketserver.BaseRequestHandler
local BaseRequestHandler = class.new("BaseRequestHandler")
M.BaseRequestHandler = BaseRequestHandler

---Runs `setup` and `handle`, and `finish` whatever happened. Where a class derives it anew, the host leaves the making
---of instances to Lua; under `moonport serve`, and in threads, it is not called.
BaseRequestHandler.__init = driver.run

---Before `handle`. The host's own knows that there is nothing to do, and is passed over.
BaseRequestHandler.setup = moonport.base_setup

function BaseRequestHandler:handle() end

---Last, whatever happened before.
BaseRequestHandler.finish = moonport.base_finish

---For stream servers.
---@class socketserver.StreamRequestHandler: socketserver.BaseRequestHandler
---@field request moonport.Request
---@field connection moonport.Request
---@overload fun(request: any, client_address: moonport.Address, server: table): socketserver.StreamRequestHandler
local StreamRequestHandler = class.new("StreamRequestHandler", BaseRequestHandler)
M.StreamRequestHandler = StreamRequestHandler

StreamRequestHandler.rbufsize = -1
StreamRequestHandler.wbufsize = -1
StreamRequestHandler.disable_nagle_algorithm = true

---For datagram servers: what was written to `wfile` is the reply.
---@class socketserver.DatagramRequestHandler: socketserver.BaseRequestHandler
---@field request { [1]: string, [2]: moonport.DatagramSocket }
---@field packet string
---@field socket moonport.DatagramSocket
---@field truncated integer?
---@overload fun(request: any, client_address: moonport.Address, server: table): socketserver.DatagramRequestHandler
local DatagramRequestHandler = class.new("DatagramRequestHandler", BaseRequestHandler)
M.DatagramRequestHandler = DatagramRequestHandler

-- ---------------------------------------------------------------- combined

---@class socketserver.ThreadingTCPServer: socketserver.ThreadingMixIn, socketserver.TCPServer
---@overload fun(addr: moonport.Address, script: string, bind?: boolean): socketserver.ThreadingTCPServer
M.ThreadingTCPServer = class.new("ThreadingTCPServer", ThreadingMixIn, TCPServer)

---@class socketserver.ThreadingUDPServer: socketserver.ThreadingMixIn, socketserver.UDPServer
---@overload fun(addr: moonport.Address, script: string, bind?: boolean): socketserver.ThreadingUDPServer
M.ThreadingUDPServer = class.new("ThreadingUDPServer", ThreadingMixIn, UDPServer)

---@class socketserver.ThreadingUnixStreamServer: socketserver.ThreadingMixIn, socketserver.UnixStreamServer
---@overload fun(path: string, script: string, bind?: boolean): socketserver.ThreadingUnixStreamServer
M.ThreadingUnixStreamServer = class.new("ThreadingUnixStreamServer", ThreadingMixIn, UnixStreamServer)

---@class socketserver.ThreadingUnixDatagramServer: socketserver.ThreadingMixIn, socketserver.UnixDatagramServer
---@overload fun(path: string, script: string, bind?: boolean): socketserver.ThreadingUnixDatagramServer
M.ThreadingUnixDatagramServer = class.new("ThreadingUnixDatagramServer", ThreadingMixIn, UnixDatagramServer)

---@class socketserver.ForkingTCPServer: socketserver.ForkingMixIn, socketserver.TCPServer
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.ForkingTCPServer
M.ForkingTCPServer = class.new("ForkingTCPServer", ForkingMixIn, TCPServer)

---@class socketserver.ForkingUDPServer: socketserver.ForkingMixIn, socketserver.UDPServer
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.ForkingUDPServer
M.ForkingUDPServer = class.new("ForkingUDPServer", ForkingMixIn, UDPServer)

---@class socketserver.ForkingUnixStreamServer: socketserver.ForkingMixIn, socketserver.UnixStreamServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.ForkingUnixStreamServer
M.ForkingUnixStreamServer = class.new("ForkingUnixStreamServer", ForkingMixIn, UnixStreamServer)

---@class socketserver.ForkingUnixDatagramServer: socketserver.ForkingMixIn, socketserver.UnixDatagramServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.ForkingUnixDatagramServer
M.ForkingUnixDatagramServer = class.new("ForkingUnixDatagramServer", ForkingMixIn, UnixDatagramServer)

---@class socketserver.AsyncTCPServer: socketserver.AsyncMixIn, socketserver.TCPServer
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.AsyncTCPServer
M.AsyncTCPServer = class.new("AsyncTCPServer", AsyncMixIn, TCPServer)

---@class socketserver.AsyncUDPServer: socketserver.AsyncMixIn, socketserver.UDPServer
---@overload fun(addr: moonport.Address, handler: socketserver.Handler, bind?: boolean): socketserver.AsyncUDPServer
M.AsyncUDPServer = class.new("AsyncUDPServer", AsyncMixIn, UDPServer)

---@class socketserver.AsyncUnixStreamServer: socketserver.AsyncMixIn, socketserver.UnixStreamServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.AsyncUnixStreamServer
M.AsyncUnixStreamServer = class.new("AsyncUnixStreamServer", AsyncMixIn, UnixStreamServer)

---@class socketserver.AsyncUnixDatagramServer: socketserver.AsyncMixIn, socketserver.UnixDatagramServer
---@overload fun(path: string, handler: socketserver.Handler, bind?: boolean): socketserver.AsyncUnixDatagramServer
M.AsyncUnixDatagramServer = class.new("AsyncUnixDatagramServer", AsyncMixIn, UnixDatagramServer)

for _, value in pairs(M) do
  if class.is(value) then driver.take(value) end
end

-- ---------------------------------------------------------------- deriving

local MIXINS = { [ForkingMixIn] = true, [ThreadingMixIn] = true, [AsyncMixIn] = true }

---@param made moonport.Class
---@return moonport.Class? mixin that stands too late to replace anything
local function late_mixin(made)
  local behind = false
  for _, c in ipairs(class.mro(made)) do
    if behind and MIXINS[c] then return c end
    behind = behind or c == BaseServer
  end
end

---Makes a class of one's own: `socketserver.class("MyServer", socketserver.ThreadingMixIn, socketserver.TCPServer)`.
---Bases are asked in Python's order, so a mixin has to stand before the server; it raises if it does not.
---@param name string
---@param ... moonport.Class bases
---@return moonport.Class
function M.class(name, ...)
  local ok, made = pcall(class.new, name, ...)
  if not ok then error(made, 2) end
  local mixin = late_mixin(made)
  if mixin then
    error(("class %s: %s must stand before the server's class, whose methods it replaces"):format(name,
      class.name(mixin)), 2)
  end
  return made
end

return M
