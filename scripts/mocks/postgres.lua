-- A PostgreSQL up to the first SELECT: start-up, TLS if the client asks for it, a password if one is set, canned
-- queries, errors.
--
--   moonport mock scripts/mocks/postgres.lua
--   psql "host=127.0.0.1 port=PORT user=moon" -c 'SELECT * FROM planets'
--
-- A message comes to the stubs with its type and length, and a query ends with a zero byte: "Q....SELECT 1\0". So a
-- fault is one line:
--   postgres:on("^Q....SELECT", { mock.reset, failure("57014", "canceling statement due to timeout") }, { at = 1 })
-- Its state: `password`, which it asks for in clear if it is set: PUT /servers/postgres/state {"password": "secret"}
local mock = require("moonport.mock")

local STARTUP = mock.length { format = ">I4", adjust = -4 } -- the first message has no type; the length counts itself
local MESSAGE = mock.length { format = ">I4", offset = 1, adjust = -4 }
local PROTOCOL, CANCEL, SSL, GSS = 196608, 80877102, 80877103, 80877104

local postgres = mock.server { "tcp://127.0.0.1:0", name = "postgres", frame = MESSAGE, tls = "starttls" }

local function message(kind, ...)
  local body = table.concat { ... }
  return kind .. string.pack(">I4", #body + 4) .. body
end

local READY = message("Z", "I") -- idle, in no transaction

local function failure(code, text, severity)
  return message("E", "S", severity or "ERROR", "\0V", severity or "ERROR", "\0C", code, "\0M", text, "\0\0")
end

-- The answer to a SELECT: names of columns, and rows of texts.
local function rows(columns, list)
  local fields, out = {}, {}
  for i, name in ipairs(columns) do
    fields[i] = string.pack(">zI4I2I4i2i4I2", name, 0, 0, 25, -1, -1, 0) -- 25: the type text
  end
  out[1] = message("T", string.pack(">I2", #columns), table.concat(fields))
  for _, row in ipairs(list) do
    local values = {}
    for i = 1, #columns do
      values[i] = row[i] and string.pack(">s4", row[i]) or string.pack(">i4", -1) -- NULL
    end
    out[#out + 1] = message("D", string.pack(">I2", #columns), table.concat(values))
  end
  return table.concat(out) .. message("C", "SELECT ", #list, "\0")
end

-- Whether the client may go on.
local function log_in(c)
  local password = postgres.state.password
  if not password then return true end
  c:send(message("R", string.pack(">I4", 3))) -- in clear, please
  local answer = c:recv()
  if answer and answer:sub(6, -2) == password then return true end
  c:send(failure("28P01", "password authentication failed", "FATAL"))
  return false
end

postgres:session(function(c)
  local version
  repeat
    local start = c:recv(STARTUP)
    if not start then return end
    version = string.unpack(">I4", start, 5)
    if version == GSS then c:send "N" end
    if version == SSL then
      c:send "S"
      c:starttls()
    end
  until version ~= SSL and version ~= GSS
  if version == CANCEL then return end
  if version ~= PROTOCOL then return c:send(failure("0A000", "unsupported frontend protocol", "FATAL")) end
  if not log_in(c) then return end
  c:send(message("R", string.pack(">I4", 0)))
  for name, value in pairs { server_version = "15.0", client_encoding = "UTF8", standard_conforming_strings = "on" } do
    c:send(message("S", name, "\0", value, "\0"))
  end
  c:send(message("K", string.pack(">I4I4", c.id, 0)), READY)
  return c:serve()
end)

-- Answers the queries that match a pattern, which gets them in small letters and without a semicolon.
local function on(pattern, answer)
  postgres:on(function(frame)
    local query = frame:match("^Q....%s*(.-)%s*;?%s*\0$")
    return query and query:lower():match(pattern)
  end, answer .. READY)
end

on("^select 1$", rows({ "?column?" }, { { "1" } }))
on("^select version%(%)$", rows({ "version" }, { { "PostgreSQL 15.0 (mock)" } }))
on("^select .* from planets", rows({ "name", "moons" }, { { "Earth", "1" }, { "Mars", "2" }, { "Venus", nil } }))
on("^$", message("I"))
on("^insert ", message("C", "INSERT 0 1\0"))
for _, tag in ipairs { "BEGIN", "COMMIT", "ROLLBACK", "SET" } do
  on("^" .. tag:lower(), message("C", tag, "\0"))
end
postgres:on("^Q....(.*)\0$", function(_, query)
  return failure("42601", "the mock has no answer to: " .. query) .. READY
end)
postgres:on("^X", mock.close)

-- An extended query: one error, and silence until its end.
postgres:on("^S", function(c)
  c.state.failed = nil
  return READY
end)
postgres:otherwise(function(c)
  if c.state.failed then return end
  c.state.failed = true
  return failure("0A000", "the mock knows simple queries only")
end)

return postgres -- for variants: see postgres_mute.lua
