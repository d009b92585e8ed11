--- Bytes in JSON: a string, {"text": "..."}, {"hex": "00 ff"} or {"base64": "AP8="}. Out: text where it is printable
--- UTF-8, else hex; either way every byte comes back.

local json = require("moonport.json")
local refuse = require("moonport.admin.refuse")

local M = {}

local byte, char, find, format = string.byte, string.char, string.find, string.format

---@param s string
---@return string
function M.hex(s)
  return (s:gsub(".", function(c) return format("%02x", byte(c)) end))
end

---@param hex string digits, two each; spaces between bytes
---@param where string
---@return string
function M.unhex(hex, where)
  local digits = hex:gsub("(%x%x)[ \t\r\n]+", "%1"):gsub("^[ \t\r\n]+", "")
  local stray = find(digits, "%X")
  if stray or #digits % 2 == 1 then refuse(400, where .. ": hex needs two hex digits for each byte") end
  return (digits:gsub("%x%x", function(d) return char(tonumber(d, 16)) end))
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local VALUES = {}
for i = 1, 64 do VALUES[byte(ALPHABET, i)] = i - 1 end

---@param text string with its padding
---@param where string
---@return string
function M.unbase64(text, where)
  local body, padding = text:match("^([%w+/]*)(=?=?)$")
  if not body or #text % 4 ~= 0 then refuse(400, where .. ": malformed base64; it needs its padding") end
  local out = {}
  for at = 1, #body, 4 do
    local a, b, c, d = byte(body, at, at + 3)
    local bits = VALUES[a] << 18 | VALUES[b] << 12 | (VALUES[c] or 0) << 6 | (VALUES[d] or 0)
    out[#out + 1] = char(bits >> 16, bits >> 8 & 255, bits & 255):sub(1, d and 3 or c and 2 or 1)
    local spare = d and 0 or c and bits & 255 or bits & 65535
    if spare ~= 0 then refuse(400, where .. ": malformed base64; bits are left over") end
  end
  assert(#padding == (4 - #body % 4) % 4)
  return table.concat(out)
end

---@param s string
---@return boolean
function M.printable(s)
  return not find(s, "[%z\1-\8\11\12\14-\31\127]") and utf8.len(s) ~= nil
end

---@param s string
---@return { text: string }|{ hex: string }
function M.encode(s)
  if M.printable(s) then return { text = s } end
  return { hex = M.hex(s) }
end

---The same where plain text may stand as a string.
---@param s string
---@return string|{ hex: string }
function M.brief(s)
  if M.printable(s) then return s end
  return { hex = M.hex(s) }
end

local READ = {
  text = function(s) return s end,
  hex = M.unhex,
  base64 = M.unbase64,
}

---@param value any of JSON
---@param where string what it is, for the error
---@return string
function M.decode(value, where)
  if type(value) == "string" then return value end
  local kind, given
  if type(value) == "table" and not json.is_array(value) then kind, given = next(value) end
  if not READ[kind] or type(given) ~= "string" or next(value, kind) ~= nil then
    refuse(400, where .. ' needs bytes: a string, {"text": ...}, {"hex": ...} or {"base64": ...}')
  end
  return READ[kind](given, where)
end

---@param value any
---@return boolean
function M.is(value)
  return type(value) == "string" or type(value) == "table" and next(value) ~= nil and READ[next(value)] ~= nil
end

return M
