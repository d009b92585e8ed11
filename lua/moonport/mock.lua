--- Scripted protocol mocks: servers that answer a test as its author says. In full: docs/mocks.md.
---
---     local mock = require("moonport.mock")
---     local redis = mock.server { "tcp://127.0.0.1:0", name = "redis", frame = mock.line "\r\n" }
---     redis:on("^PING$", "+PONG\r\n")
---     redis:on("^GET (%S+)$", function(c, key) c:send("$-1\r\n") end)
---     redis:otherwise "-ERR unknown\r\n"

local frames = require("moonport.frame")
local control = require("moonport.mock.control")
local driver = require("moonport.mock.driver")
local registry = require("moonport.mock.registry")
local reply = require("moonport.mock.reply")

local M = {}

---A server that the script has. The first field is its URL; port 0 is a free one.
---@param spec { [1]: string, name?: string, frame?: any, tls?: any } the frame: lines that end in "\n", or whole
---datagrams; tls: true, "starttls" or a table, see docs/mocks.md
---@return mock.Server
function M.server(spec)
  local made, why = registry.declare(spec)
  if not made then error("mock.server: " .. why, 2) end
  return made
end

-- Framings and hex patterns, with the caller's place in their errors.
for _, name in ipairs { "line", "upto", "delimiter", "fixed", "pack", "length", "datagram", "any", "custom", "hex" } do
  M[name] = function(...)
    local ok, made = pcall(frames[name], ...)
    if not ok then error("mock." .. tostring(made), 2) end
    return made
  end
end

for name, fault in pairs(reply.faults) do M[name] = fault end

-- Replies that are sent in another way, checked where they are written.
for _, name in ipairs { "delay", "drip", "truncate", "corrupt", "starttls" } do
  M[name] = function(...)
    local fault, wrong = reply[name](...)
    if not fault then error(wrong, 2) end
    local ok, why = reply.compile(fault)
    if not ok then error(why, 2) end
    return fault
  end
end

---@return { name: string, url: string }[] for the host, once the script is loaded
M.listeners = registry.listeners

---For the control API: see moonport.mock.control.
M.control = control.control

driver.install()

return M
