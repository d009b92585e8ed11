--- HTTP/1.1 and 1.0 on the server's side, as far as small servers need it: request heads
--- within limits, bodies by Content-Length, keep-alive, plain replies.

local M = {}

M.max_headers = 100 -- in one request; the length of a line is rfile's to limit (max_line)

local byte, find, match = string.byte, string.find, string.match

M.reasons = {
  [200] = "OK", [204] = "No Content", [400] = "Bad Request", [404] = "Not Found",
  [405] = "Method Not Allowed", [414] = "URI Too Long", [431] = "Request Header Fields Too Large",
  [500] = "Internal Server Error", [501] = "Not Implemented", [505] = "HTTP Version Not Supported",
}

---@class http.Request
---@field method string
---@field target string as sent: "/path?query"
---@field minor integer 1 for HTTP/1.1, 0 for HTTP/1.0
---@field headers table<string, string> by lower-case name; repeated ones joined by ", "
---@field length integer of the body
---@field keep_alive boolean whether another request may follow

---Reads header lines up to the empty one.
---@param rfile moonport.RFile
---@return table<string, string>? headers
---@return string? why
---@return integer? status
local function read_headers(rfile)
  local headers, n = {}, 0
  while true do
    local line, why = rfile:read("L")
    if not line then return nil, why, why == "line too long" and 431 or nil end
    if line == "\r\n" or line == "\n" then return headers end
    n = n + 1
    if n > M.max_headers then return nil, "too many headers", 431 end
    local name, value = match(line, "^([%w!#$%%&'*+.^_`|~-]+):[ \t]*([^\0-\8\10-\31\127]*)\r?\n$")
    if not name then
      if byte(line, -1) ~= 10 then return nil, "closed" end -- it ends in the middle of a line
      return nil, "malformed header", 400
    end
    if byte(value, -1) == 32 or byte(value, -1) == 9 then value = match(value, "^.*[^ \t]") or "" end
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
end

---What the headers say of the body and of the connection.
---@param req http.Request
---@return string? why
---@return integer? status
local function judge(req)
  local h = req.headers
  if req.minor >= 1 and (not h.host or find(h.host, ",", 1, true)) then return "one Host is needed", 400 end
  if h["transfer-encoding"] then return "no transfer codings here", 501 end
  local length = h["content-length"]
  if length then
    if not find(length, "^%d+$") or #length > 15 then return "bad Content-Length", 400 end
    req.length = math.tointeger(tonumber(length))
  end
  local connection = h.connection and ("," .. h.connection:lower():gsub("%s", "") .. ",")
  if not connection then
    req.keep_alive = req.minor >= 1
  elseif find(connection, ",close,", 1, true) then
    req.keep_alive = false
  else
    req.keep_alive = req.minor >= 1 or find(connection, ",keep-alive,", 1, true) ~= nil
  end
end

---Reads a request up to its body. Yields.
---@param rfile moonport.RFile
---@return http.Request? request
---@return string? why
---@return integer? status what to answer before closing; nil: the peer is gone, answer nothing
function M.read(rfile)
  local line, why
  repeat -- empty lines before a request are to be ignored (RFC 9112, 2.2)
    line, why = rfile:read("L")
  until line ~= "\r\n" and line ~= "\n"
  if not line then return nil, why, why == "line too long" and 414 or nil end
  local method, target, major, minor = match(line, "^(%u+) ([!-~]+) HTTP/(%d)%.(%d)\r?\n$")
  if not method then
    if byte(line, -1) ~= 10 then return nil, "closed" end
    return nil, "malformed request line", 400
  elseif major ~= "1" then
    return nil, "HTTP/1 only", 505
  end
  local headers, status
  headers, why, status = read_headers(rfile)
  if not headers then return nil, why, status end
  ---@type http.Request
  local req = { method = method, target = target, minor = tonumber(minor), headers = headers, length = 0,
    keep_alive = true }
  why, status = judge(req)
  if why then return nil, why, status end
  return req
end

---Reads the body in pieces and throws them away, after a "100 Continue" if one is awaited. Yields.
---@param req http.Request
---@param rfile moonport.RFile
---@param wfile moonport.WFile
---@return boolean whole false: the peer left in the middle of it
function M.skip_body(req, rfile, wfile)
  local left = req.length
  if left > 0 and req.minor >= 1 and (req.headers.expect or ""):lower() == "100-continue" then
    wfile:write("HTTP/1.1 100 Continue\r\n\r\n")
  end
  while left > 0 do
    local data = rfile:read(left < 65536 and left or 65536)
    if not data then return false end
    left = left - #data
  end
  return true
end

local stamp, stamp_time

---The time for a Date header, made once a second.
---@return string
function M.date()
  local now = os.time()
  if now ~= stamp_time then
    stamp, stamp_time = os.date("!%a, %d %b %Y %H:%M:%S GMT", now), now
  end
  return stamp
end

---Writes a whole reply.
---@param wfile moonport.WFile
---@param req http.Request? nil: the request was not understood, the connection ends
---@param status integer
---@param body string sent unless the method is HEAD
---@param extra? string more header lines, each with its "\r\n"
function M.reply(wfile, req, status, body, extra)
  local connection = ""
  if not (req and req.keep_alive) then
    connection = "Connection: close\r\n"
  elseif req.minor == 0 then
    connection = "Connection: keep-alive\r\n"
  end
  wfile:write("HTTP/1.1 ", status, " ", M.reasons[status] or "Unknown", "\r\nDate: ", M.date(),
    "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ", #body, "\r\n", connection, extra or "",
    "\r\n", req and req.method == "HEAD" and "" or body)
end

return M
