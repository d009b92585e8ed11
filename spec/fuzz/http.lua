--- The HTTP reader: no input raises an error, each request has one verdict, the same however it was cut, and nothing
--- that two readers could take for different requests is let through. The choice: limits, what is done with a
--- body, and whether the pieces are read without the part in C, which must make no difference.

local http = require("moonport.http")

local function without_c()
  local env = setmetatable({ package = { preload = {} } }, { __index = _G })
  return assert(loadfile(assert(package.searchpath("moonport.http", package.path)), "t", env))()
end
assert(package.preload["moonport.http.scan"], "the part in C is what is to be tried")
local bare = without_c()

local M = {}

function M.handle() end -- never called

local BODY = 48 -- bytes of a body that are taken

---What no request that is let through may have, seen in the raw bytes of the first one.
local function check_raw(payload)
  local at = payload:match("^[\r\n]*()")
  local stop = select(2, payload:find("\r\n\r\n", at, true))
  if not stop then error("a request without the end of its head") end
  local head = payload:sub(at, stop)
  if head:find("%z") then error("a NUL in the head") end
  if head:find("[^\r]\n") then error("a bare LF in the head") end
  if head:find("\r[^\n]") then error("a bare CR in the head") end
  if head:find("\n[ \t]") then error("a header that goes on in the next line") end
  if head:find("\n[^\r:]*[ \t]:") then error("a space before a colon") end
  local lower = head:lower()
  local _, lengths = lower:gsub("\ncontent%-length:", "")
  local _, codings = lower:gsub("\ntransfer%-encoding:", "")
  local _, hosts = lower:gsub("\nhost:", "")
  if lengths > 0 and codings > 0 then error("Content-Length beside Transfer-Encoding") end
  if lengths > 1 then error("more than one Content-Length") end
  if hosts > 1 then error("more than one Host") end
  if lengths == 1 and not lower:find("\ncontent%-length:[ \t]*%d+[ \t]*\r\n") then error("a length that is none") end
end

local function check(req)
  local h = req.headers
  if h["content-length"] and h["transfer-encoding"] then error("Content-Length beside Transfer-Encoding") end
  if h["transfer-encoding"] and req.minor == 0 then error("a transfer coding in HTTP/1.0") end
  if req.minor ~= 0 and not h.host then error("a request without a Host") end
  if not req.method:find("^[!-~]+$") or not req.target:find("^[!-~]+$") then error("a malformed request line") end
  for name, value in pairs(h) do
    if name ~= name:lower() or not name:find("^[!-9;-~]+$") then error("a malformed name") end
    local spaced = value:find("^[ \t]") or value:find("[ \t]$") and not value:find(", $") -- two, the last empty
    if value:find("[%z\r\n]") or spaced then error("a malformed value") end
  end
  if req.length and (math.type(req.length) ~= "integer" or req.length < 0) then error("a length that is none") end
end

---In words: what was understood.
local function told(req)
  local names = {}
  for name in pairs(req.headers) do names[#names + 1] = name end
  table.sort(names)
  local out = { req.method, req.target, req.path, tostring(req.query), tostring(req.host), req.minor,
    tostring(req.length), tostring(req.keep_alive) }
  for _, name in ipairs(names) do out[#out + 1] = name .. "=" .. req.headers[name] end
  return table.concat(out, "|")
end

---A verdict is of one kind: data; or why not and, unless the peer is gone, a status.
local function refused(what, why, status)
  if type(why) ~= "string" then error(what .. ": no reason") end
  if status ~= nil and (math.type(status) ~= "integer" or not http.reasons[status] or status < 400) then
    error(what .. ": an odd status")
  end
  if status == 431 then why = "too much" end -- of two limits the one that shows first is named
  return ("%s: %s %s"):format(what, why, tostring(status))
end

---@return string? refusal
local function take_body(reader, req, choice, out)
  local what = choice // 4 % 4
  if what == 0 then return nil end -- left for the next read
  local body, why, status
  if what == 1 then
    body, why, status = reader:skip(req)
  else
    body, why, status = reader:body(req, BODY)
    if body and #body > BODY then error("a body of more than was to be taken") end
    if body and req.length and #body ~= req.length then error("a body of another length") end
  end
  if not body then return refused("body", why, status) end
  if why ~= nil or req.unread then error("a body that is and is not read") end
  out[#out + 1] = body
end

local expected

function M.run(nth, choice, payload, connection)
  local from = nth == 2 and choice // 16 % 2 == 1 and bare or http
  local reader = from.reader(connection, choice % 2 == 1 and { line = 40, head = 100, headers = 4 } or nil)
  local out = {}
  for i = 1, #payload + 1 do
    local req, why, status = reader:read()
    if not req then
      out[#out + 1] = refused("head", why, status)
      break
    end
    if why ~= nil or status ~= nil then error("a request, and a reason against it") end
    check(req)
    if i == 1 and nth == 1 then check_raw(payload) end
    out[#out + 1] = told(req)
    local refusal = take_body(reader, req, choice, out)
    if refusal then
      out[#out + 1] = refusal
      break
    elseif not req.keep_alive then
      break
    end
    if i > #payload then error("more requests than bytes") end
  end
  local result = table.concat(out, "\n")
  if nth == 1 then
    expected = result
  elseif result ~= expected then
    error(("cut into pieces, or without the part in C, it is something else:\n%s\n--\n%s"):format(expected, result))
  end
end

return M
