--- /health, /version, /metrics, /reset.

local control = require("moonport.control")
local journal = require("moonport.journal")

local metrics = require("moonport.admin.metrics")
local mocks = require("moonport.admin.mocks")

local function health() return { status = "ok" } end

local function version()
  local options = control.options()
  return { version = options.version, lua = _VERSION, pid = options.pid, started = options.started }
end

-- Each unit once, or the one of this server.
local function units(name)
  if name then return { mocks.find(name).unit } end
  local list, seen = {}, {}
  for _, server in ipairs(control.servers()) do
    if server.unit ~= nil and not seen[server.unit] then
      seen[server.unit] = true
      list[#list + 1] = server.unit
    end
  end
  return list
end

-- The journal is everybody's: it stays if only one server is reset. `since` is where a test can begin to read.
local function reset(call)
  local name = call:object({ server = true }).server
  for _, unit in ipairs(units(name)) do mocks.call(unit, "reset", { server = name }) end
  if not name then journal.clear() end
  return { since = journal.last() }
end

return function(routes)
  routes:add("GET", "/health", "whether it serves", health)
  routes:add("GET", "/version", "version, pid, time of start", version)
  routes:add("GET", "/metrics", "counters for Prometheus", metrics.render)
  routes:add("POST", "/reset", "journal, stubs, toxics, state, counters: as the scripts say", reset)
end
