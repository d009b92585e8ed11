--- RESP2, the Redis protocol, seen from the server: reads commands, either arrays of
--- bulk strings or inline, and writes bulk strings.

local M = {}

local MAX_WORDS = 64 * 1024 -- in one command; Redis: 1024 * 1024
local MAX_BYTES = 64 * 1024 * 1024 -- of all its words together
local MAX_LINE = 64 * 1024
local SHORT = 40 -- Lua compares strings up to this length by address

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

-- The host has it in preload; where there is no host, commands are compared one by one.
local repeats = package.preload["moonport.resp.scan"] and require("moonport.resp.scan").repeats

-- The usual counts and lengths, so that they cost a look-up and no conversion.
local number_of = {}
for i = 0, 255 do
  number_of[tostring(i)] = i
end

local ESCAPES = { n = "\n", r = "\r", t = "\t", a = "\a", b = "\b" }

---@param word string what stood between double quotes
---@return string
local function unescape(word)
  word = word:gsub("\\(.)(%x?%x?)", function(c, hex)
    if c == "x" and #hex == 2 then return string.char(tonumber(hex, 16)) end
    return (ESCAPES[c] or c) .. hex
  end)
  return word
end

---Splits an inline command as Redis does: words, "with \x41 escapes" or 'without'.
---@param line string
---@param args string[] filled from 1 on
---@return integer? n how many words
---@return string? why
local function split(line, args)
  local n, at, stop = 0, match(line, "^%s*()"), #line
  while at <= stop do
    local word, after
    local quote = sub(line, at, at)
    if quote == '"' or quote == "'" then
      local from = at + 1
      after = from
      while sub(line, after, after) ~= quote do
        if after > stop then return nil, "Protocol error: unbalanced quotes in request" end
        local skip = sub(line, after, after) == "\\" and (quote == '"' or sub(line, after + 1, after + 1) == "'")
        after = after + (skip and 2 or 1)
      end
      word = sub(line, from, after - 1)
      word = quote == '"' and unescape(word) or word:gsub("\\'", "'")
      after = after + 1
      if not match(line, "^%s", after) and after <= stop then
        return nil, "Protocol error: unbalanced quotes in request"
      end
    else
      word, after = match(line, "^(%S+)()", at)
    end
    n = n + 1
    args[n] = word
    at = match(line, "^%s*()", after)
  end
  return n
end

---@param line string? what a read gave
---@param why string?
---@param first string what the line must begin with
---@param max integer
---@param what string
---@return integer? number
---@return string? why
local function number_in(line, why, first, max, what)
  if not line or byte(line, -1) ~= 10 then
    return nil, why == "line too long" and "Protocol error: too big " .. what .. " count string" or why or "closed"
  elseif sub(line, 1, 1) ~= first then
    return nil, ("Protocol error: expected '%s', got '%s'"):format(first, (sub(line, 1, 1):gsub("%c", " ")))
  end
  local number = math.tointeger(tonumber(match(line, "^.(-?%d+)\r?\n$")))
  if not number or number > max or (number < 0 and first == "$") then
    return nil, "Protocol error: invalid " .. what .. " length"
  end
  return number
end

---@class resp.Reader
---@field args string[] the words of the last command; to be left as they are, and copied to be kept
---@field private request moonport.Request
---@field private rfile moonport.RFile
---@field private buf string received and not yet parsed: from `at` on
---@field private at integer
---@field private last string? the text of the last command, if short
local Reader = {}
local reader_mt = { __name = "resp.Reader", __index = Reader }

---A reader takes what has come in one call and parses it here, which is faster than a call for each line;
---what is not complete it fetches from `rfile`, for both share one buffer.
---@param request moonport.Request
---@param rfile moonport.RFile of the same connection
---@return resp.Reader
function M.reader(request, rfile)
  return setmetatable({ request = request, rfile = rfile, buf = "", at = 1, args = {} }, reader_mt)
end

---@private
---@return string? line with its newline, unless the stream ends before
---@return string? why
function Reader:line()
  local buf, at = self.buf, self.at
  local nl = find(buf, "\n", at, true)
  local line, why
  if nl then
    line = sub(buf, at, nl)
    self.at = nl + 1
  else
    line, why = self.rfile:read("L")
    line = line and sub(buf, at) .. line
    self.buf, self.at = "", 1
  end
  if line and #line > MAX_LINE then return nil, "line too long" end
  return line, why
end

---@private
---@param n integer
---@return string? bytes nil when the stream ends before
function Reader:exactly(n)
  local buf, at = self.buf, self.at
  if at + n - 1 <= #buf then
    self.at = at + n
    return sub(buf, at, at + n - 1)
  end
  local rest = self.rfile:readexactly(n - (#buf - at + 1))
  self.buf, self.at = "", 1
  return rest and sub(buf, at) .. rest
end

---Parses an array that is here as a whole and has only short words.
---@private
---@return integer? n nil: it is not, and nothing was taken
function Reader:array_at_hand()
  local buf, args = self.buf, self.args
  local count, size, from = match(buf, "^%*(%d+)\r\n%$(%d+)\r\n()", self.at)
  local n = number_of[count]
  if not n or n == 0 then return nil end
  for i = 1, n do
    if i > 1 then
      size, from = match(buf, "^%$(%d+)\r\n()", from)
    end
    local length = number_of[size]
    if not length then return nil end
    local cr, lf = byte(buf, from + length, from + length + 1)
    if cr ~= 13 or lf ~= 10 then return nil end
    args[i] = sub(buf, from, from + length - 1)
    from = from + length + 2
  end
  self.at = from
  return n
end

---Parses any command, waiting for what has not come yet.
---@private
---@return integer? n
---@return string? why
function Reader:command()
  local line, why = self:line()
  if why == "line too long" then
    return nil, "Protocol error: too big inline request"
  elseif line and byte(line) ~= 42 and byte(line, -1) == 10 then -- 42: "*"
    return split(line, self.args)
  end
  local n, left
  n, why = number_in(line, why, "*", MAX_WORDS, "multibulk")
  left = MAX_BYTES
  for i = 1, n or 0 do
    local size
    line, why = self:line()
    size, why = number_in(line, why, "$", left, "bulk")
    if not size then return nil, why end
    local word = self:exactly(size + 2)
    if not word then
      return nil, "closed"
    elseif sub(word, -2) ~= "\r\n" then
      return nil, "Protocol error: bulk string longer than its length"
    end
    self.args[i] = sub(word, 1, -3)
    left = left - size
  end
  return n and n < 0 and 0 or n, why
end

---Reads a command into `args`. Yields.
---@return integer? n how many words; 0 for an empty line or array, which gets no reply
---@return string? why one that begins with "Protocol error" is for the peer
function Reader:read()
  local buf, at = self.buf, self.at
  if at > #buf then
    local why
    self.buf = "" -- an idle connection keeps nothing
    buf, why = self.request:recv()
    if not buf then return nil, why end
    self.buf, self.at, at = buf, 1, 1
  end
  local n, why = self:array_at_hand()
  if not n then
    n, why = self:command()
  end
  local stop = self.at
  self.last = n and self.buf == buf and stop - at <= SHORT and sub(buf, at, stop - 1) or nil
  return n, why
end

---A framing for mocks: each frame is a command as people write it, "SET greeting hello world", its name in capitals,
---whether it has come as an array of bulk strings or in a line.
---@param options? frame.CustomOptions
---@return frame.Framing
function M.framing(options)
  local scan = require("moonport.resp.scan")
  local framing = require("moonport.frame").custom(scan.command, options)
  framing.bare = scan.bare(framing.max, framing.next) -- what our own function gives needs no check
  return framing
end

---@param wfile moonport.WFile
---@param s string|number|nil nil is written as the null bulk string
function M.bulk(wfile, s)
  if s then
    s = tostring(s)
    wfile:write("$", #s, "\r\n", s, "\r\n")
  else
    wfile:write("$-1\r\n")
  end
end

local function ignore() end

local function refuse_unknown(wfile, args)
  wfile:write("-ERR unknown command '", sub(args[1], 1, 128):gsub("%c", " "), "'\r\n")
end

local function refuse_count(wfile, args)
  wfile:write("-ERR wrong number of arguments for '", args[1]:lower(), "' command\r\n")
end

---@return fun(wfile: moonport.WFile, args: string[], n: integer): string?
local function find_command(commands, words, args, n)
  if n == 0 then return ignore end
  local name = commands[args[1]] and args[1] or args[1]:upper()
  if not commands[name] then return refuse_unknown end
  return (words[name] or n) == n and commands[name] or refuse_count
end

---Serves commands until the peer leaves, breaks the protocol, or a command returns "quit". Yields.
---@param handler moonport.StreamHandler
---@param commands table<string, fun(wfile: moonport.WFile, args: string[], n: integer): string?> by upper-case
--- name; each gets the words (see resp.Reader.args) and how many they are, and writes its reply
---@param words? table<string, integer> how many words a command must have, its name included; others: any
function M.serve(handler, commands, words)
  local wfile, reader = handler.wfile, M.reader(handler.request, handler.rfile)
  local args, n, command = reader.args, nil, nil
  local buf, at, last, size = "", 1, nil, 0 -- the reader's, at hand
  words = words or {}
  while true do
    local times = 1
    -- Pipelines repeat themselves, and the same text is the same command.
    if last and sub(buf, at, at + size) == last then
      -- n, args and command still hold
      times = repeats and repeats(buf, at, last) or 1
      at = at + times * (size + 1)
    else
      local why
      reader.at = at
      n, why = reader:read()
      if not n then
        if sub(why, 1, 14) == "Protocol error" then wfile:write("-ERR ", why, "\r\n") end
        return
      end
      buf, at, last = reader.buf, reader.at, reader.last
      size = last and #last - 1
      command = find_command(commands, words, args, n)
    end
    for _ = 1, times do
      if command(wfile, args, n) == "quit" then return end
    end
  end
end

return M
