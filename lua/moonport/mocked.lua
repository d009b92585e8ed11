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
    local why = type(answer) == "table" and (answer.error or answer.message) or answer
    error(("%s %s: %d %s"):format(method, path, status, tostring(why)), 2)
  end
  return answer
end

---The same, but the status says how it went.
---@return integer status
---@return any answer
function Mocks:ask(method, path, body, seconds)
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

---Records of the journal: filter is { server=, kind=, since=, wait= seconds }.
---@param filter? table
---@return table[] records
---@return table answer with what else it says: last, dropped
function Mocks:journal(filter)
  local query = {}
  for _, key in ipairs { "server", "kind", "since", "limit" } do
    local value = filter and filter[key]
    if type(value) == "table" then value = table.concat(value, ",") end
    if value ~= nil then query[#query + 1] = key .. "=" .. escape(value) end
  end
  local wait = filter and filter.wait
  if wait then query[#query + 1] = ("wait=%gs"):format(wait) end
  local path = "/journal" .. (#query > 0 and "?" .. table.concat(query, "&") or "")
  local answer = self:call("GET", path, nil, wait)
  return answer.records or answer, answer
end

---Whether what the mocks received is what was to come: see POST /verify. `within` are milliseconds.
---@param question { server: string?, match: any, times: table?, order: table?, within: number? }
---@return true? verified
---@return string? why not, with what came nearest
function Mocks:verify(question)
  local status, answer = self:ask("POST", "/verify", question, (tonumber(question.within) or 0) / 1000)
  if status == 200 then return true end
  local text = type(answer) == "table" and (answer.text or answer.message or answer.error) or answer
  if status == 406 then return nil, tostring(text) end
  error(("POST /verify: %d %s"):format(status, tostring(text)), 2)
end

---Back to what the scripts say: journal, state, stubs and toxics of the API, counters.
function Mocks:reset()
  self:call("POST", "/reset")
  return self
end

---@param name? string
---@return table[]
function Mocks:stubs(name)
  local answer = self:call("GET", path_of(self, name, "/stubs"))
  return answer.stubs or answer
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
function Mocks:close() return self.host:stop() end

function mocks_mt:__close() self.host:stop() end

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
