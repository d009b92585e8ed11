--- moonport.mock: mocks in this process, on a thread of their own, and their control API in Lua.

local api = require("moonport.mocked.api")
local moonport = require("moonport")

---@class moonport.Mocks
---@field admin string? URL of the control API
---@field servers table<string, { url: string, class: string, host: string?, port: integer?, path: string? }>
---@field url string of the only mock
---@field private host table
---@field private token string?
local Mocks = {}

---@private
local function names_of(servers)
  local names = {}
  for name in pairs(servers) do names[#names + 1] = name end
  table.sort(names)
  return names
end

---The mock of that name, or the only one.
local function pick(self, name)
  local servers = rawget(self, "servers")
  if not name then
    local names = names_of(servers)
    if #names > 1 then error("there are several mocks, say which: " .. table.concat(names, ", "), 3) end
    name = names[1]
  end
  return servers[name], name
end

---@private
local mocks_mt = { __name = "moonport.Mocks" }

function mocks_mt:__index(key)
  if key == "url" then return pick(self).url end
  return Mocks[key]
end

function mocks_mt:__tostring() return "mocks " .. table.concat(names_of(self.servers), ", ") end

---Asks the control API. Errors of the caller raise.
---@param method string
---@param path string
---@param body? table
---@param seconds? number how long the answer itself may take
---@return any answer
function Mocks:call(method, path, body, seconds)
  local status, answer = self:ask(method, path, body, seconds)
  if status >= 400 then
    local why = type(answer) == "table" and answer.error or answer
    error(("%s %s: %d %s"):format(method, path, status, tostring(why)), 2)
  end
  return answer
end

---The same, but the status says how it went.
---@return integer status
---@return any answer
function Mocks:ask(method, path, body, seconds)
  if rawget(self, "closed") then error("these mocks are closed", 2) end
  if not self.admin then error("these mocks have no control API: admin = false", 2) end
  return api.ask(self, method, path, body, seconds)
end

---What is special in a URL's path or query.
local function escape(text)
  return (tostring(text):gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

---The path of a mock, one that was made over the API included.
local function path_of(self, name, rest)
  if not name then name = select(2, pick(self)) end
  return "/servers/" .. escape(name) .. (rest or "")
end

---An optional name, then the argument itself.
local function with_name(name, value)
  if type(name) == "string" then return name, value end
  return nil, name
end

---@param name? string needed if there are several
---@return integer? port
function Mocks:port(name) return (pick(self, name) or error("there is no mock " .. name, 2)).port end

---@param name? string
---@return string host or the path of a Unix socket
---@return integer? port
function Mocks:address(name)
  local place = pick(self, name) or error("there is no mock " .. name, 2)
  return place.host or place.path, place.port
end

local PAGE_RECORDS, PAGE_BYTES = 1000, 1 << 20 -- what one answer holds at most

---Whether there may be more behind these.
local function is_full(records)
  local size = 0
  for _, record in ipairs(records) do size = size + #(record.data or "") end
  return #records >= PAGE_RECORDS or size >= PAGE_BYTES
end

---@param filter table
---@return string
local function query_of(filter)
  local query = {}
  for key, value in pairs(filter) do
    if type(value) == "table" then value = table.concat(value, ",") end
    if key == "wait" then value = ("%gs"):format(value) end
    query[#query + 1] = escape(key) .. "=" .. escape(value)
  end
  table.sort(query)
  return #query > 0 and "?" .. table.concat(query, "&") or ""
end

---Records of the journal: seq, kind, server, conn, time, data, detail; data are bytes.
---@param filter? { server: string?, kind: (string|string[])?, since: integer?, conn: integer?, limit: integer?,
---wait: number? } wait: seconds for the first one, at most 60
---@return table[] records
---@return { next: integer, dropped: integer } answer `next` is the `since` of what comes later
function Mocks:journal(filter)
  local asked, all, answer = {}, {}
  for key, value in pairs(filter or {}) do asked[key] = value end
  repeat
    answer = self:call("GET", "/journal" .. query_of(asked), nil, asked.wait)
    table.move(answer.records, 1, #answer.records, #all + 1, all)
    asked.since, asked.wait = answer.next, nil
  until asked.limit or not is_full(answer.records)
  answer.records = nil
  return all, answer
end

---What a verify that failed has to say, what came nearest included.
local function complaint(answer)
  if type(answer) ~= "table" then return tostring(answer) end
  local lines = { tostring(answer.error) }
  for _, near in ipairs(answer.near or {}) do
    lines[#lines + 1] = ("  near miss: #%s %q: %s"):format(near.seq, near.data, near.why)
  end
  return table.concat(lines, "\n")
end

---@param seconds number?
local function milliseconds(seconds) return seconds and math.ceil(seconds * 1000) end

---Whether the mocks received what is asked for; see POST /verify, but for times, which are seconds here.
---@param question { server: string?, match: any, times: any, order: any[]?, within: number?, settle: number? }
---@return table? answer the count, and the records
---@return string? why not, with what came nearest
function Mocks:verify(question)
  local body, seconds = {}, (question.within or 0) + (question.settle or 0)
  for key, value in pairs(question) do body[key] = value end
  body.within, body.settle = milliseconds(question.within), milliseconds(question.settle)
  local status, answer = self:ask("POST", "/verify", body, seconds)
  if status == 200 then return answer end
  if status == 406 then return nil, complaint(answer) end
  error(("POST /verify: %d %s"):format(status, complaint(answer)), 2)
end

---Back to what the scripts say: journal, state, stubs and toxics of the API, counters.
---@param what? { server: string?, verdict: boolean? } one server; what has failed is forgotten as well
function Mocks:reset(what)
  self:call("POST", "/reset", what)
  return self
end

---@param name? string
---@return table[]
function Mocks:stubs(name)
  return self:call("GET", path_of(self, name, "/stubs")).stubs
end

---Adds a stub: mocks:stub([name,] { match=, reply=, ... }).
---@return table stub with its id
function Mocks:stub(name, stub)
  name, stub = with_name(name, stub)
  return self:call("POST", path_of(self, name, "/stubs"), stub)
end

---Adds a toxic: mocks:toxic([name,] { type=, ... }).
---@return table toxic
function Mocks:toxic(name, toxic)
  name, toxic = with_name(name, toxic)
  return self:call("POST", path_of(self, name, "/toxics"), toxic)
end

---A mock's state, or a new one: mocks:state([name] [, table]).
---@return table state
function Mocks:state(name, state)
  name, state = with_name(name, state)
  if state then return self:call("PUT", path_of(self, name, "/state"), state) end
  return self:call("GET", path_of(self, name, "/state"))
end

---Ends the mocks; their ports are free when it returns. Harmless when repeated.
---@return string[] failures what was expected of clients and did not come
function Mocks:close()
  self.closed = true
  return self.host:stop()
end

mocks_mt.__close = Mocks.close

---@class moonport.mock.Options
---@field admin? string|false HOST:PORT of the control API ("127.0.0.1:0")
---@field token? string that requests to it must carry
---@field options? table attributes of the mocks' servers
---@field log_level? string "warn"

---@param scripts string|string[]
---@param options? moonport.mock.Options
---@return moonport.Mocks
return function(scripts, options)
  if type(scripts) == "string" then scripts = { scripts } end
  local host = moonport.mocking(scripts, options or {})
  return setmetatable({ host = host, admin = host.admin, servers = host.servers, token = options and options.token },
    mocks_mt)
end
