--- /health, /version, /metrics, /reset.

local moonport = require("moonport")
local control = require("moonport.control")
local journal = require("moonport.journal")

local data = require("moonport.admin.data")
local metrics = require("moonport.admin.metrics")
local mocks = require("moonport.admin.mocks")
local refuse = require("moonport.admin.refuse")

local function health() return { status = "ok" } end

local function version()
  local options = control.options()
  return { version = options.version, lua = _VERSION, pid = options.pid, started = options.started }
end

---@param name any nil: all
---@return admin.Server[]
local function servers_of(name)
  if name == nil then return control.servers() end
  if type(name) ~= "string" then refuse(400, "server must be a server's name") end
  return { mocks.find(name) }
end

-- An outage is a test's, as its stubs are.
local function enable(servers)
  for _, server in ipairs(servers) do
    if not server.enabled then
      local ok, why = control.enable(server.name, true)
      if not ok and mocks.lookup(server.name) then refuse(409, tostring(why)) end
    end
  end
end

-- In one: what comes in between would be neither told nor kept.
local function forget(records, verdict)
  local texts, failures = journal.failures()
  if verdict then
    journal.clear()
    return 0, journal.last(), texts
  end
  if records then journal.clear("records", "counts") end
  return failures, journal.last()
end

-- The journal is everybody's: it stays if only one server is reset. The verdict is of the whole run, unless somebody
-- says otherwise: what has failed must not go unseen.
local function reset(call)
  local spec = call:object({ server = true, verdict = true })
  local name, verdict = spec.server, spec.verdict
  if verdict ~= nil and type(verdict) ~= "boolean" then refuse(400, "verdict must be true or false") end
  if verdict and name ~= nil then refuse(400, "the verdict is of all servers; it cannot go with one") end
  local servers, seen = servers_of(name), {}
  for _, server in ipairs(servers) do
    if server.unit ~= nil and not seen[server.unit] then
      seen[server.unit] = true
      mocks.call(server.unit, "reset", { server = name })
    end
  end
  enable(servers)
  local failures, since, texts = moonport.atomically(forget, name == nil, verdict)
  return { since = since, failures = failures, forgotten = texts and data.shown_texts(texts) }
end

return function(routes)
  routes:add("GET", "/health", "whether it serves", health)
  routes:add("GET", "/version", "version, pid, time of start", version)
  routes:add("GET", "/metrics", "counters for Prometheus", metrics.render)
  routes:add("POST", "/reset", "as the scripts say, the journal empty: server, verdict (forgets failures, too)", reset)
end
