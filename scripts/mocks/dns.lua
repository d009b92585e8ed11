-- A name server: A, AAAA, TXT and CNAME records, NXDOMAIN for other names; what is too long for a datagram is cut.
--
--   moonport mock scripts/mocks/dns.lua
--   dig @127.0.0.1 -p PORT www.example.test +short
--   dig @127.0.0.1 -p PORT long.example.test txt +ignore        ;; flags: qr aa tc
--
-- Its state is the zone: PUT /servers/dns/state {"new.example.test": {"A": ["192.0.2.7"]}} gives it other names.
-- Stubs are asked before it. The names of a query stand in it with their lengths, so that a fault is one line:
--   dns:on({ contains = "\3www\7example\4test" }, { mock.none, mock.delay(2, "") })
local mock = require("moonport.mock")

local dns = mock.server { "udp://127.0.0.1:0", name = "dns" }

dns.state["example.test"] = { A = { "192.0.2.1" }, AAAA = { "2001:db8::1" }, TXT = { "v=spf1 -all" } }
dns.state["www.example.test"] = { CNAME = { "example.test" } }
dns.state["long.example.test"] = { TXT = {} }
for letter in ("uvwxyz"):gmatch(".") do
  table.insert(dns.state["long.example.test"].TXT, letter:rep(250))
end

local TYPES = { [1] = "A", [5] = "CNAME", [16] = "TXT", [28] = "AAAA" }
local NUMBERS = { A = 1, CNAME = 5, TXT = 16, AAAA = 28 }
local OPT = 41 -- says how long a datagram the client takes
local TTL = 60

local data = {} -- of a record, from how it is written in the zone

function data.A(text) return string.char(text:match("(%d+)%.(%d+)%.(%d+)%.(%d+)")) end

function data.AAAA(text)
  local function groups(part)
    return (part:gsub("(%x+):?", function(group) return string.pack(">I2", tonumber(group, 16)) end))
  end
  local head, tail = text:match("^(.-)::(.*)$")
  head, tail = groups(head or text), groups(tail or "")
  return head .. ("\0"):rep(16 - #head - #tail) .. tail
end

function data.TXT(text) return string.pack("s1", text) end

function data.CNAME(text)
  return text:gsub("([^.]+)%.?", function(label) return string.pack("s1", label) end) .. "\0"
end

-- The labels of a name from `at` on, with dots; and the position behind it.
local function name_at(query, at)
  local labels = {}
  local label
  repeat
    label, at = string.unpack("s1", query, at)
    labels[#labels + 1] = label ~= "" and label or nil
  until label == ""
  return table.concat(labels, "."), at
end

-- What a query asks for: name, type, class, where the question ends, how long the answer may be.
local function read(query)
  local name, at = name_at(query, 13)
  local kind, class, after = string.unpack(">I2I2", query, at)
  local most = 512
  if #query >= after + 10 then
    local _, extra, size = string.unpack(">BI2I2", query, after)
    if extra == OPT then most = math.max(size, 512) end
  end
  return name, kind, class, after, most
end

-- Appends the records of this name and type, and those of the names that it stands for.
---@return boolean there is such a name
local function look_up(name, kind, class, records)
  local entry = dns.state[name:lower()]
  if not entry then return false end
  for _, of in ipairs { TYPES[kind] or "", kind ~= NUMBERS.CNAME and "CNAME" or "" } do
    for _, text in ipairs(entry[of] or {}) do
      records[#records + 1] = data.CNAME(name) .. string.pack(">I2I2I4s2", NUMBERS[of], class, TTL, data[of](text))
      if of == "CNAME" and kind ~= NUMBERS.CNAME and #records < 10 then look_up(text, kind, class, records) end
    end
  end
  return true
end

dns:otherwise(function(c, query)
  if #query < 12 then return mock.none end
  local id, flags = string.unpack(">I2I2", query)
  local function reply(code, question, records)
    return string.pack(">I2I2I2I2I2I2", id, 0x8480 | flags & 0x7900 | code, question == "" and 0 or 1, #records, 0, 0)
      .. question .. table.concat(records)
  end
  local ok, name, kind, class, after, most = pcall(read, query)
  if not ok then
    c:note("malformed query: " .. name)
    return reply(1, "", {}) -- FORMERR
  end
  local question, records = query:sub(13, after - 1), {}
  local code = look_up(name, kind, class, records) and 0 or 3 -- NXDOMAIN
  local whole = reply(code, question, records)
  return #whole <= most and whole or reply(code | 0x200, question, {}) -- truncated
end)

return dns -- for variants: see dns_slow.lua
