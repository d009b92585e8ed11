--- Which function answers a method and path. Names in paths are decoded once, strictly; they are names of things in
--- memory, and nothing here opens a file.

local near = require("moonport.admin.near")
local naming = require("moonport.naming")
local refuse = require("moonport.admin.refuse")

local M = {}

---@class admin.Route
---@field method string
---@field path string "/servers/{s}/stubs/{id}"
---@field about string one line for the index
---@field run fun(call: admin.Call): any, integer?, string?
---@field script boolean? its body may be Lua
---@field parts string[]

---@class admin.Router
---@field routes admin.Route[]
local Router = {}
local router_mt = { __name = "admin.Router", __index = Router }

---@return admin.Router
function M.new() return setmetatable({ routes = {} }, router_mt) end

local function split(path)
  local parts = {}
  for part in path:gmatch("/([^/]*)") do parts[#parts + 1] = part end
  return parts
end

---@param method string
---@param path string
---@param about string
---@param run fun(call: admin.Call): any, integer?, string?
---@return admin.Route
function Router:add(method, path, about, run)
  local route = { method = method, path = path, about = about, run = run, parts = split(path) }
  self.routes[#self.routes + 1] = route
  return route
end

---@param s string
---@param what string
---@return string
function M.unescape(s, what)
  local stray = s:gsub("%%%x%x", ""):find("%", 1, true)
  if stray then refuse(400, what .. ": a % must be followed by two hex digits") end
  return (s:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

---A name as it stands in a path.
---@param part string
---@return string
local function name_of(part)
  local name = M.unescape(part, "path")
  if not naming.is(name) then refuse(400, "a name in a path " .. naming.RULE) end
  return name
end

---@param parts string[]
---@param route admin.Route
---@return boolean
local function fits(parts, route)
  if #parts ~= #route.parts then return false end
  for i, part in ipairs(route.parts) do
    if part:byte() ~= 123 and part ~= parts[i] then return false end
  end
  return true
end

---@param parts string[]
---@param route admin.Route
---@return table<string, string>
local function names_in(parts, route)
  local names = {}
  for i, part in ipairs(route.parts) do
    local key = part:match("^{(.*)}$")
    if key then names[key] = parts[i] end
  end
  return names
end

---@param method string
---@param path string as sent
---@return admin.Route
---@return table<string, string> names
function Router:find(method, path)
  local parts, allowed = split(path), {}
  for i, part in ipairs(parts) do
    if part ~= "" or #parts > 1 then parts[i] = name_of(part) end
  end
  local wanted = method == "HEAD" and "GET" or method
  for _, route in ipairs(self.routes) do
    if fits(parts, route) then
      if route.method == wanted then return route, names_in(parts, route) end
      allowed[#allowed + 1] = route.method
      if route.method == "GET" then allowed[#allowed + 1] = "HEAD" end
    end
  end
  if #allowed > 0 then
    local list = table.concat(allowed, ", ")
    refuse(405, ("%s is not for this path; %s is"):format(method, list), nil, "Allow: " .. list .. "\r\n")
  end
  local paths, seen = {}, {}
  for _, route in ipairs(self.routes) do
    if not seen[route.path] then
      seen[route.path] = true
      paths[#paths + 1] = route.path
    end
  end
  refuse(404, "there is nothing at this path" .. near(path, paths))
end

---@param query string?
---@param known table<string, boolean>
---@return table<string, string>
function M.query(query, known)
  local out, names = {}, {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  for pair in (query or ""):gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = M.unescape(name:gsub("+", " "), "query"), M.unescape(value:gsub("+", " "), "query")
    if not known[name] then
      local shown = name:find("^[%w_]+$") and name or "such name"
      refuse(400, ("the query has no %s here%s"):format(shown, near(name, names)))
    end
    if out[name] then refuse(400, "the query has " .. name .. " twice") end
    out[name] = value
  end
  return out
end

return M
