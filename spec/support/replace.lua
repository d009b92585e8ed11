--- Replaces a server's code again and again while clients (visit.c) talk to it.

local cjson = require("cjson")
local host = require("support.host")
local sys = host.sys

local M = {}

-- Script and module carry the number; a reply has both, and waits between its parts.
local SCRIPT = [[
local moonport = require("moonport")
local part = require("part")
local H = { %s }
local function get(self)
  for i = 1, 8 do
    self.wfile:write(i %% 2 == 0 and %d or part.number, " ", i, " ", part.text, "\n")
    if i %% 3 == 0 then self.wfile:flush() moonport.sleep(0) end
  end
  self.wfile:write(part.number, " end\n")
end
local function talk(self, line)
  while line do
    if math.random(20) == 1 then collectgarbage() end -- what piles up is not to be measured
    self.wfile:write("%d ", line:match("%%d+"), "\n")
    line = self.rfile:read()
  end
end
function H:handle()
  local line = self.rfile:read()
  if line == "get" then
    get(self)
  elseif line == "reload" then
    self.wfile:write(tostring(self.server:reload()), "\n")
  elseif line then
    local ok, e = pcall(talk, self, line)
    if not ok and type(e) == "table" and e.code == "cancelled" then
      self.wfile:write("%d bye\n")
      self.wfile:flush()
    end
  end
end
return H
]]

local function write(folder, number, attributes)
  host.write(("return { number = %d, text = ('%s'):rep(200) }"):format(number, string.char(97 + number % 26)),
    folder .. "/part.lua")
  host.write(SCRIPT:format(attributes or "", number, number, number), folder .. "/script.lua")
end

---@class spec.Visitors
---@field pid integer
local Visitors = {}
Visitors.__index = Visitors

---@param url string
---@param rate number connections a second
---@param streams integer
---@param period number milliseconds between two lines of a stream
---@return spec.Visitors
function M.visit(url, rate, streams, period)
  local their_in, to = sys.pipe()
  local from, their_out = sys.pipe()
  local pid = assert(sys.spawn({ host.build .. "/visit", url:match("//(.*)$"), tostring(rate), tostring(streams),
    tostring(period) }, { stdin = their_in, stdout = their_out }))
  sys.close(their_in)
  sys.close(their_out)
  return setmetatable({ pid = pid, to = to, from = from }, Visitors)
end

function Visitors:line()
  local text = ""
  while not text:find("\n") do
    assert(sys.poll(self.from, "r", 60), "no word from the visitors")
    local more = assert(sys.read(self.from))
    assert(more ~= "", "the visitors have ended")
    text = text .. more
  end
  return text
end

function Visitors:tell(command)
  assert(sys.write(self.to, command .. "\n"))
  assert(self:line() == "ok\n")
end

---What they have seen: see visit.c.
---@return table
function Visitors:done()
  sys.close(self.to)
  local seen = cjson.decode(self:line())
  sys.close(self.from)
  sys.wait(self.pid, host.LIMIT)
  return seen
end

-- Resident KiB of the program and, under --workers, its workers.
local function memory(p)
  local sum = p:memory()
  for _, child in ipairs(p.workers and p:children() or {}) do
    sum = sum + (tonumber((host.read("/proc/" .. child.pid .. "/status") or ""):match("VmRSS:%s+(%d+)")) or 0)
  end
  return sum
end

---@class spec.Replacing
---@field args string[] of the program
---@field attributes? string of the handler, as Lua
---@field reloads integer
---@field places? integer how many requests may run at once
---@field rate? number connections a second; 600
---@field streams? integer 100
---@field period? number milliseconds; 50
---@field pause? number seconds between two reloads, at least; 0.01

-- All places are taken once, so that what there is of each is there.
local function warm(p, n)
  local clients = {}
  for i = 1, n do
    clients[i] = host.connect(p:url())
    assert(clients[i]:ask("say 1") == "1 1")
  end
  for _, c in ipairs(clients) do c:close() end
end

---Starts a program, has its code replaced so many times, and stops it. What the visitors have seen, `seconds`,
---`memory`: resident KiB after every 100th reload, and when all was over.
---@param options spec.Replacing
---@return table
function M.run(options)
  local folder = host.folder()
  write(folder, 1, options.attributes)
  local p = host.start(folder .. "/script.lua", { args = options.args })
  for _, a in ipairs(options.args) do p.workers = p.workers or a:find("^%-%-workers") end
  warm(p, options.places or 0)
  local visitors = M.visit(p:url(), options.rate or 600, options.streams or 100, options.period or 50)
  visitors:tell("ready")
  local began, samples = sys.now(), {}
  for n = 2, options.reloads + 1 do
    write(folder, n, options.attributes)
    local c <close> = host.connect(p:url())
    local answer = c:ask("reload")
    assert(answer == tostring(n), ("reload %d: %s\n%s"):format(n, answer, host.read(p.log_path):sub(-2000)))
    visitors:tell("least " .. n)
    local new <close> = host.connect(p:url())
    assert(new:ask("get"):match("^%d+") == tostring(n), "a new connection has old code")
    if (n - 1) % 100 == 0 then
      visitors:tell("pause")
      samples[#samples + 1] = memory(p)
      visitors:tell("go on")
    end
    sys.poll(-1, "r", options.pause or 0.01)
  end
  local seconds = sys.now() - began
  local seen = visitors:done()
  seen.seconds, seen.memory = seconds, samples
  seen.stopped = p:stop()
  return seen
end

return M
