--- Checks that includes go downward only, as host/FLOORS says, and that C enters Lua
--- in the places that are meant to.  Run by `make check`; prints what is wrong.

local floors, order = {}, 0
for line in io.lines("host/FLOORS") do
  if not line:find("^#") and line:find("%S") then
    order = order + 1
    for folder in line:gmatch("%S+") do floors[folder] = order end
  end
end

local wrong = 0
local function complain(...)
  wrong = wrong + 1
  io.stderr:write(string.format(...), "\n")
end

-- Only these may resume or call Lua; a callk or pcallk inside a C function that Lua has called is Lua's own.
local entries = {
  ["lua_resume("] = { ["host/script/task.c"] = true, ["host/script/coro.c"] = true },
  ["lua_pcall("] = { ["host/script/state.c"] = true },
}

local files = assert(io.popen("ls host/*/*.c host/*/*.h"))
for path in files:lines() do
  local folder = path:match("^host/([^/]+)/")
  local own = floors[folder]
  if not own then complain("%s: its folder is on no floor of host/FLOORS", path) end
  local n = 0
  for line in io.lines(path) do
    n = n + 1
    local target = line:match('^#include "([^/"]+)/')
    if line:find('^#include "') and not target then
      complain("%s:%d: an include must name its folder: %s", path, n, line)
    elseif target and not floors[target] then
      complain("%s:%d: includes from %s/, which is on no floor", path, n, target)
    elseif target and own and floors[target] > own then
      complain("%s:%d: includes upward, from %s/", path, n, target)
    elseif target and own and floors[target] == own and target ~= folder and own == order then
      complain("%s:%d: programs of the top floor do not know each other: %s/", path, n, target)
    end
    if own and own <= floors.loop and line:find("^#include <l[ua][au][xl]?") and line:find("lua") then
      complain("%s:%d: floors 0 and 1 do not know Lua", path, n)
    end
    for call, allowed in pairs(entries) do
      if line:find(call, 1, true) and not allowed[path] then
        complain("%s:%d: %s: C enters Lua through state_call() and the scheduler alone", path, n, call)
      end
    end
    if target and line:find("backend%.h") and folder ~= "loop" then
      complain("%s:%d: backend.h is private to host/loop", path, n)
    end
  end
end
files:close()
if wrong > 0 then os.exit(1) end
