--- Runs pieces of Lua inside a handler of the real program and gives their results:
--- `spec/fixtures/case.lua` is the other side.  A piece finds `self`, `rfile`, `wfile`,
--- `request`, `moonport`, and a table `kept` that all pieces of a program share.

local host = require("support.host")

local M = { script = "spec/fixtures/case.lua" }

local PRELUDE = "local self, moonport = ...; local rfile, wfile, request = self.rfile, self.wfile, self.request; "

---@param options? spec.Options
function M.start(options) return host.start(M.script, options) end

---The bytes that have the piece run, for a connection of one's own.
function M.piece(code) return (">s4"):pack(PRELUDE .. code) end

---Takes a whole reply apart: results (by table.pack; "raised" and the error's text when the
---piece failed), and what the piece itself wrote.
function M.results(reply)
  local raw, text = reply:match("^(.*)%z=(.*)$")
  if not raw then return nil, reply end
  return table.pack(assert(load("return " .. text))()), raw
end

---@param code string the piece
---@param input? string|string[] what the client says after it; several are sent one by one
---@param keep? boolean the client does not end its side
function M.run(program, code, input, keep)
  local c <close> = host.connect(type(program) == "string" and program or program:url())
  assert(c:send(M.piece(code)))
  for _, s in ipairs(type(input) == "table" and input or { input }) do assert(c:send(s)) end
  if not keep then c:finish() end
  return M.results((c:all()))
end

---The same for a datagram server.
function M.ask(url, code, options)
  local c <close> = host.connect(url, options)
  assert(c:send(PRELUDE .. code))
  local reply = assert(c:some())
  return table.pack(assert(load("return " .. reply))())
end

return M
