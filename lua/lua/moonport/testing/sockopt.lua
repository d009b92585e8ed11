--- Socket options: known by the host's names, remembered, and without effect but for so_linger.

local args = require("moonport.testing.args")
local nearest = require("moonport.nearest")

---@type table<string, "bool"|"int"|"string"|"linger"|"cred">
local KINDS = { so_linger = "linger", so_peercred = "cred", tcp_congestion = "string" }
local NAMES = { -- in the host's order: of those that are equally near it suggests the first
  "so_acceptconn", "so_broadcast", "so_busy_poll", "so_domain", "so_dontroute", "so_error", "so_incoming_cpu",
  "so_keepalive", "so_linger", "so_mark", "so_oobinline", "so_peercred", "so_priority", "so_protocol", "so_rcvbuf",
  "so_rcvlowat", "so_reuseaddr", "so_reuseport", "so_sndbuf", "so_type", "ip_tos", "ip_ttl", "ip_multicast_ttl",
  "ip_multicast_loop", "ipv6_tclass", "ipv6_unicast_hops", "ipv6_v6only", "tcp_congestion", "tcp_cork",
  "tcp_defer_accept", "tcp_keepcnt", "tcp_keepidle", "tcp_keepintvl", "tcp_linger2", "tcp_maxseg", "tcp_nodelay",
  "tcp_notsent_lowat", "tcp_quickack", "tcp_syncnt", "tcp_user_timeout", "tcp_window_clamp",
}
local SWITCHES = "so_acceptconn so_broadcast so_dontroute so_keepalive so_oobinline so_reuseaddr so_reuseport "
  .. "ip_multicast_loop ipv6_v6only tcp_cork tcp_nodelay tcp_quickack"

for _, name in ipairs(NAMES) do KINDS[name] = KINDS[name] or "int" end
for name in SWITCHES:gmatch("%S+") do KINDS[name] = "bool" end

local M = {}

local function kind_of(n, name)
  name = args.string(2, n, name)
  if not KINDS[name] then
    args.bad(2, ("no socket option '%s'; did you mean '%s'?"):format(name, nearest(name, NAMES)))
  end
  return KINDS[name]
end

---@param s { options: table, abortive: boolean? }
---@return true
function M.set(s, ...)
  local n, name, value = select("#", ...) + 1, ...
  local kind = kind_of(n, name)
  if kind == "string" then
    s.options[name] = args.string(3, n, value)
    return true
  end
  if type(value) == "boolean" then
    value = value and 1 or kind == "linger" and -1 or 0
  else
    value = args.number(3, n, value)
    if value < -2147483648 or value > 2147483647 then args.bad(3, "out of range") end
  end
  if kind == "linger" then s.abortive = value == 0 end
  s.options[name] = kind == "bool" and value ~= 0 or kind ~= "bool" and math.tointeger(value // 1)
  return true
end

---@param s { options: table }
---@return any
function M.get(s, ...)
  local n, name = select("#", ...) + 1, ...
  local kind = kind_of(n, name)
  local value = s.options[name]
  if kind == "cred" then return { pid = 1, uid = 0, gid = 0 } end
  if kind == "linger" then return value ~= nil and value >= 0 and value end
  if value ~= nil then return value end
  return kind == "int" and 0 or kind == "string" and "cubic" or false
end

return M
