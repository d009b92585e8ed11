--- Makes chosen allocations of a program fail, while it runs: spec/support/scarce.c is the other side.

local host = require("support.host")

local M = {}

---@class spec.Scarce
---@field path string
---@field env string[] of the program
local Scarce = {}
Scarce.__index = Scarce

local FORMAT = "=I8I8I8I8I8I8"
local EVER = (1 << 62)

-- A build that has it linked in needs no preloading: see `make scarce`.
local linked = host.build:find("scarce") ~= nil
M.linked = linked

---False: it cannot work with this build.
function M.works() return linked or not host.sanitizer() end

function M.new()
  local path = host.write((FORMAT):pack(0, 0, 0, 0, 0, 0), host.folder() .. "/orders")
  local env = { "SCARCE=" .. path }
  if not linked then env[2] = host.preload("scarce.so") end
  return setmetatable({ path = path, env = env }, Scarce)
end

function Scarce:write(at, bytes)
  local f <close> = assert(io.open(self.path, "r+b"))
  f:setvbuf("no")
  assert(f:seek("set", at))
  assert(f:write(bytes))
end

---From now on the allocations `first` to `last` fail; of these every `every`-th only.  `last` is `first` unless given.
function Scarce:arm(first, last, every)
  self:write(8, ("=I8I8I8I8I8"):pack(first, last or first, every or 0, 0, 0))
  self:write(0, ("=I8"):pack(1))
end

---Like arm(first), but for all that follow as well.
function Scarce:arm_ever(first) self:arm(first, EVER) end

---Allocations since arm(), and how many of them have failed.
function Scarce:counts()
  local _, _, _, _, calls, failed = FORMAT:unpack(host.read(self.path))
  return calls, failed
end

function Scarce:disarm()
  self:write(0, ("=I8"):pack(0))
  return self:counts()
end

return M
