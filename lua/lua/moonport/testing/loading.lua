--- Scripts are loaded into globals of their own, with a `require` of their own: what one test leaves there is not in
--- the way of the next, and the modules that a script requires find the same virtual `moonport`.

local M = {}

-- Copies, so that a script that changes one changes its own.
local LIBRARIES <const> = { "string", "table", "math", "os", "io", "utf8", "debug" }

local PLAIN <const> = { "collectgarbage", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "print",
  "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "warn", "xpcall",
  "_VERSION" }

local function copy(t)
  local out = {}
  for k, v in pairs(t) do out[k] = v end
  return out
end

---@param path string? of the script
local function search_path(path)
  local folder = path and (path:match("^(.*)/[^/]*$") or ".") or "."
  return ("%s/?.lua;%s/?/init.lua;%s"):format(folder, folder, package.path)
end

-- Lua's own loader, but for text alone.
local function read(path)
  local f, why = io.open(path, "rb")
  if not f then return nil, "cannot open " .. path .. " (" .. tostring(why):gsub("^.*: ", "") .. ")" end
  local text = f:read("a")
  f:close()
  text = text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", "")
  return text
end

---@param env table
---@param package table
local function new_require(env, package)
  local function find(name)
    local preload = package.preload[name]
    if preload then return preload, ":preload:" end
    local path, tried = package.searchpath(name, package.path)
    if not path then return nil, tried end
    local text, why = read(path)
    local chunk
    if text then chunk, why = load(text, "@" .. path, "t", env) end
    if not chunk then error(("error loading module '%s' from file '%s':\n\t%s"):format(name, path, why), 3) end
    return chunk, path
  end

  return function(name)
    if package.loaded[name] then return package.loaded[name] end
    local loader, data = find(name)
    if not loader then -- one in C
      local ok, value = pcall(require, name)
      if not ok then
        error(("module '%s' not found:\n\tno field package.preload['%s']\n\t%s"):format(name, name, data), 2)
      end
      package.loaded[name] = value
      return value
    end
    local value = loader(name, data)
    if value ~= nil then package.loaded[name] = value end
    if package.loaded[name] == nil then package.loaded[name] = true end
    return package.loaded[name], data
  end
end

---@param env table
local function new_load(env)
  return function(chunk, name, _, ...)
    if select("#", ...) > 0 then return load(chunk, name, "t", (...)) end
    return load(chunk, name, "t", env)
  end
end

-- Lua's own: a test suite may have put something else in its place.
local function plain_assert(...)
  if select("#", ...) == 0 then error("bad argument #1 to 'assert' (value expected)", 2) end
  if (...) then return ... end
  if select("#", ...) == 1 then error("assertion failed!", 0) end
  error((select(2, ...)), 0)
end

---@param host testing.Host
---@param path string? of the script
---@param modules table<string, any>
---@return table env
function M.environment(host, path, modules)
  local env = {}
  for _, name in ipairs(PLAIN) do env[name] = _G[name] end
  for _, name in ipairs(LIBRARIES) do env[name] = copy(_G[name]) end
  env.assert = plain_assert
  env._G, env.coroutine = env, modules.moonport.coroutine
  local real_date = os.date
  function env.os.time(t) return t and os.time(t) or math.floor(host.time()) end
  function env.os.date(format, t) return real_date(format, t or math.floor(host.time())) end
  function env.os.clock() return host.world.now + 0.0 end
  env.package = { path = search_path(path), cpath = package.cpath, config = package.config, preload = {},
    searchpath = package.searchpath, loaded = copy(modules) }
  local loaded = env.package.loaded
  loaded._G, loaded.package, loaded.coroutine = env, env.package, env.coroutine
  for _, name in ipairs(LIBRARIES) do loaded[name] = env[name] end
  env.require, env.load = new_require(env, env.package), new_load(env)
  function env.loadfile(file, _, ...)
    local text, why = read(file)
    if not text then return nil, why end
    return env.load(text, "@" .. file, "t", ...)
  end
  function env.dofile(file)
    local chunk, why = env.loadfile(file)
    if not chunk then error(why, 0) end
    return chunk()
  end
  return env
end

---@param env table
---@param value any what the script has returned
---@param host testing.Host
---@param name string
---@return table handler
local function handler_of(env, value, host, name)
  if type(value) == "table" and type(value.handle) == "function" then return value end
  if value == nil and type(rawget(env, "handle")) == "function" then
    local handler = {}
    for _, field in ipairs { "setup", "handle", "finish", "save", "init" } do
      if type(rawget(env, field)) == "function" then handler[field] = env[field] end
    end
    return handler
  end
  if value == nil and host.default_handler then return host.default_handler end
  error(("%s has no handle: return a table with a function `handle`, or define a global function "
    .. "`handle(self)`"):format(name), 0)
end

---Loads a script by its path, or by its text, which has a newline or a space in it.
---@param host testing.Host
---@param script string
---@param modules table<string, any>
---@return table handler
---@return string name
---@return table env
function M.load(host, script, modules)
  local is_text = script:find("[\n ]") and not script:find("^%S*%.lua$")
  local path = not is_text and script or nil
  local env = M.environment(host, path, modules)
  local text = script
  if path then
    local found, why = read(path)
    if not found then error("cannot load " .. path .. ": " .. why, 0) end
    text = found
  end
  local chunk, why = load(text, path and "@" .. path or "=script", "t", env)
  if not chunk then error(why, 0) end
  host.default_handler = nil
  host.world.loading = true
  local ok, value = pcall(chunk)
  host.world.loading = nil
  if not ok then error(value, 0) end
  local name = path and path:match("([^/]*)$"):gsub("%.lua$", "") or "script"
  return handler_of(env, value, host, path or "the script"), name, env
end

return M
