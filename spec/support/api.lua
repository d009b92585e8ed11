--- A client of the control API: requests on one connection, JSON both ways.

local cjson = require("cjson")
local host = require("support.host")
local sys = host.sys

local M = {}

---@class spec.Api
---@field private c spec.Client
---@field private authority string
local Api = {}
Api.__index = Api

---@param program spec.Program
---@return spec.Api
function M.connect(program)
  local authority = program.ready.admin:match("^http://(.*)$")
  return setmetatable({ c = host.connect("tcp://" .. authority), authority = authority }, Api)
end

---@param method string
---@param path string
---@param body? table|string JSON already, if it is a string
function Api:send(method, path, body)
  local text = type(body) == "table" and cjson.encode(body) or body or ""
  local kind = text ~= "" and "Content-Type: application/json\r\n" or ""
  assert(self.c:send(("%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(method, path,
    self.authority, kind, #text, text)))
end

---@return boolean whether an answer has begun to come
function Api:ready(seconds) return sys.poll(self.c.fd, "r", seconds or 0) and true or false end

---@return integer status
---@return any answer
---@return string head
function Api:receive()
  local head, length = {}, 0
  for line in function() return self.c:line(60) end do
    if line == "\r" then break end
    head[#head + 1] = line:gsub("\r$", "")
    length = tonumber(line:lower():match("^content%-length: *(%d+)")) or length
  end
  local status = tonumber((assert(head[1], "no answer"):match("^HTTP/1%.1 (%d+) ")))
  local text = length > 0 and assert(self.c:receive(length)) or ""
  return status, text:find("^[%[{]") and cjson.decode(text) or text, table.concat(head, "\n")
end

function Api:ask(...)
  self:send(...)
  return self:receive()
end

---The same, but it must go well.
function Api:must(method, path, body)
  local status, answer = self:ask(method, path, body)
  local why = type(answer) == "table" and answer.error or answer
  assert(status < 300, ("%s %s: %d %s"):format(method, path, status, why))
  return answer
end

function Api:close() self.c:close() end
Api.__close = Api.close

return M
