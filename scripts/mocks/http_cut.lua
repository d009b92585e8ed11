-- The web server of http.lua, which breaks off after 100 bytes of a long body by a reset. The second try succeeds.
--
--   moonport mock scripts/mocks/http_cut.lua
--   curl http://127.0.0.1:PORT/big      curl: (56) Recv failure: Connection reset by peer
--   curl --retry 1 --retry-all-errors http://127.0.0.1:PORT/big
local mock = require("moonport.mock")
local http = require("http") -- from this file's folder

local head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
local whole = head .. ("moon"):rep(250)

http:on("^GET /big ", { mock.truncate(whole, #head + 100, mock.reset), whole }, { at = 1 })

return http
