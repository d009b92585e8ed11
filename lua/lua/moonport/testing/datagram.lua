--- The socket that a datagram server receives on.

local address = require("moonport.testing.address")
local args = require("moonport.testing.args")
local errors = require("moonport.testing.errors")
local sockopt = require("moonport.testing.sockopt")

local MOST <const> = 65507 -- bytes of a datagram over IPv4

---@class testing.Port
---@field own_name moonport.Address
---@field send fun(data: string, to: moonport.Address)
---@field options table
---@field number integer

---@type table<table, testing.Port>
local ports = setmetatable({}, { __mode = "k" })

---@return testing.Port
local function port_of(self)
  return ports[self] or args.bad_type(1, "moonport.datagram_socket", 1, self)
end

local methods = {}

function methods.sendto(self, ...)
  local port = port_of(self)
  local n, data, to = select("#", ...) + 1, ...
  data = args.string(2, n, data)
  if to == "" then args.bad(3, "the address is empty: the sender has no name to answer to") end
  local checked, why = address.check(to)
  if why then args.bad(3, why) end
  if not checked then args.bad_type(3, "address ({host, port} or a path)", n, to) end
  if #data > MOST then error(errors.of_system("sendto", "EMSGSIZE"), 0) end
  port.send(data, checked)
  return #data
end

function methods.recv(self)
  port_of(self)
  args.fail("the server receives on this socket: each datagram starts a request of its own")
end
methods.recvfrom = methods.recv

function methods.getsockname(self) return port_of(self).own_name end

function methods.fileno(self) return port_of(self).number end

function methods.setsockopt(self, ...) return sockopt.set(port_of(self), ...) end

function methods.getsockopt(self, ...) return sockopt.get(port_of(self), ...) end

local socket_mt = args.class("moonport.datagram_socket", methods, {
  __tostring = function(self) return ("socket (fd %d)"):format(ports[self].number) end,
})

local M = { MOST = MOST }

---@param port testing.Port
---@return moonport.DatagramSocket
function M.new(port)
  local self = setmetatable({}, socket_mt)
  ports[self] = port
  return self
end

return M
