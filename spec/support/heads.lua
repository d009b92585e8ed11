-- Reads requests by moonport.http with its part in C and without, in the host: what comes out is the same.
-- Returns how many were heads, how many were not, and what differed first.

local function load_http(bare)
  local env = setmetatable({ package = { preload = { ["moonport.http.scan"] = not bare } } }, { __index = _G })
  return assert(loadfile("lua/moonport/http.lua", "t", env))()
end
local http, bare = load_http(), load_http(true)

local HEADS = {
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "POST /some/path HTTP/1.0\r\nHost:\tb.test:80\r\nContent-Length: 0\r\nX_y-z!:  two words\r\nEmpty:\r\n\r\n",
}

local function dump(t)
  local out = {}
  for k, v in pairs(t) do out[#out + 1] = ("%q=%s"):format(k, type(v) == "table" and dump(v) or ("%q"):format(v)) end
  table.sort(out)
  return "{" .. table.concat(out, ",") .. "}"
end

---What a reader makes of a text: the request and what is behind it, or why there is none.
local function outcome(of, text)
  local handler = { request = {}, wfile = {} }
  function handler.request.settimeout() end
  function handler.request.recv()
    local data = text
    text = nil
    if data then return data end
    return nil, "closed"
  end
  local reader = of.reader(handler, { line = 60, head = 150, headers = 4 })
  local req, why, status = reader:read()
  return dump { req = req, why = why, status = status, rest = reader.buf:sub(reader.at) }, req ~= nil
end

local good, bad, first = 0, 0, nil
local function compare(text)
  local a, is_head = outcome(http, text)
  local b = outcome(bare, text)
  if is_head then good = good + 1 else bad = bad + 1 end
  if a ~= b and not first then first = ("%q\n%s\n%s"):format(text, a, b) end
end

for _, head in ipairs(HEADS) do
  for at = 1, #head do
    local before, byte, behind = head:sub(1, at - 1), head:sub(at, at), head:sub(at + 1)
    compare(before .. behind)
    compare(before)
    for c in ("\0\t\r\n :?#/,0129aZ[]\x7f\x80\xff"):gmatch(".") do
      compare(before .. c .. behind)
      compare(before .. byte .. c .. behind)
      compare(before .. c:rep(40) .. byte .. behind)
    end
  end
end
for size = 30, 70 do
  compare("GET /" .. ("x"):rep(size) .. " HTTP/1.1\r\nHost: a\r\nX: " .. ("y"):rep(size) .. "\r\n\r\n")
  compare("GET / HTTP/1.1\r\nHost: a\r\n" .. ("N"):rep(size) .. ": 1\r\nn: 2\r\nN: 3\r\n\r\n")
end
for count = 1, 40 do
  compare("GET / HTTP/1.1\r\nHost: a\r\n" .. ("X: 1\r\n"):rep(count) .. "\r\n")
end
return good, bad, first
