--- A client of the control API: one request, one connection, JSON both ways.
---
--- Bytes in JSON are {"text"|"hex"|"base64"}. Here they are Lua strings: one that is no UTF-8 goes as hex, and
--- what an answer gives as `data` comes back as bytes.

local json = require("moonport.json")
local moonport = require("moonport")

local M = {}

local CONNECT = 5 -- seconds
local MARGIN = 10 -- seconds that an answer may take beyond what the question itself says

---@param text string
local function hex(text) return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end

local function unhex(text) return (text:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)) end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function unbase64(text)
  local out = {}
  for quad in text:gsub("=+$", ""):gmatch("..?.?.?") do
    local n = 0
    for i = 1, #quad do n = n << 6 | ALPHABET:find(quad:sub(i, i), 1, true) - 1 end
    n = n << 6 * (4 - #quad)
    out[#out + 1] = (">I3"):pack(n):sub(1, #quad - 1)
  end
  return table.concat(out)
end

local PATTERNS = { match = true, order = true, all = true, any = true, ["not"] = true }

---What JSON can carry: strings that are no text become {hex=}. A matcher that is a string is a pattern, and stays one.
---@param key any under which it stands, or its list; "state": in one, which has no matchers
local function outward(value, key)
  if type(value) == "string" and not utf8.len(value) then
    local bytes = { hex = hex(value) }
    return PATTERNS[key] and { pattern = bytes } or bytes
  end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do
    out[k] = outward(v, key == "state" and key or math.type(k) and key or k)
  end
  return out
end

local function bytes(value)
  if type(value) ~= "table" then return value end
  if type(value.text) == "string" then return value.text end
  if type(value.hex) == "string" then return unhex(value.hex) end
  if type(value.base64) == "string" then return unbase64(value.base64) end
  return value
end

local BYTES = { data = true, reply = true, otherwise = true, replies = true, forgotten = true, detail = true,
  equals = true, starts_with = true, ends_with = true, contains = true, pattern = true }

---A state's bytes as strings.
local function of_state(value)
  if type(value) ~= "table" then return value end
  local only, digits = next(value)
  if only == "hex" and type(digits) == "string" and next(value, only) == nil then return unhex(digits) end
  local out = {}
  for k, v in pairs(value) do out[k] = of_state(v) end
  return out
end

---What Lua works with: bytes as strings. In a matcher {hex=} alone may have wildcards, and stays.
local function inward(value, key)
  if type(value) ~= "table" then return value end
  if BYTES[key] then
    local plain = bytes(value)
    if plain ~= value then return plain end
  end
  local out = {}
  for k, v in pairs(value) do out[k] = inward(v, math.type(k) and key or k) end
  return out
end

---Reads to the end of the stream.
local function read_all(socket)
  local parts = {}
  while true do
    local data, why = socket:recv(65536)
    if data then
      parts[#parts + 1] = data
    elseif why == "closed" then
      return table.concat(parts)
    else
      return nil, why
    end
  end
end

---The body of an answer whose connection is at its end.
local function body_of(head, rest)
  if not head:lower():find("\r\ntransfer%-encoding: *chunked") then
    local length = tonumber(head:lower():match("\r\ncontent%-length: *(%d+)"))
    return (not length or #rest >= length) and rest:sub(1, length or -1) or nil
  end
  local parts, at = {}, 1
  while true do
    local size, from = rest:match("^(%x+)[^\n]*\n()", at)
    size = tonumber(size or "", 16)
    if not size or #rest < from + size then return nil end
    if size == 0 then return table.concat(parts) end
    parts[#parts + 1] = rest:sub(from, from + size - 1)
    at = from + size + 2
  end
end

local function write(question)
  local lines = {
    question.method .. " " .. question.path .. " HTTP/1.1", "Host: " .. question.authority, "Connection: close",
  }
  if question.token then lines[#lines + 1] = "Authorization: Bearer " .. question.token end
  if question.body then
    lines[#lines + 1] = "Content-Type: application/json"
    lines[#lines + 1] = "Content-Length: " .. #question.body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (question.body or "")
end

---Waits.
local function exchange(question)
  local socket <close> = assert(moonport.connect("tcp://" .. question.authority, CONNECT))
  socket:settimeout(question.seconds)
  socket:sendall(write(question))
  local answer = assert(read_all(socket))
  local status, at = answer:match("^HTTP/1%.%d (%d%d%d)[^\n]*\n.-\r\n\r\n()")
  local body = status and body_of(answer:sub(1, at - 1), answer:sub(at))
  if not body then error("the control API's answer is cut short: " .. answer:sub(1, 200)) end
  return tonumber(status), body
end

---Asks; works in moonport.run and outside it.
---@param where { admin: string, token: string? } the API's URL
---@param method string
---@param path string
---@param body? table
---@param seconds? number how long the answer itself may take
---@return integer status
---@return any answer
function M.ask(where, method, path, body, seconds)
  local is_state = path:find("/state$") ~= nil
  local question = {
    authority = where.admin:match("^http://([^/]+)"), token = where.token, method = method, path = path,
    body = body and json.encode(outward(body, is_state and "state")), seconds = (seconds or 0) + MARGIN,
  }
  local status, text
  if moonport.may_wait() then
    status, text = exchange(question)
  else
    status, text = moonport.run(exchange, question)
  end
  local value, why = json.decode(text)
  if why then return status, text end
  value = json.plain(value)
  return status, is_state and status < 300 and of_state(value) or inward(value)
end

return M
