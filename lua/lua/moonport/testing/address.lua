--- Addresses, and the URLs that they come in.

local M = {}

local TRANSPORTS = { tcp = "stream", udp = "datagram", unix = "stream", unixgram = "datagram" }

local address_mt = {
  __name = "moonport.address",
  __metatable = false,
  __index = function(self, key)
    if key == "host" then return rawget(self, 1) end
    if key == "port" then return rawget(self, 2) end
  end,
  __tostring = function(self)
    return (self[1]:find(":", 1, true) and "[%s]:%s" or "%s:%s"):format(self[1], tostring(self[2]))
  end,
}

---@param host string
---@param port integer
---@return moonport.InetAddress
function M.new(host, port) return setmetatable({ host, port }, address_mt) end

local function is_ip(host)
  local a, b, c, d = host:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if a then
    for _, part in ipairs { a, b, c, d } do
      if #part > 3 or tonumber(part) > 255 then return false end
    end
    return true
  end
  return host:find("^[%x:.]*:[%x:.]*$") ~= nil
end

---Why a path cannot be a socket's; nil: it can.
---@param path string
---@return string? why
local function bad_path(path)
  if path == "" or path == "@" then return "the path of the socket is missing" end
  if #path > 107 then return ("the path of the socket has %d bytes, the most is 107"):format(#path) end
  if path:find("\0", 1, true) then return "the path of the socket has a NUL byte in it" end
end

---An address as a script or a test writes it: {host, port} or a path.
---@param value any
---@return moonport.Address? address
---@return string? why
function M.check(value)
  if type(value) == "string" then
    local why = bad_path(value)
    if why then return nil, why end
    return value
  end
  if type(value) ~= "table" then return nil end
  local host, port = value[1], value[2]
  if type(host) == "number" then host = tostring(host) end
  if type(host) ~= "string" or not is_ip(host) or math.type(port) ~= "integer" or port < 0 or port > 65535 then
    return nil, "an address must be {host, port}: an IP address and a number to 65535"
  end
  return M.new(host, port)
end

---@class testing.Url
---@field transport "tcp"|"udp"|"unix"|"unixgram"
---@field kind "stream"|"datagram"
---@field address moonport.Address
---@field text string in the form that the server's `url` has

---@param text string
---@return testing.Url? url
---@return string? why
function M.parse(text)
  local transport, rest = text:match("^(%a+)://(.*)$")
  local kind = TRANSPORTS[transport]
  if not kind then
    return nil, text .. ": not a URL; it must begin with tcp://, udp://, unix:// or unixgram://"
  end
  if transport:find("^unix") then
    local why = bad_path(rest)
    if why then return nil, text .. ": " .. why end
    return { transport = transport, kind = kind, address = rest, text = text }
  end
  local host, port = rest:match("^%[([^%]]*)%]:(%d+)$")
  if not host then host, port = rest:match("^([^:]*):(%d+)$") end
  if not host or tonumber(port) > 65535 then return nil, text .. ": the port must be a number from 0 to 65535" end
  if host == "" then return nil, text .. ": the host is missing; 0.0.0.0 is every IPv4 address of the machine" end
  if host == "localhost" then host = "127.0.0.1" end
  if not is_ip(host) then return nil, host .. ": the host must be an IP address; names are not looked up here" end
  local address = M.new(host, math.tointeger(tonumber(port)))
  return { transport = transport, kind = kind, address = address, text = transport .. "://" .. tostring(address) }
end

return M
