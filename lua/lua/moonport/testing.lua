--- Runs a handler against scripted peers, without sockets and by a virtual clock: a test of a timeout of 30 seconds
--- takes no time, and happens the same way each time. In full: docs/testing.md.
---
---     local testing = require("moonport.testing")
---     local t <close> = testing.run("scripts/upper.lua", { timeout = 30 }, function(peer)
---       peer:send("hello\n")
---       assert(peer:line() == "HELLO")
---       peer:sleep(31)
---       assert(select(2, peer:receive()) == "closed")
---     end)
---     assert(t.outcome == "timeout")
---
--- What a handler sees is what the real program shows it, as far as one Lua state can. Where it differs:
---  - no limits of CPU time and memory: cpu_limit, time_slice and memory_limit are read and have no effect, and a
---    handler that computes for ever hangs the test;
---  - requests run as under the async mixin, whatever max_connections says;
---  - objects such as self.rfile are tables: type() says so. A method that is called in a tail call
---    (`return self.rfile:read(true)`) names no line in its errors;
---  - socket options are remembered, but only so_linger does something; descriptors are just numbers;
---  - bytes are there at once: nothing is cut on its way, unless the world is seeded;
---  - table.sort, string.gsub and the like are stock Lua's; string.dump is there; there is no sandbox;
---  - a connection of moonport.connect is not closed by the garbage collector;
---  - os.time, os.date and os.clock go by the virtual clock, os.execute and io.popen by the real one;
---  - a handler that is given as a table, not as a script, has the test's globals: it takes `testing.moonport` for
---    `require "moonport"`, and its own coroutines have to be testing.moonport.coroutine's if they wait;
---  - socketserver's classes are not here: they are servers, not handlers.

local runs = require("moonport.testing.runs")
local world_of = require("moonport.testing.world")

local M = {}

---What a handler that is no script requires: the module of the world that runs now.
---@type moonport
M.moonport = setmetatable({}, {
  __index = function(_, name)
    local function lib()
      local world = world_of.stepping or world_of.latest
      if not world then error("testing.moonport is for handlers: no test of one is running", 3) end
      return world.module
    end
    if name == "coroutine" then
      return setmetatable({}, { __index = function(_, key)
        return function(...) return lib().coroutine[key](...) end
      end })
    end
    return function(...) return lib()[name](...) end
  end,
})

---A server with this handler; nothing happens until a peer connects.
---@param handler table|string a handler, the path of a script, or its text
---@param options? testing.Options attributes as of --option, and more
---@return testing.Run
function M.open(handler, options) return runs.open(handler, options or {}) end

---The same with peers, each a function with a connection of its own, which all begin at once. Returns when all of
---them and all requests have ended; raises what a peer raises.
---@param handler table|string
---@param options testing.Options|fun(peer: testing.Peer)
---@param ... fun(peer: testing.Peer)
---@return testing.Run
function M.run(handler, options, ...)
  local peers = { ... }
  if type(options) == "function" then
    table.insert(peers, 1, options)
    options = {}
  end
  local t = runs.open(handler, options or {})
  t:run(table.unpack(peers))
  return t
end

---What a datagram handler answers to one datagram: each reply that its sender gets. Runs until the request is over.
---@param handler table|string
---@param data string
---@param options? testing.Options its `from` is the sender's address
---@return string[] replies
---@return testing.Run
function M.datagram(handler, data, options)
  options = runs.with(options, "url", "udp://127.0.0.1:9999")
  local t = runs.open(handler, options)
  local sender = t:connect()
  sender:send(data)
  t:finish()
  return sender.inbox, t
end

---The servers of a script of mocks, or of a function that gets `moonport.mock`: connect("redis") is a peer of one.
---@param script string|fun(mock: table)
---@param options? testing.Options
---@return testing.Mocks
function M.mock(script, options) return runs.mock(script, options or {}) end

return M
