--- Starts the real program and talks to it: what every end-to-end spec uses.
---
--- Nothing here sleeps: every wait is for a condition and has a limit.  A program
--- that a spec leaves running, or that leaves a descriptor, a task, a child or a
--- socket path behind, fails the spec (see `stop`).

local cjson = require("cjson")
local sys = require("sys")

local M = { sys = sys }

local LIMIT = 30 -- seconds that any one wait may take, also on a machine that is busy with other things
M.LIMIT = LIMIT

-- Seconds that may pass before what is to happen at once: others need the machine as well, now and then for
-- seconds.  What is not done by then waits for something else.  How fast it is, benchmarks say.
M.SOON = 5

local build = os.getenv("MOONPORT_BUILD") or "build"
M.build = build
M.program = build .. "/moonport"

-- The backend that programs are started with, unless a spec says; nil: their default.
M.loop = os.getenv("MOONPORT_LOOP")

local started = {} -- programs that run now

---Waits until condition() is true; its value.
---@generic T
---@param what string|fun(): string for the failure's message
---@param condition fun(): T?
---@param seconds? number
---@return T
function M.eventually(what, condition, seconds)
  local deadline = sys.now() + (seconds or LIMIT)
  while true do
    local value = condition()
    if value then return value end
    if sys.now() > deadline then error("waited in vain: " .. (type(what) == "function" and what() or what), 2) end
    sys.poll(-1, "r", 0.005)
  end
end

---A new empty folder, removed by `M.cleanup()`.
local folders = {}
function M.folder()
  local path = assert(sys.mkdtemp())
  folders[#folders + 1] = path
  return path
end

---Writes a file; with no path, a script in a folder of its own.
---@param text string
---@param path? string
---@return string path
function M.write(text, path)
  path = path or M.folder() .. "/script.lua"
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

function M.read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read("a")
  f:close()
  return text
end

---What a process is doing: "R", "S", "Z" ...; nil: there is none.
function M.state(pid) return (M.read("/proc/" .. pid .. "/stat") or ""):match("%) (%a)") end

local gates = {}

---@class spec.Gate
---@field path string
local Gate = {}
Gate.__index = Gate

---What a handler can block at, in C and for as long as it takes: it opens the gate's path, and reads a byte of it
---without a buffer.  `gate:pass(n)` lets n through.
---@return spec.Gate
function M.gate()
  local path = M.folder() .. "/gate"
  assert(sys.mkfifo(path))
  local gate = setmetatable({ path = path, fd = assert(sys.open(path, "rw")) }, Gate)
  gates[#gates + 1] = gate
  return gate
end

function Gate:pass(n) assert(sys.write(self.fd, ("x"):rep(n or 1))) end

---Lua for a handler: a function `gate()` that blocks there.
function Gate:code()
  return ("local function gate() local f <close> = assert(io.open(%q)) f:setvbuf('no') f:read(1) end"):format(self.path)
end

local sanitizer -- false: none

---The sanitizer's library that the program was built with, if any. Such a program keeps
---freed memory for a while.
---@return string|false
function M.sanitizer()
  if sanitizer == nil then
    local p = assert(io.popen("ldd " .. M.program))
    sanitizer = p:read("a"):match("=> (%S*lib[at]san%S*)") or false
    p:close()
  end
  return sanitizer
end

---What to put in `env` so that a library of the build folder is loaded before all others,
---or, where there is a sanitizer, right after that.
---@param library string
function M.preload(library)
  local first = M.sanitizer()
  return "LD_PRELOAD=" .. (first and first .. " " or "") .. M.build .. "/" .. library
end

---What to put in `env` of a program that runs under strace: the leak checker cannot work there.
function M.traced() return "ASAN_OPTIONS=" .. (os.getenv("ASAN_OPTIONS") or "") .. ":detect_leaks=0" end

---@class spec.Program
---@field pid integer
---@field ready table the ready line
---@field stdin integer? write end of its standard input
local Program = {}
Program.__index = Program

---Everything that the program has logged so far, a table for each event.
---@return table[]
function Program:events()
  local out = {}
  for line in (M.read(self.log_path) or ""):gmatch("([^\n]*)\n") do
    local ok, event = pcall(cjson.decode, line)
    out[#out + 1] = ok and event or { event = "?", line = line }
  end
  return out
end

---The events of this name; waits until there is at least one when `wait`.
function Program:find(name, wait)
  local function look()
    local found = {}
    for _, e in ipairs(self:events()) do
      if e.event == name then found[#found + 1] = e end
    end
    return #found > 0 and found or nil
  end
  if not wait then return look() or {} end
  return M.eventually(function() return "log event '" .. name .. "' in:\n" .. (M.read(self.log_path) or "") end, look)
end

---The URL of the n-th server (in the order of its name: "x", "x-2", "x-3").
function Program:url(name)
  if name then return self.ready.servers[name].url end
  local _, only = next(self.ready.servers)
  return only.url
end

---Under a wrapper (see spec.Options) it is the program that gets the signal.
function Program:kill(signal) return sys.kill(self.child or self.pid, signal) end

---Waits for the end; the exit code, or minus the signal.
function Program:wait(seconds)
  local code = sys.wait(self.pid, seconds or LIMIT)
  if code then
    started[self.pid] = nil
    if self.stdin then sys.close(self.stdin) self.stdin = nil end
  end
  return code
end

---Open descriptors of the program.
function Program:descriptors() return #(sys.list("/proc/" .. (self.child or self.pid) .. "/fd") or {}) end

---Threads of the program, the first one included.
function Program:threads() return #(sys.list("/proc/" .. (self.child or self.pid) .. "/task") or {}) end

---Its child processes: the pid and the state (R, S, Z ...) of each.
---@return { pid: integer, state: string }[]
function Program:children()
  local out, pid = {}, self.child or self.pid
  for _, task in ipairs(sys.list("/proc/" .. pid .. "/task") or {}) do
    for child in (M.read(("/proc/%d/task/%s/children"):format(pid, task)) or ""):gmatch("%d+") do
      out[#out + 1] = { pid = tonumber(child), state = M.state(child) }
    end
  end
  return out
end

---The processes that belong to the program and still run, itself and whatever it has started.
---@return integer[] pids
function Program:processes()
  local out = {}
  for _, name in ipairs(sys.list("/proc")) do
    local state, group = (name:find("^%d") and M.read("/proc/" .. name .. "/stat") or ""):match("%) (%a) %d+ (%d+)")
    if tonumber(group) == self.pid and state ~= "Z" then out[#out + 1] = tonumber(name) end
  end
  return out
end

---The part of a processor that it takes in a second in which nobody asks for anything: the least of three, for
---what the machine does for others can make its few wakings dear.
---@return number share
function Program:idle_share()
  local least = math.huge
  for _ = 1, 3 do
    local cpu, began = sys.cpu(self.pid), sys.now()
    sys.poll(-1, "r", 1) -- nothing to wait for: that is the point
    least = math.min(least, (sys.cpu(self.pid) - cpu) / (sys.now() - began))
  end
  return least
end

---Waits until none of them is left.
function Program:gone(seconds)
  M.eventually("the end of all processes of " .. self.pid, function() return #self:processes() == 0 end, seconds)
end

---Resident KiB.
function Program:memory()
  return tonumber((M.read("/proc/" .. (self.child or self.pid) .. "/status") or ""):match("VmRSS:%s+(%d+)"))
end

---Asks it to drain and checks that nothing is left: exit code 0 and no live object.
function Program:stop()
  self:kill("TERM")
  local code = self:wait()
  local log = M.read(self.log_path)
  assert(code == 0, ("the program did not stop cleanly: %s\n%s"):format(code, log))
  local last = self:find("stopped")[1]
  assert(last, "no 'stopped' event in:\n" .. log)
  for _, what in ipairs { "tasks", "streams", "descriptors", "timers", "buffered" } do
    assert(last[what] == 0, what .. " left after a drain: " .. tostring(last[what]) .. "\n" .. log)
  end
  for _, server in pairs(self.ready.servers) do
    if server.path and server.path:sub(1, 1) ~= "@" then
      assert(not sys.stat(server.path), "socket path left behind: " .. server.path)
    end
  end
  return last
end

---@class spec.Options
---@field listen? string|string[] default tcp://127.0.0.1:0
---@field args? string[] further arguments
---@field env? string[]
---@field nofile? integer
---@field umask? integer
---@field wrap? string[] a command to run it under, such as strace
---@field inject? string[] faults for strace, such as "accept4:error=EINTR:when=1..3"
---@field meanwhile? fun() called again and again while it starts
---@field command? string "serve"
---@field loop? string|false its backend, where only one will do; false: the program's own choice

-- strace with these faults, and the environment that the program then needs: a leak
-- checker cannot work under a tracer.
local function tracer(faults)
  local argv, names = { "strace", "-f", "-qq", "-o", "/dev/null" }, {}
  for _, fault in ipairs(faults) do
    argv[#argv + 1] = "-e"
    argv[#argv + 1] = "inject=" .. fault
    names[#names + 1] = fault:match("^[^:]+")
  end
  argv[#argv + 1] = "-e"
  argv[#argv + 1] = "trace=" .. table.concat(names, ",")
  return argv, { "ASAN_OPTIONS=" .. (os.getenv("ASAN_OPTIONS") or "") .. ":detect_leaks=0" }
end

---Starts `moonport serve SCRIPT`, JSON log, and waits until it is ready.
---@param script string|string[]
---@param options? spec.Options
---@return spec.Program
function M.start(script, options)
  options = options or {}
  local folder = M.folder()
  local argv = {}
  local wrap, env = options.wrap, options.env
  if options.inject then wrap, env = tracer(options.inject) end
  for _, a in ipairs(wrap or {}) do argv[#argv + 1] = a end
  argv[#argv + 1] = M.program
  argv[#argv + 1] = options.command or "serve"
  local scripts = type(script) == "table" and script or { script }
  for _, s in ipairs(scripts) do argv[#argv + 1] = s end
  local listen = options.listen or "tcp://127.0.0.1:0"
  for _, url in ipairs(type(listen) == "table" and listen or { listen }) do
    if url ~= "" then argv[#argv + 1] = "--listen=" .. url end
  end
  argv[#argv + 1] = "--log-format=json"
  argv[#argv + 1] = "--ready-file=" .. folder .. "/ready"
  local loop = options.loop
  if loop == nil then loop = M.loop end
  if loop then argv[#argv + 1] = "--loop=" .. loop end
  for _, a in ipairs(options.args or {}) do argv[#argv + 1] = a end
  local null = assert(sys.open("/dev/null"))
  local log_path = folder .. "/log"
  local log = assert(sys.open(log_path, "w"))
  local stdin, keep = null, nil
  if options.stdin then stdin, keep = sys.pipe() end
  local pid = assert(sys.spawn(argv, {
    env = env, nofile = options.nofile, umask = options.umask,
    stdin = stdin, stdout = log, stderr = log,
  }))
  sys.close(log)
  sys.close(null)
  if options.stdin then sys.close(stdin) end
  local program = setmetatable({ pid = pid, log_path = log_path, stdin = keep }, Program)
  started[pid] = program
  M.eventually("ready line", function()
    if options.meanwhile then options.meanwhile() end
    local code = sys.wait(pid, 0)
    if code then
      started[pid] = nil
      error(("the program ended with %s before it was ready:\n%s"):format(code, M.read(log_path)))
    end
    return sys.stat(folder .. "/ready")
  end)
  program.ready = cjson.decode((M.read(folder .. "/ready")))
  if wrap then program.child = math.tointeger(program.ready.pid) end
  return program
end

---Runs the program to its end; exit code, standard output, standard error.
---@param args string[]
---@param input? string
function M.run(args, input)
  local folder = M.folder()
  local argv = { M.program }
  for _, a in ipairs(args) do argv[#argv + 1] = a end
  M.write(input or "", folder .. "/in")
  local fds = { stdin = assert(sys.open(folder .. "/in")), stdout = assert(sys.open(folder .. "/out", "w")),
    stderr = assert(sys.open(folder .. "/err", "w")) }
  local pid = assert(sys.spawn(argv, fds))
  for _, fd in pairs(fds) do sys.close(fd) end
  local code = sys.wait(pid, LIMIT)
  if not code then
    sys.kill(pid, "KILL")
    sys.wait(pid, LIMIT)
  end
  return code, M.read(folder .. "/out"), M.read(folder .. "/err")
end

---@class spec.Client
---@field fd integer
local Client = {}
Client.__index = Client

---Connects to a URL (of a stream or datagram server).
---@param url string
---@param options? { receive?: integer, send?: integer, bind?: string }
---@return spec.Client
function M.connect(url, options)
  local fd = assert(sys.socket(url))
  if options then
    if options.bind then assert(sys.bind(fd, options.bind)) end
    sys.bufsize(fd, options.receive, options.send)
  end
  if url:find("^tcp") then sys.nodelay(fd) end
  local ok, message, errno = sys.connect(fd, url)
  while not ok and errno == 11 do -- a Unix socket whose queue is full
    sys.poll(-1, "r", 0.01)
    ok, message, errno = sys.connect(fd, url)
  end
  if not ok and errno ~= 115 then
    sys.close(fd)
    error("connect to " .. url .. ": " .. message, 2)
  end
  if not ok then
    assert(sys.poll(fd, "w", LIMIT), "connect to " .. url .. ": timeout")
    local e = sys.error(fd)
    if e ~= 0 then
      sys.close(fd)
      error("connect to " .. url .. ": errno " .. e, 2)
    end
  end
  return setmetatable({ fd = fd, held = "" }, Client)
end

---Sends everything, waiting for room.
function Client:send(data)
  while #data > 0 do
    local n, message, errno = sys.send(self.fd, data)
    if n then
      data = data:sub(n + 1)
    elseif errno == 11 then
      assert(sys.poll(self.fd, "w", LIMIT), "send: timeout")
    else
      return nil, message, errno
    end
  end
  return true
end

---Some bytes; "" at the end of the stream; nil, message, errno.
function Client:some(seconds)
  if self.held ~= "" then
    local held = self.held
    self.held = ""
    return held
  end
  if not sys.poll(self.fd, "r", seconds or LIMIT) then return nil, "timeout", 0 end
  return sys.recv(self.fd)
end

---Exactly n bytes.
function Client:receive(n, seconds)
  local parts, have = { self.held }, #self.held
  self.held = ""
  while have < n do
    local data, message = self:some(seconds)
    if not data or data == "" then
      return nil, (data and "end" or message) .. " after " .. have .. " bytes", table.concat(parts)
    end
    parts[#parts + 1] = data
    have = have + #data
  end
  local all = table.concat(parts)
  self.held = all:sub(n + 1)
  return all:sub(1, n)
end

---One line without its newline.
function Client:line(seconds)
  local have = self.held
  self.held = ""
  while not have:find("\n", 1, true) do
    local data, message = self:some(seconds)
    if not data or data == "" then return nil, data and "end" or message, have end
    have = have .. data
  end
  local at = have:find("\n", 1, true)
  self.held = have:sub(at + 1)
  return have:sub(1, at - 1)
end

---Everything up to the end of the stream; then nil or the error that ended it.
function Client:all(seconds)
  local parts = {}
  while true do
    local data, message, errno = self:some(seconds)
    if not data then return table.concat(parts), message, errno end
    if data == "" then return table.concat(parts) end
    parts[#parts + 1] = data
  end
end

---Sends a line and returns the reply's line.
function Client:ask(line)
  assert(self:send(line .. "\n"))
  return self:line()
end

function Client:finish() return sys.shutdown(self.fd) end

function Client:close()
  if self.fd then sys.close(self.fd) end
  self.fd = nil
end

function Client:reset()
  sys.reset(self.fd)
  self.fd = nil
end
Client.__close = Client.close

---Ends what a failed spec has left running, and removes its folders.  To be called
---after each spec: `after_each(host.cleanup)`.  Fails if a program was still running.
function M.cleanup()
  local left = {}
  for pid, program in pairs(started) do
    sys.kill(-pid, "KILL") -- its whole group: what a wrapper runs as well
    sys.wait(pid, LIMIT)
    left[#left + 1] = (M.read(program.log_path) or ""):sub(-2000)
    started[pid] = nil
  end
  for _, gate in ipairs(gates) do sys.close(gate.fd) end
  for _, path in ipairs(folders) do os.execute("rm -rf '" .. path .. "'") end
  folders, gates = {}, {}
  if #left > 0 then error("a program was left running; its log:\n" .. table.concat(left, "\n")) end
end

return M
