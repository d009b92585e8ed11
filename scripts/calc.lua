-- A calculator that speaks JSON, one value a line.
--
--   moonport serve scripts/calc.lua
--   printf '%s\n' '{"op":"add","args":[1,2]}' 'oops' | nc -N 127.0.0.1 9999
--   {"result":3}
--   {"error":"Expected value but found invalid token at character 1"}
local cjson = require("cjson.safe").new()
cjson.decode_invalid_numbers(false)

local Calc = {}

local operations = {
  add = function(a, b) return a + b end,
  sub = function(a, b) return a - b end,
  mul = function(a, b) return a * b end,
  div = function(a, b) return a / b end,
}

---@param line string
---@return number? result
---@return string? why
local function calculate(line)
  local ask, why = cjson.decode(line)
  if ask == nil then return nil, why end
  local operation = type(ask) == "table" and operations[ask.op]
  if not operation then return nil, "op must be one of add, sub, mul, div" end
  local args = ask.args
  if type(args) ~= "table" or #args == 0 then return nil, "args must be a list of numbers" end
  for i = 1, #args do
    if type(args[i]) ~= "number" then return nil, ("args[%d] is not a number"):format(i) end
  end
  local result = args[1]
  for i = 2, #args do
    result = operation(result, args[i])
  end
  if result - result ~= 0 then return nil, "the result is not a finite number" end
  return result
end

function Calc:handle()
  local line, why = self.rfile:read("l")
  while line do
    local result, problem = calculate(line)
    -- cjson would cut numbers to 14 digits.
    self.wfile:write(result and ('{"result":%.16g}'):format(result) or cjson.encode({ error = problem }), "\n")
    line, why = self.rfile:read("l")
  end
  if why == "line too long" then -- where the next one begins is not known
    self.wfile:write('{"error":"line too long"}\n')
  end
end

return Calc
