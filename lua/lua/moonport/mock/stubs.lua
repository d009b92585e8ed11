--- Stubs as data: what the control API takes and tells.

local match = require("moonport.mock.match")
local reply = require("moonport.mock.reply")

local M = {}

local FIELDS = { id = true, match = true, reply = true, required = true, times = true }
local TOLD = { uses = true, api = true, where = true } -- what data() adds may come back

---@param server mock.Server
---@param spec table {id=, match=, reply=, required=, times=}
---@return mock.Stub? stub of no list yet
---@return string? why
function M.make(server, spec)
  if type(spec) ~= "table" then return nil, "a stub is an object with match and reply" end
  for field in pairs(spec) do
    if not FIELDS[field] and not TOLD[field] then
      return nil, ("a stub has no field %s; there are id, match, reply, required and times"):format(
        match.quote(tostring(field)))
    end
  end
  if spec.match == nil then return nil, "a stub needs match" end
  if spec.reply == nil then return nil, "a stub needs reply" end
  return server:make_stub(spec.match, spec.reply,
    { id = spec.id, required = spec.required, times = spec.times }, "the control API", true)
end

---@param stub mock.Stub
---@return table data plain
function M.data(stub)
  return {
    id = stub.id, match = stub.match.spec, reply = reply.data(stub.reply), required = stub.required or nil,
    times = stub.times, uses = stub.uses, api = stub.api, where = stub.where,
  }
end

return M
