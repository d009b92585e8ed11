--- Assertions about mocks, for busted and whatever else uses luassert: `require("moonport.luassert")` once, then
---
---     assert.has.received(mocks, "^GET moon$", { times = 2, within = 2 })
---     assert.has_no.received(mocks, "^DEL ")
---     assert.has.connections(mocks, 2)
---
--- A failure says what came nearest.

local luassert = require("luassert")
local say = require("say")

-- What came, for those who did not want it.
local function told(answer)
  local lines = { ("it came %d times:"):format(answer.count) }
  for _, record in ipairs(answer.records) do
    lines[#lines + 1] = ("  #%d %s %q"):format(record.seq, record.server, record.data)
  end
  return table.concat(lines, "\n")
end

---@param state table luassert's
---@param mocks moonport.Mocks
---@param question table of mocks:verify
---@return boolean
local function holds(state, mocks, question)
  local answer, why = mocks:verify(question)
  state.failure_message = answer and told(answer) or why
  return answer ~= nil
end

---@param arguments table luassert's
---@param name string of the assertion
---@return moonport.Mocks
local function mocks_of(arguments, name)
  local mocks = arguments[1]
  if type(mocks) ~= "table" or not mocks.verify then
    error(("assert.has.%s: its first argument must be what moonport.mock gave"):format(name), 0)
  end
  return mocks
end

---received(mocks, match [, question]): a frame came that the matcher takes; `times`, `server`, `within` and the rest of
---mocks:verify in the question.
local function received(state, arguments)
  local mocks, question = mocks_of(arguments, "received"), {}
  for key, value in pairs(arguments[3] or {}) do question[key] = value end
  question.match = arguments[2]
  return holds(state, mocks, question)
end

---connections(mocks, n [, question]): so many were made, no more and no fewer.
local function connections(state, arguments)
  local mocks, question = mocks_of(arguments, "connections"), {}
  for key, value in pairs(arguments[3] or {}) do question[key] = value end
  question.kind, question.match, question.times = "open", "", arguments[2]
  return holds(state, mocks, question)
end

local function register(name, assertion, what)
  local key = "assertion.moonport." .. name
  say:set(key .. ".positive", ("Expected the mocks to have %s."):format(what))
  say:set(key .. ".negative", ("Expected the mocks not to have %s."):format(what))
  luassert:register("assertion", name, assertion, key .. ".positive", key .. ".negative")
end

register("received", received, "received such frames")
register("connections", connections, "had so many connections")
