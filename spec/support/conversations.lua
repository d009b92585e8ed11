--- Random conversations, each of which runs under the real program and under moonport.testing: the same handler, the
--- same client, and what both have seen as text.
---
--- The client goes on when the handler has written a mark ("\1"), and then sends a part in one go. What happens at the
--- same time in the two processes is left out: parts but the last have all that is read from them; before what depends
--- on whether the client has ended its side, the handler reads to that end.

local host = require("support.host")
local testing = require("moonport.testing")

local M = { script = "spec/fixtures/fidelity.lua" }

local function pick(list) return list[math.random(#list)] end

local function word(n)
  local out = {}
  for i = 1, n do out[i] = pick { "a", "b", "Z", "\0", " ", "7", "\r", "\255" } end
  return table.concat(out)
end

local function size() return pick { 0, 1, 2, 3, 7, 8, 20, 49, 50, 51, 99, 100, 101, 300, 5000 } end

-- ---------------------------------------------------------------- what a handler does

-- With the bytes that it takes, so that it does not wait for more.
local function safe_read()
  local n = math.random(0, 40)
  return table.unpack(pick {
    { "rfile:read('l')", word(n) .. "\n" },
    { "rfile:read('L')", word(n) .. "\n" },
    { "rfile:read()", word(n) .. "\n" },
    { "rfile:readline()", word(n) .. "\n" },
    { ("rfile:readexactly(%d)"):format(n), word(n) },
    { ("rfile:read(%d)"):format(n + 1), word(n + 1) },
    { "rfile:read('n', 1)", pick { "12", "-7", "0x1F", "3.5", "1e3", " \n.5", "0x.8p1" } .. ";" },
    { "rfile:read(2, 'l')", "ab" .. word(n) .. "\n" },
    { "rfile:unpack('>s2')", (">s2"):pack(word(n)) },
    { "rfile:unpack('<I4z')", ("<I4z"):pack(n, (word(n):gsub("%z", "z"))) },
    { "rfile:unpack('!4 i1 i4 Xi8')", ("!4 i1 i4 Xi8"):pack(n, -n) },
    { "rfile:readuntil('--')", word(n) .. "--" },
    { "request:makefile('r'):read('L')", word(n) .. "\n" },
    { "(words(rfile:read('l')))", word(n) .. "\n" },
  })
end

local READS = {
  "rfile:read('l')", "rfile:read('L')", "rfile:read('n')", "rfile:read('a')", "rfile:read('*l')", "rfile:readline()",
  "rfile:read(0)", "rfile:read('n', 'l', 3)", "rfile:read('l', 'n', 'a')", "rfile:unpack('>s1')", "rfile:unpack('>s2')",
  "rfile:unpack('z')", "rfile:unpack('<i4 s1')", "rfile:unpack('!8 b j')", "rfile:unpack('c5')", "rfile:unpack('s17')",
  "rfile:read('l', 'x')", "rfile:unpack('>q')", "rfile:unpack('i99')", "rfile:unpack('')",
  "rfile:readuntil('Z')", "rfile:readuntil('ab')",
  "rfile:readuntil('\\r\\n')", "request:makefile():read(2)", "collect(rfile:lines())", "collect(rfile:lines('L'))",
  "collect(rfile:lines(3))", "collect(rfile:lines('n', 1))", "rfile:lines()(rfile)", "words(rfile:read('l'))",
  "inside(function() local a, b = rfile:read('l') return a, b end)",
  "table.concat({ inside(function() local a, b = rfile:read(1, 1) return a, b end) })",
  "resumed(function() coroutine.yield(rfile:read(1)) return rfile:read(2) end)",
}

local WRITES = {
  "wfile:write('x')", "wfile:write('ab', 12, 3.5, '\\n')", "wfile:write()", "wfile:write('')", "wfile:flush()",
  "wfile:write('line\\n')", "wfile:setvbuf('no')", "wfile:setvbuf('line')", "wfile:setvbuf('full')",
  "wfile:setvbuf('full', 10)", "wfile:setvbuf('line', 0)", "request:send('sent')", "request:sendall('sent all')",
  "request:send('')", "request:makefile('w'):write('by a file')", "companion(function() wfile:write('beside') end)",
}

local MISUSE = {
  "rfile:read('x')", "rfile:read(-1)", "rfile:read({})", "rfile:read(1.5)", "rfile:read('')", "rfile:readexactly('a')",
  "rfile:readexactly(-1)", "rfile:readexactly()", "rfile:readuntil('')", "rfile:readuntil()", "rfile:unpack()",
  "rfile:lines('q')", "rfile.read()", "rfile.read(wfile)", "rfile.read(5, 'l')", "wfile:write({})", "wfile:write(nil)",
  "wfile:write('a', true)", "wfile:setvbuf('bad')", "wfile:setvbuf()", "wfile:setvbuf('full', -1)",
  "wfile:setvbuf('full', 'x')", "request:sendto('a', 'b')", "request:send()", "request:send({})",
  "request:makefile('x')", "request:settimeout(-1)", "request:settimeout('x')", "request:getsockopt('so_keepaliv')",
  "request:setsockopt('so_keepalive')", "request:setsockopt('so_rcvbuf', 1e12)", "request:shutdown('all')",
  "request:recv(-1)", "request:recv('x')", "moonport.sleep()", "moonport.sleep(-1)", "moonport.sleep('x')",
  "moonport.connect('bogus')", "moonport.connect('udp://127.0.0.1:1')", "moonport.connect('tcp://127.0.0.1:x')",
  "moonport.connect('tcp://:1')", "moonport.connect('tcp://name:1')", "moonport.log('loud', 'x')",
  "moonport.default_handler({})", "moonport.spawn(5)", "moonport.spawn()", "coroutine.yield(1)",
  "coroutine.resume(coroutine.running())", "coroutine.status(coroutine.running())", "coroutine.isyieldable()",
  "select(2, coroutine.running())", "coroutine.close(coroutine.running())", "coroutine.resume(5)",
  "table.sort({ 3, 2, 1 }, function() moonport.sleep(0) end)", "('x'):gsub('x', function() moonport.sleep(0) end)",
  "coroutine.wrap(function() error('in wrap') end)()",
  "coroutine.wrap(function() error({}) end)()", "dead()", "load('return 1', 'x', 'b')()", "load(string.dump(print))",
  "select(2, pcall(require, 'no.such.module')):match('^[^\\n]*\\n[^\\n]*')",
  "self.server.nothing", "tostring(self.request)", "tostring(rfile)",
  "tostring(wfile)", "self.server.max_line", "self.server.timeout", "self.server.rbufsize", "self.server.class",
  "self.server.cancel_grace", "self.server.max_connections", "type(self.client_address)",
  "request:gettimeout()", "settimeout(2.5)", "settimeout(1e10)", "request:getsockopt('so_linger')",
  "request:setsockopt('so_keepalive', true)", "keepalive()", "self.packet", "self.connection == self.request",
  "moonport.event():wait(0)", "set_event():wait()", "type(moonport.monotonic())", "math.type(moonport.time())",
  "kept_over(kept)", "getmetatable(rfile)",
  "sort_in_coroutine()", "close_in_coroutine()", "event_beside()",
}

-- What depends on how far the client's end has come.
local AFTER = {
  "request:shutdown('write')", "request:shutdown('read')", "request:shutdown()", "request:getpeername() ~= nil",
  "request:close()", "wfile:close()", "rfile:close(1)", "request:setsockopt('so_linger', 0)",
  "request:setsockopt('so_linger', false)", "moonport.sleep(0.001)", "moonport.sleep(0)", "request:recv()",
  "request:recv(3)", "request:recv(0)", "(request:recvfrom(2))", "tostring(request)",
}

local HELP = [[
local self, moonport, R, mark, kept = ...
local rfile, wfile, request = self.rfile, self.wfile, self.request
local function collect(f, s, v)
  local out = {}
  for a, b in f, s, v do
    out[#out + 1] = tostring(a) .. tostring(b)
    if #out > 2000 then break end
  end
  return table.concat(out, ",")
end
local function words(text)
  local out = {}
  for w in coroutine.wrap(function()
    for w in (text or ""):gmatch("%w+") do coroutine.yield(w) end
    moonport.sleep(0)
  end) do out[#out + 1] = w end
  return table.concat(out, "+")
end
local function once(f)
  local r = table.pack(coroutine.wrap(f)())
  return table.unpack(r, 1, r.n)
end
local function inside(f) return once(function() return once(f) end) end
local function resumed(f)
  local co = coroutine.create(f)
  local out = {}
  while coroutine.status(co) ~= "dead" and #out < 9 do
    local r = table.pack(coroutine.resume(co))
    for i = 1, r.n do out[#out + 1] = tostring(r[i]) end
  end
  return table.concat(out, ",")
end
local function companion(f)
  local e = moonport.event()
  moonport.spawn(function() local ok, err = pcall(f) e.set(e) R("beside", ok, err) end)
  return e:wait()
end
local function event_beside()
  local e, f = moonport.event(), moonport.event()
  moonport.spawn(function() e:wait() f:set() e:wait() end)
  moonport.spawn(function() moonport.sleep(0) e:set() end)
  return f:wait(), f:wait(0)
end
local function dead()
  local co = coroutine.wrap(function() end)
  co()
  co()
end
local function settimeout(n) request:settimeout(n) local t = request:gettimeout() request:settimeout() return t end
local function keepalive() request:setsockopt("so_keepalive", true) return request:getsockopt("so_keepalive") end
local function set_event() local e = moonport.event() e:set() e:set() return e end
local function kept_over(k)
  local old = k.wfile
  k.wfile = wfile
  return old and old ~= wfile and old:write("dead") or true
end
local function sort_in_coroutine()
  table.sort({ 2, 1 }, function(a, b) inside(function() moonport.sleep(0) end) return a < b end)
end
local function close_in_coroutine()
  local co = coroutine.create(function()
    local x <close> = setmetatable({}, { __close = function() moonport.sleep(0) end })
    coroutine.yield()
  end)
  coroutine.resume(co)
  return coroutine.close(co)
end
]]

local function op(k, code)
  if math.random(3) == 1 then
    -- A call by pcall, which is C: no names, no lines.
    local object, method, arguments = code:match("^(%w+):(%w+)(%b())$")
    if object then
      local rest = arguments:sub(2, -2)
      return ("R(%d, pcall(%s.%s, %s%s))"):format(k, object, method, object, rest ~= "" and ", " .. rest or "")
    end
  end
  return ("R(%d, pcall(function()\n local r = table.pack(%s)\n return table.unpack(r, 1, r.n) end))"):format(k, code)
end

local function middle(ops, n)
  local chunk = {}
  for _ = 1, n do
    local kind = math.random(4)
    if kind <= 2 then
      local code, bytes = safe_read()
      chunk[#chunk + 1] = bytes
      ops[#ops + 1] = op(#ops, code)
    else
      ops[#ops + 1] = op(#ops, pick(kind == 3 and WRITES or MISUSE))
    end
  end
  return table.concat(chunk)
end

local function soup()
  local out = {}
  for _ = 1, math.random(0, 6) do
    out[#out + 1] = pick { word(size()), "\n", "12 ", "0x1p4 ", "line\n", ("a"):rep(size()), "\0\5hello", "ab", "\r\n",
      (">s2"):pack(word(math.random(0, 60))), ("9"):rep(pick { 3, 199, 200, 201 }) }
  end
  return table.concat(out)
end

local ENDINGS = { "", "", "", "error('boom')", "error({})", "error()", "error({ code = 'mine' })", "wfile:flush()",
  "local x = nil; x.y = 1", "request:close()", "wfile:write('last')", "for _ in rfile:lines() do end",
  "moonport.spawn(function() error('stray') end) moonport.sleep(0.002)", "moonport.spawn(function() local c <close> = "
  .. "setmetatable({}, { __close = function() R('closed') end }) moonport.sleep(60) end) moonport.sleep(0.002)" }

---@class spec.Conversation
---@field code string of the handler
---@field parts string[] what the client sends, each after a mark but the first
---@field ending "shutdown"|"close"|"reset"

-- Where a reset may come at any time: nothing that waits for anything but input.
local QUIET = {}
for _, code in ipairs(READS) do
  if not code:find("words", 1, true) then QUIET[#QUIET + 1] = code end
end

---@param seed integer
---@param gentle? boolean the client only ever ends its side in order
---@return spec.Conversation
function M.random(seed, gentle)
  math.randomseed(seed)
  local ops, parts = {}, {}
  local ending = gentle and "shutdown" or pick { "shutdown", "shutdown", "shutdown", "close", "reset" }
  for _ = 1, math.random(ending == "shutdown" and 0 or 1, 3) do
    parts[#parts + 1] = middle(ops, math.random(0, 4))
    ops[#ops + 1] = "mark()"
  end
  parts[#parts + 1] = soup()
  for _ = 1, math.random(0, 6) do
    local list = ending == "reset" and QUIET or ending == "close" and pick { READS, MISUSE }
      or pick { READS, READS, MISUSE, WRITES }
    ops[#ops + 1] = op(#ops, pick(list))
  end
  ops[#ops + 1] = op(#ops, "#rfile:read('a')")
  if ending == "reset" then ops[#ops + 1] = op(#ops, "#rfile:read('a')") end
  for _ = 1, math.random(0, 6) do
    ops[#ops + 1] = op(#ops, pick(pick { AFTER, AFTER, WRITES, READS, MISUSE }))
  end
  ops[#ops + 1] = pick(ENDINGS)
  return { code = HELP .. table.concat(ops, "\n"), parts = parts, ending = ending }
end

local function frame(what, id, code) return (">s4"):pack(("s1s1s4"):pack(what, id, code)) end

-- The client's side. The first part goes with the program; the others after a mark each.
local function converse(case, id, client)
  local got, held = {}, ""
  local function until_mark()
    local have = held
    while true do
      local at = have:find("\1", 1, true)
      held = at and have:sub(at + 1) or ""
      if at then return have:sub(1, at) end
      local data = client.some()
      if not data then return have, true end
      have = have .. data
    end
  end
  client.send(frame("run", id, case.code) .. case.parts[1])
  for i = 2, #case.parts do
    local data, ended = until_mark()
    got[#got + 1] = data
    if ended then break end
    if case.parts[i] ~= "" then client.send(case.parts[i]) end
  end
  if case.ending == "shutdown" then
    client.shutdown()
    local data, why = client.all()
    got[#got + 1] = held .. data .. "|" .. why
  else
    client[case.ending]()
  end
  return table.concat(got)
end

-- ---------------------------------------------------------------- the real program

-- An address of its own for each client, by which it is found in the log.
local function real_client(url, id)
  local n = tonumber(id)
  local from = url:find("^tcp") and ("tcp://127.1.%d.%d:0"):format(n // 250, n % 250 + 1) or nil
  local c = host.connect(url, { bind = from })
  local client = {}
  function client.send(data) c:send(data) end
  client.some = function()
    local data = c:some()
    return data ~= "" and data or nil
  end
  function client.shutdown() c:finish() end
  function client.all()
    local data, message = c:all()
    return data, message and "reset" or "closed"
  end
  function client.close() c:close() end
  function client.reset() c:reset() end
  return client, c
end

---@return string seen by the client
---@return string results
---@return string address of the client
function M.real(program, case, id)
  local client, c = real_client(program:url(), id)
  local seen = converse(case, id, client)
  if c.fd then c:close() end
  local asker <close> = host.connect(program:url())
  asker:send(frame("ask", id, ""))
  local address = asker:receive((">I4"):unpack((asker:receive(4))))
  local results = asker:receive((">I4"):unpack((asker:receive(4))))
  return seen, results, address
end

-- ---------------------------------------------------------------- moonport.testing

local function virtual_client(peer)
  local client = {}
  local function try(f, ...)
    local ok, err = pcall(f, ...)
    if not ok and not (type(err) == "table" and err.errno) then error(err, 0) end
  end
  function client.send(data) try(peer.send, peer, data) end
  function client.some() return (peer:receive()) end
  function client.shutdown() peer:shutdown() end
  function client.all() return peer:all() end
  function client.close() peer:close() end
  function client.reset() peer:reset() end
  return client
end

---@param t testing.Run
function M.virtual(t, case, id)
  local peer = t:connect()
  local seen = converse(case, id, virtual_client(peer))
  peer:close()
  local asker = t:connect()
  asker:send(frame("ask", id, ""))
  local address, results = asker:unpack(">s4s4")
  return seen, results, address
end

---What the log says of each client: level, event and why.
---@param events table[]
---@return table<string, string>
function M.by_client(events)
  local out = {}
  for _, e in ipairs(events) do
    if e.client then
      local text = ("%s %s: %s"):format(e.level, e.event, tostring(e.why or e.error or e.message))
      text = text:gsub("0x%x+", "0x")
      out[e.client] = (out[e.client] and out[e.client] .. "; " or "") .. text
    end
  end
  return out
end

---@param attributes table<string, any>
---@param url? string
function M.start(attributes, url)
  local args = { "--log-level=info" }
  for name, value in pairs(attributes) do args[#args + 1] = ("--option=%s=%s"):format(name, value) end
  local program = host.start(M.script, { args = args, listen = url })
  return program, testing.open(M.script, M.options(attributes, url))
end

function M.options(attributes, url)
  local options = { url = url }
  for name, value in pairs(attributes) do options[name] = value end
  return options
end

return M
