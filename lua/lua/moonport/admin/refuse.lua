--- How a route says no: `refuse(404, "there is no ...")` ends it, and that is the reply.

---@class admin.Refusal
---@field status integer
---@field message string one sentence
---@field extra table? further fields of the reply
---@field headers string? further header lines
local refusal_mt = { __name = "admin.Refusal", __tostring = function(self) return self.message end }

local M = setmetatable({}, {
  __call = function(_, status, message, extra, headers)
    error(setmetatable({ status = status, message = message, extra = extra, headers = headers }, refusal_mt), 0)
  end,
})

---@param err any
---@return boolean whether it was raised here
function M.is(err) return getmetatable(err) == refusal_mt end

---@overload fun(status: integer, message: string, extra?: table, headers?: string)
return M
