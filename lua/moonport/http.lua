--- HTTP/1.1 and 1.0 on the server's side, strict (RFC 9112): what two readers could take for
--- different requests is refused, and the connection closed. Heads and bodies within limits of size
--- and time, Content-Length and chunked, keep-alive, pipelining, plain replies.

local monotonic = require("moonport").monotonic
-- The host has it in preload; where there is no host, all is done here, and heads are read line by line.
local scan = package.preload["moonport.http.scan"] and require("moonport.http.scan")
local usual_head, take = scan and scan.head, scan and scan.take

local M = {}

---@class http.Limits
---@field line integer bytes of the request line, and of a header line
---@field head integer bytes of request line and headers together
---@field headers integer lines; also of trailers
---@field idle number seconds that a connection may say nothing between two requests
---@field head_time number seconds for a whole head, from its first byte
---@field body_time number seconds for a whole body

---@type http.Limits
M.limits = { line = 8192, head = 16384, headers = 100, idle = 60, head_time = 30, body_time = 120 }

local MAX_EMPTY = 8 -- empty lines before a request
local MAX_EXTENSION = 256 -- bytes of a chunk's extensions
local MAX_EXTENSIONS = 4096 -- of all chunks of a body
local MAX_TRAILERS = 4096

local TOKEN = "[%w!#$%%&'*+.^_`|~-]+"
local REQUEST_LINE = "^([%a_-]+) (%g+) HTTP/(%d)%.(%d)\r\n()"
local HEADER = "^(" .. TOKEN .. "):[ \t]*([\32-\126\t\128-\255]*)\r\n()"

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

M.reasons = {
  [200] = "OK", [201] = "Created", [204] = "No Content", [400] = "Bad Request", [401] = "Unauthorized",
  [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed", [406] = "Not Acceptable",
  [408] = "Request Timeout", [409] = "Conflict", [413] = "Content Too Large", [414] = "URI Too Long",
  [415] = "Unsupported Media Type", [417] = "Expectation Failed", [421] = "Misdirected Request",
  [422] = "Unprocessable Content", [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
  [500] = "Internal Server Error", [501] = "Not Implemented", [503] = "Service Unavailable",
  [505] = "HTTP Version Not Supported",
}

---@class http.Request
---@field method string
---@field target string as sent: "/path?query", "http://host/path", "*"
---@field path string "/path", as sent; "*"; of CONNECT the authority
---@field query string? what stands behind "?"
---@field host string? the target's if it names one, else the Host header's; as sent
---@field minor integer 1 for HTTP/1.1, 0 for HTTP/1.0
---@field headers table<string, string> by lower-case name; repeated ones joined by ", "
---@field length integer? bytes of the body; nil: it has none, or comes in chunks
---@field keep_alive boolean whether another request may follow
---@field unread boolean whether there is a body that has not been read to its end
---@field package left integer bytes of the body, or of its chunk, that are still to come
---@field package extensions integer bytes of chunk extensions so far
---@field package asked boolean? 100 Continue was sent
---@field answered boolean? for who answers

---@class http.Reader
---@field private request moonport.Request
---@field private wfile moonport.WFile
---@field private limits http.Limits
---@field private buf string received and not yet parsed: from `at` on
---@field private at integer
---@field private deadline number? of the head or body under way
---@field private last http.Request|false false: nothing is in `buf`, or under way
---@field private direct userdata? by which usual heads are taken straight from the connection then
local Reader = {}
local reader_mt = { __name = "http.Reader", __index = Reader }

---Takes what has come in one call and parses it here, which is faster than a call for each line.
---@param handler { request: moonport.Request, wfile: moonport.WFile }
---@param limits? table those of `http.limits` that are to differ
---@return http.Reader
function M.reader(handler, limits)
  limits = limits and setmetatable(limits, { __index = M.limits }) or M.limits
  local request = handler.request
  request:settimeout(limits.idle)
  return setmetatable({ request = request, wfile = handler.wfile, limits = limits, buf = "", at = 1,
    last = false, direct = scan and scan.direct(request, limits.line, limits.head, limits.headers) }, reader_mt)
end

---Waits for more bytes, until the deadline of what is under way. Yields.
---@private
---@return string? data
---@return string? why
function Reader:receive()
  if self.deadline then
    local left = self.deadline - monotonic()
    if left <= 0 then return nil, "timeout" end
    self.request:settimeout(left)
  end
  return self.request:recv()
end

---Appends what comes next to what is there: until there is a newline, or more than a line may have.
---@private
---@param seconds number for all that is under way, if this is its first wait
---@param idle? boolean nothing is, yet
---@param most? integer bytes that are enough to refuse the line; limits.line are, anyway
---@return string? why
---@return integer? status
function Reader:more_lines(seconds, idle, most)
  local why, status = self:more(not idle and seconds)
  if why or find(self.buf, "\n", 1, true) then return why, status end
  local parts, size, max = { self.buf }, #self.buf, self.limits.line
  if most and most < max then max = most end
  self.buf = ""
  while not why and size <= max do
    why, status = self:more(seconds)
    local data = self.buf
    self.buf, size = "", size + #data
    parts[#parts + 1] = data
    if find(data, "\n", 1, true) then break end
  end
  self.buf = table.concat(parts)
  return why, status
end

---Appends what comes next to what is there.
---@private
---@param seconds number|false for all that is under way, if this is its first wait; false: nothing is
---@return string? why
---@return integer? status
function Reader:more(seconds)
  local rest = self.at <= #self.buf and sub(self.buf, self.at) or ""
  if seconds and not self.deadline then self.deadline = monotonic() + seconds end
  self.buf, self.at = rest, 1 -- an idle connection keeps nothing
  local data, why = self:receive()
  if data then
    self.buf = rest .. data
  else
    if why == "timeout" and self.deadline then return "the request has taken too long to come", 408 end
    return why
  end
end

---@private
function Reader:in_time()
  if self.deadline then
    self.deadline = nil
    self.request:settimeout(self.limits.idle)
  end
end

---What is wrong with a line that is no header; it ends in a newline.
---@param line string
---@return string
local function blame(line)
  if byte(line, -2) ~= 13 then return "a line must end in CR LF" end
  local first = byte(line)
  if first == 32 or first == 9 then return "a header must not go on in the next line" end
  return "malformed header"
end

---Reads header lines up to the empty one.
---@private
---@param used integer bytes of the head before them
---@param max integer bytes of the head
---@param seconds number
---@return table<string, string>? headers
---@return string? why
---@return integer? status
function Reader:fields(used, max, seconds)
  local limits, headers, n = self.limits, {}, 0
  local count, hosts = limits.headers, 0
  while true do
    local buf, at = self.buf, self.at
    local cr, lf = byte(buf, at, at + 1)
    if cr == 13 and lf == 10 then
      self.at = at + 2
      return headers
    end
    local name, value, after = match(buf, HEADER, at)
    local size = (after or (find(buf, "\n", at, true) or #buf) + 1) - at
    if size > limits.line then return nil, "a header line is longer than " .. limits.line .. " bytes", 431 end
    if used + size > max and not (size == 1 and cr == 13) then -- the empty line does not count
      return nil, "the headers are longer than " .. max .. " bytes", 431
    end
    if after then
      n = n + 1
      if n > count then return nil, "more than " .. count .. " headers", 431 end
      self.at, used = after, used + size
      local last = byte(value, -1)
      if last == 32 or last == 9 then value = match(value, "^.*[^ \t]") or "" end
      name = name:lower()
      if name == "host" then
        hosts = hosts + 1
        if hosts > 1 then return nil, "more than one Host", 400 end
      end
      headers[name] = headers[name] and headers[name] .. ", " .. value or value
    elseif size == 0 or byte(buf, at + size - 1) ~= 10 then
      local why, status = self:more_lines(seconds, nil, max - used)
      if why then return nil, why, status end
    else
      return nil, blame(sub(buf, at, at + size - 1)), 400
    end
  end
end

---@param host string
---@return boolean
local function host_like(host)
  return find(host, "^[%w._~!$&'()*+,;=%%-]*:?%d*$") ~= nil or find(host, "^%[[%x:.]+%]:?%d*$") ~= nil
    or find(host, "^%[[%x:.]+%]$") ~= nil
end

local known_host -- the last one that was well-formed

---Takes the target apart.
---@param req http.Request
---@param plain? boolean the target is known to be just a path
---@return string? why
---@return integer? status
local function locate(req, plain)
  local target, host = req.target, req.headers.host
  if host then
    if host ~= known_host and not host_like(host) then return "malformed Host", 400 end
    known_host = host
  elseif req.minor >= 1 then
    return "one Host is needed", 400
  end
  req.host = host
  if plain or find(target, "^/[^?#]*$") then return end -- the usual one
  if find(target, "#", 1, true) then return "a target has no fragment", 400 end
  local rest = target
  if byte(target) ~= 47 then -- "/"
    local authority
    authority, rest = match(target, "^[Hh][Tt][Tt][Pp][Ss]?://([^/?]+)(.*)$")
    if authority then
      if not host_like(authority) then return "malformed host in the target", 400 end
      host = authority
      if byte(rest) ~= 47 then rest = "/" .. rest end
    elseif target == "*" and req.method == "OPTIONS" or req.method == "CONNECT" and host_like(target) then
      rest = target
    else
      return "malformed target", 400
    end
  end
  local mark = find(rest, "?", 1, true)
  req.path, req.query, req.host = mark and sub(rest, 1, mark - 1) or rest, mark and sub(rest, mark + 1), host
end

---What the headers say of the body.
---@param req http.Request
---@return string? why
---@return integer? status
local function measure(req)
  local h = req.headers
  local coding, length = h["transfer-encoding"], h["content-length"]
  if coding then
    coding = coding:lower()
    if length then return "Content-Length beside Transfer-Encoding", 400 end
    if req.minor == 0 then return "HTTP/1.0 has no transfer codings", 400 end
    if coding ~= "chunked" then
      local before = match(coding, "^(.*[^ \t])[ \t]*,[ \t]*chunked$")
      if before and not find("," .. before:gsub("[ \t]", "") .. ",", ",chunked,", 1, true) then
        return "no transfer coding but chunked is known here", 501
      end
      return "the one last transfer coding must be chunked", 400
    end
    req.left, req.unread, req.extensions = 0, true, 0
  elseif length then
    if not find(length, "^%d+$") then return "Content-Length must be one number", 400 end
    length = match(length, "^0*(%d+)$")
    if #length > 15 then return "the body is too long", 413 end
    req.length = math.tointeger(tonumber(length))
    req.left, req.unread = req.length, req.length > 0
  end
end

---What the headers say of the connection.
---@param req http.Request
---@return string? why
---@return integer? status
local function judge(req)
  local connection, expect = req.headers.connection, req.headers.expect
  if not connection then
    req.keep_alive = req.minor >= 1
  else
    connection = "," .. connection:lower():gsub("[ \t]", "") .. ","
    req.keep_alive = not find(connection, ",close,", 1, true)
      and (req.minor >= 1 or find(connection, ",keep-alive,", 1, true) ~= nil)
  end
  if expect and req.minor >= 1 and expect:lower() ~= "100-continue" then
    return "nothing but 100-continue can be expected", 417
  end
end

---The request line, after the empty lines that may stand before it (RFC 9112, 2.2).
---@private
---@return http.Request? request
---@return string? why
---@return integer? status
function Reader:request_line()
  local empty, max = 0, self.limits.line
  while true do
    local buf, at = self.buf, self.at
    local method, target, major, minor, after
    if at <= #buf then
      method, target, major, minor, after = match(buf, REQUEST_LINE, at)
    end
    local size = (after or (find(buf, "\n", at, true) or #buf) + 1) - at
    if size > max then return nil, "the request line is longer than " .. max .. " bytes", 414 end
    if after then
      self.at = after
      if major ~= "1" then return nil, "HTTP/1.1 or 1.0 only", 505 end
      minor = minor == "1" and 1 or tonumber(minor)
      return { method = method, target = target, path = target, minor = minor, keep_alive = minor >= 1,
        unread = false, host = nil, headers = nil }, nil, size -- eight fields: the table need not grow
    elseif size == 0 or byte(buf, at + size - 1) ~= 10 then
      local why, status = self:more_lines(self.limits.head_time, size == 0)
      if why then return nil, why, status end
    elseif size == 2 and byte(buf, at) == 13 and empty < MAX_EMPTY then
      empty, self.at = empty + 1, at + 2
    else
      local crlf = size > 1 and byte(buf, at + size - 2) == 13
      return nil, crlf and "malformed request line" or "a line must end in CR LF", 400
    end
  end
end

---A head: the usual one at once, any other line by line. Yields.
---@private
---@return http.Request? request
---@return table<string, string>? headers
---@return boolean? plain its target is known to be just a path
---@return string? why
---@return integer? status
function Reader:head()
  local limits = self.limits
  if self.at > #self.buf then
    local why, status = self:more_lines(limits.head_time, true)
    if why then return nil, nil, nil, why, status end
  end
  local method, target, minor, usual, after, plain
  if usual_head then
    method, target, minor, usual, after, plain =
      usual_head(self.buf, self.at, limits.line, limits.head, limits.headers)
  end
  if method then
    self.at = after
    return { method = method, target = target, path = target, minor = minor, keep_alive = minor >= 1,
      unread = false, host = nil, headers = nil }, usual, plain -- eight fields: the table need not grow
  end
  local req, why, size = self:request_line()
  if not req then return nil, nil, nil, why, size end
  local headers, status
  headers, why, status = self:fields(size, limits.head, limits.head_time)
  return headers and req, headers, nil, why, status
end

---Reads a request here, be it unusual.
---@private
---@param met? boolean it is: no usual one can be there
---@return http.Request? request
---@return string? why
---@return integer? status
function Reader:read_here(met)
  local last = self.last
  if last and last.unread then
    local count, why, status = self:skip(last)
    if not count then return nil, why, status end
  end
  if last and self.direct and not met and self.at > #self.buf then
    self.last = false
    return self:read()
  end
  local req, headers, plain, why, status = self:head()
  if not req then return nil, why, status end
  self:in_time()
  req.headers, self.last = headers, req
  why, status = locate(req, plain)
  if not why and (headers["content-length"] or headers["transfer-encoding"]) then why, status = measure(req) end
  if not why and (headers.connection or headers.expect or req.minor == 0) then why, status = judge(req) end
  if why then return nil, why, status end
  return req
end

---Reads a request up to its body; before that, whatever is left of the last one's body. Yields.
---@return http.Request? request
---@return string? why
---@return integer? status what to answer before closing; nil: the peer is gone or idle, answer nothing
function Reader:read()
  local direct = self.direct
  if not direct or self.last then return self:read_here() end
  local headers, method, target, path, host, minor, keep_alive, query, length = take(direct)
  if headers then
    local req = { method = method, target = target, path = path, minor = minor, keep_alive = keep_alive,
      unread = false, host = host, headers = headers } -- eight fields: the table need not grow
    if query then req.query = query end
    if length then
      req.length, req.left, req.unread, self.last = length, length, length > 0, req
    end
    return req
  elseif method then
    return nil, method
  elseif headers == false then
    self.direct = nil -- whoever sends such sends more of them
  end
  return self:read_here(true)
end

---@param extension string what follows a chunk's size
---@return boolean
local function extension_like(extension)
  local at, stop = 1, #extension
  while at <= stop do
    local after = match(extension, "^[ \t]*;[ \t]*" .. TOKEN .. "()", at)
    if not after then return false end
    at = match(extension, "^[ \t]*=[ \t]*" .. TOKEN .. "()", after)
      or match(extension, '^[ \t]*=[ \t]*"[^"\\%c]*"()', after) or after
  end
  return true
end

---Reads a chunk's size; after the last one also the trailers, which are thrown away.
---@private
---@param req http.Request
---@return integer? size
---@return string? why
---@return integer? status
function Reader:chunk(req)
  local limits = self.limits
  while true do
    local buf, at = self.buf, self.at
    local nl = find(buf, "\n", at, true)
    local length = (nl or #buf) - at
    if length > MAX_EXTENSION then return nil, "a chunk's size and extensions are too long", 400 end
    if nl then
      local digits, extension = match(buf, "^(%x+)([^\r\n]*)\r\n", at)
      if not digits or #digits > 8 or not extension_like(extension) then return nil, "malformed chunk size", 400 end
      req.extensions = req.extensions + #extension
      if req.extensions > MAX_EXTENSIONS then return nil, "too many chunk extensions", 400 end
      self.at = nl + 1
      local size = tonumber(digits, 16)
      if size > 0 then return size end
      local trailers, why, status = self:fields(0, MAX_TRAILERS, limits.body_time)
      return trailers and 0, why, status
    end
    local why, status = self:more_lines(limits.body_time)
    if why then return nil, why, status end
  end
end

---What must stand behind a chunk.
---@private
---@return string? why
---@return integer? status
function Reader:chunk_end()
  while #self.buf - self.at < 1 do
    if #self.buf == self.at and byte(self.buf, self.at) ~= 13 then break end
    local why, status = self:more(self.limits.body_time)
    if why then return why, status end
  end
  if sub(self.buf, self.at, self.at + 1) ~= "\r\n" then return "a chunk is longer than its size", 400 end
  self.at = self.at + 2
end

---The next piece of the body, as it has come. Yields.
---@param req http.Request
---@param most? integer bytes that may still come
---@return string? data "" at the end
---@return string? why
---@return integer? status
function Reader:piece(req, most)
  local why, status
  if not req.unread then return "" end
  if not self.deadline then self.deadline = monotonic() + self.limits.body_time end
  if req.minor >= 1 and req.headers.expect and not req.asked then
    self.wfile:write("HTTP/1.1 100 Continue\r\n\r\n")
    req.asked = true
  end
  if not req.length and req.left == 0 then
    req.left, why, status = self:chunk(req)
    if not req.left then return nil, why, status end
    if req.left == 0 then return self:whole(req) end
    if most and req.left > most then return nil, "the body is too long", 413 end
  end
  if self.at > #self.buf then
    why, status = self:more(self.limits.body_time)
    if why then return nil, why, status end
  end
  local buf, at = self.buf, self.at
  local data = #buf - at < req.left and (at == 1 and buf or sub(buf, at)) or sub(buf, at, at + req.left - 1)
  self.at, req.left = at + #data, req.left - #data
  if req.left == 0 then
    if req.length then
      self:whole(req)
    else
      why, status = self:chunk_end()
      if why then return nil, why, status end
    end
  end
  return data
end

---@private
---@return string
function Reader:whole(req)
  req.unread = false
  self:in_time()
  return ""
end

---Reads the body, after a "100 Continue" if one is awaited. Yields.
---@param req http.Request
---@param max integer bytes
---@return string? body
---@return string? why
---@return integer? status what to answer before closing; nil: the peer left in the middle of it
function Reader:body(req, max)
  if req.length and req.length > max then return nil, "the body is too long", 413 end
  local parts, size = {}, 0
  while req.unread do
    local data, why, status = self:piece(req, max - size)
    if not data then return nil, why, status end
    size = size + #data
    parts[#parts + 1] = data
  end
  return table.concat(parts)
end

---Reads the body and throws it away, likewise. Yields.
---@param req http.Request
---@return integer? count its bytes
---@return string? why
---@return integer? status
function Reader:skip(req)
  local count = 0
  while req.unread do
    local data, why, status = self:piece(req)
    if not data then return nil, why, status end
    count = count + #data
  end
  return count
end

local time = os.time
local stamp
local starts, second = {}, {} -- of this second's usual replies, by status; its time
local size, size_text -- of the last usual reply's body

---The time for a Date header, made once a second.
---@return string
function M.date()
  local now = time()
  if now ~= second[1] then
    for status in pairs(starts) do starts[status] = nil end
    stamp, second[1] = os.date("!%a, %d %b %Y %H:%M:%S GMT", now), now
  end
  return stamp
end

---@param status integer
---@return string
local function start_of(status)
  local start = ("HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: "):format(
    status, M.reasons[status] or "Unknown", stamp)
  starts[status] = start
  return start
end

---@param wfile moonport.WFile
---@param req http.Request? nil: the request was not understood, the connection ends
---@param status integer
---@param body string sent unless the method is HEAD
---@param extra? string
---@param kind? string
local function reply(wfile, req, status, body, extra, kind)
  if req and req.keep_alive and req.minor == 1 and not (extra or kind) and status ~= 204 and req.method ~= "HEAD" then
    M.date()
    if #body ~= size then
      size, size_text = #body, #body .. "\r\n\r\n"
    end
    wfile:write(starts[status] or start_of(status), size_text, body)
    return
  end
  local connection = ""
  if not (req and req.keep_alive) then
    connection = "Connection: close\r\n"
  elseif req.minor == 0 then
    connection = "Connection: keep-alive\r\n"
  end
  local reason = M.reasons[status] or "Unknown"
  if status == 204 then
    wfile:write("HTTP/1.1 204 ", reason, "\r\nDate: ", M.date(), "\r\n", connection, extra or "", "\r\n")
    return
  end
  wfile:write("HTTP/1.1 ", status, " ", reason, "\r\nDate: ", M.date(),
    "\r\nContent-Type: ", kind or "text/plain; charset=utf-8", "\r\nContent-Length: ", #body, "\r\n", connection,
    extra or "", "\r\n", req and req.method == "HEAD" and "" or body)
end

---Writes a whole reply. Yields.
---@type fun(wfile: moonport.WFile, req: http.Request?, status: integer, body: string, extra: string?, kind: string?)
M.reply = scan and scan.replier(reply, starts, second) or reply

return M
