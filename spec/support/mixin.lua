--- What the specs of the mixins have in common: handlers of a few lines, and many clients at a time.

local assert = require("luassert")
local host = require("support.host")
local sys = host.sys

local M = {}

-- A handler's script: `handle` runs `body`; `prelude` stands before it.
function M.script(body, prelude)
  return ('local moonport = require("moonport")\nlocal H = {}\n%s\nfunction H:handle()\n%s\nend\nreturn H\n')
    :format(prelude or "", body)
end

function M.stats(client)
  local out = {}
  for name, n in client:ask("stats"):gmatch("(%S+)=(%S+)") do out[name] = tonumber(n) end
  return out
end

-- n connected clients, each of which has had an answer to `word`.
function M.greet(url, n, word, answer, options)
  local clients = {}
  for i = 1, n do
    clients[i] = host.connect(url, options)
    assert(clients[i]:send((word or i) .. "\n"))
  end
  for i, c in ipairs(clients) do assert.are.equal(tostring(answer or word or i), c:line()) end
  return clients
end

function M.close_all(clients)
  for _, c in ipairs(clients) do c:close() end
end

function M.has_answer(client) return sys.poll(client.fd, "r", 0) end

return M
