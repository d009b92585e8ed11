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

-- Clients that have said all they have to say to a server that is stopped, which then is to end.
function M.late(p, n, text)
  local clients = {}
  for i = 1, n do
    clients[i] = host.connect(p:url())
    clients[i]:send(text)
    clients[i]:finish()
  end
  p:kill("TERM")
  p:kill("CONT")
  return clients
end

function M.close_all(clients)
  for _, c in ipairs(clients) do c:close() end
end

-- So many clients that say something and no more, and have or wait for an answer; each is followed by another one.
local Crowd = {}
Crowd.__index = Crowd

function M.crowd(url, n, text)
  return setmetatable({ url = url, n = n, text = text, clients = {}, answered = 0 }, Crowd)
end

-- To be called again and again: whether one could not connect.
function Crowd:is_refused()
  for i = #self.clients, 1, -1 do
    if M.has_answer(self.clients[i]) then
      table.remove(self.clients, i):close()
      self.answered = self.answered + 1
    end
  end
  while #self.clients < self.n do
    local ok, c = pcall(host.connect, self.url)
    if not ok then return true end
    c:send(self.text)
    c:finish()
    self.clients[#self.clients + 1] = c
  end
  return false
end

function Crowd:close() M.close_all(self.clients) end

function M.has_answer(client) return sys.poll(client.fd, "r", 0) end

return M
