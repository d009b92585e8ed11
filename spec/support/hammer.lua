--- Keeps a number of short conversations going: each is a connection of its own that sends
--- something, reads all that comes, and is followed by the next one.

local host = require("support.host")
local sys = host.sys

---@class spec.Hammer
---@field done integer conversations that have ended
local Hammer = {}
Hammer.__index = Hammer

local M = {}

---@class spec.HammerOptions
---@field say fun(number: integer): string, any what the next one sends, and a tag for it
---@field heard fun(reply: string, tag: any, message?: string) what it got; message: the error at its end, if any

---@param url string
---@param n integer how many at a time
---@param options spec.HammerOptions
---@return spec.Hammer
function M.new(url, n, options)
  return setmetatable({ url = url, n = n, say = options.say, heard = options.heard, open = {}, nopen = 0, begun = 0,
    done = 0 }, Hammer)
end

function Hammer:begin()
  local text, tag = self.say(self.begun + 1)
  local client = host.connect(self.url)
  assert(client:send(text))
  self.begun = self.begun + 1
  self.open[client.fd] = { client = client, tag = tag, parts = {} }
  self.nopen = self.nopen + 1
end

local function hear(self, fd)
  local one = self.open[fd]
  local data, message = sys.recv(fd)
  if data and data ~= "" then
    one.parts[#one.parts + 1] = data
    return
  end
  one.client:close()
  self.open[fd] = nil
  self.nopen = self.nopen - 1
  self.done = self.done + 1
  self.heard(table.concat(one.parts), one.tag, message)
end

---Waits a while for any of them, and takes what there is.
function Hammer:listen(seconds)
  local fds = {}
  for fd in pairs(self.open) do fds[#fds + 1] = fd end
  for _, fd in ipairs(assert(sys.ready(fds, seconds or 0.01))) do hear(self, fd) end
end

---Goes on until so many more have ended; `meanwhile` is called again and again.
---@param count integer
---@param meanwhile? fun(done: integer)
function Hammer:run(count, meanwhile)
  local target, heard = self.done + count, sys.now()
  while self.done < target do
    while self.nopen < self.n and self.begun < target do self:begin() end
    local before = self.done
    self:listen()
    if self.done > before then heard = sys.now() end
    assert(sys.now() - heard < host.LIMIT, "nothing was heard for long")
    if meanwhile then meanwhile(self.done) end
  end
end

---Begins none, and waits for those under way.
function Hammer:finish()
  host.eventually("the last conversations", function()
    if self.nopen > 0 then self:listen() end
    return self.nopen == 0
  end)
end

return M
