-- A web server that greets: HTTP/1.1 and 1.0, keep-alive, pipelining, GET, HEAD and POST.
--
--   moonport serve scripts/http_hello.lua --listen tcp://127.0.0.1:8080
--   curl -i http://127.0.0.1:8080/
--   curl -i -d 'some text' http://127.0.0.1:8080/
--   wrk -t 1 -c 64 -d 5 http://127.0.0.1:8080/
local http = require("moonport.http")

local Hello = {
  timeout = 60, -- seconds; a client that says nothing for longer is let go
  max_line = "8K", -- of a request line or a header
}

---@param req http.Request
---@return integer status
---@return string body
---@return string? extra header lines
local function answer(req)
  if req.method == "GET" or req.method == "HEAD" then
    return 200, "Hello, world!\n"
  elseif req.method == "POST" then
    return 200, "Thank you for " .. req.length .. " bytes.\n"
  end
  return 405, "GET, HEAD and POST are understood.\n", "Allow: GET, HEAD, POST\r\n"
end

function Hello:handle()
  local rfile, wfile = self.rfile, self.wfile
  repeat
    local req, why, status = http.read(rfile)
    if status then
      http.reply(wfile, nil, status, why .. "\n")
    elseif req and http.skip_body(req, rfile, wfile) then
      http.reply(wfile, req, answer(req))
    end
  until not req or not req.keep_alive
end

return Hello
