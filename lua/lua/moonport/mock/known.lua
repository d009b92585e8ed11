--- Frames that come again and again, and the stub that answers them: no pattern is asked twice.

local M = {}

local MOST = 1000 -- frames, of one server
local NOTHING = {} -- equal to nothing that a function returns
local LONG = 40 -- bytes: Lua finds shorter ones by their address

---@class mock.Known
---@field stubs table<string, mock.Stub> by frame; neither function nor count decides whether it is these
---@field captures table<string, string|integer> of the stub's pattern; the frame itself where that has none
---@field n integer

---@return mock.Known
function M.new() return { stubs = {}, captures = {}, n = 0 } end

---To be called when a stub has answered a frame that it, of those that there are, will always answer: the second time
---in a row it is kept.
---@param known mock.Known
---@param stub mock.Stub
---@param frame string
---@param capture string|integer
function M.note(known, stub, frame, capture)
  if stub.times or stub.mark or not (stub.bytes or stub.call) then return end
  if stub.last ~= frame then
    stub.last = #frame <= LONG and frame or nil
  elseif known.n < MOST and not known.stubs[frame] then
    known.n = known.n + 1
    stub.said = stub.said or NOTHING
    known.captures[frame] = capture
    known.stubs[frame] = stub
  end
end

return M
