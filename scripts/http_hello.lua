-- A web server that greets: HTTP/1.1 and 1.0, keep-alive, pipelining, GET, HEAD and POST.
--
--   moonport serve scripts/http_hello.lua --listen tcp://127.0.0.1:8080
--   curl -i http://127.0.0.1:8080/
--   curl -i -d 'some text' http://127.0.0.1:8080/
--   wrk -t 1 -c 64 -d 5 http://127.0.0.1:8080/
local http = require("moonport.http")

local Hello = {}

---@param req http.Request
---@param count integer bytes of its body
---@return integer status
---@return string body
---@return string? extra header lines
local function answer(req, count)
  if req.method == "GET" or req.method == "HEAD" then
    return 200, "Hello, world!\n"
  elseif req.method == "POST" then
    return 200, "Thank you for " .. count .. " bytes.\n"
  end
  return 405, "GET, HEAD and POST are understood.\n", "Allow: GET, HEAD, POST\r\n"
end

function Hello:handle()
  local reader = http.reader(self)
  repeat
    local count
    local req, why, status = reader:read()
    if req then
      count, why, status = reader:skip(req)
    end
    if count then
      http.reply(self.wfile, req, answer(req, count))
    elseif status then
      http.reply(self.wfile, nil, status, why .. "\n")
    end
  until not count or not req.keep_alive
end

return Hello
