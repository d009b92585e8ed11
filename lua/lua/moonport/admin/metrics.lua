--- Prometheus' text format 0.0.4.

local control = require("moonport.control")
local journal = require("moonport.journal")

local M = {}

-- Of a server: the field of its counters, the metric, its help.
local COUNTERS = {
  { "requests", "requests_total", "Requests begun." },
  { "errors", "errors_total", "Requests ended by an error of the handler." },
  { "peers_gone", "peers_gone_total", "Requests ended by a peer that went away." },
  { "timeouts", "timeouts_total", "Requests ended by a timeout." },
  { "cancelled", "cancelled_total", "Requests ended by the host." },
  { "cpu_limit", "cpu_limit_total", "Requests ended for computing too long." },
  { "out_of_memory", "out_of_memory_total", "Requests ended for want of memory." },
  { "preempted", "preempted_total", "Slices that were over before the handler waited." },
  { "refused", "refused_total", "Requests refused by verify_request." },
  { "accept_errors", "accept_errors_total", "Failures to accept." },
  { "truncated", "truncated_total", "Datagrams longer than max_packet_size." },
  { "send_errors", "send_errors_total", "Datagram replies that the kernel refused." },
  { "drops", "drops_total", "Datagrams that the kernel dropped for want of room." },
  { "reloads", "reloads_total", "Reloads of the script." },
  { "failed_reloads", "failed_reloads_total", "Reloads that left the old code in place." },
}

local KINDS = {
  "open", "received", "unmatched", "sent", "partial", "closed", "toxic", "note", "reload", "error", "failed", "push",
}

---@param text string
---@return string
local function escape(text)
  return (text:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end
M.escape = escape

---@class admin.Page
---@field out string[]
local Page = {}
local page_mt = { __index = Page }

---@param name string
---@param kind "counter"|"gauge"
---@param help string
function Page:family(name, kind, help)
  self.name = "moonport_" .. name
  self.head = ("# HELP %s %s\n# TYPE %s %s\n"):format(self.name, help, self.name, kind)
end

---@param value number|boolean|nil nil: no sample
---@param ... string labels and their values
function Page:sample(value, ...)
  if value == nil then return end
  if type(value) == "boolean" then value = value and 1 or 0 end
  local labels = {}
  for i = 1, select("#", ...), 2 do
    local label, text = select(i, ...)
    labels[#labels + 1] = ('%s="%s"'):format(label, escape(text))
  end
  local out = self.out
  out[#out + 1] = self.head
  self.head = ""
  out[#out + 1] = self.name .. (#labels > 0 and "{" .. table.concat(labels, ",") .. "}" or "")
  out[#out + 1] = (" %s\n"):format(math.tointeger(value) or value)
end

---@param page admin.Page
local function of_servers(page)
  local servers, stats = control.servers(), {}
  table.sort(servers, function(a, b) return a.name < b.name end)
  for i, server in ipairs(servers) do stats[i] = control.stats(server.name) or {} end
  page:family("server_enabled", "gauge", "Whether the server listens.")
  for _, server in ipairs(servers) do page:sample(server.enabled, "server", server.name) end
  page:family("requests_active", "gauge", "Requests under way.")
  for i, server in ipairs(servers) do page:sample(stats[i].active, "server", server.name) end
  for _, counter in ipairs(COUNTERS) do
    page:family(counter[2], "counter", counter[3])
    for i, server in ipairs(servers) do page:sample(stats[i][counter[1]], "server", server.name) end
  end
end

---@param page admin.Page
local function of_journal(page)
  local info, names = journal.info(), {}
  for name in pairs(info.servers) do names[#names + 1] = name end
  table.sort(names)
  for _, one in ipairs {
    { "journal_limit_bytes", "gauge", "Most bytes that the journal keeps.", info.limit },
    { "journal_bytes", "gauge", "Bytes that the journal keeps.", info.bytes },
    { "journal_records", "gauge", "Records that the journal keeps.", info.records },
    { "journal_dropped_total", "counter", "Records that the journal had no room for any more.", info.dropped },
    { "failures", "gauge", "Expectations that failed so far.", info.failures },
  } do
    page:family(one[1], one[2], one[3])
    page:sample(one[4])
  end
  page:family("journal_events_total", "counter", "Events of the journal, those it has dropped included.")
  for _, name in ipairs(names) do
    for _, kind in ipairs(KINDS) do page:sample(info.servers[name][kind], "server", name, "kind", kind) end
  end
  for field, help in pairs { bytes_in = "Bytes received by mocks.", bytes_out = "Bytes sent by mocks." } do
    page:family("mock_" .. field .. "_total", "counter", help)
    for _, name in ipairs(names) do page:sample(info.servers[name][field], "server", name) end
  end
end

---@return string
function M.render()
  local page = setmetatable({ out = {} }, page_mt)
  local options = control.options()
  page:family("info", "gauge", "The version that runs.")
  page:sample(1, "version", options.version or "")
  page:family("start_time_seconds", "gauge", "When the host started, since 1970.")
  page:sample(options.started)
  of_servers(page)
  of_journal(page)
  return table.concat(page.out)
end

return M
