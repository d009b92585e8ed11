-- A web server: a few routes, keep-alive, a body in chunks, and notes in JSON that it keeps.
--
--   moonport mock scripts/mocks/http.lua
--   curl -i http://127.0.0.1:PORT/
--   curl http://127.0.0.1:PORT/chunks
--   curl -d '{"text":"milk"}' http://127.0.0.1:PORT/notes     then GET /notes, GET /notes/1
--
-- A whole request, head and body, comes to the stubs, so that a fault is one line:
--   http:on("^POST /notes ", { mock.reset, mock.delay(2, response(503)), mock.none }, { at = 1 })
-- Its state: `notes`, a list of the bodies as they came. It never says "100 Continue": curl waits a second for that
-- before it sends a body of more than a megabyte, or one in chunks; -H Expect: makes it go on at once.
local mock = require("moonport.mock")

-- A body that comes in chunks; and the position behind it. Nil: there is not all of it yet.
local function chunks(buf, at)
  local body = {}
  repeat
    local size, from = buf:match("^(%x+)[^\r\n]*\r\n()", at)
    size = tonumber(size or "", 16)
    if not size or #buf + 1 < from + size + 2 then return nil end
    body[#body + 1] = buf:sub(from, from + size - 1)
    at = from + size + 2
  until size == 0
  return table.concat(body), at
end

-- The head of a request and its body, as one frame.
local function request(buf, pos)
  local _, head_end = buf:find("\r\n\r\n", pos, true)
  if not head_end then return nil end
  local head = buf:sub(pos, head_end)
  if head:lower():find("\r\ntransfer%-encoding: *chunked") then
    local body, after = chunks(buf, head_end + 1)
    return body and head .. body, after
  end
  local after = head_end + 1 + (head:lower():match("\r\ncontent%-length: *(%d+)") or 0)
  if after > #buf + 1 then return nil, after - pos end
  return buf:sub(pos, after - 1), after
end

local http = mock.server { "tcp://127.0.0.1:0", name = "http", frame = mock.custom(request, { max = 16 << 20 }) }

http.state.notes = {}

local REASONS = { [200] = "OK", [201] = "Created", [404] = "Not Found", [405] = "Method Not Allowed" }

local function response(status, body, kind)
  return ("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"):format(status, REASONS[status] or "-",
    kind or "text/plain", #body, body)
end

http:session(function(c)
  for text in c:frames() do
    c:answer(text) -- by the stubs
    local last = text:match("^.-\r\n\r\n"):lower():match("\r\nconnection: *([%a-]+)")
    if last == "close" or not last and text:find("^[^\n]* HTTP/1%.0\r\n") then return end
  end
end)

http:on("^GET / ", response(200, "Hello, world!\n"))
http:on("^HEAD / ", (response(200, "Hello, world!\n"):gsub("Hello.*", "")))
http:on("^GET /big ", response(200, ("0123456789abcdef"):rep(64 * 1024)))
http:on("^GET /chunks ", function(c)
  c:send "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
  for _, piece in ipairs { "one\n", "two\n", "three\n" } do
    c:send(("%x\r\n%s\r\n"):format(#piece, piece))
    c:sleep(0.01)
  end
  c:send "0\r\n\r\n"
end)

http:on("^POST /notes .-\r\n\r\n(.*)$", function(_, body)
  local notes = http.state.notes
  notes[#notes + 1] = body
  return response(201, ('{"id":%d}\n'):format(#notes), "application/json")
end)
http:on("^GET /notes ", function()
  return response(200, "[" .. table.concat(http.state.notes, ",") .. "]\n", "application/json")
end)
http:on("^GET /notes/(%d+) ", function(_, id)
  local note = http.state.notes[tonumber(id)]
  if not note then return response(404, "no such note\n") end
  return response(200, note .. "\n", "application/json")
end)
http:otherwise(function(_, text)
  if not text:find("^GET ") then return response(405, "not here\n") end
  return response(404, "no such page\n")
end)

return http -- for variants: see http_cut.lua
