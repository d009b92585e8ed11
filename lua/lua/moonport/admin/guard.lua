--- Who may use the control API: nothing of a request runs before `check` has passed it. It looks at the head alone.
--- No web page gets through: a page's request names the page's own host, or has an Origin, or another type of body.

local M = {}

local byte = string.byte

---@class admin.Who
---@field own string[] hosts that the API is reached by, as in a Host header without a port
---@field port integer? its port; nil: a Unix socket
---@field hosts string[]? further ones: "name" or "name:port"
---@field token string?

---In time that depends on the length of what was given only.
---@param given string
---@param expected string
---@return boolean
function M.same(given, expected)
  local differ = #given ~ #expected
  for i = 1, #given do
    differ = differ | (byte(given, i) ~ (byte(expected, i) or 0))
  end
  return differ == 0
end

---@param host string of a Host header, in lower case
---@param who admin.Who
---@return boolean
local function is_own(host, who)
  local port = who.port and ":" .. who.port or ""
  local function is(name)
    name = name:lower()
    return host == name or port ~= "" and host == name .. port
  end
  for _, name in ipairs(who.own) do
    if is(name) then return true end
  end
  for _, name in ipairs(who.hosts or {}) do
    if is(name) then return true end
  end
  return false
end

---@param origin string
---@param who admin.Who
---@return boolean
local function is_own_origin(origin, who)
  local host = origin:lower():match("^http://(.+)$")
  if not host then return false end
  if who.port and who.port ~= 80 and not host:find(":" .. who.port .. "$") then return false end
  return is_own(host, who)
end

-- Neither type is one that a page can send elsewhere without asking first.
---@param kind string? of a body
---@return boolean
local function type_is_known(kind)
  local name, rest = (kind or ""):lower():match("^%s*([%w!#$&^_.+-]+/[%w!#$&^_.+-]+)%s*(.*)$")
  if rest ~= "" and not (rest or ""):match('^;%s*charset="?utf%-8"?%s*$') then return false end
  return name == "application/json" or name == "text/x-lua"
end

---@param req http.Request
---@param who admin.Who
---@return integer? status nil: let it pass
---@return string? why
---@return string? headers
function M.check(req, who)
  local h = req.headers
  if not req.host or not is_own(req.host:lower(), who) or h.host and not is_own(h.host:lower(), who) then
    return 421, "this Host is none of the control API's; use the address in the ready line"
  end
  if h.origin and not is_own_origin(h.origin, who) then
    return 403, "a page of another Origin may not use the control API"
  end
  local site = h["sec-fetch-site"]
  if site and site ~= "same-origin" and site ~= "none" then
    return 403, "a page of another site may not use the control API"
  end
  if (req.unread or h["content-type"]) and not type_is_known(h["content-type"]) then
    return 415, "a body must have Content-Type: application/json (a script: text/x-lua)"
  end
  if who.token then
    local given = (h.authorization or ""):match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%g+)$")
    if not given or not M.same(given, who.token) then
      return 401, "a token is needed: Authorization: Bearer TOKEN", 'WWW-Authenticate: Bearer realm="moonport"\r\n'
    end
  end
end

return M
