--- self.server: the same object for all requests of a listener.

local args = require("moonport.testing.args")

---@class testing.Site a listener and what it serves
---@field name string
---@field url testing.Url
---@field class string
---@field handler table
---@field attributes table<string, any>
---@field counters table<string, integer>
---@field object moonport.Server
---@field shutdown fun()
---@field reload fun(): integer?, string?
---@field generation integer

local COUNTERS = { "requests", "active", "errors", "peers_gone", "timeouts", "cancelled", "cpu_limit", "out_of_memory",
  "preempted", "refused", "accept_errors", "truncated", "unanswered", "send_errors", "drops", "died", "stuck",
  "bytes_in", "bytes_out", "reloads", "failed_reloads", "generations", "workers", "workers_died", "tasks", "streams",
  "lingering", "descriptors", "timers", "log_dropped" }

local M = {}

---@return table<string, integer>
function M.counters()
  local counters = {}
  for _, name in ipairs(COUNTERS) do counters[name] = 0 end
  counters.generations = 1
  return counters
end

---@type table<table, { site: testing.Site, own: table }>
local views = setmetatable({}, { __mode = "k" })

---@return { site: testing.Site, own: table }
local function check(self) return views[self] or args.bad_type(1, "moonport.server", self == nil and 0 or 1, self) end

local methods = {}

function methods.shutdown(self) check(self).site.shutdown() end

function methods.reload(self) return check(self).site.reload() end

function methods.stats(self)
  local site = check(self).site
  local stats = { generation = site.generation }
  for name, n in pairs(site.counters) do stats[name] = n end
  return stats
end

function methods.fileno(self)
  check(self)
  return 3
end

local function index(self, key)
  local view = check(self)
  local site = view.site
  if key == "server_address" then return site.url.address end
  if key == "name" then return site.name end
  if key == "class" then return site.class end
  if key == "url" then return site.url.text end
  return site.attributes[key]
end

local server_mt = args.class("moonport.server", methods)
local found = server_mt.__index
function server_mt.__index(self, key)
  local own = check(self).own[key]
  if own ~= nil then return own end
  return found[key] or index(self, key)
end
function server_mt.__newindex(self, key, value) check(self).own[key] = value end
function server_mt.__tostring(self)
  local site = check(self).site
  return ("%s (%s)"):format(site.class, site.url.text)
end

---@param site testing.Site
---@return moonport.Server
function M.new(site)
  local self = setmetatable({}, server_mt)
  views[self] = { site = site, own = {} }
  return self
end

return M
