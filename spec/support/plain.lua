--- Runs Lua programs in a plain lua5.4 with moonport.so, each in a process of its own: a server's calls block, and a
--- library built with a sanitizer cannot be loaded into busted.
---
--- A program finds `moonport`, `socketserver`, a `folder` of its own, `say(...)`, which writes one line, and
--- `until_told(server)`, which serves until the spec calls `stop`.

local host = require("support.host")
local sys = host.sys

local M = {}

-- One line, so that the numbers in messages are those of the program's text.
local PRELUDE = ([[
package.path = "./lua/?.lua;" .. package.path
package.cpath = "%s/?.so;" .. package.cpath
io.stdout:setvbuf("no")
local moonport, socketserver = require("moonport"), require("moonport.socketserver")
local folder = arg[1]
local function say(...)
  local words = table.pack(...)
  for i = 1, words.n do words[i] = tostring(words[i]) end
  io.write(table.concat(words, " ") .. "\n")
end
local function exists(name) local f = io.open(folder .. "/" .. name) return f and f:close() end
local function until_told(server)
  local before = server.service_actions
  function server:service_actions() before(self) if exists("stop") then self:shutdown() end end
  say("at", server.url)
  server:serve_forever(0.005)
end
]]):gsub("\n", " ")

local started = {} -- programs that run now

---@class spec.Plain
---@field pid integer
---@field folder string
---@field stdin integer
local Plain = {}
Plain.__index = Plain

---What it has written so far.
function Plain:text() return host.read(self.folder .. "/out") end

---What it, or the host in it, has logged so far.
function Plain:log() return host.read(self.folder .. "/log") end

function Plain:fail(what)
  error(("%s; it wrote:\n%s\nand logged:\n%s"):format(what, self:text(), self:log()), 3)
end

-- Waits until look(text) gives something; that.
function Plain:await(what, look)
  local ok, got = pcall(host.eventually, what, function()
    self.code = self.code or sys.wait(self.pid, 0)
    if self.code then started[self.pid] = nil end
    local found = table.pack(look(self:text()))
    return found[1] and found or self.code and error("the program has ended")
  end)
  if not ok then self:fail("waited in vain for " .. what) end
  return table.unpack(got, 1, got.n)
end

---Waits until its text has the pattern; the captures.
function Plain:expect(pattern)
  return self:await(pattern, function(text) return text:match(pattern) end)
end

---The address that it tells as the n-th one.
function Plain:url(n)
  return self:await("an address", function(text)
    local at = 0
    for url in ("\n" .. text):gmatch("\nat ([^\n]*)%f[\n]") do
      at = at + 1
      if at == (n or 1) then return url end
    end
  end)
end

---Has its io.read() return.
function Plain:tell(line) assert(sys.write(self.stdin, line .. "\n")) end

---Waits for the end; the exit code, or minus the signal, and what it wrote.
function Plain:wait()
  local code = self.code or sys.wait(self.pid, host.LIMIT)
  if not code then self:fail("the program does not end") end
  self.code = code
  started[self.pid] = nil
  if self.stdin then sys.close(self.stdin) end
  self.stdin = nil
  return code, self:text()
end

---Waits for an end in order; what it wrote.
function Plain:done()
  local code, text = self:wait()
  if code ~= 0 then self:fail("the program ended with " .. code) end
  return text
end

---Has until_told() end, and waits for the program's end in order; what it wrote.
function Plain:stop()
  host.write("", self.folder .. "/stop")
  return self:done()
end

---@param what "fd"|"task"
---@return integer
function Plain:count(what)
  local p = assert(io.popen(("ls /proc/%d/%s"):format(self.pid, what)))
  local _, n = p:read("a"):gsub("\n", "")
  p:close()
  return n
end

---Its child processes, those that nobody has waited for included.
---@return integer[]
function Plain:children()
  local pids = {}
  local p = assert(io.popen("cat /proc/[0-9]*/stat 2>/dev/null"))
  for line in p:lines() do
    local pid, parent = line:match("^(%d+) %(.*%) %a (%d+)")
    if tonumber(parent) == self.pid then pids[#pids + 1] = tonumber(pid) end
  end
  p:close()
  return pids
end

---@param code string
---@param ... string what it finds in `arg` from 2 on
---@return spec.Plain
function M.start(code, ...)
  local folder = host.folder()
  host.write(PRELUDE:format(host.build) .. code, folder .. "/main.lua")
  local out, log = assert(sys.open(folder .. "/out", "w")), assert(sys.open(folder .. "/log", "w"))
  local stdin, keep = sys.pipe()
  local pid = assert(sys.spawn({ "lua5.4", folder .. "/main.lua", folder, ... }, {
    stdin = stdin, stdout = out, stderr = log,
    env = host.sanitizer() and { "LD_PRELOAD=" .. host.sanitizer(), "ASAN_OPTIONS=detect_leaks=0" } or nil,
  }))
  for _, fd in ipairs { stdin, out, log } do sys.close(fd) end
  local program = setmetatable({ pid = pid, folder = folder, stdin = keep }, Plain)
  started[pid] = program
  return program
end

---Runs a program to its end, which must be in order; what it wrote.
function M.run(code, ...) return M.start(code, ...):done() end

---A client that ends with its request: the reply to one line, of a stream or datagram server.
---@param url string
---@param line string
---@return string?
function M.ask(url, line)
  -- Servers of local datagrams can answer only a socket that has a path.
  local bind = url:find("^unixgram") and "unixgram://" .. host.folder() .. "/client" or nil
  local c <close> = host.connect(url, { bind = bind })
  assert(c:send(line .. "\n"))
  return (c:line())
end

---For after_each: ends what a failed spec has left running.
function M.cleanup()
  local left = {}
  for pid, program in pairs(started) do
    sys.kill(-pid, "KILL")
    sys.wait(pid, host.LIMIT)
    left[#left + 1] = program:text() .. program:log()
    started[pid] = nil
  end
  host.cleanup()
  if #left > 0 then error("a program was left running; it wrote:\n" .. table.concat(left, "\n")) end
end

return M
